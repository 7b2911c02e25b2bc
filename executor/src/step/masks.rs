//! Docker's masked and read-only paths: the parts of /proc and /sys that reach beyond the step.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, open, stat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::attach::{FsOption, copy, new_file_system, onto};
use crate::sys::mount::set_attributes;
use crate::zygote::protocol::{At, Failure, Stage};

const MASKED: [&CStr; 12] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/sys/devices/virtual/powercap",
    c"/sys/firmware",
];

const READ_ONLY: [&CStr; 5] =
    [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];

/// The directory of each CPU has one that tells how hot it was: what other tenants compute.
const OF_EACH_CPU: (&str, &str) = ("/sys/devices/system/cpu", "thermal_throttle");

/// Those of the paths that this kernel has.
#[derive(Debug)]
pub(crate) struct Masks {
    files: Vec<Cow<'static, CStr>>,
    dirs: Vec<Cow<'static, CStr>>,
    read_only: Vec<&'static CStr>,
}

impl Masks {
    /// Looks them up once; what a kernel offers in /proc and /sys does not come and go.
    pub(crate) fn of_this_kernel() -> Self {
        let is_dir = |path: &CStr| {
            stat(path).ok().map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        let mut masked: Vec<_> = MASKED.into_iter().map(Cow::Borrowed).collect();
        masked.extend(of_each_cpu().map(Cow::Owned));
        masked.retain(|path| is_dir(path).is_some());
        let (dirs, files) = masked.into_iter().partition(|path| is_dir(path) == Some(true));
        Self {
            files,
            dirs,
            read_only: READ_ONLY.into_iter().filter(|path| is_dir(path).is_some()).collect(),
        }
    }

    /// Covers them in the root file system that this process has entered: files with /dev/null,
    /// directories with an empty one, whose label is SELinux's `label`.
    pub(super) fn apply(&self, label: Option<&CStr>) -> Result<(), Failure> {
        for path in &self.read_only {
            read_only(path).at(Stage::Mask, path.to_bytes())?;
        }
        for path in &self.files {
            copy(CWD, c"/dev/null", false)
                .and_then(|null| cover(&null, path))
                .at(Stage::Mask, path.to_bytes())?;
        }
        let mut empty: Option<&CStr> = None;
        for path in &self.dirs {
            let mount = match empty {
                None => new_file_system(c"tmpfs", &[FsOption::Label(label)], EMPTY),
                Some(earlier) => copy(CWD, earlier, false),
            };
            mount.and_then(|mount| cover(&mount, path)).at(Stage::Mask, path.to_bytes())?;
            empty = Some(path);
        }
        Ok(())
    }
}

fn of_each_cpu() -> impl Iterator<Item = CString> {
    let (cpus, name) = OF_EACH_CPU;
    let entries = std::fs::read_dir(cpus).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let path = entry.path().join(name).into_os_string().into_encoded_bytes();
        CString::new(path).ok()
    })
}

const EMPTY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

fn read_only(path: &CStr) -> Result<(), Errno> {
    let mount = copy(CWD, path, true)?;
    set_attributes(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, true)?;
    cover(&mount, path)
}

fn cover(mount: &OwnedFd, path: &CStr) -> Result<(), Errno> {
    let place = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    onto(mount.as_fd(), place.as_fd())
}
