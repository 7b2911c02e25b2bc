//! A `kilnd` of a test's own.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::context::Context;
use crate::ordinary_user::OrdinaryUser;
use crate::process::{Process, readable};
use crate::programs;
use crate::ready::ReadySocket;
use crate::registry::Registry;
use crate::run::Invocation;
use crate::tap::Tap;

/// What gives steps of root's daemon a user namespace, with ids that nobody has.
pub const USER_NAMESPACES: &str = "userNamespaces = true\n  userNamespaceIds = \"1000000:65536\"";

/// A running daemon with a root, a socket and a configuration of its own.
pub struct Daemon {
    running: Option<(Process, Tap)>,
    root: PathBuf,
    folder: TempDir,
    /// Of its environment, what is not as the tests have it.
    variables: Vec<(&'static str, OsString)>,
    other_addresses: Vec<String>,
    /// At which of its own points it is to fail, from its next start on; see `kiln_cache::fault`.
    fault: Option<String>,
    /// Who runs it, if not root.
    user: Option<OrdinaryUser>,
    /// Which boot of the machine it takes this to be, if not the real one.
    boot: Option<u32>,
}

/// What `kilnd check` has to say.
#[derive(Debug)]
pub struct Checked {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output.
    pub text: String,
    /// Its standard error.
    pub log: String,
}

impl Checked {
    /// Fails unless nothing is wrong.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.code, Some(0), "{}\n{}", self.text, self.log);
    }

    /// Fails unless something is wrong, with a line that has all of `words`.
    #[track_caller]
    pub fn finds(&self, words: &[&str]) {
        let is_it = |line: &str| words.iter().all(|word| line.contains(word));
        assert_eq!(self.code, Some(1), "{}\n{}", self.text, self.log);
        assert!(self.text.lines().any(is_it), "no line with {words:?} in\n{}", self.text);
    }
}

impl Daemon {
    /// Starts one with an empty root, which pulls from `registry` and from nowhere else, and lets
    /// clients allow their steps whatever there is to allow.
    pub fn start(registry: &Registry) -> Self {
        let folder = TempDir::with_prefix("kilnd-").expect("temporary folder");
        let root = folder.path().join("root");
        Self::start_at(folder, root, registry, Owner::usual())
    }

    /// Starts one that an ordinary user runs.
    pub fn start_rootless(registry: &Registry) -> Self {
        let folder = TempDir::with_prefix("kilnd-").expect("temporary folder");
        let root = folder.path().join("root");
        Self::start_at(folder, root, registry, Owner::User(OrdinaryUser::with_ids()))
    }

    /// Starts one that root runs, with user namespaces for steps if all of root's have them.
    pub(crate) fn start_by_root(registry: &Registry) -> Self {
        let folder = TempDir::with_prefix("kilnd-").expect("temporary folder");
        let root = folder.path().join("root");
        Self::start_at(folder, root, registry, Owner::of_root())
    }

    /// Starts one that root runs, without user namespaces.
    pub fn start_with_rights(registry: &Registry) -> Self {
        let folder = TempDir::with_prefix("kilnd-").expect("temporary folder");
        let root = folder.path().join("root");
        Self::start_at(folder, root, registry, Owner::Root)
    }

    /// Starts one whose root is `root`, for example on a small file system.
    pub fn start_with_root(root: &Path, registry: &Registry) -> Self {
        let folder = TempDir::with_prefix("kilnd-").expect("temporary folder");
        Self::start_at(folder, root.to_owned(), registry, Owner::usual())
    }

    fn start_at(folder: TempDir, root: PathBuf, registry: &Registry, owner: Owner) -> Self {
        let (user, more) = match owner {
            Owner::Root => (None, ""),
            Owner::RootWithUserNamespaces => (None, USER_NAMESPACES),
            Owner::User(user) => (Some(user), ""),
        };
        let labels = is_wanted("KILN_TEST_SELINUX");
        let address = registry.address();
        let config = format!(
            "insecure-entitlements = [\"network.host\", \"security.insecure\", \"device\"]\n\
             [worker.oci]\n  gc = false\n  selinux = {labels}\n  {more}\n\
             [worker.containerd]\n  enabled = false\n\
             [registry.\"docker.io\"]\n  mirrors = [\"{address}\"]\n\
             [registry.\"{address}\"]\n  http = true\n"
        );
        std::fs::write(folder.path().join("kilnd.toml"), config).expect("configuration");
        if let Some(user) = &user {
            user.own(folder.path());
            // What the daemon's root is made in.
            user.own(root.ancestors().find(|place| place.exists()).expect("a folder"));
        }
        let mut daemon = Self {
            running: None,
            root,
            folder,
            variables: Vec::new(),
            other_addresses: Vec::new(),
            fault: None,
            user,
            boot: None,
        };
        daemon.start_again();
        daemon
    }

