//! From a fresh fork of the zygote to a running command.
//!
//! [`run`] is process 1 of the step's pid namespace: it makes the file system, starts the command
//! as its child and stays as its supervisor ([`init`]). Everything here runs in a copy of the
//! zygote's memory with one thread, so that allocating is safe; see [`crate::sys::fork`].

mod attach;
mod bundle;
mod capabilities;
mod control_groups;
mod devices;
mod hook;
pub(crate) mod hooks;
mod init;
mod labels;
mod masks;
mod mounts;
mod named_layers;
mod overlay;
mod process;
mod root;
mod standard;
mod target;
mod users;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::network;
use crate::seccomp;
use crate::sys::fork;
use crate::sys::seccomp::Instruction;
use crate::sys::{self, mount};
use crate::user_namespace::in_user_namespace;
use crate::zygote::channel::send;
use crate::zygote::protocol::{
    At, CgroupJoin, Created, Failure, Process, Reply, Request, Stage, Step,
};

use hooks::{Context, Pending};
use masks::Masks;
use root::EmptyNamespace;
use target::Targets;

pub(crate) use users::Users;

/// What is the same for every step, made once when the zygote starts.
pub(crate) struct Prepared {
    /// Docker's default system call filter.
    filter: Vec<Instruction>,
    /// What there is to hide on this kernel.
    masks: Masks,
    /// Where steps start from, or why that could not be made, for every request to hear.
    empty: Result<EmptyNamespace, Failure>,
    /// The user namespace of confined steps, once the daemon has asked for one.
    pub(crate) users: Option<Users>,
}

impl Prepared {
    pub(crate) fn new() -> Self {
        let filter = seccomp::default_filter();
        let (masks, empty) = (Masks::of_this_kernel(), EmptyNamespace::new());
        Self { filter, masks, empty, users: None }
    }

    /// The user namespace that `process` is to run in, if not the daemon's.
    fn users_of(&self, process: &Process) -> Result<Option<&Users>, Failure> {
        match &self.users {
            Some(users) if process.has_users => Ok(Some(users)),
            None if process.has_users => Err(Errno::BADMSG).at(Stage::Request, "the zygote"),
            _ => Ok(None),
        }
    }
}

/// The descriptors that came with a request, except the reply socket.
pub(crate) struct Descriptors {
    /// A process in the namespaces to join, for [`Request::Exec`].
    member: Option<OwnedFd>,
    /// The network namespace of a step that has one.
    network: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    stdin: Option<OwnedFd>,
    cgroup: Vec<OwnedFd>,
    /// The connection to who runs hooks outside of the step, made by the zygote.
    pub(crate) runner: Option<OwnedFd>,
}

impl Descriptors {
    /// Takes the reply socket and the rest apart; `None` if they are not what `request` needs.
    ///
    /// Their order: reply socket, the member process of an exec or the network namespace of a step
    /// (if it has one), standard output, error and (if
    /// there is one) input, then those of the cgroup.
    pub(crate) fn sort(fds: Vec<OwnedFd>, request: &Request) -> Option<(OwnedFd, Self)> {
        let process = request.process()?;
        let mut fds = fds.into_iter();
        let reply = fds.next()?;
        let (member, network) = match request {
            Request::Run(step) if step.has_network => (None, Some(fds.next()?)),
            Request::Run(_) => (None, None),
            _ => (Some(fds.next()?), None),
        };
        let (stdout, stderr) = (fds.next()?, fds.next()?);
        let stdin = if process.has_stdin { Some(fds.next()?) } else { None };
        Some((
            reply,
            Self { member, network, stdout, stderr, stdin, cgroup: fds.collect(), runner: None },
        ))
    }
}

impl Request {
    fn process(&self) -> Option<&Process> {
        match self {
            Self::Run(step) => Some(&step.process),
            Self::Exec(process) => Some(process),
            Self::Users(_) | Self::NetworkNamespace => None,
        }
    }
}

/// The namespaces that the zygote makes for a request. That of the mounts is [`root`]'s, and that of
/// the network comes along.
pub(crate) fn namespaces(request: &Request) -> u64 {
    let flags = match request {
        Request::Run(_) => libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
        Request::Exec(_) | Request::Users(_) | Request::NetworkNamespace => 0,
    };
    flags as u64
}

/// Carries out `request` in a process made for it.
pub(crate) fn run(
    request: &Request,
    reply: &OwnedFd,
    descriptors: Descriptors,
    prepared: &Prepared,
) -> ! {
    let result = match request {
        Request::Run(step) => set_up(step, reply, &descriptors, prepared).and_then(|created| {
            tell_ready(created, reply)?;
            Ok(launch(&step.process, reply, descriptors, prepared)?)
        }),
        Request::Exec(process) => join(&descriptors)
            .and_then(|()| tell_ready(Vec::new(), reply))
            .and_then(|()| launch(process, reply, descriptors, prepared))
            .map_err(Reply::Failed),
        Request::Users(_) | Request::NetworkNamespace => Ok(()),
    };
    if let Err(answer) = result {
        // If the daemon is gone there is nobody to tell.
        let _ = send(reply, &answer, &[]);
    }
    fork::exit(0)
}

