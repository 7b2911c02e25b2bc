//! Running as an ordinary user: a user namespace in which that user is root.
//!
//! Root of a user namespace may make all other namespaces, mount overlayfs and give files to the ids
//! that are mapped there. These are the user's own, as root, and the subordinate ones of
//! `/etc/subuid` and `/etc/subgid`, from 1 on. Mapping them takes the rights of `newuidmap` and
//! `newgidmap`, which have to be run from outside: by a copy of this process, forked before it goes
//! in. The process itself stays what its parent has started, so that signals, sockets that were
//! passed to it and its exit status need no one in between.

mod ids;
mod subordinate;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::User;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getegid, geteuid, getpid, waitpid};

use crate::sys::{fork, mount, user};
use subordinate::{Owner, mapping, ranges};

pub use ids::SubordinateIds;

/// The number by which the kernel knows the user namespace that it starts with.
const INITIAL: u64 = 0xefff_fffd;

/// Why an ordinary user cannot have a user namespace. Each says what the host's administrator can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserNamespaceError {
    /// The user has no subordinate ids.
    #[error(
        "user {user} has no subordinate ids in {file}: add a line such as \"{user}:100000:65536\" \
         (as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user})"
    )]
    NoIds {
        /// Name or number.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// Nobody has set ids aside for steps.
    #[error(
        "{file} has no line for {user:?}: add \"{user}:{free}:65536\", which nobody else has there"
    )]
    NoIdsForSteps {
        /// Whose line is looked for.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// An id after which nobody has any.
        free: u32,
    },
    /// A range is not written as one.
    #[error("{0:?} is no range of ids, such as \"100000:65536\" (the first, and how many)")]
    InvalidRange(String),
    /// A program is missing.
    #[error(
        "{0} is not on PATH: install it (Debian and Ubuntu: uidmap, Fedora and others: shadow-utils)"
    )]
    NoProgram(&'static str),
    /// The kernel refuses.
    #[error("the kernel gives this user no user namespace to be root in{}", hint())]
    Refused(#[source] std::io::Error),
    /// `newuidmap` or `newgidmap` failed.
    #[error("{program} cannot map the ids ({said}){}", no_new_privileges())]
    Map {
        /// The program.
        program: String,
        /// Its message.
        said: String,
    },
    /// Something that does not depend on users failed.
    #[error("cannot {0}")]
    Setup(&'static str, #[source] std::io::Error),
}

/// Whether this process is in a user namespace other than the kernel's first, so that even root has
/// only the rights of some ordinary user.
pub fn in_user_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() != INITIAL)
}

/// Moves this process, run by an ordinary user, into a user namespace where it is root, and a mount
/// namespace.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// If the user has no subordinate ids, a program is missing or the kernel refuses.
pub fn enter_user_namespace() -> Result<(), UserNamespaceError> {
    let maps = [
        Map::find("newuidmap", "/etc/subuid", geteuid().as_raw(), &[])?,
        Map::find("newgidmap", "/etc/subgid", getegid().as_raw(), &["-g"])?,
    ];
    let helper = Helper::start(&maps)?;
    user::new_namespaces().map_err(|error| UserNamespaceError::Refused(error.into()))?;
    helper.map()?;
    // The first thing that takes root's rights: a host's security module may have left none of them.
    mount::receive_only().map_err(|error| UserNamespaceError::Refused(error.into()))
}

/// How one kind of ids is to be mapped.
struct Map {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Map {
    fn find(
        program: &'static str,
        file: &'static str,
        own: u32,
        ask_for: &[&str],
    ) -> Result<Self, UserNamespaceError> {
        let uid = geteuid();
        let name = User::from_uid(uid.as_raw().into()).ok().flatten().map(|user| user.name);
        let owner = Owner { name, uid: Some(uid.as_raw()) };
        let ranges = ranges(Path::new(file), &owner, ask_for);
        if ranges.is_empty() {
            return Err(UserNamespaceError::NoIds { user: owner.label(), file });
        }
        let program = find_program(program).ok_or(UserNamespaceError::NoProgram(program))?;
        Ok(Self { program, arguments: mapping(own, &ranges) })
    }

