//! The part of the hierarchy that a service manager has left to an ordinary user's daemon.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::getpid;

use super::file;

/// The group below the daemon's own that it moves to: a group that hands controllers on to others
/// must have no processes itself.
const LEAF: &str = "daemon";

/// Makes the daemon's own group the root of those of its steps. Nothing if the user may not, or if
/// others are in the group as well, such as the shell that the daemon was started from.
pub(super) fn take(root: &Path) -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = root.join(own_group(&groups)?);
    let is_writable = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    if !["", "cgroup.procs", "cgroup.subtree_control"]
        .iter()
        .all(|name| is_writable(&own.join(name)))
    {
        return None;
    }
    let members: Vec<i32> =
        file::read(&own.join("cgroup.procs")).lines().filter_map(|pid| pid.parse().ok()).collect();
    if !members.iter().all(|pid| is_ours(*pid)) {
        tracing::info!(group = %own.display(),
            "steps have no limits: the control group is shared with processes that are not the \
             daemon's");
        return None;
    }
    let leaf = own.join(LEAF);
    let moved = file::make_dir(&leaf).and_then(|()| {
        let mut members = members.iter();
        members.try_for_each(|pid| file::write(&leaf.join("cgroup.procs"), &pid.to_string()))
    });
    match moved {
        Ok(()) => Some(own),
        Err(error) => {
            tracing::warn!(group = %own.display(), ?error, "steps have no limits");
            None
        }
    }
}

/// The path of this process's group in version 2, from the root of what is mounted.
fn own_group(table: &str) -> Option<&str> {
    table.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// Whether a process is this one or a child of it.
fn is_ours(pid: i32) -> bool {
    let own = getpid().as_raw_nonzero().get();
    // The name, in parentheses, may have spaces; after it come the state and the parent.
    let parent = fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok());
    pid == own || parent == Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_version_2_has_no_controllers_in_its_line() {
        let table = "12:pids:/a\n1:name=systemd:/b\n0::/user.slice/app.slice/kilnd.service\n";
        assert_eq!(own_group(table), Some("user.slice/app.slice/kilnd.service"));
        assert_eq!(own_group("0::/\n"), Some(""));
        assert_eq!(own_group("4:memory:/\n"), None);
    }

    #[test]
    fn the_daemon_and_its_children_are_its_own() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(is_ours(getpid().as_raw_nonzero().get()) && is_ours(pid) && !is_ours(1));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!is_ours(pid));
    }
}
