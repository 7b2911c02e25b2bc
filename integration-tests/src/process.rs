//! A program that a test has started, and its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(20);

/// A running program, which ends and is reaped when this is dropped: SIGTERM first, so that it can
/// clean up, SIGKILL if it does not react.
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    name: String,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd of a child");
        Self { child, pidfd, name, status: None }
    }

    /// The child as the standard library has it, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable once the process has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends `signal`; a process that has ended is left alone.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // The only failure left is that it ended by itself.
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Waits until the process ends, at most for `limit`.
    pub fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.status.is_none() && readable(&[self.pidfd.as_fd()], limit).is_some() {
            self.status = Some(self.child.wait().expect("status of a child"));
        }
        self.status
    }

    /// Ends the process at once and reaps it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert!(self.wait_within(GRACE).is_some(), "{} survives SIGKILL", self.name);
    }

    /// Asks the process to end and waits for it; kills it, and returns nothing, if it does not.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let status = self.wait_within(GRACE);
        if status.is_none() {
            self.kill();
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until one of `fds` is readable or hung up and returns its index; nothing after `limit`.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], limit: Duration) -> Option<usize> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut polled: Vec<_> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => return polled.iter().position(|fd| !fd.revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}
