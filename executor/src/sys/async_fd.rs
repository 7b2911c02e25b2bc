//! Registering descriptors with the runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes `fd` known to the tokio runtime this is called in.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what is asked is that the number stays the same open file for as long as the value
    // lives, which an `OwnedFd` guarantees.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}
