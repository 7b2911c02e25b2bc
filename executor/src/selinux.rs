//! SELinux: the labels of steps and of their files, and whether this host lets a daemon give them.
//!
//! The kernel's side is selinuxfs, whose files answer what is written to them; the policy's is a
//! directory in `/etc/selinux`, of which container engines read `lxc_contexts`.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where the kernel answers.
const KERNEL: &str = "/sys/fs/selinux";

/// The host's settings and policies.
const SETTINGS: &str = "/etc/selinux";

/// What confined steps are labelled with: security contexts, `user:role:type:level`.
///
/// All steps have the same level, so that what one of them leaves in a cache mount is there for
/// another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelinuxLabels {
    /// That of their processes.
    pub process: CString,
    /// That of the files that are theirs.
    pub file: CString,
}

/// Why steps cannot be labelled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelinuxError {
    /// The kernel was built or started without it, or its file system is not mounted.
    #[error("this host does not have SELinux")]
    NotEnabled,
    /// A file of the policy or of the kernel.
    #[error("{path}")]
    Io {
        /// The file.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The policy does not say how containers are labelled.
    #[error("{path} names no label for the {key} of containers")]
    NoLabel {
        /// The file that should.
        path: String,
        /// `process` or `file`.
        key: &'static str,
    },
    /// A label of a policy for containers that is not there.
    #[error(
        "the policy that is loaded does not have {label:?}, which {path} names: install the one for \
         containers (container-selinux)"
    )]
    Unknown {
        /// The label.
        label: String,
        /// The file that names it.
        path: String,
    },
    /// A daemon with this label cannot run steps with theirs.
    #[error(
        "the policy does not give {from} the right to {right} of {to}: start kilnd with the label of a \
         container engine (chcon -t container_runtime_exec_t on the program) and the level of a service \
         (runcon -l s0)"
    )]
    Denied {
        /// Who has not.
        from: String,
        /// `class:permission`, in the policy's words.
        right: String,
        /// Of whom.
        to: String,
    },
}

impl SelinuxLabels {
    /// Those that the host's policy has for containers.
    ///
    /// # Errors
    /// If the host has no SELinux, or a policy that does not know containers, or one that does not
    /// let this process run any.
    pub fn of_host() -> Result<Self, SelinuxError> {
        let kernel = Path::new(KERNEL);
        if !kernel.join("enforce").exists() {
            return Err(SelinuxError::NotEnabled);
        }
        let labels = Self::of_policy(Path::new(SETTINGS), |label| is_known(kernel, label))?;
        labels.check_rights(kernel)?;
        Ok(labels)
    }

    /// Has the sockets that `make` makes be as if a step's process had made them, so that other such
    /// processes may connect to them.
    ///
    /// # Errors
    /// That of `make`, or of the kernel's refusal.
    pub fn of_sockets<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        // Not to be made, which the policy would look at.
        let label = || OpenOptions::new().write(true).open("/proc/thread-self/attr/sockcreate");
        label()?.write_all(self.process.to_bytes())?;
        let made = make();
        // An empty line takes it back.
        label()?.write_all(b"\n")?;
        made
    }

    fn of_policy(
        settings: &Path,
        is_known: impl Fn(&str) -> Result<bool, SelinuxError>,
    ) -> Result<Self, SelinuxError> {
        let config = settings.join("config");
        let policy = read(&config)?;
        let policy = value(&policy, "SELINUXTYPE").unwrap_or("targeted");
        let contexts = settings.join(policy).join("contexts/lxc_contexts");
        let path = contexts.display().to_string();
        let contexts = read(&contexts)?;
        let label = |key| {
            let no_label = || SelinuxError::NoLabel { path: path.clone(), key };
            let label = value(&contexts, key).filter(|label| !label.is_empty());
            let label = label.ok_or_else(no_label)?;
            if !is_known(label)? {
                return Err(SelinuxError::Unknown { label: label.into(), path: path.clone() });
            }
            CString::new(label).map_err(|_| no_label())
        };
        Ok(Self { process: label("process")?, file: label("file")? })
    }

    /// Fails where the kernel would refuse a step, or, worse, silently give it none of the daemon's
    /// pipes to write to. A host that is permissive only notes what it would refuse.
    fn check_rights(&self, kernel: &Path) -> Result<(), SelinuxError> {
        let own = read(Path::new("/proc/self/attr/current"))?;
        let own = own.trim_end_matches(['\0', '\n']);
        let process = self.process.to_string_lossy();
        let file = self.file.to_string_lossy();
        let is_enforcing = read(&kernel.join("enforce"))?.trim() != "0";
        let denied = |(from, to): (&str, &str), class: &str, permission: &str| {
            let is_allowed = is_allowed(kernel, (from, to), class, permission)?;
            let right = format!("{class}:{permission}");
            let denied = SelinuxError::Denied { from: from.into(), right, to: to.into() };
            Ok((!is_allowed).then_some(denied))
        };
        for (between, class, permission) in [
            ((own, own), "process", "setexec"),
            ((own, own), "process", "setkeycreate"),
            ((own, own), "process", "setsockcreate"),
            ((own, &*process), "process", "transition"),
            ((&*process, &*file), "file", "entrypoint"),
            ((&*process, own), "fd", "use"),
            ((&*process, own), "fifo_file", "read"),
            ((&*process, own), "fifo_file", "write"),
        ] {
            match denied(between, class, permission)? {
                Some(denied) if is_enforcing => return Err(denied),
                Some(denied) => tracing::warn!("SELinux is permissive; if it were not: {denied}"),
                None => {}
            }
        }
        for (permission, effect) in [
            ("rlimitinh", "soft limits of steps (--ulimit) are lost"),
            ("noatsecure", "the C library ignores LD_LIBRARY_PATH and the like in steps"),
        ] {
            if denied((own, &process), "process", permission)?.is_some() {
                tracing::warn!("SELinux's policy does not let steps have {permission}: {effect}");
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, SelinuxError> {
    fs::read_to_string(path).map_err(|source| io_error(path, source))
}

fn io_error(path: &Path, source: io::Error) -> SelinuxError {
    SelinuxError::Io { path: path.display().to_string(), source }
}

/// The value of a line `key = value` or `key = "value"`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim() == key)?;
    Some(value.trim().trim_matches('"'))
}

/// Whether the policy that is loaded has a label, with all its parts.
fn is_known(kernel: &Path, label: &str) -> Result<bool, SelinuxError> {
    let path = kernel.join("context");
    let asked = OpenOptions::new().write(true).open(&path);
    match asked.and_then(|mut file| file.write_all(label.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        asked => asked.map(|()| true).map_err(|source| io_error(&path, source)),
    }
}

/// Whether the policy allows something. What this kernel has no word for, it does not refuse.
fn is_allowed(
    kernel: &Path,
    (from, to): (&str, &str),
    class: &str,
    permission: &str,
) -> Result<bool, SelinuxError> {
    let words = kernel.join("class").join(class);
    let (Some(class), Some(permission)) =
        (number(&words.join("index"))?, number(&words.join("perms").join(permission))?)
    else {
        return Ok(true);
    };
    let path = kernel.join("access");
    let ask = || {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.write_all(format!("{from} {to} {class}").as_bytes())?;
        let mut answer = String::new();
        file.read_to_string(&mut answer)?;
        allows(&answer, permission).ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    ask().map_err(|source| io_error(&path, source))
}

/// The policy's number of a class or a permission.
fn number(path: &Path) -> Result<Option<u32>, SelinuxError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, source)),
        Ok(text) => match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(io_error(path, io::ErrorKind::InvalidData.into())),
        },
    }
}

