//! Process 1 of a step: reaps what is orphaned, passes signals on, reports the command's exit.
//!
//! When the command has ended, everything else in the namespace is killed and reaped here before
//! the exit is reported, and the process ends after that. So whoever hears of the exit knows that
//! nothing runs any more, and does not wait for the kernel to take mounts and namespaces apart.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use rustix::net::RecvFlags;
use rustix::process::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::sys::process::{Waited, signal_all, signal_one, used_by_children, wait_any};
use crate::zygote::channel::{Receiver, send};
use crate::zygote::protocol::{Command, Reply};

/// Returns when the command `pid` has ended and been reported, or the daemon has closed its end.
///
/// `is_pid_one` says whether this process rules the namespace; one that has only joined it kills
/// and reaps nothing but its own child.
pub(super) fn supervise(
    pid: Pid,
    is_pid_one: bool,
    events: &OwnedFd,
    terminal: Option<OwnedFd>,
    reply: &OwnedFd,
) {
    let mut supervisor = Supervisor { pid, is_pid_one, terminal, receiver: Receiver::new() };
    let status = loop {
        let mut fds = [PollFd::new(events, PollFlags::IN), PollFd::new(reply, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return supervisor.kill(),
        }
        let (child, command) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if child && let Some(status) = supervisor.reap(events) {
            break status;
        }
        if command && !supervisor.obey(reply) {
            return supervisor.kill();
        }
    };
    if is_pid_one {
        supervisor.kill();
    }
    drop(supervisor);
    // If the daemon is gone there is nobody to tell.
    let _ = send(reply, &Reply::Exited(status, used_by_children()), &[]);
}

struct Supervisor {
    pid: Pid,
    is_pid_one: bool,
    terminal: Option<OwnedFd>,
    receiver: Receiver,
}

impl Supervisor {
    /// Reaps all that have ended; the command's status if it is among them.
    fn reap(&self, events: &OwnedFd) -> Option<i32> {
        let mut event = [0_u8; 128];
        while read(events, &mut event).is_ok() {}
        let mut found = None;
        while let Waited::Ended(pid, status) = wait_any(false) {
            if pid == self.pid.as_raw_nonzero().get() {
                found = Some(status);
            }
        }
        found
    }

    /// Carries out the daemon's next command; `false` if it has closed its end.
    fn obey(&mut self, reply: &OwnedFd) -> bool {
        match self.receiver.receive::<Command>(reply.as_fd(), RecvFlags::DONTWAIT) {
            // A command that has ended but is not reaped yet takes no signal, which is no error.
            Ok(Some((Command::Signal(signal), _))) => drop(signal_one(self.pid, signal)),
            Ok(Some((Command::Kill, _))) => drop(signal_one(self.pid, libc::SIGKILL)),
            Ok(Some((Command::Resize(rows, columns), _))) => self.resize(rows, columns),
            Err(Errno::AGAIN | Errno::INTR | Errno::BADMSG) => {}
            Ok(None) | Err(_) => return false,
        }
        true
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        if let Some(terminal) = &self.terminal {
            // The terminal may have been hung up.
            let _ = tcsetwinsize(terminal, size);
        }
    }

    /// Kills what is left and waits until it is gone.
    fn kill(&self) {
        if self.is_pid_one {
            signal_all(libc::SIGKILL);
        } else {
            let _ = signal_one(self.pid, libc::SIGKILL);
        }
        while let Waited::Ended(..) = wait_any(true) {}
    }
}
