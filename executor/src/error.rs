//! What can go wrong between a [`ProcessSpec`](crate::ProcessSpec) and its exit.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apparmor::AppArmorError;
use crate::network::NetworkError;
use crate::spec::Hook;
use crate::user_namespace::in_user_namespace;
use crate::zygote::protocol::{Failure, HookFailure, Stage};

/// Why a step could not be run. A command that ran and failed is not an error but an
/// [`Exit`](crate::Exit).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// Namespaces and mounts are made by root, of the host or of a user namespace.
    #[error("running steps needs root, or a user namespace: this process has user id {uid}")]
    NotRoot {
        /// The effective user id.
        uid: u32,
    },
    /// Steps are to be confined by an AppArmor profile, and cannot be.
    #[error("AppArmor profile {profile:?}")]
    AppArmor {
        /// The profile.
        profile: String,
        /// What is missing.
        #[source]
        source: AppArmorError,
    },
    /// Steps are to have a user namespace, and the daemon is in one itself.
    #[error(
        "steps can have no user namespace of their own: this daemon is an ordinary user's, and in one \
         with all its steps"
    )]
    NestedUserNamespace,
    /// The file system of the layers, or the kernel, does not show them with other ids.
    #[error(
        "steps can have no user namespace: the kernel makes no idmapped mount of {directory}: that \
         takes Linux 5.19 and a file system that has them, all that is mounted below included (ext4, \
         XFS and Btrfs have, overlayfs and NFS do not)"
    )]
    NoIdmappedMounts {
        /// The directory of the layers.
        directory: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Steps are to have a user namespace, and cannot.
    #[error("steps can have no user namespace: {what}")]
    UserNamespace {
        /// What was being done.
        what: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The helper process that starts steps could not be started.
    #[error("cannot start the process that launches steps")]
    StartZygote(#[source] io::Error),
    /// The helper process that starts steps has died; nothing can be run any more.
    #[error("the process that launches steps is gone")]
    ZygoteGone(#[source] io::Error),
    /// The specification contradicts itself or what the kernel can express.
    #[error("step {id}: {reason}")]
    InvalidSpec {
        /// The step.
        id: String,
        /// What is wrong.
        reason: InvalidSpec,
    },
    /// A limit was asked for that no cgroup controller of this host can keep.
    #[error(
        "step {id}: limiting {limit} needs the cgroup controller {controller}, which {}",
        not_offered()
    )]
    MissingController {
        /// The step.
        id: String,
        /// What was to be limited.
        limit: &'static str,
        /// The controller that would do it.
        controller: &'static str,
    },
    /// A control group could not be made or set.
    #[error("control group {path}")]
    Cgroup {
        /// The file or directory.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The network that the step is to have could not be made.
    #[error("step {id}: no network")]
    Network {
        /// The step.
        id: String,
        /// Why not.
        #[source]
        source: NetworkError,
    },
    /// The command is in no directory of `PATH`, or has a path where nothing is.
    #[error("exec: {command:?}: {}", not_found(command))]
    CommandNotFound {
        /// The first argument.
        command: String,
    },
    /// The command exists but cannot be executed.
    #[error("exec {command}")]
    NotExecutable {
        /// The first argument.
        command: String,
        /// Permission denied, wrong format, missing interpreter and the like.
        #[source]
        source: io::Error,
    },
    /// The working directory is missing or cannot be entered.
    #[error("working directory {cwd}")]
    WorkingDirectory {
        /// The directory.
        cwd: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The command's user or groups are not mapped in the daemon's user namespace.
    #[error(
        "the step's user or one of its groups is not among the ids that this daemon's user may use: \
         give it more of them in /etc/subuid and /etc/subgid"
    )]
    UserNotMapped,
    /// In a user namespace, the kernel shows no more of itself than was shown to its owner.
    #[error(
        "the kernel makes no /proc for steps where parts of the one here are hidden, as containers do: \
         start this one with all of them (docker run --security-opt systempaths=unconfined)"
    )]
    MaskedProc,
    /// A part of the step's surroundings could not be set up.
    #[error("{stage} {subject}")]
    Setup {
        /// What was being done.
        stage: Stage,
        /// To what: a path, a limit, a system call.
        subject: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A program that takes part in setting the step up has failed.
    #[error("{} hook {} of {} {end}{}", hook.kind, hook.path.display(), hook.declared_in.display(), said(output))]
    Hook {
        /// The hook.
        hook: Box<Hook>,
        /// How it ended.
        end: HookEnd,
        /// The last of what it has written to its standard output and error.
        output: String,
    },
    /// A further process was asked for in a step that has ended.
    #[error("step {id} has ended")]
    Ended {
        /// The step.
        id: String,
    },
    /// The step's supervisor disappeared without a word.
    #[error("step {id}: its supervisor ended without reporting an exit")]
    Lost {
        /// The step.
        id: String,
    },
    /// Talking to the step's supervisor failed.
    #[error("step {id}: channel to its supervisor")]
    Channel {
        /// The step.
        id: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// How a hook has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookEnd {
    /// It could not be executed, for this reason of the kernel's (`errno`).
    NotExecuted(i32),
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It took longer than it may.
    TimedOut,
}

impl fmt::Display for HookEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExecuted(errno) => {
                write!(f, "cannot be executed: {}", io::Error::from_raw_os_error(*errno))
            }
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::TimedOut => f.write_str("took longer than its timeout and was killed"),
        }
    }
}

