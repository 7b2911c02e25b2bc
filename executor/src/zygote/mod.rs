//! The zygote: a small single-threaded process that starts the steps of a multi-threaded daemon.
//!
//! It is started before the daemon makes its first thread, and has one thread itself, so it can fork
//! in turn without the danger that a lock is held by a thread that the copy does not have. It holds
//! no state of running steps: each has a supervisor of its own (process 1 of its pid namespace),
//! which talks to the daemon directly. When the daemon is gone the zygote's socket closes, the zygote
//! ends, and with it, by their parent-death signal and their own closed sockets, all supervisors and
//! what they supervise.

pub(crate) mod channel;
mod program;
pub(crate) mod protocol;
mod server;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

use crate::error::ExecutorError;
use crate::sys::fork;
use channel::{Receiver, send};
use protocol::{At, Failure, Reply, Request, Stage};

/// The daemon's end of the connection to the process that starts steps.
///
/// Dropping it ends that process and every step it has started.
#[derive(Debug)]
pub struct Zygote {
    pub(crate) socket: OwnedFd,
}

/// Starts the process that will start steps: this program again, which finds out that it is the
/// zygote by [`serve_if_zygote`].
///
/// A step has its command executed by a copy of the zygote, and until then the link
/// `/proc/self/exe`, which an image may name as a command or as the interpreter of one, leads to
/// the zygote's program. It is executed from a mount that shows that one file and can only be read:
/// no step can write to the daemon's own program through it.
///
/// Must be called at the start of `main`, while the process has one thread, before anything is
/// opened that steps must not hold open and before limits are raised that steps should not have.
///
/// # Errors
/// [`ExecutorError::NotRoot`] for other users, [`ExecutorError::StartZygote`] if the kernel refuses.
pub fn start_zygote() -> Result<Zygote, ExecutorError> {
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return Err(ExecutorError::NotRoot { uid: uid.as_raw() });
    }
    let program = program::read_only().map_err(|e| ExecutorError::StartZygote(e.into()))?;
    start(|socket| {
        // Only a failure returns, and closes the socket, which tells the daemon.
        let _ = program::execute(&program, socket);
        fork::exit(1)
    })
}

/// Forks the process that will start steps without executing the program again, for programs whose
/// `main` does not call [`serve_if_zygote`], such as tests. Their file is within a step's reach.
///
/// # Errors
/// [`ExecutorError::StartZygote`] if the kernel refuses.
pub fn fork_zygote() -> Result<Zygote, ExecutorError> {
    start(|socket| server::run(socket))
}

/// Serves as the zygote and never returns, if that is what this process was started as by
/// [`start_zygote`]. To be called before anything else.
pub fn serve_if_zygote() {
    if let Some(socket) = program::zygote_socket() {
        server::run(socket)
    }
}

fn start(run: impl FnOnce(OwnedFd)) -> Result<Zygote, ExecutorError> {
    let (ours, theirs) = socket_pair().map_err(|e| ExecutorError::StartZygote(e.into()))?;
    let child = fork::fork().map_err(|e| ExecutorError::StartZygote(e.into()))?;
    if child.is_none() {
        drop(ours);
        run(theirs);
        fork::exit(1)
    }
    Ok(Zygote { socket: ours })
}

/// A connection that keeps messages whole and tells each end when the other is gone.
pub(crate) fn socket_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Asks the zygote at the other end of `socket` for something that is no process, and waits for it.
pub(crate) fn ask(socket: BorrowedFd<'_>, request: &Request) -> Result<Option<OwnedFd>, Failure> {
    let exchange = || {
        let (ours, theirs) = socket_pair()?;
        send(socket, request, &[theirs.as_fd()])?;
        drop(theirs);
        loop {
            match Receiver::new().receive::<Reply>(&ours, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => break received,
            }
        }
    };
    match exchange().at(Stage::Request, "the zygote")? {
        Some((Reply::Made, fds)) => Ok(fds.into_iter().next()),
        Some((Reply::Failed(failure), _)) => Err(failure),
        Some(_) | None => Err(Errno::PIPE).at(Stage::Request, "the zygote"),
    }
}
