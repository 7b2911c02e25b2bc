//! A step that runs, and what is known of it when it has ended.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cgroup::StepCgroup;
use crate::error::ExecutorError;
use crate::executor::{HeldGroup, Shared};
use crate::request;
use crate::spec::{ProcessIo, Security, User};
use crate::stubs;
use crate::sys::async_fd;
use crate::zygote::channel::{Encoded, Receiver};
use crate::zygote::protocol::{Command, Created, Reply, Request};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

/// What is known of a step that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// How the command ended.
    pub status: ExitStatus,
    /// Whether the kernel killed one of its processes because a memory limit was reached.
    pub oom_killed: bool,
    /// What it used. Zero where the host does not count.
    pub usage: Usage,
}

/// What a step has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode, of all its processes together.
    pub cpu_user: Duration,
    /// CPU time in the kernel.
    pub cpu_system: Duration,
    /// Most memory in use at a time, in bytes, page cache included.
    pub peak_memory: u64,
    /// Bytes read from block devices.
    pub io_read: u64,
    /// Bytes written to block devices.
    pub io_write: u64,
    /// Time from the request to the exit.
    pub wall: Duration,
}

/// One more process for a running step.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// The command.
    pub args: Vec<OsString>,
    /// The whole environment as `NAME=value`.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: PathBuf,
    /// Who runs the command.
    pub user: User,
    /// Whether the streams are a terminal.
    pub tty: bool,
}

/// A running step, or a further process of one. Dropping it kills it: all of the step, or that
/// process.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    id: String,
    security: Security,
    launched: Launched,
    kind: Kind,
    started: Instant,
    has_ended: bool,
}

#[derive(Debug)]
enum Kind {
    Step { upper: PathBuf, created: Vec<Created>, cgroup: Option<HeldGroup> },
    Further,
}

impl Running {
    pub(crate) fn new(
        group: HeldGroup,
        id: String,
        upper: PathBuf,
        security: Security,
        launched: Launched,
        started: Instant,
    ) -> Self {
        let shared = Arc::clone(&group.shared);
        let kind = Kind::Step { upper, created: Vec::new(), cgroup: Some(group) };
        Self { shared, id, security, launched, kind, started, has_ended: false }
    }

