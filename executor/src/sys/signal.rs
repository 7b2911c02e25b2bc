//! Signal dispositions, the signal mask and signalfd.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::{check, last_errno};

/// The signals that a terminal or a service manager sends to everything it finds.
const FROM_OUTSIDE: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// Highest signal number on the architectures supported here.
const LAST: i32 = 64;

/// Has the kernel reap children by itself and ignores what a terminal or service manager sends:
/// this process ends when the daemon does.
pub(crate) fn ignore_children_and_outside() {
    for signal in FROM_OUTSIDE.into_iter().chain([libc::SIGCHLD, libc::SIGPIPE]) {
        set_disposition(signal, libc::SIG_IGN);
    }
}

/// Gives every signal its default effect and blocks none, as a program expects at its start.
pub(crate) fn reset() {
    for signal in 1..=LAST {
        set_disposition(signal, libc::SIG_DFL);
    }
    // SAFETY: sigset_t is plain data, initialised by sigemptyset before its use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets ended children become readable events: no automatic reaping, SIGCHLD blocked and
/// delivered through the descriptor returned.
pub(crate) fn child_events() -> Result<OwnedFd, Errno> {
    set_disposition(libc::SIGCHLD, libc::SIG_DFL);
    // SAFETY: the set is initialised by sigemptyset; signalfd returns a new descriptor or -1.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_errno()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Of the numbers passed here, the kernel refuses only those whose effect cannot be changed.
fn set_disposition(signal: i32, handler: libc::sighandler_t) {
    // Not by the C library, which keeps two numbers to itself, but a program may be started with
    // these ignored. All zero but the handler is right on every architecture supported.
    let action: [usize; 4] = [handler, 0, 0, 0];
    // SAFETY: the kernel's sigaction is at most these four words, with the handler first, and its
    // signal set has 8 bytes. Both dispositions used here run no code of this process.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null_mut::<usize>(),
            8_usize,
        )
    };
}
