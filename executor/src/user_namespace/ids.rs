//! The ids of the host that stand for those of steps, where root's daemon gives these a user namespace.

use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;

use nix::unistd::User;
use serde::{Deserialize, Serialize};

use super::UserNamespaceError;
use super::subordinate::{Owner, Range, free, range_of, ranges};

/// Ids of the host, of which the first is root's in steps, and the others follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubordinateIds {
    uids: Vec<Range>,
    gids: Vec<Range>,
}

impl SubordinateIds {
    /// Those that `/etc/subuid` and `/etc/subgid` give to a name, whether or not that has an account.
    ///
    /// # Errors
    /// If one of them has no line for it, or only lines with root's own id.
    pub fn of_user(name: &str) -> Result<Self, UserNamespaceError> {
        let account = User::from_name(name).ok().flatten();
        let owner =
            Owner { name: Some(name.to_owned()), uid: account.map(|user| user.uid.as_raw()) };
        let find = |file: &'static str, ask_for: &[&str]| {
            let found = checked(ranges(Path::new(file), &owner, ask_for));
            found.ok_or_else(|| UserNamespaceError::NoIdsForSteps {
                user: name.to_owned(),
                file,
                free: free(Path::new(file)),
            })
        };
        Ok(Self { uids: find("/etc/subuid", &[])?, gids: find("/etc/subgid", &["-g"])? })
    }

    /// The host's user id for that of a step, if there is one.
    pub(crate) fn uid(&self, inside: u32) -> Option<u32> {
        outside(&self.uids, inside)
    }

    /// The host's group id for that of a step, if there is one.
    pub(crate) fn gid(&self, inside: u32) -> Option<u32> {
        outside(&self.gids, inside)
    }

    /// How many ids steps have, of users or of groups, whichever are fewer.
    pub(crate) fn count(&self) -> u32 {
        let count = |ranges: &[Range]| ranges.iter().fold(0, |n: u32, r| n.saturating_add(r.count));
        count(&self.uids).min(count(&self.gids))
    }

    /// What the kernel takes as `uid_map`.
    pub(crate) fn uid_map(&self) -> String {
        map(&self.uids)
    }

    /// What the kernel takes as `gid_map`.
    pub(crate) fn gid_map(&self) -> String {
        map(&self.gids)
    }
}

/// A range as the first id and the number of them, for users and groups alike.
impl FromStr for SubordinateIds {
    type Err = UserNamespaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = text.split_once(':').and_then(|(first, count)| range_of(first, count));
        let ranges = range.and_then(|range| checked(vec![range]));
        let ranges = ranges.ok_or_else(|| UserNamespaceError::InvalidRange(text.to_owned()))?;
        Ok(Self { uids: ranges.clone(), gids: ranges })
    }
}

/// The ranges as far as the kernel's numbers go, unless there are none or root of the host is among
/// them.
fn checked(ranges: Vec<Range>) -> Option<Vec<Range>> {
    let mut inside = 0_u32;
    let mut kept = Vec::new();
    for Range { first, count } in ranges {
        // The last number stands for none.
        let count = count.min(u32::MAX - first).min(u32::MAX - inside);
        if first == 0 {
            return None;
        }
        if count > 0 {
            kept.push(Range { first, count });
            inside += count;
        }
    }
    (!kept.is_empty()).then_some(kept)
}

fn outside(ranges: &[Range], mut inside: u32) -> Option<u32> {
    for range in ranges {
        if inside < range.count {
            return Some(range.first + inside);
        }
        inside -= range.count;
    }
    None
}

fn map(ranges: &[Range]) -> String {
    let mut inside = 0_u32;
    let mut lines = String::new();
    for range in ranges {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{inside} {} {}", range.first, range.count);
        inside += range.count;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_several_ranges_follow_without_gaps() {
        let uids = vec![Range { first: 100_000, count: 10 }, Range { first: 500, count: 5 }];
        let ids = SubordinateIds { gids: vec![Range { first: 7, count: 3 }], uids };
        let mapped = [0, 9, 10, 14, 15].map(|id| ids.uid(id));
        assert_eq!(mapped, [Some(100_000), Some(100_009), Some(500), Some(504), None]);
        assert_eq!([ids.gid(2), ids.gid(3)], [Some(9), None]);
        assert_eq!(ids.uid_map(), "0 100000 10\n10 500 5\n");
        assert_eq!(ids.count(), 3);
    }

    #[test]
    fn a_range_is_the_first_and_how_many_and_never_has_root() {
        let ids: SubordinateIds = "200000:65536".parse().unwrap();
        assert_eq!((ids.uid_map(), ids.gid_map()), ("0 200000 65536\n".into(), ids.uid_map()));
        for text in ["", "5", "0:65536", "5:0", "a:b", "5:6:7", "-1:5", "4294967295:5"] {
            let error = text.parse::<SubordinateIds>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?} is no range")), "{error}");
        }
    }

    #[test]
    fn who_has_no_line_is_told_which_one_to_add() {
        let error = SubordinateIds::of_user("nobody-has-this-name").unwrap_err().to_string();
        let (begin, rest) = error.split_once("add \"nobody-has-this-name:").unwrap();
        assert_eq!(begin, "/etc/subuid has no line for \"nobody-has-this-name\": ");
        let (free, rest) = rest.split_once(':').unwrap();
        assert!(free.parse::<u32>().unwrap() >= 100_000, "{error}");
        assert!(rest.starts_with("65536\""), "{error}");
    }
}
