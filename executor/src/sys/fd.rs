//! File descriptors: duplicates at fixed numbers and bulk closing.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::check;

/// Makes `target` (0, 1 or 2) a duplicate of `fd`, inherited over exec.
pub(crate) fn duplicate_onto(fd: BorrowedFd<'_>, target: RawFd) -> Result<(), Errno> {
    // SAFETY: dup2 takes two numbers; the standard streams it replaces are owned by nobody.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Closes the copy of a descriptor that this process got by being forked and will not use.
pub(crate) fn close_inherited(fd: BorrowedFd<'_>) {
    // SAFETY: the owner lives in the parent's code, which this process never returns to.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Closes every descriptor from 3 on except those of `keep`, which are returned under numbers of their
/// own.
///
/// For a process that has been forked and will use nothing else that is open, nor drop what owns
/// it: it ends by exec or [`exit`](super::fork::exit).
pub(crate) fn close_all_but<const N: usize>(keep: [OwnedFd; N]) -> Result<[OwnedFd; N], Errno> {
    let first_free = 3 + N as RawFd;
    // Out of the way first: one may have the number that is another's.
    let mut moved = Vec::with_capacity(N);
    for fd in keep {
        moved.push(rustix::io::fcntl_dupfd_cloexec(&fd, first_free)?);
        std::mem::forget(fd);
    }
    for (number, fd) in (3..).zip(&moved) {
        // SAFETY: dup3 takes numbers; whatever was at the second belonged to the parent's code, which
        // does not run in this process any more.
        check(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) }.into())?;
    }
    std::mem::forget(moved);
    // SAFETY: as above, nothing in this process uses the descriptors closed here.
    check(unsafe { libc::syscall(libc::SYS_close_range, first_free, u32::MAX, 0) })?;
    // SAFETY: the numbers have been made this function's own above.
    Ok(std::array::from_fn(|index| unsafe { OwnedFd::from_raw_fd(3 + index as RawFd) }))
}

/// Where a zygote that was executed finds its connection.
pub(crate) const ZYGOTE_SOCKET: RawFd = 3;

/// Puts `socket` where an executed program finds it; for a forked process that executes next and
/// uses nothing that was at that number.
pub(crate) fn pass_to_zygote(socket: OwnedFd) -> Result<(), Errno> {
    if socket.as_raw_fd() == ZYGOTE_SOCKET {
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty())?;
    } else {
        // SAFETY: dup2 takes two numbers; what it replaces belongs to the parent's code, which does
        // not run in this process any more.
        check(unsafe { libc::dup2(socket.as_raw_fd(), ZYGOTE_SOCKET) }.into())?;
    }
    std::mem::forget(socket);
    Ok(())
}

/// Takes what [`pass_to_zygote`] has passed, if there is anything at that number.
pub(crate) fn passed_to_zygote() -> Option<OwnedFd> {
    // SAFETY: the number is only asked about.
    if unsafe { libc::fcntl(ZYGOTE_SOCKET, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open, as the call above has shown, and at the start of a program nothing else
    // owns it.
    Some(unsafe { OwnedFd::from_raw_fd(ZYGOTE_SOCKET) })
}
