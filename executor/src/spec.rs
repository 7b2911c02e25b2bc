//! What to run: the description of one step's process, its file system and its limits.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One process to run in namespaces of its own.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Names the step's cgroup; letters, digits, `-`, `_` and `.` only, unique among running steps.
    pub id: String,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Further mounts, made in this order, each target resolved in what is mounted by then.
    pub mounts: Vec<Mount>,
    /// The command; the first is looked up in `PATH` of `env` unless it has a slash.
    pub args: Vec<OsString>,
    /// The whole environment as `NAME=value`; nothing is inherited.
    pub env: Vec<String>,
    /// The working directory, absolute and existing in the root file system.
    pub cwd: PathBuf,
    /// Who runs the command.
    pub user: User,
    /// The host name inside.
    pub hostname: String,
    /// What network the step sees.
    pub network: Network,
    /// How far the step is confined.
    pub security: Security,
    /// Mounts the root file system read-only; other mounts keep their own setting.
    pub read_only_root: bool,
    /// Resource limits of the process (`setrlimit`); what is not named is the daemon's own.
    pub rlimits: Vec<Rlimit>,
    /// Limits of the step as a whole, kept by its cgroup.
    pub limits: Resources,
    /// Cgroup below which the step's own is made, from the root of the hierarchy, in place of the
    /// configured one.
    pub cgroup_parent: Option<String>,
    /// Size of `/dev/shm` in bytes; 64 MiB if not given.
    pub shm_size: Option<u64>,
    /// Whether the streams are a terminal, which becomes the controlling one.
    pub tty: bool,
    /// Programs of the host that take part in setting the step up, those of one kind in this order.
    pub hooks: Vec<Hook>,
}

/// A program of the host that takes part in setting a step up, when all is mounted and before the
/// command is started (OCI runtime specification, "POSIX-platform Hooks").
///
/// It is root, with the rights of the daemon and not those of the step, and has the container's state on
/// its standard input. What it writes and mounts in the container's root, which it finds by the bundle
/// that the state names, the step has. If it fails, so does the step. With it, all that it has started
/// ends.
#[derive(Debug, Clone)]
pub struct Hook {
    /// When and where it runs.
    pub kind: HookKind,
    /// The program, by an absolute path of the host.
    pub path: PathBuf,
    /// Its arguments, its own name included; that is its path if there are none.
    pub args: Vec<String>,
    /// Its whole environment as `NAME=value`.
    pub env: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// The file that asks for it, for errors to name.
    pub declared_in: PathBuf,
}

/// The hooks that there are, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HookKind {
    /// As [`HookKind::CreateRuntime`], by its older name.
    Prestart,
    /// In the daemon's namespaces but for that of mounts, which is a copy.
    CreateRuntime,
    /// In the step's namespaces, where the files are the host's all the same: those of the step are in
    /// the bundle.
    CreateContainer,
}

impl std::fmt::Display for HookKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
        })
    }
}

impl ProcessSpec {
    /// A confined command of root's on `rootfs`, with an empty environment, no network but loopback,
    /// and nothing else besides.
    pub fn new(id: impl Into<String>, rootfs: Rootfs, args: Vec<OsString>) -> Self {
        Self {
            id: id.into(),
            rootfs,
            mounts: Vec::new(),
            args,
            env: Vec::new(),
            cwd: "/".into(),
            user: User::default(),
            hostname: "localhost".into(),
            network: Network::None,
            security: Security::Sandbox,
            read_only_root: false,
            rlimits: Vec::new(),
            limits: Resources::default(),
            cgroup_parent: None,
            shm_size: None,
            tty: false,
            hooks: Vec::new(),
        }
    }
}

/// The layers that make up a root file system, joined by overlayfs.
#[derive(Debug, Clone, Default)]
pub struct Rootfs {
    /// Read-only layers, bottom first; at least one, at most 500.
    pub lower: Vec<PathBuf>,
    /// The directory that receives what the step writes. Complete as soon as the step has exited.
    pub upper: PathBuf,
    /// Overlayfs' scratch directory on the file system of `upper`; empty, and never used for a
    /// second mount (overlays are mounted `volatile`).
    pub work: PathBuf,
}