/// Reads the kernel's answer: the permissions that are allowed as bits, four other numbers, and flags
/// of which the first says that the type is permissive.
fn allows(answer: &str, permission: u32) -> Option<bool> {
    let numbers: Vec<_> = answer.trim_end_matches('\0').split_whitespace().collect();
    let allowed = u32::from_str_radix(numbers.first()?, 16).ok()?;
    let flags = numbers.get(5).map_or(Some(0), |flags| u32::from_str_radix(flags, 16).ok())?;
    let bit = 1_u32.checked_shl(permission.checked_sub(1)?)?;
    Some(allowed & bit != 0 || flags & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(contexts: &str) -> tempfile::TempDir {
        let settings = tempfile::tempdir().unwrap();
        let config = "# one of targeted, mls\nSELINUX=enforcing\nSELINUXTYPE=strict\n";
        fs::write(settings.path().join("config"), config).unwrap();
        fs::create_dir_all(settings.path().join("strict/contexts")).unwrap();
        fs::write(settings.path().join("strict/contexts/lxc_contexts"), contexts).unwrap();
        settings
    }

    fn of_policy(contexts: &str, known: &[&str]) -> Result<SelinuxLabels, SelinuxError> {
        SelinuxLabels::of_policy(settings(contexts).path(), |label| Ok(known.contains(&label)))
    }

    const CONTEXTS: &str = "process = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\n\
                            file = \"system_u:object_r:container_file_t:s0\"\nro_file = \"y\"\n";

    #[test]
    fn the_labels_are_those_that_the_policy_of_the_host_names_for_containers() {
        let known = ["system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"];
        let labels = of_policy(CONTEXTS, &known).unwrap();
        assert_eq!(labels.process.to_str(), Ok(known[0]));
        assert_eq!(labels.file.to_str(), Ok(known[1]));
    }

    #[test]
    fn a_policy_without_labels_for_containers_is_refused_with_what_is_missing() {
        let error = of_policy(CONTEXTS, &["system_u:system_r:container_t:s0"]).unwrap_err();
        assert!(error.to_string().contains("container_file_t"), "{error}");
        assert!(error.to_string().contains("lxc_contexts"), "{error}");
        let error = of_policy("file = \"f\"\nprocess = \"\"\n", &["f", ""]).unwrap_err();
        assert!(error.to_string().contains("process"), "{error}");
        let none = tempfile::tempdir().unwrap();
        let error = SelinuxLabels::of_policy(none.path(), |_| Ok(true)).unwrap_err();
        assert!(error.to_string().contains("config"), "{error}");
    }

    #[test]
    fn the_kernels_answers_are_read_as_it_means_them() {
        for (answer, permission, expected) in [
            ("6 ffffffff 0 0 12 0", 1, Some(false)),
            ("6 ffffffff 0 0 12 0", 2, Some(true)),
            ("6 ffffffff 0 0 12 0\0", 3, Some(true)),
            ("0 ffffffff 0 0 12 1", 3, Some(true)),
            ("80000000 ffffffff 0 0 12", 32, Some(true)),
            ("6 ffffffff 0 0 12 0", 0, None),
            ("6 ffffffff 0 0 12 0", 33, None),
            ("", 1, None),
            ("none", 1, None),
        ] {
            assert_eq!(allows(answer, permission), expected, "{answer:?} {permission}");
        }
    }

    #[test]
    fn a_class_that_the_kernel_does_not_have_refuses_nothing() {
        let kernel = tempfile::tempdir().unwrap();
        assert!(is_allowed(kernel.path(), ("a", "b"), "new", "use").unwrap());
        fs::create_dir_all(kernel.path().join("class/old/perms")).unwrap();
        fs::write(kernel.path().join("class/old/index"), "many").unwrap();
        assert!(is_allowed(kernel.path(), ("a", "b"), "old", "use").is_err());
    }
}
