//! Users without root's rights, who run daemons too.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::User;

/// An account of this host.
#[derive(Clone)]
pub struct OrdinaryUser(User);

impl OrdinaryUser {
    /// The one that `make deps` makes, which has subordinate ids.
    pub fn with_ids() -> Self {
        Self::named("kiln-test")
    }

    /// One that has none.
    pub fn without_ids() -> Self {
        Self::named("nobody")
    }

    fn named(name: &str) -> Self {
        let user = User::from_name(name).expect("accounts");
        Self(user.unwrap_or_else(|| panic!("there is no user {name}: run `make deps`")))
    }

    /// The number.
    pub fn uid(&self) -> u32 {
        self.0.uid.as_raw()
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A command that this user runs, of a program that is made reachable in `folder` if it is not
    /// so where it is. The user's home is `folder`, too.
    pub fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(reachable(program, folder));
        command.uid(self.uid()).gid(self.0.gid.as_raw());
        command.env("HOME", folder).env("USER", self.name()).current_dir("/");
        for name in ["XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"] {
            command.env_remove(name);
        }
        command
    }

    /// What makes setpriv(1) run something as this user.
    pub(crate) fn flags(&self) -> [String; 2] {
        [format!("--reuid={}", self.uid()), format!("--regid={}", self.0.gid)]
    }

    /// Gives a file or folder, not what is in it, to this user.
    pub fn own(&self, path: &Path) {
        chown(path, Some(self.uid()), Some(self.0.gid.as_raw())).expect("root's rights");
    }
}

/// The program itself, or a further name of it in `folder`, or a copy.
fn reachable(program: &Path, folder: &Path) -> PathBuf {
    let program = program.canonicalize().expect("a program");
    let is_open =
        |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 1 == 1);
    if program.ancestors().all(is_open) {
        return program;
    }
    let own = folder.join(program.file_name().expect("a name"));
    let is_there = |own: &Path| {
        let (Ok(own), Ok(program)) = (fs::metadata(own), fs::metadata(&program)) else {
            return false;
        };
        own.len() == program.len() && own.mtime() >= program.mtime()
    };
    if !is_there(&own) && fs::hard_link(&program, &own).is_err() {
        fs::copy(&program, &own).expect("a copy of the program");
    }
    own
}