/// What is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSpec {
    /// The id is used as a file name.
    #[error("the id may have only letters, digits, '-', '_' and '.'")]
    Id,
    /// There is nothing to run.
    #[error("no command")]
    NoCommand,
    /// The kernel's strings end at a NUL byte.
    #[error("{0} contains a NUL byte")]
    NulByte(&'static str),
    /// An overlay without lower directories.
    #[error("{0} has no layers")]
    NoLayers(String),
    /// More layers than overlayfs takes.
    #[error("{0} has {1} layers; the kernel joins at most 500")]
    TooManyLayers(String, usize),
    /// A path that has to be absolute is not.
    #[error("{0} is not an absolute path")]
    Relative(String),
    /// A file's content, or the request as a whole, is larger than the channel takes.
    #[error("the specification is {0} bytes; at most 64 MiB are accepted")]
    TooLarge(usize),
    /// The hooks of a step are told of its directory in JSON.
    #[error("the directory {0:?} of a step with hooks is not Unicode")]
    NotUnicode(PathBuf),
    /// An id that the user namespace of steps does not have.
    #[error("the id {0} of a user or group is none that steps have here, which is those below {1}")]
    NotMapped(u32, u32),
}

impl ExecutorError {
    /// The exit code that shells and container engines give to this failure, if it is the
    /// command's own: 127 if it was not found, 126 if it cannot be executed.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::CommandNotFound { .. } => Some(127),
            Self::NotExecutable { .. } => Some(126),
            _ => None,
        }
    }

    /// For a failure to make the user namespace of steps with the layers in `directory`.
    pub(crate) fn from_users(failure: &Failure, directory: &Path) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        match failure.stage {
            Stage::Idmap | Stage::Overlay => {
                Self::NoIdmappedMounts { directory: directory.display().to_string(), source }
            }
            stage => {
                let subject = String::from_utf8_lossy(&failure.subject);
                Self::UserNamespace { what: format!("{stage} {subject}"), source }
            }
        }
    }

    /// For one of the `hooks` of a step.
    pub(crate) fn from_hook(id: &str, failure: &HookFailure, hooks: &[Hook]) -> Self {
        match hooks.get(failure.index) {
            Some(hook) => Self::Hook {
                hook: Box::new(hook.clone()),
                end: failure.end,
                output: String::from_utf8_lossy(&failure.output).trim().to_owned(),
            },
            None => Self::Lost { id: id.into() },
        }
    }

    pub(crate) fn from_failure(failure: &Failure) -> Self {
        let subject = String::from_utf8_lossy(&failure.subject).into_owned();
        let source = io::Error::from_raw_os_error(failure.errno);
        if failure.stage == Stage::Privileges
            && source.kind() == io::ErrorKind::InvalidInput
            && in_user_namespace()
        {
            return Self::UserNotMapped;
        }
        if failure.stage == Stage::Mount
            && source.kind() == io::ErrorKind::PermissionDenied
            && subject == "/proc"
            && in_user_namespace()
        {
            return Self::MaskedProc;
        }
        match failure.stage {
            Stage::FindCommand => Self::CommandNotFound { command: subject },
            Stage::Exec => Self::NotExecutable { command: subject, source },
            Stage::WorkingDirectory => Self::WorkingDirectory { cwd: subject, source },
            stage => Self::Setup { stage, subject, source },
        }
    }
}

/// Why there is no controller.
fn not_offered() -> &'static str {
    if in_user_namespace() {
        "is not delegated to this user's daemon (systemd: Delegate=yes in a user unit)"
    } else {
        "this host does not offer"
    }
}

/// What a hook has written, if it has, as the end of a message.
fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {output}") }
}

fn not_found(command: &str) -> &'static str {
    if command.contains('/') {
        "no such file or directory"
    } else {
        "executable file not found in $PATH"
    }
}
