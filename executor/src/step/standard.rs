//! The file systems that every step has: /proc, /dev, /sys and what is in them.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::Users;
use super::attach::{FsOption, copy, max_files, new_file_system, onto};
use super::devices::{self, OfHost};
use super::labels;
use super::target::Targets;
use crate::sys::mount::isolate;
use crate::user_namespace::in_user_namespace;
use crate::zygote::protocol::{At, Failure, Stage, Step};

const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// What /dev itself holds, in bytes; as with other runtimes.
const DEV_SIZE: u64 = 64 << 20;

/// The group of terminals, everywhere.
const TTY: u32 = 5;

/// What of them is made, or opened, in the host's mount namespace.
///
/// In a user namespace the kernel makes a new /proc or /sys only where one is in place already that
/// shows all there is: not in the step's namespace, which is empty.
#[derive(Debug)]
pub(super) struct Sources {
    proc: OwnedFd,
    sys: OwnedFd,
    devices: Option<OfHost>,
    /// The step's terminal, if it has one.
    console: Option<OwnedFd>,
}

impl Sources {
    /// For a process that is in the step's pid and network namespaces already.
    pub(super) fn open(step: &Step, console: Option<OwnedFd>) -> Result<Self, Failure> {
        let insecure = step.process.insecure;
        Ok(Self {
            proc: new_file_system(c"proc", &[], INERT).at(Stage::Mount, "/proc")?,
            sys: new_sys(insecure).at(Stage::Mount, "/sys")?,
            devices: OfHost::open(insecure)?,
            console,
        })
    }
}

/// Mounts them in the order in which they contain each other.
pub(super) fn mount(
    targets: &mut Targets<'_>,
    step: &Step,
    users: Option<&Users>,
    sources: &Sources,
) -> Result<(), Failure> {
    let mut put = |mount: &OwnedFd, name: &'static CStr, path: &str| {
        onto(mount.as_fd(), targets.find_standard(name)?.as_fd()).at(Stage::Mount, path)
    };
    put(&sources.proc, c"proc", "/proc")?;
    let dev = new_dev(step)?;
    put(&dev, c"dev", "/dev")?;
    // In place first: what is not, nothing can be mounted in.
    devices::make(dev.as_fd(), step.process.insecure, sources.devices.as_ref())?;
    fill_dev(&dev, step, users)?;
    if let Some(console) = &sources.console {
        devices::show(dev.as_fd(), c"console", console).at(Stage::Mount, "/dev/console")?;
    }
    put(&sources.sys, c"sys", "/sys")
}

fn new_sys(insecure: bool) -> Result<OwnedFd, Errno> {
    let writable =
        if insecure { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    match new_file_system(c"sysfs", &[], INERT | writable) {
        // It shows the network, which is the host's and not this user namespace's, or what a
        // container hides: then what is shown here, where no user can write what is not theirs.
        Err(Errno::PERM) if in_user_namespace() => {
            let sys = copy(CWD, c"/sys", true)?;
            let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
            isolate(sys.as_fd(), attributes.bits().into(), true)?;
            Ok(sys)
        }
        made => made,
    }
}

/// Opens the step's terminal, if it has one, as a mount, in the host's mount namespace.
pub(super) fn open_console(step: &Step, terminal: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    if !step.process.tty {
        return Ok(None);
    }
    let console = copy(terminal.as_fd(), c"", false)
        .and_then(|console| isolate(console.as_fd(), 0, false).map(|()| console));
    console.map(Some).at(Stage::Mount, "/dev/console")
}

fn new_dev(step: &Step) -> Result<OwnedFd, Failure> {
    let (size, files) = (DEV_SIZE.to_string(), max_files(DEV_SIZE));
    let options = [
        FsOption::Value(c"mode", "755"),
        FsOption::Value(c"size", &size),
        FsOption::Value(c"nr_inodes", &files),
        FsOption::Label(step.file_label()),
    ];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    new_file_system(c"tmpfs", &options, attributes).at(Stage::Mount, "/dev")
}

/// Mounts what belongs below /dev. The directories have just been made, by [`devices::make`].
fn fill_dev(dev: &OwnedFd, step: &Step, users: Option<&Users>) -> Result<(), Failure> {
    let label = step.file_label();
    let ids = |uid, gid| users.map_or(Ok((uid, gid)), |users| users.ids(uid, gid));
    let (_, group) = ids(0, TTY).at(Stage::Mount, "/dev/pts")?;
    let group = group.to_string();
    let nosuid_noexec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts_options = [
        FsOption::Flag(c"newinstance"),
        FsOption::Value(c"ptmxmode", "0666"),
        FsOption::Value(c"mode", "0620"),
        FsOption::Value(c"gid", &group),
        FsOption::Label(label),
    ];
    let pts = new_file_system(c"devpts", &pts_options, nosuid_noexec)
        .and_then(|pts| users.map_or(Ok(()), |users| give(&pts, users.ids(0, 0)?)).map(|()| pts));
    put(dev, c"pts", pts).at(Stage::Mount, "/dev/pts")?;
    let (size, files) = (step.shm_size.to_string(), max_files(step.shm_size));
    let shm_options = [
        FsOption::Value(c"mode", "1777"),
        FsOption::Value(c"size", &size),
        FsOption::Value(c"nr_inodes", &files),
        FsOption::Label(label),
    ];
    let shm = new_file_system(c"tmpfs", &shm_options, INERT);
    put(dev, c"shm", shm).at(Stage::Mount, "/dev/shm")?;
    match new_file_system(c"mqueue", &[], INERT) {
        // A kernel without message queues.
        Err(Errno::NODEV) => Ok(()),
        mqueue => put(dev, c"mqueue", mqueue.and_then(|mqueue| label_queues(mqueue, step)))
            .at(Stage::Mount, "/dev/mqueue"),
    }
}

/// Labels the directory of message queues, a file system that is there already and takes no options.
fn label_queues(mqueue: OwnedFd, step: &Step) -> Result<OwnedFd, Errno> {
    if let Some(labels) = &step.process.selinux {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        labels::label_file(openat(&mqueue, c".", flags, Mode::empty())?, labels)?;
    }
    Ok(mqueue)
}

/// Gives a new devpts, which is always the host's root's, to the step's.
fn give(pts: &OwnedFd, (uid, gid): (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(pts, c"ptmx", uid, gid, AtFlags::empty())?;
    chownat(pts, c"", uid, gid, AtFlags::EMPTY_PATH)
}

fn put(dev: &OwnedFd, name: &CStr, mount: Result<OwnedFd, Errno>) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    onto(mount?.as_fd(), openat(dev, name, flags, Mode::empty())?.as_fd())
}
