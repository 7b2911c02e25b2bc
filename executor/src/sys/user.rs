//! User namespaces.

use rustix::io::Errno;

use super::check;

/// Moves this process, which must have one thread, into a user namespace and a mount namespace of
/// its own. Until ids are mapped it is nobody there, but may do everything.
pub(crate) fn new_namespaces() -> Result<(), Errno> {
    // SAFETY: of what unshare separates, only descriptor tables matter to memory safety; this asks
    // for users and mounts.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }.into()).map(drop)
}
