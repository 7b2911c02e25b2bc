//! Processes that a frontend runs itself, besides the steps of its graph.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_executor::{Mount, ProcessIo, Running, StepHandle};
use kiln_proto::pb;
use kiln_snapshotter::View;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::entitlements;
use super::mounts::Mounts;
use super::terminal::terminal;
use super::{caches, process};
use crate::network;
use crate::solver::{Build, Snapshot};

/// A root file system and mounts, on which processes run. The first of them is the container's
/// own: when it ends, so does every other. What they write is discarded with the container.
pub(crate) struct Container {
    build: Arc<Build>,
    /// Network, host names and mounts.
    exec: pb::ExecOp,
    inputs: Vec<Snapshot>,
    mounts: Mounts,
    first: Mutex<Option<StepHandle>>,
    ended: CancellationToken,
}

/// A process to run in a container.
#[derive(Debug, Default)]
pub(crate) struct ContainerProcess {
    pub(crate) meta: pb::Meta,
    pub(crate) secret_env: Vec<pb::SecretEnv>,
    pub(crate) security: pb::SecurityMode,
    /// Whether its streams are a terminal.
    pub(crate) tty: bool,
}

/// The other ends of a process's streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: Option<pipe::Receiver>,
    pub(crate) stderr: Option<pipe::Receiver>,
}

impl Container {
    /// A container with the mounts, network and host names of `exec`, whose root is on `inputs`.
    pub(crate) async fn new(
        build: Arc<Build>,
        exec: pb::ExecOp,
        inputs: Vec<Snapshot>,
    ) -> anyhow::Result<Self> {
        entitlements::require(&build, &exec)?;
        // There is no step whose log could say what is waited for.
        let caches = caches::take(&build, false, &exec, &inputs, |_| {}).await?;
        for input in &inputs {
            build.daemon.layers.fetch(&build, input).await?;
        }
        let mounts = Mounts::prepare(&build, &exec, &inputs, caches).await?;
        let (first, ended) = (Mutex::default(), CancellationToken::new());
        Ok(Self { build, exec, inputs, mounts, first, ended })
    }

    /// The same with one more mount, which the frontend did not ask for.
    pub(crate) fn with(mut self, mount: Mount) -> Self {
        self.mounts.others.push(mount);
        self
    }

    /// Starts a process, whose environment gets the usual defaults.
    pub(crate) async fn start(
        &self,
        process: ContainerProcess,
        io: ProcessIo,
    ) -> anyhow::Result<Running> {
        let ContainerProcess { mut meta, secret_env, security, tty } = process;
        if tty && !meta.env.iter().any(|var| var.starts_with("TERM=")) {
            meta.env.push("TERM=xterm".to_owned());
        }
        let of_container = self.exec.meta.clone().unwrap_or_default();
        meta.hostname = of_container.hostname;
        meta.extra_hosts = of_container.extra_hosts;
        let exec = pb::ExecOp {
            meta: Some(meta),
            secretenv: secret_env,
            security: security.into(),
            ..self.exec.clone()
        };
        entitlements::require(&self.build, &exec)?;
        let mut first = self.first.lock().await;
        if self.ended.is_cancelled() {
            bail!("the container was released");
        }
        if let Some(first) = &*first {
            let mut spec = process::further(&self.build, &exec, &self.mounts).await?;
            spec.tty = tty;
            Ok(first.exec(spec, io).await?)
        } else {
            let mut spec = process::first(&self.build, &exec, &self.mounts).await?;
            spec.tty = tty;
            let running = self.build.daemon.executor.run(spec, io).await;
            let running = running.map_err(network::explain)?;
            *first = Some(running.handle().clone());
            Ok(running)
        }
    }

    /// Lets no process start any more. Those that run are to be killed by who waits for them.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Completes when the container is to end.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The files of a mount as they are now, by its position in the request.
    pub(crate) fn view(&self, position: usize) -> anyhow::Result<View> {
        self.mounts.view(&self.build, &self.exec, &self.inputs, position)
    }
}

/// Streams for a process, of which those that are `wanted` have another end here: input, output,
/// error. What comes from a terminal is all standard output.
pub(crate) fn streams(wanted: [bool; 3], tty: bool) -> anyhow::Result<(ProcessIo, Streams)> {
    if tty { at_terminal() } else { at_pipes(wanted) }
}

fn at_pipes([stdin, stdout, stderr]: [bool; 3]) -> anyhow::Result<(ProcessIo, Streams)> {
    let mut streams = Streams::default();
    let output = |is_wanted: bool, receiver: &mut Option<pipe::Receiver>| {
        if !is_wanted {
            return Ok(open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        rustix::io::ioctl_fionbio(&read, true)?;
        *receiver = Some(pipe::Receiver::from_owned_fd(read)?);
        anyhow::Ok(write)
    };
    let stdout = output(stdout, &mut streams.stdout)?;
    let stderr = output(stderr, &mut streams.stderr)?;
    let stdin = if stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        rustix::io::ioctl_fionbio(&write, true)?;
        streams.stdin = Some(pipe::Sender::from_owned_fd(write)?);
        Some(read)
    } else {
        None
    };
    Ok((ProcessIo { stdin, stdout, stderr }, streams))
}

fn at_terminal() -> anyhow::Result<(ProcessIo, Streams)> {
    let (ours, theirs) = terminal()?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let copy = |fd: &OwnedFd| fd.try_clone().context("cannot duplicate a terminal");
    let io = ProcessIo { stdin: Some(copy(&theirs)?), stdout: copy(&theirs)?, stderr: theirs };
    // A terminal is no pipe, but read, written and waited for like one.
    let streams = Streams {
        stdin: Some(pipe::Sender::from_file_unchecked(copy(&ours)?.into())?),
        stdout: Some(pipe::Receiver::from_file_unchecked(ours.into())?),
        stderr: None,
    };
    Ok((io, streams))
}
