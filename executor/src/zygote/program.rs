//! The program that the zygote is: the daemon's own, executed anew.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fstat, memfd_create, open, readlink,
    sendfile, stat,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use crate::sys::fd;
use crate::sys::mount::isolate;
use crate::sys::process::{CStringArray, execveat};

const SELF: &CStr = c"/proc/self/exe";

/// By this name, alone on its command line, a process knows that it is the zygote. It is also what
/// `ps` shows of the zygote and of the supervisors forked from it.
pub(super) const TITLE: &CStr = c"kiln-init";

/// This program in a form that cannot be written to.
pub(super) fn read_only() -> Result<OwnedFd, Errno> {
    match read_only_mount(SELF) {
        // It was executed in another mount namespace than the one that this process is in now.
        Err(Errno::INVAL) => {
            let name = readlink(SELF, Vec::new())?;
            read_only_mount(&name).or_else(|_| sealed_copy())
        }
        other => other,
    }
}

/// A mount of this program's file that cannot be written through, and is in no place.
fn read_only_mount(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = open_tree(CWD, path, flags)?;
    let (found, own) = (fstat(&program)?, stat(SELF)?);
    if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
        return Err(Errno::STALE);
    }
    isolate(program.as_fd(), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID, false)?;
    Ok(program)
}

/// A copy in memory that nobody can change, for a program whose name leads to it no more.
fn sealed_copy() -> Result<OwnedFd, Errno> {
    let program = open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = memfd_create(TITLE, flags)?;
    let mut left = fstat(&program)?.st_size.unsigned_abs();
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(usize::MAX);
        match sendfile(&copy, &program, None, step)? {
            0 => return Err(Errno::IO),
            sent => left = left.saturating_sub(sent as u64),
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy)
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