/// One mount besides the root file system.
///
/// Targets are absolute paths inside the root file system; symbolic links in them are followed
/// inside it and never out of it. What is missing is created for the time of the step.
#[derive(Debug, Clone)]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// The host's path.
        source: PathBuf,
        /// What to show of `source`, resolved inside it; all of it if `None`.
        subpath: Option<PathBuf>,
        /// Where it appears.
        target: PathBuf,
        /// Whether it can be written through this mount.
        read_only: bool,
        /// Whether mounts below `source` come along.
        recursive: bool,
        /// What its files are kept from.
        inert: Inert,
    },
    /// Layers joined by an overlay of their own.
    Overlay {
        /// Read-only layers, bottom first; at least one.
        lower: Vec<PathBuf>,
        /// Receives what the step writes; the mount is read-only if there is none.
        upper: Option<OverlayUpper>,
        /// What to show of the joined layers, resolved inside them; all of it if `None`.
        subpath: Option<PathBuf>,
        /// Where it appears.
        target: PathBuf,
        /// Whether it can be written through this mount.
        read_only: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Where it appears.
        target: PathBuf,
        /// Its size in bytes; the kernel's default (half the memory) if not given.
        size: Option<u64>,
        /// Permissions of its root directory.
        mode: u32,
    },
    /// A device node, which the step may use whatever other devices it may not.
    Device {
        /// Which device, and what may be done with it.
        device: Device,
        /// The host's node. In a user namespace, where none can be made, it is shown as it is.
        source: PathBuf,
        /// Where it appears.
        target: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A read-only file that exists in memory only, never on a disk.
    File {
        /// What it contains.
        content: Vec<u8>,
        /// Where it appears.
        target: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// What the files of a mount are kept from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inert {
    /// Programs do not run with the rights of their owners.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Programs cannot be executed.
    pub noexec: bool,
}

/// A device of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Block device, or character device.
    pub is_block: bool,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Whether it can be read.
    pub read: bool,
    /// Whether it can be written.
    pub write: bool,
}

/// The writable part of an overlay mount.
#[derive(Debug, Clone)]
pub struct OverlayUpper {
    /// Receives what is written.
    pub upper: PathBuf,
    /// Overlayfs' scratch directory on the same file system; see [`Rootfs::work`].
    pub work: PathBuf,
}

/// Numeric ids the command runs under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// What network a step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's.
    Host,
    /// One of its own with a way outside, as [`NetworkConfig`](crate::NetworkConfig) has it.
    Sandbox,
    /// A loopback interface and nothing else.
    None,
}

/// How far a step is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Docker's default capabilities, system call filter, masked paths and devices.
    Sandbox,
    /// Every capability and device, no filter, nothing masked.
    Insecure,
}

/// One limit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: RlimitResource,
    /// The limit in force; `u64::MAX` for none.
    pub soft: u64,
    /// How far the process may raise it; `u64::MAX` for any.
    pub hard: u64,
}

/// What an [`Rlimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of getrlimit(2)")]
pub enum RlimitResource {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}

impl RlimitResource {
    /// Finds a resource by its lower-case name without the `RLIMIT_` prefix, as `--ulimit` has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "cpu" => Self::Cpu,
            "fsize" => Self::Fsize,
            "data" => Self::Data,
            "stack" => Self::Stack,
            "core" => Self::Core,
            "rss" => Self::Rss,
            "nproc" => Self::Nproc,
            "nofile" => Self::Nofile,
            "memlock" => Self::Memlock,
            "as" => Self::As,
            "locks" => Self::Locks,
            "sigpending" => Self::Sigpending,
            "msgqueue" => Self::Msgqueue,
            "nice" => Self::Nice,
            "rtprio" => Self::Rtprio,
            "rttime" => Self::Rttime,
            _ => return None,
        })
    }
}

/// Limits of a step as a whole. `None` leaves a resource unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes, `-1` for unlimited swap; counts only with `memory`.
    pub memory_swap: Option<i64>,
    /// Relative weight, 2 to 262144; 1024 is what a step without it has.
    pub cpu_shares: Option<u64>,
    /// CPU time in microseconds within each period; negative for unlimited.
    pub cpu_quota: Option<i64>,
    /// Length of that period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs the step may use, as a list (`0-2,5`).
    pub cpuset_cpus: Option<String>,
    /// Memory nodes the step may use, as a list.
    pub cpuset_mems: Option<String>,
    /// Processes and threads at a time.
    pub pids: Option<u64>,
}

/// The streams of a process. Each is given to it and closed here.
#[derive(Debug)]
pub struct ProcessIo {
    /// Standard input; `/dev/null` if there is none.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}
