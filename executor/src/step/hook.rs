//! One hook: a process that is started, given the state, and waited for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, SeekFrom, memfd_create, seek};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::capabilities;
use super::process::new_session_keyring;
use crate::error::HookEnd;
use crate::sys::process::{CStringArray, Waited, die_with_parent, execve, wait_any};
use crate::sys::{fd, fork, signal};
use crate::zygote::protocol::{At, CgroupJoin, HookFailure, Reply, Stage, StepHook};

/// As much of a hook's output as is kept for an error.
const KEPT: usize = 4096;

/// Where a hook runs.
pub(super) struct Place<'a> {
    /// Its working directory.
    pub(super) directory: BorrowedFd<'a>,
    /// How it enters the control groups `groups`.
    pub(super) join: CgroupJoin,
    pub(super) groups: &'a [OwnedFd],
    /// Who owns what it makes in file systems, if not root.
    pub(super) owner: Option<(u32, u32)>,
    /// Closes when nobody waits for the hook any more.
    pub(super) watch: BorrowedFd<'a>,
    /// Ends the hook, and what it has started, and waits for that.
    pub(super) end: fn(Pid),
}

/// Runs a hook to its end, and does not return if nobody waits for it any more.
///
/// # Errors
/// What to tell the daemon.
pub(super) fn run(
    index: usize,
    hook: &StepHook,
    state: &[u8],
    place: &Place<'_>,
) -> Result<(), Reply> {
    let subject = hook.path.as_bytes();
    let mut started = Started::new(hook, state, place).at(Stage::Hooks, subject)?;
    let end = started.wait(hook.timeout, place).at(Stage::Hooks, subject)?;
    // In the background, too, so that the output is complete.
    (place.end)(started.pid);
    let end = match (end, started.why_not_executed()) {
        (_, Some(errno)) => HookEnd::NotExecuted(errno),
        (Some(status), None) if libc::WIFSIGNALED(status) => {
            HookEnd::Signal(libc::WTERMSIG(status))
        }
        (Some(status), None) => match libc::WEXITSTATUS(status) {
            0 => return Ok(()),
            code => HookEnd::Code(code),
        },
        (None, None) => HookEnd::TimedOut,
    };
    started.read_output().at(Stage::Hooks, subject)?;
    Err(Reply::HookFailed(HookFailure { index, end, output: started.last_lines() }))
}

/// A hook's process.
struct Started {
    pid: Pid,
    events: OwnedFd,
    /// Where it writes to.
    output: OwnedFd,
    /// Where the reason comes from if it is not executed.
    failure: OwnedFd,
    written: Vec<u8>,
}

impl Started {
    fn new(hook: &StepHook, state: &[u8], place: &Place<'_>) -> Result<Self, Errno> {
        let state = in_memory(state)?;
        let (output, output_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let (failure, failure_end) = pipe_with(PipeFlags::CLOEXEC)?;
        for end in [&output, &failure] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        let events = signal::child_events()?;
        let group = match place.join {
            CgroupJoin::V2 => place.groups.first().map(AsFd::as_fd),
            CgroupJoin::V1(_) | CgroupJoin::None => None,
        };
        match fork::clone3(0, group)? {
            None => become_hook(hook, place, [state, output_end], failure_end),
            Some(pid) => Ok(Self { pid, events, output, failure, written: Vec::new() }),
        }
    }

    /// Waits until it ends, and returns its status, or `None` if its time is over.
    fn wait(&mut self, timeout: Option<Duration>, place: &Place<'_>) -> Result<Option<i32>, Errno> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut is_open = true;
        loop {
            if let Some(status) = self.reap() {
                return Ok(Some(status));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let mut fds = [
                PollFd::new(&self.events, PollFlags::IN),
                PollFd::new(&place.watch, PollFlags::IN),
                PollFd::new(&self.output, PollFlags::IN),
            ];
            // It may close its output and go on.
            let count = if is_open { 3 } else { 2 };
            match poll(
                &mut fds[..count],
                left.and_then(|left| Timespec::try_from(left).ok()).as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            let (is_given_up, has_output) =
                (!fds[1].revents().is_empty(), !fds[2].revents().is_empty());
            if is_given_up {
                (place.end)(self.pid);
                fork::exit(0)
            }
            if has_output {
                is_open = self.read_output()?;
            }
        }
    }

    /// Reaps all that have ended; the hook's status if it is among them.
    fn reap(&self) -> Option<i32> {
        let mut event = [0_u8; 128];
        while read(&self.events, &mut event).is_ok() {}
        let mut found = None;
        while let Waited::Ended(pid, status) = wait_any(false) {
            if pid == self.pid.as_raw_nonzero().get() {
                found = Some(status);
            }
        }
        found
    }

    /// Takes what there is to read; `false` if nothing will come any more.
    fn read_output(&mut self) -> Result<bool, Errno> {
        let mut buffer = [0_u8; KEPT];
        loop {
            match read(&self.output, &mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.written.extend_from_slice(&buffer[..count]);
                    let surplus = self.written.len().saturating_sub(KEPT);
                    self.written.drain(..surplus);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// What was kept, from the begin of a line if that is still known.
    fn last_lines(self) -> Vec<u8> {
        let mut written = self.written;
        if written.len() == KEPT
            && let Some(end) = written.iter().position(|byte| *byte == b'\n')
        {
            written.drain(..=end);
        }
        written
    }

    fn why_not_executed(&self) -> Option<i32> {
        let mut errno = [0_u8; 4];
        (read(&self.failure, &mut errno) == Ok(4)).then(|| i32::from_ne_bytes(errno))
    }
}

/// A file with this content, at its begin.
fn in_memory(content: &[u8]) -> Result<OwnedFd, Errno> {
    let file = memfd_create(c"kiln-state", MemfdFlags::CLOEXEC)?;
    let mut rest = content;
    while !rest.is_empty() {
        rest = &rest[write(&file, rest)?..];
    }
    seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}

/// Becomes the hook, or says why not and exits.
fn become_hook(
    hook: &StepHook,
    place: &Place<'_>,
    [input, output]: [OwnedFd; 2],
    failure: OwnedFd,
) -> ! {
    let prepare = || {
        if let CgroupJoin::V1(count) = place.join {
            let mut tasks = place.groups.iter().take(count.into());
            tasks.try_for_each(|tasks| write(tasks, b"0").map(drop))?;
        }
        rustix::process::setsid()?;
        rustix::process::fchdir(place.directory)?;
        for (number, stream) in [&input, &output, &output].into_iter().enumerate() {
            fd::duplicate_onto(stream.as_fd(), number as i32)?;
        }
        new_session_keyring()?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        signal::reset();
        if let Some((uid, gid)) = place.owner {
            capabilities::keep_all_as(uid, gid)?;
        }
        // A change of ids has the kernel forget it.
        die_with_parent()
    };
    let prepared: Result<(), Errno> = prepare();
    // What this process has of the daemon and of the step is nothing to the hook.
    let Ok([failure]) = fd::close_all_but([failure]) else { fork::exit(127) };
    let errno = prepared.err().unwrap_or_else(|| {
        let (args, env) = (CStringArray::new(&hook.args), CStringArray::new(&hook.env));
        execve(&hook.path, &args, &env)
    });
    // If the other end is gone there is nobody to tell.
    let _ = write(&failure, &errno.raw_os_error().to_ne_bytes());
    fork::exit(127)
}
