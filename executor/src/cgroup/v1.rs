//! Version 1: a hierarchy for each controller, or for several mounted together.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::mounts::Mounted;
use super::{CgroupError, Counted, GroupSpec, devices, file, needed};
use crate::spec::{Resources, Security};

/// Controllers that every step is put under, where the host has them: those that count.
const COUNTING: [&str; 3] = ["cpuacct", "memory", "blkio"];

/// The mounted hierarchies.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    roots: Vec<(&'static str, PathBuf)>,
    /// Directories for groups that have been made and set up already.
    ready: Mutex<BTreeSet<PathBuf>>,
}

impl Hierarchies {
    /// `None` if no hierarchy of version 1 would be of use.
    pub(super) fn find(mounted: &Mounted) -> Option<Self> {
        let roots: Vec<_> = ["cpuacct", "memory", "blkio", "devices", "cpu", "cpuset", "pids"]
            .into_iter()
            .filter_map(|name| Some((name, mounted.v1.get(name)?.clone())))
            .collect();
        (!roots.is_empty()).then(|| Self { roots, ready: Mutex::default() })
    }

    pub(super) fn offers(&self, controller: &str) -> bool {
        self.root(controller).is_some()
    }

    fn root(&self, controller: &str) -> Option<&Path> {
        self.roots.iter().find(|(name, _)| *name == controller).map(|(_, root)| root.as_path())
    }

    pub(super) fn create(&self, spec: &GroupSpec<'_>) -> Result<Group, CgroupError> {
        let mut group = Group { dirs: Vec::new(), tasks: Vec::new() };
        let filled = self.fill(&mut group, spec);
        if let Err(error) = filled {
            // Nothing has entered it, so nothing keeps it.
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    fn fill(&self, group: &mut Group, spec: &GroupSpec<'_>) -> Result<(), CgroupError> {
        for controller in COUNTING {
            if self.root(controller).is_some() {
                self.add(group, spec, controller)?;
            }
        }
        if spec.security == Security::Sandbox && self.root("devices").is_some() {
            self.add(group, spec, "devices")?;
        }
        for (limit, controller) in needed(spec.limits) {
            if self.root(controller).is_none() {
                return Err(CgroupError::Missing { limit, controller });
            }
            self.add(group, spec, controller)?;
        }
        group.limit(spec.limits)
    }

    fn add(
        &self,
        group: &mut Group,
        spec: &GroupSpec<'_>,
        controller: &'static str,
    ) -> Result<(), CgroupError> {
        let Some(root) = self.root(controller) else { return Ok(()) };
        if group.dir(controller).is_some() {
            return Ok(());
        }
        let kind_dir = spec.kind_dir();
        self.prepare(root, &kind_dir, controller, spec)?;
        let dir = root.join(kind_dir).join(spec.id);
        let shared = group.dirs.iter().any(|(_, other)| *other == dir);
        if !shared {
            file::make_dir(&dir)?;
        }
        group.dirs.push((controller, dir.clone()));
        if controller == "cpuset" {
            inherit_cpuset(&dir)?;
        }
        if controller == "devices" && spec.has_own_devices() {
            permit(&dir, &spec.rules())?;
        }
        if !shared {
            let tasks = dir.join("tasks");
            let open = OpenOptions::new().write(true).open(&tasks);
            group.tasks.push(open.map_err(|source| CgroupError::Io { path: tasks, source })?);
        }
        Ok(())
    }

    /// Makes the directories above a group, once.
    fn prepare(
        &self,
        root: &Path,
        kind_dir: &str,
        controller: &str,
        spec: &GroupSpec<'_>,
    ) -> Result<(), CgroupError> {
        let key = root.join(kind_dir).join(controller);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.contains(&key) {
            return Ok(());
        }
        let mut dir = root.to_path_buf();
        for name in Path::new(kind_dir).components() {
            dir.push(name);
            file::make_dir(&dir)?;
            if controller == "cpuset" {
                inherit_cpuset(&dir)?;
            }
        }
        if controller == "devices" && spec.security == Security::Sandbox && !spec.has_own_devices()
        {
            permit(&dir, &devices::ALLOWED)?;
        }
        ready.insert(key);
        Ok(())
    }

    pub(super) fn remove_stale(&self, parent: &str) {
        for (_, root) in &self.roots {
            file::remove_below(&root.join(parent.trim_matches('/')));
        }
    }
}

/// The list of a group that nothing has been denied to.
const EVERY_DEVICE: &str = "a *:* rwm";

/// Permits devices in a group and those below it, and no others.
fn permit(dir: &Path, rules: &[devices::Rule]) -> Result<(), CgroupError> {
    // The steps of a daemon that was killed may still be on their way out. The kernel takes no
    // denial while they have groups below, and needs none: theirs were confined, too.
    if file::read(&dir.join("devices.list")).trim() == EVERY_DEVICE {
        file::write(&dir.join("devices.deny"), "a")?;
    }
    let mut rules = rules.iter();
    rules.try_for_each(|rule| file::write(&dir.join("devices.allow"), &rule.to_string()))
}

/// A new group of cpuset has no CPUs and no memory nodes, and takes no process until it has.
fn inherit_cpuset(dir: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(name);
        if file::read(&path).trim().is_empty()
            && let Some(parent) = dir.parent()
        {
            file::write(&path, file::read(&parent.join(name)).trim())?;
        }
    }
    Ok(())
}

/// A step's group: one directory for each controller.
#[derive(Debug)]
pub(crate) struct Group {
    dirs: Vec<(&'static str, PathBuf)>,
    tasks: Vec<File>,
}

impl Group {
    /// The files through which a process enters, one a hierarchy.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &File> {
        self.tasks.iter()
    }