    /// Adds to its configuration, and starts it again.
    #[track_caller]
    pub fn configure(&mut self, more: &str) {
        self.edit_configuration(|config| config + more);
    }

    /// Adds to the section `[worker.oci]` of its configuration, and starts it again.
    #[track_caller]
    pub fn configure_worker(&mut self, more: &str) {
        let section = "[worker.oci]\n";
        self.edit_configuration(|config| config.replace(section, &format!("{section}{more}\n")));
    }

    #[track_caller]
    fn edit_configuration(&mut self, edit: impl Fn(String) -> String) {
        self.stop();
        self.rewrite_configuration(edit);
        self.start_again();
    }

    fn rewrite_configuration(&self, edit: impl Fn(String) -> String) {
        let path = self.folder.path().join("kilnd.toml");
        let config = std::fs::read_to_string(&path).expect("configuration");
        std::fs::write(&path, edit(config)).expect("configuration");
    }

    /// Changes its configuration, for when it is started again.
    #[track_caller]
    pub fn replace_in_configuration(&mut self, old: &str, new: &str) {
        self.rewrite_configuration(|config| {
            assert!(config.contains(old), "{old} in {config}");
            config.replace(old, new)
        });
    }

    /// Has it label its steps for SELinux, when it is started again.
    pub fn label_steps(&mut self) {
        self.rewrite_configuration(|config| config.replace("selinux = false", "selinux = true"));
    }

    /// Has it listen on one more address, when it is started again.
    pub fn listen_on_too(&mut self, address: &str) {
        self.other_addresses.push(address.to_owned());
    }

    /// Starts it again with another `PATH`.
    pub fn start_again_with_path(&mut self, path: impl Into<OsString>) {
        self.start_again_with("PATH", path);
    }

    /// Starts it again with another value of a variable of its environment.
    #[track_caller]
    pub fn start_again_with(&mut self, variable: &'static str, value: impl Into<OsString>) {
        self.set(variable, value);
        self.start_again();
    }

    /// Gives a variable of its environment a value, for when it is started again.
    pub fn set(&mut self, variable: &'static str, value: impl Into<OsString>) {
        self.variables.push((variable, value.into()));
    }

    /// Starts it again on the same root, after [`Daemon::stop`] or [`Daemon::kill`].
    #[track_caller]
    pub fn start_again(&mut self) {
        if let Err(said) = self.try_start() {
            panic!("the daemon did not get ready:\n{said}");
        }
    }

    /// What it says when it does not start again.
    #[track_caller]
    pub fn refuses_to_start(&mut self) -> String {
        self.try_start().expect_err("the daemon started")
    }

    /// Starts it again as if the machine had been started anew since.
    #[track_caller]
    pub fn start_after_reboot(&mut self) {
        self.boot = Some(self.boot.map_or(0, |last| last + 1));
        self.start_again();
    }

    /// The same with a failure at one of its own points (`kill:7`, `EIO:7-9`); whether it got ready.
    pub fn starts_with_fault(&mut self, fault: &str) -> bool {
        self.fault = Some(fault.to_owned());
        let started = self.try_start().is_ok();
        self.fault = None;
        started
    }

