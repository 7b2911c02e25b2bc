//! What a build or a daemon may leave behind on the host, and must not.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process::readable;

/// The processes of the host that have `word` in their command line. A test uses a word that no
/// other has, such as an odd number of seconds to sleep; a shell that is given a script with the
/// word counts too.
pub fn processes_with(word: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            // A process that has ended in the meantime has no command line.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(word)
        })
        .collect()
}

/// The processes whose parent is the process `pid`.
pub fn children_of(pid: u32) -> Vec<i32> {
    let is_child = |child: &i32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The name, in parentheses, may have spaces; after it come the state and the parent.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parent.is_some_and(|parent| parent == pid.to_string())
    };
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(is_child).collect()
}

/// Waits until a process of the host has ended; false after `limit`.
pub fn ends_within(pid: i32, limit: Duration) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return true };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => readable(&[pidfd.as_fd()], limit).is_some(),
        // It has ended, and was reaped, before.
        Err(_) => true,
    }
}

/// The work directories that overlayfs needed to write the layers below a daemon's `root`.
pub fn work_directories(root: &Path) -> Vec<PathBuf> {
    let layers = fs::read_dir(root.join("snapshots")).expect("layers").flatten();
    layers.map(|layer| layer.path().join("work")).filter(|work| work.exists()).collect()
}

/// The mount points of this mount namespace at or below `folder`.
pub fn mounts_below(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    fs::read_to_string("/proc/self/mountinfo")
        .expect("mountinfo")
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&folder))
        .map(str::to_owned)
        .collect()
}
