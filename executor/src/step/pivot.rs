//! Exchanging the host's root directory for the step's.

use std::os::fd::BorrowedFd;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::zygote::protocol::{At, Failure, Stage};

/// Mounts `mount` over the host's root directory, where it is in nobody's way: paths still start
/// in the directory below it, and only a descriptor leads into it.
pub(super) fn cover_root(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    move_mount(mount, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes `root` the root and working directory and detaches everything of the host.
pub(super) fn into_root(root: BorrowedFd<'_>) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = open(c"/", flags, Mode::empty()).at(Stage::PivotRoot, "open the host's")?;
    rustix::process::fchdir(root).at(Stage::PivotRoot, "chdir")?;
    // With both arguments the same the old root ends up on top of the new one, where any `..` out
    // of a mount in the root directory would lead into it. It is detached by its own directory.
    rustix::process::pivot_root(c".", c".").at(Stage::PivotRoot, "pivot_root")?;
    rustix::process::fchdir(&host).at(Stage::PivotRoot, "chdir to the host's")?;
    unmount(c".", UnmountFlags::DETACH).at(Stage::PivotRoot, "detach the host's")?;
    rustix::process::chdir(c"/").at(Stage::PivotRoot, "chdir")
}