    /// Waits for the end of the command.
    ///
    /// When this returns, every process of the step is dead and its upper directory complete.
    /// Mounts and namespaces are taken apart in the background. May be cancelled and called again.
    ///
    /// # Errors
    /// If the command could not be started, or the step's supervisor was killed.
    pub async fn wait(&mut self) -> Result<Exit, ExecutorError> {
        loop {
            match self.next().await? {
                Some(Reply::Created(paths)) => {
                    if let Kind::Step { created, .. } = &mut self.kind {
                        created.extend(paths);
                    }
                }
                Some(Reply::Failed(failure)) => {
                    self.gone().await;
                    return Err(ExecutorError::from_failure(&failure));
                }
                Some(Reply::Exited(status)) => return Ok(self.finish(status)),
                Some(Reply::Spawned) => {}
                None => {
                    self.gone().await;
                    return Err(ExecutorError::Lost { id: self.id.clone() });
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Reply>, ExecutorError> {
        match self.launched.early.pop_front() {
            Some(reply) => Ok(Some(reply)),
            None => Ok(receive(&self.id, &self.launched.reply).await?.map(|(reply, _)| reply)),
        }
    }

    /// Sends a signal, by its number, to the command. A command that has ended takes none.
    pub fn signal(&self, signal: i32) {
        self.command(Command::Signal(signal));
    }

    /// Kills everything; [`wait`](Self::wait) then reports the exit.
    pub fn kill(&self) {
        self.command(Command::Kill);
    }

    /// Tells the step's terminal its size.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.command(Command::Resize(rows, columns));
    }

    /// Starts a further process in the namespaces, mounts and control group of this step. It ends
    /// at the latest when the step does.
    ///
    /// # Errors
    /// As [`Executor::run`](crate::Executor::run).
    pub async fn exec(&self, spec: ExecSpec, io: ProcessIo) -> Result<Self, ExecutorError> {
        let started = Instant::now();
        let none = StepCgroup::None;
        let cgroup = match &self.kind {
            Kind::Step { cgroup: Some(held), .. } => &held.group,
            Kind::Step { .. } | Kind::Further => &none,
        };
        let has_stdin = io.stdin.is_some();
        let process = request::further(&self.id, spec, self.security, cgroup, has_stdin)?;
        let request = Request::Exec(Box::new(process));
        let member = Some(self.launched.pidfd.as_fd());
        let launched = self.shared.launch(&self.id, &request, member, &io, cgroup).await?;
        Ok(Self {
            shared: Arc::clone(&self.shared),
            id: self.id.clone(),
            security: self.security,
            launched,
            kind: Kind::Further,
            started,
            has_ended: false,
        })
    }

    fn command(&self, command: Command) {
        let sent = Encoded::new(&command).and_then(|encoded| {
            encoded.send(self.launched.reply.get_ref(), &[], SendFlags::DONTWAIT)
        });
        if let Err(error) = sent {
            tracing::debug!(step = %self.id, ?command, %error, "the step is past taking commands");
        }
    }

    fn finish(&mut self, status: i32) -> Exit {
        let wall = self.started.elapsed();
        let status = if libc::WIFSIGNALED(status) {
            ExitStatus::Signal(libc::WTERMSIG(status))
        } else {
            ExitStatus::Code(libc::WEXITSTATUS(status))
        };
        self.has_ended = true;
        let mut exit =
            Exit { status, oom_killed: false, usage: Usage { wall, ..Usage::default() } };
        if let Kind::Step { cgroup: Some(held), .. } = &self.kind {
            let counted = held.group.counted();
            exit.oom_killed = counted.oom_kills > 0;
            exit.usage.cpu_user = counted.cpu_user;
            exit.usage.cpu_system = counted.cpu_system;
            exit.usage.peak_memory = counted.peak_memory;
            exit.usage.io_read = counted.io_read;
            exit.usage.io_write = counted.io_write;
        }
        self.clean_up();
        exit
    }

    /// Waits until a supervisor that reports nothing more has ended, and everything with it.
    async fn gone(&mut self) {
        self.kill_now();
        if let Ok(pidfd) = self.launched.pidfd.try_clone()
            && let Ok(pidfd) = async_fd::register(pidfd, Interest::READABLE)
        {
            // An error means that there is nothing to wait for.
            let _ = pidfd.readable().await;
        }
        self.has_ended = true;
        self.clean_up();
    }

    fn kill_now(&self) {
        // The supervisor of a further process kills it when this end of the socket closes.
        if matches!(self.kind, Kind::Step { .. }) {
            // One that has ended needs no killing.
            let _ = pidfd_send_signal(&self.launched.pidfd, Signal::KILL);
        }
    }

    /// Takes the mount targets out of the upper directory and gives up the group, once.
    fn clean_up(&mut self) {
        if let Kind::Step { upper, created, cgroup } = &mut self.kind {
            stubs::remove(upper, std::mem::take(created));
            drop(cgroup.take());
        }
    }

    /// The directory that receives what the step writes; `None` for a further process.
    pub fn upper(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Step { upper, .. } => Some(upper),
            Kind::Further => None,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.kill_now();
            self.clean_up();
        }
    }
}

/// A process that the zygote has started.
#[derive(Debug)]
pub(crate) struct Launched {
    reply: AsyncFd<OwnedFd>,
    pidfd: OwnedFd,
    /// What the supervisor has said before the zygote came to say that it exists.
    early: VecDeque<Reply>,
}

impl Launched {
    /// Waits until the zygote says on `reply` that the process exists.
    pub(crate) async fn on(id: &str, reply: AsyncFd<OwnedFd>) -> Result<Self, ExecutorError> {
        let lost = || ExecutorError::Lost { id: id.into() };
        let mut early = VecDeque::new();
        loop {
            match receive(id, &reply).await? {
                Some((Reply::Spawned, fds)) => {
                    let pidfd = fds.into_iter().next().ok_or_else(lost)?;
                    return Ok(Self { reply, pidfd, early });
                }
                Some((other, _)) => early.push_back(other),
                None => match early.pop_front() {
                    Some(Reply::Failed(failure)) => {
                        return Err(ExecutorError::from_failure(&failure));
                    }
                    _ => return Err(lost()),
                },
            }
        }
    }
}

/// The next message; `None` when the other end is closed.
async fn receive(
    id: &str,
    reply: &AsyncFd<OwnedFd>,
) -> Result<Option<(Reply, Vec<OwnedFd>)>, ExecutorError> {
    let received = reply.async_io(Interest::READABLE, |socket| {
        Ok(Receiver::new().receive::<Reply>(socket, RecvFlags::DONTWAIT)?)
    });
    match received.await {
        // Commands that were never read make the close look like an error.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(None),
        other => other.map_err(|source| ExecutorError::Channel { id: id.into(), source }),
    }
}
