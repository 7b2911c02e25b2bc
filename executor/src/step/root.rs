//! The root of a step's mount namespace.
//!
//! The namespace is not a copy of the host's with the host's mounts taken out again: a copy costs
//! more the more the host has mounted, and taking mounts out waits for a grace period of the whole
//! kernel. Instead the zygote makes, once, a namespace that has nothing but an empty read-only
//! directory. A step enters it, copies it, and mounts over that directory; what lies below is
//! covered for good. No path leads there: a walk upwards ends at the covered directory and goes
//! on at what covers it, also for a process that has left its root directory by chroot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::attach::new_file_system;
use crate::sys::mount::{make_all_private, new_namespace};
use crate::zygote::protocol::{At, Failure, Stage};

/// A mount namespace with an empty read-only directory and nothing else.
#[derive(Debug)]
pub(crate) struct EmptyNamespace(OwnedFd);

impl EmptyNamespace {
    /// Makes one, from the namespace that the calling process is in and returns to.
    pub(crate) fn new() -> Result<Self, Failure> {
        let home = this_namespace().at(Stage::Namespaces, "open the host's")?;
        new_namespace().at(Stage::Namespaces, "unshare mounts")?;
        let made = this_namespace()
            .and_then(|namespace| empty_this_namespace().map(|()| Self(namespace)))
            .at(Stage::Namespaces, "leave the host's mounts");
        enter(&home).at(Stage::Namespaces, "return to the host's")?;
        made
    }

    /// Moves the calling process into a copy of it.
    pub(super) fn enter_copy(&self) -> Result<(), Errno> {
        enter(&self.0)?;
        new_namespace()
    }
}

pub(super) fn this_namespace() -> Result<OwnedFd, Errno> {
    open(c"/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn enter(namespace: &OwnedFd) -> Result<(), Errno> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
}

fn empty_this_namespace() -> Result<(), Errno> {
    make_all_private()?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let empty = new_file_system(c"tmpfs", &[], attributes)?;
    cover(empty.as_fd())?;
    rustix::process::fchdir(&empty)?;
    // With both arguments the same the old root ends up on top of the new one, and unmounting
    // that place removes it: pivot_root(2), "pivot_root(".", ".")".
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)
}

/// Puts a detached mount over the root directory and whatever covers that already. It stays
/// reachable by descriptors only.
pub(super) fn cover(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    move_mount(mount, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes `root`, which must be the topmost of what covers the root directory, the root and working
/// directory of this process.
pub(super) fn change_to(root: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(root).at(Stage::ChangeRoot, "chdir")?;
    rustix::process::chroot(c".").at(Stage::ChangeRoot, "chroot")
}
