//! Runs the hooks of a step.
//!
//! A hook is a program of the host that changes the root file system of the step, so it needs both in
//! one mount namespace; but that of the step has nothing of the host's. So when everything is mounted,
//! hooks run in a third one: a copy of the host's, in which all of the step's mounts are attached once
//! more, in a bundle. What has become of them there, with what hooks have mounted, is then the step's. The
//! namespace ends with the last hook, and so does every process that one has left behind, which would
//! be a way for the step to the host's files.
//!
//! Those of the container run as children of the step's process 1. Those of the runtime see the host's
//! processes and network, so a process outside, the runner ([`serve`]), starts them. It is made by the zygote
//! together with the step, is told by process 1 when to begin, and ends when that does.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::Pid;

use super::hook::{Place, run};
use super::root::{self, EmptyNamespace};
use super::{Descriptors, Users, bundle};
use crate::sys::fork;
use crate::sys::mount::{isolate, new_namespace, receive_only};
use crate::sys::process::{Waited, adopt_orphans, end_descendants, signal_all, wait_any};
use crate::zygote::channel::{Receiver, send};
use crate::zygote::protocol::{At, CgroupJoin, Failure, Hooks, Reply, Request, Stage, Step};

/// A step's hooks, and where they will find the host's files.
pub(super) struct Pending<'a> {
    hooks: &'a Hooks,
    host: OwnedFd,
}

impl<'a> Pending<'a> {
    /// For a process in the host's mount namespace; `None` if the step has no hooks.
    pub(super) fn of(step: &'a Step) -> Result<Option<Self>, Failure> {
        let Some(hooks) = &step.hooks else { return Ok(None) };
        let host = root::this_namespace().at(Stage::Hooks, "open the host's mounts")?;
        Ok(Some(Self { hooks, host }))
    }

    /// Runs them on `root`, where all is mounted, and returns what it has become, in place in an empty
    /// mount namespace.
    ///
    /// # Errors
    /// What to tell the daemon.
    pub(super) fn run(
        self,
        step: &Step,
        root: &OwnedFd,
        context: &Context<'_>,
    ) -> Result<OwnedFd, Reply> {
        let copy = |root: &OwnedFd| {
            let copy = super::attach::copy(root.as_fd(), c"", true)?;
            isolate(copy.as_fd(), 0, true).map(|()| copy)
        };
        let shown = copy(root).at(Stage::Hooks, "copy mounts")?;
        let enter = || {
            root::enter(&self.host)?;
            new_namespace()?;
            receive_only()?;
            bundle::mount(self.hooks, step, shown.as_fd())
        };
        let bundle = enter().at(Stage::Hooks, &self.hooks.bundle)?;
        self.of_runtime(context)?;
        self.of_container(step, &shown, context)?;
        drop(bundle);
        let root = copy(&shown).at(Stage::Hooks, "copy mounts")?;
        drop(shown);
        let settle = || context.empty.enter_copy().and_then(|()| root::cover(root.as_fd()));
        settle().at(Stage::Hooks, "return to the step's mounts")?;
        Ok(root)
    }

    fn of_runtime(&self, context: &Context<'_>) -> Result<(), Reply> {
        if self.hooks.of_container(false).next().is_none() {
            return Ok(());
        }
        let answer = context.runner.ok_or(Errno::BADMSG).and_then(|runner| {
            let mounts = root::this_namespace()?;
            send(runner, &(), &[mounts.as_fd()])?;
            let mut fds =
                [PollFd::new(runner, PollFlags::IN), PollFd::new(context.reply, PollFlags::IN)];
            while let Err(Errno::INTR) = poll(&mut fds, None) {}
            if !fds[1].revents().is_empty() {
                // The daemon has lost interest; the end of this process is the runner's.
                fork::exit(0)
            }
            Receiver::new().receive::<Option<Reply>>(runner, RecvFlags::empty())
        });
        match answer.at(Stage::Hooks, "the process that runs them")? {
            Some((None, _)) => Ok(()),
            Some((Some(failed), _)) => Err(failed),
            None => Err(Errno::PIPE).at(Stage::Hooks, "the process that runs them")?,
        }
    }

    fn of_container(
        &self,
        step: &Step,
        root: &OwnedFd,
        context: &Context<'_>,
    ) -> Result<(), Reply> {
        let place = Place {
            directory: root.as_fd(),
            join: step.process.cgroup,
            groups: &context.descriptors.cgroup,
            owner: owner(context.users)?,
            watch: context.reply.as_fd(),
            end: end_namespace,
        };
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let state = bundle::state(self.hooks, pid).at(Stage::Hooks, "state")?;
        for (index, hook) in self.hooks.of_container(true) {
            run(index, hook, &state, &place)?;
        }
        Ok(())
    }
}

/// What hooks need besides the step.
pub(super) struct Context<'a> {
    pub(super) descriptors: &'a Descriptors,
    pub(super) empty: &'a EmptyNamespace,
    pub(super) users: Option<&'a Users>,
    /// The connection to the daemon.
    pub(super) reply: &'a OwnedFd,
    /// That to the runner, if the step has one.
    pub(super) runner: Option<&'a OwnedFd>,
}

/// Who owns what hooks make in file systems, if not root.
fn owner(users: Option<&Users>) -> Result<Option<(u32, u32)>, Failure> {
    users.map(|users| users.ids(0, 0)).transpose().at(Stage::Privileges, "ids of files")
}

/// Ends every other process of the namespace that this one rules.
fn end_namespace(_: Pid) {
    signal_all(libc::SIGKILL);
    while let Waited::Ended(..) = wait_any(true) {}
}

/// Whether the step of `request` needs a runner.
pub(crate) fn need_runner(request: &Request) -> bool {
    let Request::Run(step) = request else { return false };
    step.hooks.as_ref().is_some_and(|hooks| hooks.of_container(false).next().is_some())
}

/// Runs the hooks of a step that belong to the runtime, in a process made for it, when the step's process
/// 1, which is `pid` here, asks for it by `connection`.
pub(crate) fn serve(request: &Request, pid: Pid, connection: &OwnedFd, users: Option<&Users>) -> ! {
    let Request::Run(step) = request else { fork::exit(1) };
    let Some(hooks) = &step.hooks else { fork::exit(1) };
    let users = users.filter(|_| step.process.has_users);
    let serve = || {
        adopt_orphans().at(Stage::Hooks, "process")?;
        rustix::thread::set_name(c"kiln-hooks").at(Stage::Hooks, "process")?;
        let received = Receiver::new().receive::<()>(connection, RecvFlags::empty());
        let Some(((), fds)) = received.at(Stage::Hooks, "request")? else { fork::exit(0) };
        let mounts = fds.first().ok_or(Errno::BADMSG).at(Stage::Hooks, "request")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let bundle = root::enter(mounts)
            .and_then(|()| openat(rustix::fs::CWD, hooks.bundle.as_str(), flags, Mode::empty()))
            .at(Stage::Hooks, &hooks.bundle)?;
        let place = Place {
            directory: bundle.as_fd(),
            join: CgroupJoin::None,
            groups: &[],
            owner: owner(users)?,
            watch: connection.as_fd(),
            end: end_descendants,
        };
        let pid = pid.as_raw_nonzero().get();
        let state = bundle::state(hooks, pid).at(Stage::Hooks, "state")?;
        for (index, hook) in hooks.of_container(false) {
            run(index, hook, &state, &place)?;
        }
        Ok(())
    };
    let result: Result<(), Reply> = serve();
    // Nobody is told if the step has ended meanwhile.
    let _ = send(connection, &result.err(), &[]);
    fork::exit(0)
}
