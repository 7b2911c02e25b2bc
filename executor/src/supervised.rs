//! The connection to the supervisor of one process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cgroup::StepCgroup;
use crate::error::ExecutorError;
use crate::executor::Shared;
use crate::spec::{Hook, ProcessIo, Security};
use crate::sys::async_fd;
use crate::zygote::channel::{Encoded, Receiver};
use crate::zygote::protocol::{Command, Created, Reply, Request};
use crate::zygote::socket_pair;

/// A process that has been launched, with what it takes to speak to its supervisor.
#[derive(Debug)]
pub(crate) struct Supervised {
    pub(crate) id: String,
    pub(crate) security: Security,
    /// Whether the supervisor is the first process of a step, rather than that of a further one.
    is_step: bool,
    reply: AsyncFd<OwnedFd>,
    pidfd: OwnedFd,
    group: Mutex<Option<Arc<HeldGroup>>>,
}

/// What a process is launched with.
pub(crate) struct Launch<'a> {
    pub(crate) id: &'a str,
    pub(crate) security: Security,
    pub(crate) request: Request,
    /// Those in the request, for errors.
    pub(crate) hooks: &'a [Hook],
    /// A process in the namespaces to join, or the network namespace of a step.
    pub(crate) place: Option<BorrowedFd<'a>>,
    pub(crate) io: ProcessIo,
}

impl Supervised {
    /// Has the zygote start a process and waits until everything around it is set up; also returns
    /// what had to be made in the root file system for that.
    pub(crate) async fn launch(
        group: Arc<HeldGroup>,
        launch: Launch<'_>,
    ) -> Result<(Self, Vec<Created>), ExecutorError> {
        let Launch { id, security, request, hooks, place, io } = launch;
        let channel = |errno: Errno| ExecutorError::Channel { id: id.into(), source: errno.into() };
        let (ours, theirs) = socket_pair().map_err(channel)?;
        let mut fds = vec![theirs.as_fd()];
        fds.extend(place);
        fds.extend([io.stdout.as_fd(), io.stderr.as_fd()]);
        fds.extend(io.stdin.as_ref().map(AsFd::as_fd));
        fds.extend(group.group.join().1);
        group.shared.send(&Encoded::new(&request).map_err(channel)?, &fds).await?;
        drop(theirs);
        drop(io);

        let reply = async_fd::register(ours, Interest::READABLE)
            .map_err(|source| ExecutorError::Channel { id: id.into(), source })?;
        let (pidfd, created) = until_ready(id, &reply, hooks).await?;
        let supervised = Self {
            id: id.into(),
            security,
            is_step: matches!(request, Request::Run(_)),
            reply,
            pidfd,
            group: Mutex::new(Some(group)),
        };
        Ok((supervised, created))
    }

    /// The next message; `None` when the supervisor has closed its end.
    pub(crate) async fn receive(&self) -> Result<Option<Reply>, ExecutorError> {
        Ok(receive(&self.id, &self.reply).await?.map(|(reply, _)| reply))
    }

    /// Tells the supervisor to do something. One that is past its process's end does not.
    pub(crate) fn command(&self, command: Command) {
        let sent = Encoded::new(&command)
            .and_then(|encoded| encoded.send(self.reply.get_ref(), &[], SendFlags::DONTWAIT));
        if let Err(error) = sent {
            tracing::debug!(step = %self.id, ?command, %error, "the step is past taking commands");
        }
    }

    /// Kills a step with everything in it, or a further process.
    pub(crate) fn kill(&self) {
        if self.is_step {
            // A supervisor that has ended needs no killing.
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        } else {
            // Its supervisor is outside of the step, and would leave it behind.
            self.command(Command::Kill);
        }
    }

    /// Waits until the supervisor has ended, and everything with it.
    pub(crate) async fn gone(&self) {
        if let Ok(pidfd) = self.pidfd.try_clone()
            && let Ok(pidfd) = async_fd::register(pidfd, Interest::READABLE)
        {
            // An error means that there is nothing to wait for.
            let _ = pidfd.readable().await;
        }
    }

    /// A descriptor of the supervisor's process.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The group that the process is in, unless it has been given up.
    pub(crate) fn group(&self) -> Option<Arc<HeldGroup>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the group removed as soon as nothing is in it.
    pub(crate) fn give_up_group(&self) {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A group that is given up, to be removed in the background, when this is dropped.
#[derive(Debug)]
pub(crate) struct HeldGroup {
    pub(crate) shared: Arc<Shared>,
    pub(crate) group: StepCgroup,
}

impl Drop for HeldGroup {
    fn drop(&mut self) {
        self.shared.keeper.remove(std::mem::replace(&mut self.group, StepCgroup::None));
    }
}

/// Waits for the first message: that everything is set up, or why it is not.
async fn until_ready(
    id: &str,
    reply: &AsyncFd<OwnedFd>,
    hooks: &[Hook],
) -> Result<(OwnedFd, Vec<Created>), ExecutorError> {
    let lost = || ExecutorError::Lost { id: id.into() };
    match receive(id, reply).await? {
        Some((Reply::Ready(created), fds)) => {
            Ok((fds.into_iter().next().ok_or_else(lost)?, created))
        }
        Some((Reply::Failed(failure), _)) => Err(ExecutorError::from_failure(&failure)),
        Some((Reply::HookFailed(failure), _)) => Err(ExecutorError::from_hook(id, &failure, hooks)),
        Some((Reply::Exited(..) | Reply::Made, _)) | None => Err(lost()),
    }
}

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
