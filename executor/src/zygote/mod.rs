//! The zygote: a small single-threaded process that starts the steps of a multi-threaded daemon.
//!
//! It is forked before the daemon makes its first thread, so it can fork in turn without the
//! danger that a lock is held by a thread that the copy does not have. It holds no state of
//! running steps: each has a supervisor of its own (process 1 of its pid namespace), which talks
//! to the daemon directly. When the daemon is gone the zygote's socket closes, the zygote ends,
//! and with it, by their parent-death signal and their own closed sockets, all supervisors and
//! what they supervise.

pub(crate) mod channel;
pub(crate) mod protocol;
mod server;

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::error::ExecutorError;
use crate::sys::fork;

/// The daemon's end of the connection to the process that starts steps.
///
/// Dropping it ends that process and every step it has started.
#[derive(Debug)]
pub struct Zygote {
    pub(crate) socket: OwnedFd,
}

/// Forks the process that will start steps.
///
/// Must be called at the start of `main`, while the process has one thread, before anything is
/// opened that steps must not hold open and before limits are raised that steps should not have.
/// The forked process never returns from this call.
///
/// # Errors
/// [`ExecutorError::StartZygote`] if the kernel refuses.
pub fn start_zygote() -> Result<Zygote, ExecutorError> {
    let (ours, theirs) = socket_pair().map_err(|e| ExecutorError::StartZygote(e.into()))?;
    let child = fork::fork().map_err(|e| ExecutorError::StartZygote(e.into()))?;
    if child.is_none() {
        drop(ours);
        server::run(theirs)
    }
    Ok(Zygote { socket: ours })
}

/// A connection that keeps messages whole and tells each end when the other is gone.
pub(crate) fn socket_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
