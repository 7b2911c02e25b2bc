//! Where the hierarchies are mounted.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The mounted hierarchies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Directory by controller, version 1.
    pub(super) v1: BTreeMap<String, PathBuf>,
    /// The hierarchy of version 2.
    pub(super) v2: Option<PathBuf>,
}

/// Reads the mount table of this process.
pub(super) fn read() -> Mounted {
    std::fs::read_to_string("/proc/self/mountinfo").map(|table| parse(&table)).unwrap_or_default()
}

/// Parses lines as proc_pid_mountinfo(5) has them: the mount point is the fifth field, and after a
/// lone dash come type, source and the file system's options, which name the controllers.
fn parse(table: &str) -> Mounted {
    let mut mounted = Mounted::default();
    for line in table.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4) else { continue };
        let mut fields = file_system.split(' ');
        match (fields.next(), fields.nth(1)) {
            (Some("cgroup2"), _) => {
                mounted.v2.get_or_insert_with(|| point.into());
            }
            (Some("cgroup"), Some(options)) => {
                for option in options.split(',') {
                    mounted.v1.entry(option.to_owned()).or_insert_with(|| point.into());
                }
            }
            _ => {}
        }
    }
    mounted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_version_1_are_found_also_when_mounted_together() {
        let table = "\
36 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
37 25 0:32 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
38 25 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
39 25 0:34 / /proc rw - proc proc rw
";
        let mounted = parse(table);
        assert_eq!(mounted.v1["cpuacct"], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounted.v1["cpu"], mounted.v1["cpuacct"]);
        assert_eq!(mounted.v1["memory"], PathBuf::from("/sys/fs/cgroup/memory"));
        assert_eq!(mounted.v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_host_with_version_2_only_has_no_version_1_controllers() {
        let mounted = parse("29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(mounted.v2, Some(PathBuf::from("/sys/fs/cgroup")));
        assert!(mounted.v1.is_empty());
    }
}
