//! The messages between the daemon, its zygote and the supervisors of running steps.
//!
//! All three are the same program, so the encoding (postcard) needs no versions.

use std::ffi::{CStr, CString};
use std::fmt;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::HookEnd;
use crate::selinux::SelinuxLabels;
use crate::spec::HookKind;
use crate::user_namespace::SubordinateIds;

/// Daemon to zygote: start a process. Descriptors come along in the order of [`Descriptors`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A step in namespaces of its own.
    Run(Box<Step>),
    /// One more process in the namespaces of a running step.
    Exec(Box<Process>),
    /// The user namespace of confined steps, for all that come after.
    Users(Box<UsersRequest>),
    /// A network namespace that belongs to that.
    NetworkNamespace,
}

/// Which user namespace confined steps are to have.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UsersRequest {
    pub(crate) ids: SubordinateIds,
    /// Where all layers and caches are.
    pub(crate) directory: CString,
    /// Empty layers in there, to try it out with.
    pub(crate) trial: Overlay,
}

/// A step, checked and in the form in which the kernel takes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) root: Overlay,
    pub(crate) mounts: Vec<StepMount>,
    pub(crate) hostname: Vec<u8>,
    /// Whether it runs in the network namespace that came along, instead of the host's.
    pub(crate) has_network: bool,
    pub(crate) shm_size: u64,
    pub(crate) read_only_root: bool,
    /// Name and directory of each controller of version 1 to show below /sys/fs/cgroup.
    pub(crate) controllers: Vec<(CString, CString)>,
    /// Whether device nodes on mounts must be made inert because no cgroup guards devices.
    pub(crate) no_device_nodes: bool,
    pub(crate) hooks: Option<Box<Hooks>>,
    pub(crate) process: Process,
}

impl Step {
    /// SELinux's label of all files of the file systems that are made for it.
    pub(crate) fn file_label(&self) -> Option<&CStr> {
        self.process.selinux.as_ref().map(|labels| labels.file.as_c_str())
    }
}

/// What takes part in setting a step up besides this program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hooks {
    /// By this they know the step.
    pub(crate) id: String,
    /// A directory of the host that is the step's alone, over which they find the bundle mounted.
    pub(crate) bundle: String,
    /// In the order in which they run.
    pub(crate) list: Vec<StepHook>,
}

impl Hooks {
    /// Those that run in the step's namespaces, or those that do not, each with its place in the list.
    pub(crate) fn of_container(&self, is_wanted: bool) -> impl Iterator<Item = (usize, &StepHook)> {
        let is_of_container = |hook: &StepHook| hook.kind == HookKind::CreateContainer;
        self.list.iter().enumerate().filter(move |(_, hook)| is_of_container(hook) == is_wanted)
    }
}

/// One program of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StepHook {
    pub(crate) kind: HookKind,
    pub(crate) path: CString,
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) timeout: Option<Duration>,
}

/// A hook that keeps its step from running.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HookFailure {
    /// Its place in the list.
    pub(crate) index: usize,
    pub(crate) end: HookEnd,
    /// The last of what it has written.
    pub(crate) output: Vec<u8>,
}

/// The process itself, started anew or joining a running step.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) insecure: bool,
    /// Whether it runs in the user namespace of confined steps.
    pub(crate) has_users: bool,
    /// Resource number, soft and hard limit.
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    pub(crate) tty: bool,
    pub(crate) apparmor_profile: Option<CString>,
    pub(crate) selinux: Option<SelinuxLabels>,
    pub(crate) oom_score_adj: i32,
    pub(crate) cgroup: CgroupJoin,
    pub(crate) has_stdin: bool,
}

/// How the process enters its cgroup.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum CgroupJoin {
    /// There is none.
    None,
    /// By writing to this many `tasks` files, one a hierarchy.
    V1(u8),
    /// By being cloned into the directory given.
    V2,
}

/// What overlayfs joins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// Top first, as overlayfs takes them.
    pub(crate) lower: Vec<CString>,
    /// Upper and work directory.
    pub(crate) upper: Option<(CString, CString)>,
}

/// One mount besides the root and the standard ones.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StepMount {
    pub(crate) target: CString,
    /// Attributes of the mount besides those of every step's (`MOUNT_ATTR_*`).
    pub(crate) attributes: u64,
    pub(crate) source: MountSource,
}

