//! Network namespaces, and their loopback interface.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::check;

/// Moves this thread into a network namespace of its own.
pub(crate) fn new_namespace() -> Result<(), Errno> {
    // SAFETY: of what unshare separates, only descriptor tables matter to memory safety; this asks
    // for the network.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into()).map(drop)
}

/// Whether the calling thread's network namespace belongs to its user namespace, or to one within
/// that, and not to one outside, so that root has rights over it.
pub(crate) fn is_own() -> Result<bool, Errno> {
    // `_IO(0xb7, 1)`, which asks for the owner.
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let namespace = std::fs::File::open("/proc/thread-self/ns/net")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    // SAFETY: the request takes no argument, and returns a new descriptor or an error.
    match check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) }.into()) {
        Ok(owner) => {
            // SAFETY: the kernel has just made this descriptor for the caller.
            drop(unsafe { OwnedFd::from_raw_fd(owner as i32) });
            Ok(true)
        }
        Err(Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Brings up `lo` of this network namespace. It gets its addresses by itself.
pub(crate) fn bring_up_loopback() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
        .map(drop)
}
