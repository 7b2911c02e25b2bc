//! The file systems that every step has: /proc, /dev, /sys and what is in them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, mknodat, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::attach::{FsOption, copy, max_files, new_file_system, onto};
use super::devices;
use super::target::Targets;
use crate::sys::mount::isolate;
use crate::zygote::protocol::{At, Failure, Stage, Step};

const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// What /dev itself holds, in bytes; as with other runtimes.
const DEV_SIZE: u64 = 64 << 20;

/// Mounts them in the order in which they contain each other.
pub(super) fn mount(
    targets: &mut Targets<'_>,
    step: &Step,
    console: Option<OwnedFd>,
) -> Result<(), Failure> {
    let insecure = step.process.insecure;
    let proc = new_file_system(c"proc", &[], INERT).at(Stage::Mount, "/proc")?;
    onto(proc.as_fd(), targets.find_standard(c"proc")?.as_fd()).at(Stage::Mount, "/proc")?;

    let dev = new_dev(step)?;
    onto(dev.as_fd(), targets.find_standard(c"dev")?.as_fd()).at(Stage::Mount, "/dev")?;
    fill_dev(&dev, step)?;
    if let Some(console) = console {
        put_console(&dev, &console).at(Stage::Mount, "/dev/console")?;
    }

    let writable =
        if insecure { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let sys = new_file_system(c"sysfs", &[], INERT | writable).at(Stage::Mount, "/sys")?;
    onto(sys.as_fd(), targets.find_standard(c"sys")?.as_fd()).at(Stage::Mount, "/sys")
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

/// Shows the terminal under the name by which programs find what their streams are.
fn put_console(dev: &OwnedFd, console: &OwnedFd) -> Result<(), Errno> {
    mknodat(dev, c"console", FileType::RegularFile, Mode::from_raw_mode(0o600), 0)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    onto(console.as_fd(), openat(dev, c"console", flags, Mode::empty())?.as_fd())
}

fn new_dev(step: &Step) -> Result<OwnedFd, Failure> {
    let (size, files) = (DEV_SIZE.to_string(), max_files(DEV_SIZE));
    let options = [
        FsOption::Value(c"mode", "755"),
        FsOption::Value(c"size", &size),
        FsOption::Value(c"nr_inodes", &files),
    ];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = new_file_system(c"tmpfs", &options, attributes).at(Stage::Mount, "/dev")?;
    devices::make(dev.as_fd(), step.process.insecure)?;
    Ok(dev)
}

/// Mounts what belongs below /dev. The directories have just been made, by [`devices::make`].
fn fill_dev(dev: &OwnedFd, step: &Step) -> Result<(), Failure> {
    let nosuid_noexec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts_options = [
        FsOption::Flag(c"newinstance"),
        FsOption::Value(c"ptmxmode", "0666"),
        FsOption::Value(c"mode", "0620"),
        FsOption::Value(c"gid", "5"),
    ];
    let pts = new_file_system(c"devpts", &pts_options, nosuid_noexec);
    put(dev, c"pts", pts).at(Stage::Mount, "/dev/pts")?;
    let (size, files) = (step.shm_size.to_string(), max_files(step.shm_size));
    let shm_options = [
        FsOption::Value(c"mode", "1777"),
        FsOption::Value(c"size", &size),
        FsOption::Value(c"nr_inodes", &files),
    ];
    let shm = new_file_system(c"tmpfs", &shm_options, INERT);
    put(dev, c"shm", shm).at(Stage::Mount, "/dev/shm")?;
    match new_file_system(c"mqueue", &[], INERT) {
        // A kernel without message queues.
        Err(Errno::NODEV) => Ok(()),
        mqueue => put(dev, c"mqueue", mqueue).at(Stage::Mount, "/dev/mqueue"),
    }
}

fn put(dev: &OwnedFd, name: &std::ffi::CStr, mount: Result<OwnedFd, Errno>) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    onto(mount?.as_fd(), openat(dev, name, flags, Mode::empty())?.as_fd())
}
