//! User namespaces.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, write};
use rustix::process::Pid;
use rustix::thread::{CapabilitySets, LinkNameSpaceType, move_into_link_name_space};

use super::{check, fork, process};

/// Moves this process, which must have one thread, into a user namespace and a mount namespace of
/// its own. Until ids are mapped it is nobody there, but may do everything.
pub(crate) fn new_namespaces() -> Result<(), Errno> {
    // SAFETY: of what unshare separates, only descriptor tables matter to memory safety; this asks
    // for users and mounts.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Makes a user namespace with these maps (`uid_map`, `gid_map`), which exists as long as what is
/// returned, or a process in it. For a process with one thread, whose children are reaped by the kernel.
pub(crate) fn namespace(uid_map: &str, gid_map: &str) -> Result<OwnedFd, Errno> {
    let (wait, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let Some(pid) = fork::clone3(libc::CLONE_NEWUSER as u64, None)? else {
        // Until the other end closes: which this process has, too.
        drop(end);
        let _ = rustix::io::read(&wait, &mut [0_u8]);
        fork::exit(0)
    };
    let open = |file: &str, flags: OFlags| open_of(pid, file, flags);
    write(open("uid_map", OFlags::WRONLY)?, uid_map.as_bytes())?;
    write(open("gid_map", OFlags::WRONLY)?, gid_map.as_bytes())?;
    let namespace = open("ns/user", OFlags::RDONLY);
    drop(end);
    namespace
}

fn open_of(pid: Pid, file: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
    openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// Moves this process, which must have one thread, into a user namespace below its own. It keeps its
/// ids, which may be nobody's there, and may do everything in it.
pub(crate) fn enter(namespace: &OwnedFd) -> Result<(), Errno> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    process::make_undumpable()
}

/// Has this process, of root's, own what it makes in file systems as another user, and keep all rights.
///
/// As with every change of ids, the kernel forgets that the process is to end with its parent.
pub(crate) fn make_files_as(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: both take numbers. What they return is the id before, also if they fail; no process may
    // have the last number, so that asking for it tells what is so.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        if libc::setfsgid(u32::MAX) != gid as i32 || libc::setfsuid(u32::MAX) != uid as i32 {
            return Err(Errno::PERM);
        }
    }
    // Those over files went with root's id.
    let sets = rustix::thread::capabilities(None)?;
    let all = CapabilitySets { effective: sets.permitted, ..sets };
    rustix::thread::set_capabilities(None, all)?;
    process::make_undumpable()
}