/// Where a mount's content comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum MountSource {
    Bind { path: CString, subpath: Option<CString>, recursive: bool },
    Overlay { overlay: Overlay, subpath: Option<CString> },
    Tmpfs { size: Option<u64>, mode: u32 },
    File { content: Vec<u8>, mode: u32, uid: u32, gid: u32 },
    Device { host: CString, is_block: bool, major: u32, minor: u32, mode: u32, uid: u32, gid: u32 },
}

/// Supervisor to daemon. The first is `Ready` or `Failed`. What is no process is answered by `Made` or
/// `Failed`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Everything around the process is set up, and these changes had to be made in the upper
    /// directory for mounts to go onto. The supervisor's pidfd comes along.
    Ready(Vec<Created>),
    /// It is there. If it is to be held by who asked for it, it comes along.
    Made,
    /// Something could not be done; no process of the step is left.
    Failed(Failure),
    /// A hook has failed; no process of the step is left.
    HookFailed(HookFailure),
    /// The process has ended, with this status as `waitpid` encodes it, and so have all others,
    /// which have used so much.
    Exited(i32, Used),
}

/// What the processes of a step have used, by the kernel's accounts of processes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) cpu_user: Duration,
    pub(crate) cpu_system: Duration,
    /// Most memory of one of them, in bytes.
    pub(crate) peak_memory: u64,
    pub(crate) io_read: u64,
    pub(crate) io_write: u64,
}

/// Daemon to supervisor.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Send this signal to the step's process.
    Signal(i32),
    /// Kill everything.
    Kill,
    /// The terminal has these rows and columns.
    Resize(u16, u16),
}

/// A change made in the upper directory so that a mount could go onto its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Created {
    /// The path below the root, without symbolic links.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: CreatedKind,
}

/// How a path came into the upper directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CreatedKind {
    Dir,
    File,
    /// A directory of a lower layer, copied up because something was made in it. Its change time
    /// (seconds, nanoseconds) tells whether anything happened to it since.
    CopiedUp(i64, u64),
}

/// What could not be done, to what, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) subject: Vec<u8>,
    pub(crate) errno: i32,
}

/// A part of setting up a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading the request.
    Request,
    /// Making the processes and namespaces.
    Namespaces,
    /// Showing a directory with other ids.
    Idmap,
    /// Entering the namespaces of a running step.
    Join,
    /// Joining layers to a file system.
    Overlay,
    /// Finding or making the place of a mount.
    MountTarget,
    /// Mounting.
    Mount,
    /// Making device nodes.
    Devices,
    /// Making what hooks run in.
    Hooks,
    /// Changing the root directory.
    ChangeRoot,
    /// Hiding parts of /proc and /sys.
    Mask,
    /// Setting the host name, or entering the network namespace.
    Network,
    /// Entering the control group.
    Cgroup,
    /// Giving the process its streams.
    Streams,
    /// Setting resource limits.
    Rlimit,
    /// Changing user, groups and capabilities.
    Privileges,
    /// Installing the system call filter.
    Seccomp,
    /// Entering the working directory.
    WorkingDirectory,
    /// Looking the command up.
    FindCommand,
    /// Executing it.
    Exec,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "read the request for",
            Self::Namespaces => "make namespaces and processes:",
            Self::Idmap => "show with the ids of steps:",
            Self::Join => "join the running step:",
            Self::Overlay => "join the layers of",
            Self::MountTarget => "prepare the mount target",
            Self::Mount => "mount",
            Self::Devices => "make the device",
            Self::Hooks => "prepare for hooks:",
            Self::ChangeRoot => "change the root directory:",
            Self::Mask => "mask",
            Self::Network => "set up the network:",
            Self::Cgroup => "enter the control group:",
            Self::Streams => "connect the streams:",
            Self::Rlimit => "set the resource limit",
            Self::Privileges => "set the privileges:",
            Self::Seccomp => "install the system call filter:",
            Self::WorkingDirectory => "enter the working directory",
            Self::FindCommand => "find the command",
            Self::Exec => "execute",
        })
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Names what was being done when a system call failed.
pub(crate) trait At<T> {
    /// Makes the error a [`Failure`] of `stage` on `subject`.
    fn at(self, stage: Stage, subject: impl AsRef<[u8]>) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, stage: Stage, subject: impl AsRef<[u8]>) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            stage,
            subject: subject.as_ref().to_vec(),
            errno: errno.raw_os_error(),
        })
    }
}
