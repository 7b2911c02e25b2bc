//! The devices that a confined step may open, as container runtimes have agreed on them.
//!
//! A step may make any node (it has the capability, and archives contain them), but open only
//! these, or it would read the host's disks.

use std::fmt;

/// A rule that allows something. `None` stands for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    kind: char,
    major: Option<u32>,
    minor: Option<u32>,
    access: &'static str,
}

/// Everything not allowed here is denied.
pub(super) fn allowed() -> Vec<Rule> {
    let make = |kind| Rule { kind, major: None, minor: None, access: "m" };
    let open = |major, minor| Rule { kind: 'c', major: Some(major), minor, access: "rwm" };
    vec![
        make('c'),
        make('b'),
        // null, zero, full, random, urandom
        open(1, Some(3)),
        open(1, Some(5)),
        open(1, Some(7)),
        open(1, Some(8)),
        open(1, Some(9)),
        // tty, console, ptmx, all of pts
        open(5, Some(0)),
        open(5, Some(1)),
        open(5, Some(2)),
        open(136, None),
    ]
}

/// As the files of version 1 take it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}