    /// Starts it; what it said if it ended before it was ready.
    fn try_start(&mut self) -> Result<(), String> {
        assert!(self.running.is_none(), "the daemon runs already");
        let ready = ReadySocket::bind(self.folder.path());
        let mut process = Process::spawn(
            self.command()
                .envs(self.variables.iter().map(|(name, value)| (name, value)))
                .arg("--root")
                .arg(&self.root)
                .arg("--addr")
                .arg(self.host())
                .args(self.other_addresses.iter().flat_map(|address| ["--addr", address]))
                .arg("--config")
                .arg(self.folder.path().join("kilnd.toml"))
                .env("NOTIFY_SOCKET", ready.path())
                .envs(self.fault.iter().map(|fault| ("KILN_TEST_FAULT", fault)))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let log = Tap::on(process.child().stderr.take().expect("stderr of the daemon"));
        if !ready.wait(&process, Duration::from_mins(1)) {
            process.kill();
            let said = log.finish(Duration::from_secs(5));
            return Err(String::from_utf8_lossy(&said).into_owned());
        }
        self.running = Some((process, log));
        Ok(())
    }

    /// `kilnd`, by whoever runs it.
    fn command(&self) -> Command {
        let command = match &self.user {
            Some(user) => user.command(&programs::kilnd(), self.folder.path()),
            None => Command::new(programs::kilnd()),
        };
        match self.boot {
            Some(boot) => self.with_boot(boot, &command),
            None => command,
        }
    }

    /// The same, with another boot than the kernel's own.
    fn with_boot(&self, boot: u32, kilnd: &Command) -> Command {
        let path = self.folder.path().join("boot_id");
        std::fs::write(&path, format!("00000000-0000-4000-8000-{boot:012}\n")).expect("a boot id");
        let script = r#"mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(path).current_dir("/");
        if let Some(user) = &self.user {
            // Only now: the mount takes root.
            command.args(["setpriv", "--clear-groups"]).args(user.flags());
        }
        command.arg(kilnd.get_program());
        for (name, value) in kilnd.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// `kilnd check` of its root, with more arguments, by whoever runs it.
    pub fn check(&self, args: &[&str]) -> Checked {
        let mut command = self.command();
        let output = command.arg("check").arg("--root").arg(&self.root).args(args).output();
        let output = output.expect("kilnd check");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Checked {
            code: output.status.code(),
            text: text(&output.stdout),
            log: text(&output.stderr),
        }
    }

    /// Waits for it to end by itself; whether that was a success.
    #[track_caller]
    pub fn ends(&mut self) -> bool {
        let (mut process, log) = self.running.take().expect("a running daemon");
        let status = process.wait_within(Duration::from_mins(1));
        status.unwrap_or_else(|| panic!("the daemon goes on:\n{}", log.text())).success()
    }

    /// Notices that it may have been killed by a fault; whether it runs on.
    pub fn goes_on(&mut self) -> bool {
        if !self.is_alive() {
            self.running = None;
        }
        self.running.is_some()
    }

    /// Ends it as `systemctl stop` does, which must be clean.
    #[track_caller]
    pub fn stop(&mut self) {
        let (mut process, log) = self.running.take().expect("a running daemon");
        let status = process.stop();
        assert!(
            status.is_some_and(|status| status.success()),
            "the daemon ended with {status:?}:\n{}",
            log.text()
        );
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        let (mut process, _) = self.running.take().expect("a running daemon");
        process.kill();
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        self.running.as_ref().is_some_and(|(process, _)| {
            readable(&[process.ended().as_fd()], Duration::ZERO).is_none()
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.as_ref().expect("a running daemon").0.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.running.as_ref().map(|(_, log)| log.text()).unwrap_or_default()
    }

    /// Its root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("kilnd.sock")
    }

    /// Its address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// `kiln` with this daemon.
    pub fn kiln(&self) -> Invocation {
        Invocation::new(&self.host(), &self.folder.path().join("home"))
    }

    /// `kiln build` of a context, with the plain log. More arguments may follow.
    pub fn build(&self, context: &Context) -> Invocation {
        self.kiln().args(["build", "--progress=plain"]).arg(context.path())
    }
}

/// Who runs a daemon, and how.
enum Owner {
    Root,
    RootWithUserNamespaces,
    User(OrdinaryUser),
}

impl Owner {
    /// Of daemons of which a test does not say so.
    fn usual() -> Self {
        if is_wanted("KILN_TEST_ROOTLESS") {
            Self::User(OrdinaryUser::with_ids())
        } else {
            Self::of_root()
        }
    }

    fn of_root() -> Self {
        if is_wanted("KILN_TEST_USER_NAMESPACES") {
            Self::RootWithUserNamespaces
        } else {
            Self::Root
        }
    }
}

/// Whether a variable of the environment says so.
fn is_wanted(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        #[expect(clippy::print_stderr, reason = "a failed test shows what the daemon has to say")]
        if std::thread::panicking() {
            eprintln!("---- log of the daemon ----\n{}", self.log());
        }
    }
}
