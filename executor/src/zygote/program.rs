//! The program that the zygote is: the daemon's own, executed anew.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use crate::sys::fd;
use crate::sys::mount::isolate;
use crate::sys::process::{CStringArray, execveat};

/// By this name, alone on its command line, a process knows that it is the zygote. It is also what
/// `ps` shows of the zygote and of the supervisors forked from it.
pub(super) const TITLE: &CStr = c"kiln-init";

/// A mount of this program's file that cannot be written through, and is in no place.
pub(super) fn read_only() -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = open_tree(CWD, c"/proc/self/exe", flags)?;
    isolate(program.as_fd(), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID, false)?;
    Ok(program)
}

/// Becomes the zygote with its connection `socket`; returns only if that fails. The environment,
/// where secrets of the daemon may be, is left behind.
pub(super) fn execute(program: &OwnedFd, socket: OwnedFd) -> Result<(), Errno> {
    // Before descriptors are renumbered: the first free one may be that of the zygote's socket.
    let program = rustix::io::fcntl_dupfd_cloexec(program, fd::ZYGOTE_SOCKET + 1)?;
    fd::pass_to_zygote(socket)?;
    let args = [CString::from(TITLE)];
    Err(execveat(program.as_fd(), &CStringArray::new(&args), &CStringArray::new(&[])))
}

/// The zygote's connection, if this process was started as one by [`execute`].
pub(super) fn zygote_socket() -> Option<OwnedFd> {
    let mut args = std::env::args_os();
    let is_named = args.next()?.as_encoded_bytes() == TITLE.to_bytes() && args.next().is_none();
    let socket = is_named.then(fd::passed_to_zygote)??;
    (socket_type(&socket) == Ok(SocketType::SEQPACKET)).then_some(socket)
}
