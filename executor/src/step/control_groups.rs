//! What a step sees of its control groups.
//!
//! With version 2 a step has a cgroup namespace and sees its own group as the root of the
//! hierarchy. Version 1 has no such namespaces that runtimes rely on; there a step sees the groups
//! of those controllers that limit it, so that programs which size themselves by their limits
//! find them.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::attach::{FsOption, copy, new_file_system, onto};
use super::target::Targets;
use crate::sys::mount::{isolate, set_attributes};
use crate::sys::process::new_cgroup_namespace;
use crate::zygote::protocol::{At, Failure, Stage, Step};

const PLACE: &CStr = c"/sys/fs/cgroup";

const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Opens the groups of version 1 that the step will see, in the host's mount namespace.
pub(super) fn open_v1(step: &Step) -> Result<Vec<OwnedFd>, Failure> {
    let read_only = if step.process.insecure { 0 } else { libc::MOUNT_ATTR_RDONLY };
    let open_one = |dir: &CStr| {
        let group = copy(CWD, dir, false)?;
        isolate(group.as_fd(), u64::from(INERT.bits()) | read_only, false)?;
        Ok(group)
    };
    let opened =
        step.controllers.iter().map(|(_, dir)| open_one(dir).at(Stage::Mount, dir.as_bytes()));
    opened.collect()
}

/// Mounts what [`open_v1`] has opened.
pub(super) fn show_v1(
    groups: &[OwnedFd],
    targets: &mut Targets<'_>,
    step: &Step,
) -> Result<(), Failure> {
    if groups.is_empty() {
        return Ok(());
    }
    let place = targets.find_standard(PLACE)?;
    let mount = || {
        let label = FsOption::Label(step.file_label());
        let shown = new_file_system(c"tmpfs", &[FsOption::Value(c"mode", "755"), label], INERT)?;
        onto(shown.as_fd(), place.as_fd())?;
        for ((name, _), group) in step.controllers.iter().zip(groups) {
            mkdirat(&shown, name, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            onto(group.as_fd(), openat(&shown, name, flags, Mode::empty())?.as_fd())?;
        }
        set_attributes(shown.as_fd(), libc::MOUNT_ATTR_RDONLY, false)
    };
    mount().at(Stage::Mount, PLACE.to_bytes())
}

/// Makes the group of version 2 that the calling process is in the root of what it sees. Mounts
/// it, too, for the first process of a step.
pub(super) fn show_v2(insecure: bool, is_first: bool) -> Result<(), Errno> {
    new_cgroup_namespace()?;
    if !is_first {
        return Ok(());
    }
    let read_only =
        if insecure { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let shown = new_file_system(c"cgroup2", &[], INERT | read_only)?;
    let place = open(PLACE, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    onto(shown.as_fd(), place.as_fd())
}
