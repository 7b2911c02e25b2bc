//! Making file systems and putting mounts in place.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// An option of a file system.
pub(super) enum FsOption<'a> {
    Flag(&'a CStr),
    Value(&'a CStr, &'a str),
    /// SELinux's label of all its files, if they are to have one.
    Label(Option<&'a CStr>),
}

/// The option by which SELinux takes that, of any file system.
pub(super) const LABEL: &CStr = c"context";

/// Makes a detached mount of a new file system.
pub(super) fn new_file_system(
    kind: &CStr,
    options: &[FsOption<'_>],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, c"source", kind)?;
    for option in options {
        match option {
            FsOption::Flag(key) => fsconfig_set_flag(&fs, *key)?,
            FsOption::Value(key, value) => fsconfig_set_string(&fs, *key, *value)?,
            FsOption::Label(Some(label)) => fsconfig_set_string(&fs, LABEL, *label)?,
            FsOption::Label(None) => {}
        }
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// As many files as a file system in memory of so many bytes may hold. Each takes about a kilobyte of
/// the kernel's own memory, which the size does not count, however little is in it.
pub(super) fn max_files(size: u64) -> String {
    // Zero would be no limit at all.
    (size / 1024).max(64).to_string()
}

/// Puts a detached mount onto `target`.
pub(super) fn onto(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Makes a detached mount that shows what is at `path` below `dir`.
pub(super) fn copy(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, path, flags)
}
