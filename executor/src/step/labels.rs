//! SELinux's labels of what is not a file system of the step's own.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, XattrFlags, fsetxattr, open};
use rustix::io::{Errno, write};

use crate::selinux::SelinuxLabels;

/// The attribute that holds a file's.
const ATTRIBUTE: &CStr = c"security.selinux";

/// Labels the program that this process executes next, and the keys that it makes before that.
pub(super) fn label_next_program(labels: &SelinuxLabels) -> Result<(), Errno> {
    for file in [c"/proc/self/attr/exec", c"/proc/self/attr/keycreate"] {
        // Those of /proc itself, where nothing can be mounted and no link lies.
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        write(open(file, flags, Mode::empty())?, labels.process.to_bytes())?;
    }
    Ok(())
}

/// Labels an open file as the step's.
pub(super) fn label_file(file: impl AsFd, labels: &SelinuxLabels) -> Result<(), Errno> {
    match fsetxattr(file, ATTRIBUTE, labels.file.to_bytes_with_nul(), XattrFlags::empty()) {
        // In a user namespace, some file systems have no labels; the policy gives them one for all.
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}
