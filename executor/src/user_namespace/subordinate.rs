//! The ids that an ordinary user may use besides their own (`subuid(5)`, `subgid(5)`).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Consecutive ids of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// Whose ids are looked for.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    /// The name by which the system's accounts have the user, if they do.
    pub(super) name: Option<String>,
    /// The number, of who has an account.
    pub(super) uid: Option<u32>,
}

impl Owner {
    /// By the name, or else the number.
    pub(super) fn label(&self) -> String {
        let number = || self.uid.map(|uid| uid.to_string());
        self.name.clone().or_else(number).unwrap_or_default()
    }
}

/// What the file at `path` gives to `owner`, or else what a directory service does, which `getsubids`
/// asks.
pub(super) fn ranges(path: &Path, owner: &Owner, ask_for: &[&str]) -> Vec<Range> {
    let written = fs::read_to_string(path).map(|text| parse(&text, owner)).unwrap_or_default();
    if !written.is_empty() {
        return written;
    }
    let Some(name) = &owner.name else { return written };
    let asked = Command::new("getsubids").args(ask_for).arg(name).output();
    asked.map(|output| parse_listed(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

/// Lines of `owner:first:count`, where the owner is a name or a number.
fn parse(text: &str, owner: &Owner) -> Vec<Range> {
    let uid = owner.uid.map(|uid| uid.to_string());
    let of_owner = |line: &str| {
        let (who, range) = line.trim().split_once(':')?;
        if owner.name.as_deref() != Some(who) && uid.as_deref() != Some(who) {
            return None;
        }
        let (first, count) = range.split_once(':')?;
        range_of(first, count)
    };
    text.lines().filter_map(of_owner).collect()
}

/// Lines of `index: owner first count`.
fn parse_listed(text: &str) -> Vec<Range> {
    let listed = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        range_of(fields.next()?, fields.next()?)
    };
    text.lines().filter_map(listed).collect()
}

/// The first id after all that the file at `path` gives to anybody.
pub(super) fn free(path: &Path) -> u32 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let end_of = |line: &str| {
        let mut fields = line.trim().splitn(3, ':').skip(1);
        let range = range_of(fields.next()?, fields.next()?)?;
        range.first.checked_add(range.count)
    };
    text.lines().filter_map(end_of).max().map_or(FIRST_USUAL, |end| end.max(FIRST_USUAL))
}

/// Where those who hand ids out usually begin.
const FIRST_USUAL: u32 = 100_000;

pub(super) fn range_of(first: &str, count: &str) -> Option<Range> {
    let (first, count) = (first.parse().ok()?, count.parse().ok()?);
    (count > 0).then_some(Range { first, count })
}

/// The arguments of `newuidmap` and `newgidmap`: the user's `own` id is root, what is in `ranges`
/// follows from 1 on.
pub(super) fn mapping(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut inside = 1_u32;
    let mut lines = vec![[0, own, 1]];
    for range in ranges {
        // The kernel's ids end before the last number, which stands for none.
        let count = range.count.min(u32::MAX - inside);
        if count == 0 {
            break;
        }
        lines.push([inside, range.first, count]);
        inside += count;
    }
    lines.into_iter().flatten().map(|number| number.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Owner {
        Owner { name: Some("alice".into()), uid: Some(1000) }
    }

    #[test]
    fn lines_of_the_user_count_by_name_and_by_number() {
        let text = "bob:1:2\nalice:100000:65536\n# alice:7:7\n1000:300000:10\nalice:x:1\nalice:5:0\n\
                    alicex:1:1\nalice:5\n";
        let expected =
            [Range { first: 100_000, count: 65_536 }, Range { first: 300_000, count: 10 }];
        assert_eq!(parse(text, &alice()), expected);
        assert_eq!(parse("alice:1:1", &Owner { name: None, uid: Some(1000) }), []);
    }

    #[test]
    fn what_getsubids_lists_is_read() {
        let expected = [Range { first: 165_536, count: 65_536 }, Range { first: 9, count: 1 }];
        assert_eq!(parse_listed("0: alice 165536 65536\n1: alice 9 1\n"), expected);
        assert_eq!(parse_listed("Error fetching ranges\n"), []);
    }

    #[test]
    fn the_user_is_root_and_subordinate_ids_follow_without_gaps() {
        let ranges = [Range { first: 100_000, count: 10 }, Range { first: 500, count: u32::MAX }];
        let expected = "0 1000 1 1 100000 10 11 500 4294967284";
        assert_eq!(mapping(1000, &ranges).join(" "), expected);
    }
}