    pub(super) fn guards_devices(&self) -> bool {
        self.dir("devices").is_some()
    }

    fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs.iter().find(|(name, _)| *name == controller).map(|(_, dir)| dir.as_path())
    }

    fn limit(&self, limits: &Resources) -> Result<(), CgroupError> {
        let set = |controller: &str, name: &str, value: Option<String>| match (
            value,
            self.dir(controller),
        ) {
            (Some(value), Some(dir)) => file::write(&dir.join(name), &value),
            _ => Ok(()),
        };
        set("memory", "memory.limit_in_bytes", limits.memory.map(|n| n.to_string()))?;
        let swap = limits.memory_swap.filter(|_| limits.memory.is_some());
        set("memory", "memory.memsw.limit_in_bytes", swap.map(|n| n.to_string()))?;
        set("cpu", "cpu.shares", limits.cpu_shares.map(|n| n.to_string()))?;
        set("cpu", "cpu.cfs_period_us", limits.cpu_period.map(|n| n.to_string()))?;
        set("cpu", "cpu.cfs_quota_us", limits.cpu_quota.map(|n| n.to_string()))?;
        set("cpuset", "cpuset.cpus", limits.cpuset_cpus.clone())?;
        set("cpuset", "cpuset.mems", limits.cpuset_mems.clone())?;
        set("pids", "pids.max", limits.pids.map(|n| n.to_string()))
    }

    /// The limiting controllers with their directories, for the step to see.
    pub(super) fn limiting(&self, limits: &Resources) -> Vec<(&'static str, PathBuf)> {
        let limits = needed(limits);
        let is_limiting = |name: &str| limits.iter().any(|(_, controller)| *controller == name);
        self.dirs.iter().filter(|(name, _)| is_limiting(name)).cloned().collect()
    }

    pub(super) fn counted(&self) -> Counted {
        let path = |controller, name| self.dir(controller).map(|dir: &Path| dir.join(name));
        let number = |controller, name| path(controller, name).map_or(0, |p| file::read_number(&p));
        let content =
            |controller, name| path(controller, name).map_or_else(String::new, |p| file::read(&p));
        let (io_read, io_write) =
            sum_io(&content("blkio", "blkio.throttle.io_service_bytes_recursive"));
        // Which part of the time is whose is found out at the clock's ticks, of which a short step
        // sees none; the whole is exact.
        let whole = number("cpuacct", "cpuacct.usage");
        let system = number("cpuacct", "cpuacct.usage_sys").min(whole);
        Counted {
            cpu_user: Duration::from_nanos(whole - system),
            cpu_system: Duration::from_nanos(system),
            peak_memory: number("memory", "memory.max_usage_in_bytes"),
            io_read,
            io_write,
            oom_kills: file::keyed(&content("memory", "memory.oom_control"), "oom_kill"),
            refused_forks: file::keyed(&content("pids", "pids.events"), "max"),
        }
    }

    /// Removes every directory of the group, and tells if one has to stay for now.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for (_, dir) in &self.dirs {
            if let Err(error) = file::remove(dir) {
                result = Err(error);
            }
        }
        result
    }
}

/// Adds up lines of `major:minor Read bytes` and the like over all devices.
fn sum_io(content: &str) -> (u64, u64) {
    let sum = |operation: &str| {
        content
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(' ').skip(1);
                (fields.next() == Some(operation)).then(|| fields.next()?.parse::<u64>().ok())?
            })
            .sum()
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_added_up_over_devices() {
        let content = "253:0 Read 4096\n253:0 Write 100\n253:0 Sync 1\n8:0 Read 4\nTotal 4201\n";
        assert_eq!(sum_io(content), (4100, 100));
    }
}
