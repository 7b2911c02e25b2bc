//! What is in /dev: the devices that every program may expect, and Docker's links.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, makedev, mkdirat, mknodat, symlinkat};

use crate::zygote::protocol::{At, Failure, Stage};

const CHARACTER: FileType = FileType::CharacterDevice;
const BLOCK: FileType = FileType::BlockDevice;

/// Character devices with their numbers, open to all.
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

/// What an unconfined step has besides, for nested container engines and disk images.
const INSECURE: [(&CStr, FileType, u32, u32); 14] = [
    (c"kmsg", CHARACTER, 1, 11),
    (c"cuse", CHARACTER, 10, 203),
    (c"fuse", CHARACTER, 10, 229),
    (c"kvm", CHARACTER, 10, 232),
    (c"net/tun", CHARACTER, 10, 200),
    (c"loop-control", CHARACTER, 10, 237),
    (c"loop0", BLOCK, 7, 0),
    (c"loop1", BLOCK, 7, 1),
    (c"loop2", BLOCK, 7, 2),
    (c"loop3", BLOCK, 7, 3),
    (c"loop4", BLOCK, 7, 4),
    (c"loop5", BLOCK, 7, 5),
    (c"loop6", BLOCK, 7, 6),
    (c"loop7", BLOCK, 7, 7),
];

const LINKS: [(&CStr, &CStr); 6] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"core", c"/proc/kcore"),
    (c"ptmx", c"pts/ptmx"),
];

/// Where further file systems are mounted.
const DIRECTORIES: [&CStr; 3] = [c"pts", c"shm", c"mqueue"];

/// Fills an empty /dev. The umask must be 0.
pub(super) fn make(dev: BorrowedFd<'_>, insecure: bool) -> Result<(), Failure> {
    for (name, major, minor) in DEVICES {
        node(dev, name, CHARACTER, major, minor)?;
    }
    if insecure {
        directory(dev, c"net")?;
        for (name, kind, major, minor) in INSECURE {
            node(dev, name, kind, major, minor)?;
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name).at(Stage::Devices, name.to_bytes())?;
    }
    DIRECTORIES.into_iter().try_for_each(|name| directory(dev, name))
}

fn node(
    dev: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    major: u32,
    minor: u32,
) -> Result<(), Failure> {
    mknodat(dev, name, kind, Mode::from_raw_mode(0o666), makedev(major, minor))
        .at(Stage::Devices, name.to_bytes())
}

fn directory(dev: BorrowedFd<'_>, name: &CStr) -> Result<(), Failure> {
    mkdirat(dev, name, Mode::from_raw_mode(0o755)).at(Stage::Devices, name.to_bytes())
}
