//! The devices that a confined step may open, as container runtimes have agreed on them.
//!
//! A step may make any node (it has the capability, and archives contain them), but open only
//! these, or it would read the host's disks.

use std::fmt;

use crate::spec::Device;

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Char,
}

/// What may be done with a device, besides making nodes of it, which any may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// A rule that allows something. `None` stands for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: Access,
}

/// What lets a step use a device that it was given.
pub(super) fn given(device: &Device) -> Rule {
    let kind = if device.is_block { Kind::Block } else { Kind::Char };
    let access = Access { read: device.read, write: device.write };
    Rule { kind, major: Some(device.major), minor: Some(device.minor), access }
}

/// Everything that none of these allows is denied.
pub(super) const ALLOWED: [Rule; 11] = [
    make(Kind::Char),
    make(Kind::Block),
    // null, zero, full, random, urandom
    all(1, Some(3)),
    all(1, Some(5)),
    all(1, Some(7)),
    all(1, Some(8)),
    all(1, Some(9)),
    // tty, console, ptmx, all of pts
    all(5, Some(0)),
    all(5, Some(1)),
    all(5, Some(2)),
    all(136, None),
];

const fn make(kind: Kind) -> Rule {
    Rule { kind, major: None, minor: None, access: Access { read: false, write: false } }
}

const fn all(major: u32, minor: Option<u32>) -> Rule {
    let access = Access { read: true, write: true };
    Rule { kind: Kind::Char, major: Some(major), minor, access }
}

/// As the files of version 1 take it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let read = if self.access.read { "r" } else { "" };
        let write = if self.access.write { "w" } else { "" };
        write!(f, "{kind} {}:{} {read}{write}m", number(self.major), number(self.minor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_version_1_takes_them() {
        let written: Vec<_> = ALLOWED.iter().map(ToString::to_string).collect();
        assert_eq!(written[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(written[10], "c 136:* rwm");
        let disk = Device { is_block: true, major: 8, minor: 1, read: true, write: false };
        assert_eq!(given(&disk).to_string(), "b 8:1 rm");
    }
}
