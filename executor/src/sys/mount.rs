//! Mount attributes and namespaces.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::check;

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets attributes (`MOUNT_ATTR_*`) of the mount that `fd` is in, and of those below it if
/// `recursive`.
pub(crate) fn set_attributes(fd: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    let attr = MountAttr { set, clear: 0, propagation: 0, userns: 0 };
    mount_setattr(fd.as_raw_fd(), c"", flags(recursive), &attr)
}

/// As [`set_attributes`], and cuts a copied mount off from the one it was copied from, so that what
/// is mounted on one does not appear on the other.
pub(crate) fn isolate(fd: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    let attr = MountAttr { set, clear: 0, propagation: libc::MS_PRIVATE, userns: 0 };
    mount_setattr(fd.as_raw_fd(), c"", flags(recursive), &attr)
}

/// As [`isolate`], of a mount that is in no place yet, and has the ids of its files shown by a user
/// namespace, whose ids are theirs.
pub(crate) fn isolate_mapped(
    fd: BorrowedFd<'_>,
    users: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), Errno> {
    let users = users.as_raw_fd() as u64;
    let set = libc::MOUNT_ATTR_IDMAP;
    let attr = MountAttr { set, clear: 0, propagation: libc::MS_PRIVATE, userns: users };
    mount_setattr(fd.as_raw_fd(), c"", flags(recursive), &attr)
}

/// Moves this process into a copy of its mount namespace.
pub(crate) fn new_namespace() -> Result<(), Errno> {
    // SAFETY: of what unshare separates, only descriptor tables matter to memory safety; this asks
    // for mounts.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Cuts every mount of this namespace off from those it was copied from.
pub(crate) fn make_all_private() -> Result<(), Errno> {
    let attr = MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, userns: 0 };
    mount_setattr(libc::AT_FDCWD, c"/", libc::AT_RECURSIVE, &attr)
}

/// Lets what is mounted elsewhere still appear in this namespace, and nothing of it elsewhere.
pub(crate) fn receive_only() -> Result<(), Errno> {
    let attr = MountAttr { set: 0, clear: 0, propagation: libc::MS_SLAVE, userns: 0 };
    mount_setattr(libc::AT_FDCWD, c"/", libc::AT_RECURSIVE, &attr)
}

fn flags(recursive: bool) -> i32 {
    libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 }
}

fn mount_setattr(dir: i32, path: &CStr, flags: i32, attr: &MountAttr) -> Result<(), Errno> {
    // SAFETY: the path ends in NUL, and `attr` is laid out as the kernel has it with its size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            std::mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