/// Makes everything that the command will see; what had to be made for mounts is returned.
fn set_up(
    step: &Step,
    reply: &OwnedFd,
    descriptors: &Descriptors,
    prepared: &Prepared,
) -> Result<Vec<Created>, Reply> {
    // The terminal is in the host's mount namespace, and in no other.
    let console = standard::open_console(step, &descriptors.stdout)?;
    let users = prepared.users_of(&step.process)?;
    if let Some(users) = users {
        users.enter_mounts()?;
    }
    become_init()?;
    if let Some(network) = &descriptors.network {
        network::enter(network.as_fd()).at(Stage::Network, "enter its namespace")?;
    }
    let empty = prepared.empty.as_ref().map_err(Failure::clone)?;

    // As long as this process is in the host's mount namespace, the host's paths mean something.
    let sources = mounts::open(step)?;
    let root = overlay::mount(&step.root, step.no_device_nodes, step.file_label())?;
    let upper = target::open_upper(&step.root).at(Stage::Overlay, "upper directory")?;
    let groups = control_groups::open_v1(step)?;
    let standard = standard::Sources::open(step, console)?;
    let hooks = Pending::of(step)?;

    empty.enter_copy().at(Stage::Namespaces, "enter mounts")?;
    let mounts = mounts::make(step, users, sources)?;
    root::cover(root.as_fd()).at(Stage::Mount, "/")?;
    let mut targets = Targets::new(root.as_fd(), upper).at(Stage::MountTarget, "/")?;
    standard::mount(&mut targets, step, users, &standard)?;
    control_groups::show_v1(&groups, &mut targets, step)?;
    mounts::attach(mounts, &mut targets)?;
    let created = targets.created();
    rustix::system::sethostname(&step.hostname).at(Stage::Network, &step.hostname)?;
    let root = match hooks {
        None => root,
        Some(hooks) => {
            let runner = descriptors.runner.as_ref();
            hooks.run(step, &root, &Context { descriptors, empty, users, reply, runner })?
        }
    };
    if step.read_only_root {
        mount::set_attributes(root.as_fd(), libc::MOUNT_ATTR_RDONLY, false)
            .at(Stage::Mount, "/ read-only")?;
    }
    root::change_to(root.as_fd())?;
    if !step.process.insecure {
        prepared.masks.apply(step.file_label())?;
    }
    Ok(created)
}

fn become_init() -> Result<(), Failure> {
    sys::process::die_with_parent().at(Stage::Namespaces, "parent death signal")?;
    rustix::thread::set_name(c"kiln-init").at(Stage::Namespaces, "name")?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Tells the daemon that the command comes next. If it has lost interest, the command does not.
fn tell_ready(created: Vec<Created>, reply: &OwnedFd) -> Result<(), Failure> {
    pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|pidfd| send(reply, &Reply::Ready(created), &[pidfd.as_fd()]))
        .at(Stage::Namespaces, "report")
}

/// Enters the namespaces of a running step. Its pid namespace takes effect for children.
fn join(descriptors: &Descriptors) -> Result<(), Failure> {
    use rustix::thread::{ThreadNameSpaceType as Type, move_into_thread_name_spaces};
    sys::process::die_with_parent().at(Stage::Namespaces, "parent death signal")?;
    let Some(member) = &descriptors.member else { return Err(Errno::BADMSG).at(Stage::Join, "") };
    let types = Type::MOUNT
        | Type::PROCESS_ID
        | Type::INTER_PROCESS_COMMUNICATION
        | Type::HOST_NAME_AND_NIS_DOMAIN_NAME
        | Type::NETWORK;
    let joined = match move_into_thread_name_spaces(member.as_fd(), types) {
        // The network is the host's, which this process is in already: from a user namespace, one
        // does not get there another time.
        Err(Errno::PERM) if in_user_namespace() => {
            move_into_thread_name_spaces(member.as_fd(), types - Type::NETWORK)
        }
        other => other,
    };
    joined.at(Stage::Join, "namespaces")
}

/// Forks the command and supervises it to its end.
fn launch(
    process: &Process,
    reply: &OwnedFd,
    descriptors: Descriptors,
    prepared: &Prepared,
) -> Result<(), Failure> {
    let cgroup = match process.cgroup {
        CgroupJoin::V2 => descriptors.cgroup.first().map(AsFd::as_fd),
        CgroupJoin::V1(_) | CgroupJoin::None => None,
    };
    let events = sys::signal::child_events().at(Stage::Namespaces, "signalfd")?;
    match fork::clone3(0, cgroup).at(Stage::Namespaces, "clone")? {
        None => process::start(process, &descriptors, reply, prepared),
        Some(pid) => {
            let is_pid_one = descriptors.member.is_none();
            let terminal = process.tty.then(|| descriptors.stdin.as_ref().map(OwnedFd::try_clone));
            let terminal = terminal.flatten().and_then(Result::ok);
            // The streams must close when the last process that writes to them ends.
            drop(descriptors);
            init::supervise(pid, is_pid_one, &events, terminal, reply);
            Ok(())
        }
    }
}

fn report(reply: &OwnedFd, failure: Failure) {
    // If the daemon is gone there is nobody to tell.
    let _ = send(reply, &Reply::Failed(failure), &[]);
}
