//! Control groups: limits, accounting and the guard over devices.
//!
//! Each step has a group of its own, `<parent>/<kind>/<id>`, in each hierarchy of version 1 that
//! has something to count or limit, or in the one of version 2. `<kind>` keeps confined steps,
//! whose groups inherit a list of permitted devices, apart from unconfined ones, and from those
//! whose groups have lists of their own. What a host does
//! not offer is done without, unless a step asks for a limit that needs it.

mod delegation;
mod device_program;
mod devices;
mod file;
mod keeper;
mod mounts;
mod v1;
mod v2;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::spec::{Device, Resources, Security};
use crate::user_namespace::in_user_namespace;
use crate::zygote::protocol::{CgroupJoin, Used};

pub(crate) use keeper::Keeper;

/// Why a group could not be made.
#[derive(Debug)]
pub(crate) enum CgroupError {
    /// No controller keeps a limit that was asked for.
    Missing { limit: &'static str, controller: &'static str },
    /// The kernel refused.
    Io { path: PathBuf, source: io::Error },
}

/// The hierarchies of this host.
#[derive(Debug)]
pub(crate) enum Cgroups {
    V1(v1::Hierarchies),
    V2(v2::Tree),
    None,
}

/// What to make a group for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupSpec<'a> {
    pub(crate) id: &'a str,
    pub(crate) parent: &'a str,
    pub(crate) security: Security,
    pub(crate) limits: &'a Resources,
    /// Devices that can be used besides the usual ones.
    pub(crate) devices: &'a [Device],
}

impl GroupSpec<'_> {
    /// The path of the directory that holds the groups of this kind.
    fn kind_dir(&self) -> String {
        let kind = match self.security {
            Security::Sandbox if self.has_own_devices() => "devices",
            Security::Sandbox => "sandbox",
            Security::Insecure => "insecure",
        };
        format!("{}/{kind}", self.parent.trim_matches('/'))
    }

    /// Whether the group has a list of devices of its own: no group can have more than that above it.
    fn has_own_devices(&self) -> bool {
        self.security == Security::Sandbox && !self.devices.is_empty()
    }

    /// The devices that can be used in the group.
    fn rules(&self) -> Vec<devices::Rule> {
        devices::ALLOWED.into_iter().chain(self.devices.iter().map(devices::given)).collect()
    }
}

impl Cgroups {
    /// Finds out what this host offers. Version 1 goes first: where both are mounted, the
    /// controllers are there.
    ///
    /// An ordinary user has what of version 2 was delegated to this process, and nothing else.
    pub(crate) fn detect() -> Self {
        let mounted = mounts::read();
        if in_user_namespace() {
            let delegated = mounted.v2.and_then(|root| delegation::take(&root));
            return delegated.map_or(Self::None, |root| Self::V2(v2::Tree::new(root)));
        }
        if let Some(hierarchies) = v1::Hierarchies::find(&mounted) {
            return Self::V1(hierarchies);
        }
        mounted.v2.map_or(Self::None, |root| Self::V2(v2::Tree::new(root)))
    }

    /// Whether groups can be limited by a controller.
    pub(crate) fn offers(&self, controller: &str) -> bool {
        match self {
            Self::V1(hierarchies) => hierarchies.offers(controller),
            Self::V2(tree) => tree.offers(controller),
            Self::None => false,
        }
    }

    /// Makes a group and sets its limits.
    pub(crate) fn create(&self, spec: &GroupSpec<'_>) -> Result<StepCgroup, CgroupError> {
        match self {
            Self::V1(hierarchies) => hierarchies.create(spec).map(StepCgroup::V1),
            Self::V2(tree) => tree.create(spec).map(StepCgroup::V2),
            Self::None => match needed(spec.limits).first() {
                Some(&(limit, controller)) => Err(CgroupError::Missing { limit, controller }),
                None => Ok(StepCgroup::None),
            },
        }
    }

    /// Removes the groups that an earlier daemon left below `parent`.
    pub(crate) fn remove_stale(&self, parent: &str) {
        match self {
            Self::V1(hierarchies) => hierarchies.remove_stale(parent),
            Self::V2(tree) => tree.remove_stale(parent),
            Self::None => {}
        }
    }
}

/// The controllers that limits need, each with the name of the limit.
fn needed(limits: &Resources) -> Vec<(&'static str, &'static str)> {
    [
        (limits.memory.is_some(), "memory", "memory"),
        (limits.memory_swap.is_some(), "memory and swap", "memory"),
        (limits.cpu_shares.is_some(), "cpu shares", "cpu"),
        (limits.cpu_quota.is_some() || limits.cpu_period.is_some(), "cpu time", "cpu"),
        (limits.cpuset_cpus.is_some(), "cpus", "cpuset"),
        (limits.cpuset_mems.is_some(), "memory nodes", "cpuset"),
        (limits.pids.is_some(), "processes", "pids"),
    ]
    .into_iter()
    .filter_map(|(wanted, limit, controller)| wanted.then_some((limit, controller)))
    .collect()
}

/// The group of one step.
#[derive(Debug)]
pub(crate) enum StepCgroup {
    V1(v1::Group),
    V2(v2::Group),
    None,
}

/// What a group has counted; zero where the host does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) cpu_user: Duration,
    pub(crate) cpu_system: Duration,
    pub(crate) peak_memory: u64,
    pub(crate) io_read: u64,
    pub(crate) io_write: u64,
    pub(crate) oom_kills: u64,
    /// Processes that were not started because there were too many already.
    pub(crate) refused_forks: u64,
}

impl StepCgroup {
    /// How a process enters the group, and the descriptors that takes.
    pub(crate) fn join(&self) -> (CgroupJoin, Vec<BorrowedFd<'_>>) {
        match self {
            Self::V1(group) => {
                let fds: Vec<_> = group.tasks().map(AsFd::as_fd).collect();
                (CgroupJoin::V1(fds.len() as u8), fds)
            }
            Self::V2(group) => (CgroupJoin::V2, vec![group.dir()]),
            Self::None => (CgroupJoin::None, Vec::new()),
        }
    }

    /// Whether device nodes other than the usual ones cannot be opened in the group.
    pub(crate) fn guards_devices(&self) -> bool {
        match self {
            Self::V1(group) => group.guards_devices(),
            Self::V2(group) => group.guards_devices(),
            Self::None => false,
        }
    }

    /// The controllers that limit the group with their directories, version 1 only.
    pub(crate) fn limiting(&self, limits: &Resources) -> Vec<(&'static str, PathBuf)> {
        match self {
            Self::V1(group) => group.limiting(limits),
            Self::V2(_) | Self::None => Vec::new(),
        }
    }

    /// What the group has counted so far; what the processes in it have `used` if there is none.
    pub(crate) fn counted_or(&self, used: Used) -> Counted {
        match self {
            Self::V1(group) => group.counted(),
            Self::V2(group) => group.counted(),
            Self::None => Counted {
                cpu_user: used.cpu_user,
                cpu_system: used.cpu_system,
                peak_memory: used.peak_memory,
                io_read: used.io_read,
                io_write: used.io_write,
                ..Counted::default()
            },
        }
    }

    /// Removes the group.
    ///
    /// # Errors
    /// While processes are in it; it can be tried again.
    fn remove(&self) -> io::Result<()> {
        match self {
            Self::V1(group) => group.remove(),
            Self::V2(group) => group.remove(),
            Self::None => Ok(()),
        }
    }
}
