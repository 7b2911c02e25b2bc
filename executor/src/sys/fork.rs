//! Making processes.
//!
//! Both calls copy the caller's memory (no `CLONE_VM`). The zygote and what descends from it have
//! a single thread, so no lock can be held by a thread that does not exist in the copy, and the
//! child may allocate.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;

use super::{check, last_errno};

/// Beyond the 32 bits of the C library's constants.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The kernel's `struct clone_args`, up to the fields of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks with `namespaces` (`CLONE_NEW*`) new for the child, born in `cgroup` (version 2) if one
/// is given; `None` in the child.
pub(crate) fn clone3(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Option<Pid>, Errno> {
    let mut args =
        CloneArgs { flags: namespaces, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is laid out as the kernel has it, and without CLONE_VM the child runs on its
    // own copy of this stack.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<CloneArgs>()) };
    check(result).map(|pid| Pid::from_raw(pid as i32))
}

/// Plain `fork` by the C library; `None` in the child.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: the C library puts its own locks in order in the child, which uses nothing of Rust's
    // that another thread could hold: see `start_zygote`.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends the process without running destructors or exit handlers, which belong to the program it
/// was forked from.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory.
    unsafe { libc::_exit(code) }
}