    /// Maps the ids of a process; what the program says if it fails.
    fn apply(&self, process: Pid) -> Result<(), String> {
        let pid = process.as_raw_nonzero().to_string();
        let name = self.program.file_name().unwrap_or_default().display();
        match Command::new(&self.program).arg(pid).args(&self.arguments).output() {
            Err(error) => Err(format!("{name}\0{error}")),
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("{name}\0{}", said.trim()))
            }
        }
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [OsStr::new("/usr/bin"), OsStr::new("/bin")].map(PathBuf::from);
    let candidates = std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// A copy of this process that stays outside and maps ids when it is told to.
struct Helper {
    pid: Pid,
    order: std::fs::File,
    answer: std::fs::File,
}

impl Helper {
    fn start(maps: &[Map]) -> Result<Self, UserNamespaceError> {
        let failed = |error: Errno| UserNamespaceError::Setup("start a helper", error.into());
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed);
        let ((order, tell), (answer, say)) = (pipe()?, pipe()?);
        let process = getpid();
        match fork::fork().map_err(failed)? {
            Some(pid) => Ok(Self { pid, order: tell.into(), answer: answer.into() }),
            None => {
                // Else it would never read the end of what it waits for.
                drop((tell, answer));
                serve(order, say, process, maps);
                fork::exit(0)
            }
        }
    }

    /// Has the helper map the ids of this process, which is in its namespace by now.
    fn map(mut self) -> Result<(), UserNamespaceError> {
        let mut said = String::new();
        let answered = self.order.write_all(b"!").and_then(|()| {
            drop(self.order);
            self.answer.read_to_string(&mut said)
        });
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
        answered.map_err(|error| UserNamespaceError::Setup("talk to a helper", error))?;
        match said.split_once('\0') {
            Some((program, said)) => {
                Err(UserNamespaceError::Map { program: program.into(), said: said.into() })
            }
            None if geteuid().is_root() => Ok(()),
            None => Err(UserNamespaceError::Map {
                program: "newuidmap".into(),
                said: "it mapped nothing".into(),
            }),
        }
    }
}

/// In the helper: nothing is done if the process it belongs to ends without a word.
fn serve(order: OwnedFd, answer: OwnedFd, process: Pid, maps: &[Map]) {
    let mut word = [0];
    if std::fs::File::from(order).read_exact(&mut word).is_err() {
        return;
    }
    if let Err(said) = maps.iter().try_for_each(|map| map.apply(process)) {
        // Nobody reads it if the process has ended meanwhile.
        let _ = std::fs::File::from(answer).write_all(said.as_bytes());
    }
}

/// Which switch of the host keeps ordinary users from having namespaces, or rights in them.
fn hint() -> String {
    let kernel = "kernel.unprivileged_userns_clone";
    let apparmor = "kernel.apparmor_restrict_unprivileged_userns";
    let switches = [
        (kernel, "0", "set it to 1"),
        ("user.max_user_namespaces", "0", "set it to some thousands"),
        (apparmor, "1", "give this program an AppArmor profile with the rule \"userns,\""),
    ];
    let is_set = |name: &str, to: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() == to)
    };
    let found = switches.into_iter().find(|(name, to, _)| is_set(name, to));
    found
        .map(|(name, to, remedy)| format!(" (sysctl {name} is {to}: {remedy})"))
        .unwrap_or_default()
}

/// What keeps programs such as `newuidmap` from having more rights than who starts them.
fn no_new_privileges() -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_set = |line: &str| line.starts_with("NoNewPrivs:") && line.ends_with('1');
    if status.lines().any(is_set) {
        ": this process runs with no_new_privs, under which no program gains rights"
    } else {
        ""
    }
}
