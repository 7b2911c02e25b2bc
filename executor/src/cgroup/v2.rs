//! Version 2: one hierarchy for all controllers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{CgroupError, Counted, GroupSpec, device_program, devices, file, needed};
use crate::spec::{Resources, Security};
use crate::sys::bpf;
use crate::user_namespace::in_user_namespace;

/// Controllers that steps are counted or limited by.
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "io", "pids", "cpuset"];

/// The hierarchy.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// Directories for groups that have been made, each with whether devices are guarded in it.
    ready: Mutex<BTreeMap<PathBuf, bool>>,
}

impl Tree {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, ready: Mutex::default() }
    }

    pub(super) fn offers(&self, controller: &str) -> bool {
        enable_controllers(&self.root);
        let offered = file::read(&self.root.join("cgroup.subtree_control"));
        offered.split_whitespace().any(|name| name == controller)
    }

    pub(super) fn create(&self, spec: &GroupSpec<'_>) -> Result<Group, CgroupError> {
        let (dir, guards_devices) = self.prepare(spec)?;
        let offered = file::read(&dir.join("cgroup.subtree_control"));
        for (limit, controller) in needed(spec.limits) {
            if !offered.split_whitespace().any(|name| name == controller) {
                return Err(CgroupError::Missing { limit, controller });
            }
        }
        let path = dir.join(spec.id);
        file::make_dir(&path)?;
        let own_guard =
            spec.has_own_devices() && !in_user_namespace() && guard_devices(&path, &spec.rules());
        Group::open(path, spec.limits, guards_devices || own_guard)
    }

    /// Makes the directories above a group and guards devices in them, once.
    fn prepare(&self, spec: &GroupSpec<'_>) -> Result<(PathBuf, bool), CgroupError> {
        let kind_dir = spec.kind_dir();
        let dir = self.root.join(&kind_dir);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guards_devices) = ready.get(&dir) {
            return Ok((dir, *guards_devices));
        }
        let mut made = self.root.clone();
        enable_controllers(&made);
        for name in Path::new(&kind_dir).components() {
            made.push(name);
            file::make_dir(&made)?;
            enable_controllers(&made);
        }
        // In a user namespace steps have no devices but those that they are given.
        let is_guarded =
            spec.security == Security::Sandbox && !spec.has_own_devices() && !in_user_namespace();
        let guards_devices = is_guarded && guard_devices(&dir, &devices::ALLOWED);
        ready.insert(dir.clone(), guards_devices);
        Ok((dir, guards_devices))
    }

    pub(super) fn remove_stale(&self, parent: &str) {
        file::remove_below(&self.root.join(parent.trim_matches('/')));
    }
}

/// Attaches the program that permits devices. A host that does not let it be attached has its
/// device nodes made inert by their mounts instead.
fn guard_devices(dir: &Path, rules: &[devices::Rule]) -> bool {
    let attached = File::open(dir).and_then(|group| {
        let program = bpf::load_device_program(&device_program::assemble(rules))?;
        Ok(bpf::attach_device_program(group.as_fd(), program.as_fd())?)
    });
    if let Err(error) = &attached {
        tracing::warn!(dir = %dir.display(), %error,
            "devices cannot be guarded by BPF; steps cannot open device nodes that they make");
    }
    attached.is_ok()
}

/// Hands on to the groups below what the host offers here. A host that refuses one controller may
/// allow another, so they are enabled one by one; what is missing in the end is noticed when a
/// limit needs it.
fn enable_controllers(dir: &Path) {
    let offered = file::read(&dir.join("cgroup.controllers"));
    let control = dir.join("cgroup.subtree_control");
    let enabled = file::read(&control);
    for name in CONTROLLERS {
        let has = |list: &str| list.split_whitespace().any(|other| other == name);
        if has(&offered)
            && !has(&enabled)
            && let Err(CgroupError::Io { source, .. }) = file::write(&control, &format!("+{name}"))
        {
            tracing::debug!(dir = %dir.display(), controller = name, error = %source,
                "controller is not handed on");
        }
    }
}

/// A step's group.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    dir: File,
    guards_devices: bool,
}

