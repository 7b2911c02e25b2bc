//! A step that runs, and what is known of it when it has ended.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::ExecutorError;
use crate::network::Borrowed;
use crate::request;
use crate::spec::{ProcessIo, Security, User};
use crate::stubs;
use crate::supervised::{Launch, Supervised};
use crate::zygote::protocol::{Command, Created, Reply, Request, Used};

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
    /// Whether it was kept from starting processes because it had as many as it may.
    pub out_of_pids: bool,
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
    /// Most memory in use at a time, in bytes, page cache included; of its largest process, where the
    /// host has no control groups.
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
    handle: StepHandle,
    /// Of a step, until it has ended.
    upper: Option<Upper>,
    /// Of a step that has one, until it has ended.
    network: Option<Borrowed>,
    started: Instant,
    has_ended: bool,
}

/// The directory that receives a step's changes, and what was put there for mounts.
#[derive(Debug)]
pub(crate) struct Upper {
    pub(crate) path: PathBuf,
    pub(crate) created: Vec<Created>,
}

/// Speaks to a running step from anywhere, without keeping it alive.
#[derive(Debug, Clone)]
pub struct StepHandle {
    supervised: Arc<Supervised>,
}

impl Running {
    pub(crate) fn new(
        supervised: Supervised,
        upper: Option<Upper>,
        network: Option<Borrowed>,
        started: Instant,
    ) -> Self {
        let handle = StepHandle { supervised: Arc::new(supervised) };
        Self { handle, upper, network, started, has_ended: false }
    }

    /// Waits for the end of the command.
    ///
    /// When this returns, every process of the step is dead and its upper directory complete.
    /// Mounts and namespaces are taken apart in the background. May be cancelled and called again.
    ///
    /// # Errors
    /// If the command could not be executed, or the step's supervisor was killed.
    pub async fn wait(&mut self) -> Result<Exit, ExecutorError> {
        let supervised = Arc::clone(&self.handle.supervised);
        let failure = match supervised.receive().await? {
            Some(Reply::Exited(status, used)) => return Ok(self.finish(status, used)),
            Some(Reply::Failed(failure)) => ExecutorError::from_failure(&failure),
            Some(Reply::Ready(_) | Reply::HookFailed(_) | Reply::Made) | None => {
                ExecutorError::Lost { id: supervised.id.clone() }
            }
        };
        supervised.kill();
        supervised.gone().await;
        self.clean_up();
        Err(failure)
    }

    /// What others may use while one waits for the end.
    pub fn handle(&self) -> &StepHandle {
        &self.handle
    }

    /// As [`StepHandle::signal`].
    pub fn signal(&self, signal: i32) {
        self.handle.signal(signal);
    }

    /// As [`StepHandle::kill`].
    pub fn kill(&self) {
        self.handle.kill();
    }

    /// As [`StepHandle::resize`].
    pub fn resize(&self, rows: u16, columns: u16) {
        self.handle.resize(rows, columns);
    }

    fn finish(&mut self, status: i32, used: Used) -> Exit {
        let wall = self.started.elapsed();
        let status = if libc::WIFSIGNALED(status) {
            ExitStatus::Signal(libc::WTERMSIG(status))
        } else {
            ExitStatus::Code(libc::WEXITSTATUS(status))
        };
        // Nothing of the step runs any more, and only an unconfined one could have changed it.
        if let Some(network) = self.network.take()
            && self.handle.supervised.security == Security::Sandbox
        {
            network.give_back();
        }
        let held = self.handle.supervised.group().filter(|_| self.upper.is_some());
        let counted = held.map(|held| held.group.counted_or(used)).unwrap_or_default();
        self.clean_up();
        let usage = Usage {
            cpu_user: counted.cpu_user,
            cpu_system: counted.cpu_system,
            peak_memory: counted.peak_memory,
            io_read: counted.io_read,
            io_write: counted.io_write,
            wall,
        };
        Exit {
            status,
            oom_killed: counted.oom_kills > 0,
            out_of_pids: counted.refused_forks > 0,
            usage,
        }
    }

    /// Takes the mount targets out of the upper directory and gives up the group, once.
    fn clean_up(&mut self) {
        self.has_ended = true;
        if let Some(Upper { path, created }) = self.upper.take() {
            stubs::remove(&path, created);
        }
        self.handle.supervised.give_up_group();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            self.handle.supervised.kill();
            self.clean_up();
        }
    }
}

impl StepHandle {
    /// Sends a signal, by its number, to the command. A command that has ended takes none.
    pub fn signal(&self, signal: i32) {
        self.supervised.command(Command::Signal(signal));
    }

    /// Kills everything; [`Running::wait`] then reports the exit.
    pub fn kill(&self) {
        self.supervised.command(Command::Kill);
    }

    /// Tells the process's terminal its size.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.supervised.command(Command::Resize(rows, columns));
    }

    /// Starts a further process in the namespaces, mounts and control group of the step. It ends
    /// at the latest when the step does.
    ///
    /// # Errors
    /// If the specification is wrong, the step has ended, or the zygote is gone.
    pub async fn exec(&self, spec: ExecSpec, io: ProcessIo) -> Result<Running, ExecutorError> {
        let started = Instant::now();
        let Supervised { id, security, .. } = &*self.supervised;
        let Some(group) = self.supervised.group() else {
            return Err(ExecutorError::Ended { id: id.clone() });
        };
        let config = &group.shared.config;
        let has_stdin = io.stdin.is_some();
        let process = request::further(id, spec, *security, &group.group, has_stdin, config)?;
        let request = Request::Exec(Box::new(process));
        let place = Some(self.supervised.pidfd());
        let launch = Launch { id, security: *security, request, hooks: &[], place, io };
        let (supervised, _) = Supervised::launch(group, launch).await?;
        Ok(Running::new(supervised, None, None, started))
    }
}
