//! What is in /dev: the devices that every program may expect, and Docker's links.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, Dev, FileType, Mode, OFlags, fstat, makedev, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::attach::{copy, onto};
use crate::sys::mount::isolate;
use crate::user_namespace::in_user_namespace;
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

/// The host's own nodes, as mounts. In a user namespace nobody may make devices.
#[derive(Debug)]
pub(super) struct OfHost(Vec<(&'static CStr, OwnedFd)>);

impl OfHost {
    /// Opens them, in the host's mount namespace, if steps cannot have nodes of their own.
    pub(super) fn open(insecure: bool) -> Result<Option<Self>, Failure> {
        if !in_user_namespace() {
            return Ok(None);
        }
        let usual = DEVICES.map(|(name, major, minor)| (name, makedev(major, minor)));
        let mut opened = Vec::new();
        for (name, number) in usual {
            opened.push((name, of_host(name, number).at(Stage::Devices, name.to_bytes())?));
        }
        if insecure {
            let further = INSECURE.map(|(name, _, major, minor)| (name, makedev(major, minor)));
            // Those that this host has; a kernel makes some of them when they are first used.
            let found = further
                .into_iter()
                .filter_map(|(name, number)| Some((name, of_host(name, number).ok()?)));
            opened.extend(found);
        }
        Ok(Some(Self(opened)))
    }
}

fn of_host(name: &CStr, number: Dev) -> Result<OwnedFd, Errno> {
    let path = CString::new([b"/dev/", name.to_bytes()].concat()).map_err(|_| Errno::INVAL)?;
    open_node(&path, number)
}

/// A mount of the host's node at `path`, which must be that of the device `number`.
pub(super) fn open_node(path: &CStr, number: Dev) -> Result<OwnedFd, Errno> {
    let node = copy(CWD, path, false)?;
    let stat = fstat(&node)?;
    let is_device = matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::CharacterDevice | FileType::BlockDevice
    );
    if !is_device || stat.st_rdev != number {
        return Err(Errno::NODEV);
    }
    isolate(node.as_fd(), libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC, false)?;
    Ok(node)
}

/// Fills an empty /dev, with the host's nodes if they are given. The umask must be 0.
pub(super) fn make(
    dev: BorrowedFd<'_>,
    insecure: bool,
    of_host: Option<&OfHost>,
) -> Result<(), Failure> {
    if insecure {
        directory(dev, c"net")?;
    }
    if let Some(OfHost(nodes)) = of_host {
        for (name, node) in nodes {
            show(dev, name, node).at(Stage::Devices, name.to_bytes())?;
        }
    } else {
        for (name, major, minor) in DEVICES {
            node(dev, name, CHARACTER, major, minor)?;
        }
        for (name, kind, major, minor) in INSECURE.into_iter().filter(|_| insecure) {
            node(dev, name, kind, major, minor)?;
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name).at(Stage::Devices, name.to_bytes())?;
    }
    DIRECTORIES.into_iter().try_for_each(|name| directory(dev, name))
}

/// Puts a mount of a single file at a new name in `dir`.
pub(super) fn show(dir: BorrowedFd<'_>, name: &CStr, file: &OwnedFd) -> Result<(), Errno> {
    mknodat(dir, name, FileType::RegularFile, Mode::from_raw_mode(0o600), 0)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    onto(file.as_fd(), openat(dir, name, flags, Mode::empty())?.as_fd())
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