impl Group {
    fn open(path: PathBuf, limits: &Resources, guards_devices: bool) -> Result<Self, CgroupError> {
        let opened = File::open(&path)
            .map_err(|source| CgroupError::Io { path: path.clone(), source })
            .and_then(|dir| {
                for (name, value) in settings(limits) {
                    file::write(&path.join(name), &value)?;
                }
                Ok(dir)
            });
        match opened {
            Ok(dir) => Ok(Self { path, dir, guards_devices }),
            Err(error) => {
                // Nothing has entered it, so nothing keeps it.
                let _ = file::remove(&path);
                Err(error)
            }
        }
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn guards_devices(&self) -> bool {
        self.guards_devices
    }

    pub(super) fn counted(&self) -> Counted {
        let content = |name| file::read(&self.path.join(name));
        let cpu = content("cpu.stat");
        let (io_read, io_write) = sum_io(&content("io.stat"));
        Counted {
            cpu_user: Duration::from_micros(file::keyed(&cpu, "user_usec")),
            cpu_system: Duration::from_micros(file::keyed(&cpu, "system_usec")),
            peak_memory: file::read_number(&self.path.join("memory.peak")),
            io_read,
            io_write,
            oom_kills: file::keyed(&content("memory.events"), "oom_kill"),
            refused_forks: file::keyed(&content("pids.events"), "max"),
        }
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        file::remove(&self.path)
    }
}

/// The files to write for limits, with their values.
fn settings(limits: &Resources) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if let Some(memory) = limits.memory {
        settings.push(("memory.max", memory.to_string()));
        if let Some(both) = limits.memory_swap {
            // Here swap is counted by itself; a total below the memory leaves none.
            let swap = u64::try_from(both).map(|both| both.saturating_sub(memory).to_string());
            settings.push(("memory.swap.max", swap.unwrap_or_else(|_| "max".into())));
        }
    }
    if let Some(shares) = limits.cpu_shares {
        settings.push(("cpu.weight", weight(shares).to_string()));
    }
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = limits.cpu_quota.filter(|quota| *quota > 0);
        let quota = quota.map_or_else(|| "max".into(), |quota| quota.to_string());
        settings.push(("cpu.max", format!("{quota} {}", limits.cpu_period.unwrap_or(100_000))));
    }
    settings.extend(limits.cpuset_cpus.clone().map(|cpus| ("cpuset.cpus", cpus)));
    settings.extend(limits.cpuset_mems.clone().map(|mems| ("cpuset.mems", mems)));
    settings.extend(limits.pids.map(|pids| ("pids.max", pids.to_string())));
    settings
}

/// Shares (2 to 262144, 1024 by default) as a weight (1 to 10000, 100 by default): a curve through
/// the ends and the defaults, the one that container runtimes have settled on.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144) as f64;
    let log = shares.log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// Adds up `rbytes=` and `wbytes=` over all devices.
fn sum_io(content: &str) -> (u64, u64) {
    let sum = |key: &str| {
        content
            .split_whitespace()
            .filter_map(|field| field.strip_prefix(key)?.parse::<u64>().ok())
            .sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_with_the_defaults_and_ends_in_place() {
        for (shares, expected) in
            [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn limits_are_written_as_version_2_has_them() {
        let limits = Resources {
            memory: Some(1000),
            memory_swap: Some(1500),
            cpu_quota: Some(50_000),
            cpuset_cpus: Some("0-1".into()),
            pids: Some(7),
            ..Resources::default()
        };
        let expected = [
            ("memory.max", "1000"),
            ("memory.swap.max", "500"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "7"),
        ];
        assert_eq!(settings(&limits), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn unlimited_swap_and_time_are_written_as_max() {
        let limits = Resources {
            memory: Some(1000),
            memory_swap: Some(-1),
            cpu_quota: Some(-1),
            cpu_period: Some(5000),
            ..Resources::default()
        };
        let expected =
            [("memory.max", "1000"), ("memory.swap.max", "max"), ("cpu.max", "max 5000")];
        assert_eq!(settings(&limits), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn io_is_added_up_over_devices() {
        let content = "253:0 rbytes=4096 wbytes=1 rios=1 wios=0\n8:0 rbytes=4 wbytes=2\n";
        assert_eq!(sum_io(content), (4100, 3));
    }
}
