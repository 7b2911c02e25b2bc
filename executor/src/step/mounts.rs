//! The mounts that a step asks for: bind, overlay, tmpfs and files in memory.
//!
//! They are made in two steps, because sources are the host's and targets are the step's: while
//! the host's root directory is still in place every source becomes a detached mount, and these
//! are then put in place one after the other.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat, open, openat,
    openat2,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::attach::{FsOption, copy, new_file_system, onto};
use super::target::{TargetKind, Targets};
use super::{overlay, pivot};
use crate::sys::mount::set_attributes;
use crate::zygote::protocol::{At, Failure, MountSource, Overlay, Stage, Step, StepMount};

/// A detached mount and where it goes.
pub(super) struct Prepared<'a> {
    mount: OwnedFd,
    target: &'a CStr,
}

/// Makes a detached mount of each source.
pub(super) fn prepare(step: &Step) -> Result<Vec<Prepared<'_>>, Failure> {
    let mut sources = Sources { no_device_nodes: step.no_device_nodes, files: None, made: 0 };
    step.mounts
        .iter()
        .map(|mount| Ok(Prepared { mount: sources.open(mount)?, target: &mount.target }))
        .collect()
}

/// Puts the mounts in place, in their order.
pub(super) fn attach(sources: Vec<Prepared<'_>>, targets: &mut Targets<'_>) -> Result<(), Failure> {
    for Prepared { mount, target } in sources {
        let subject = target.to_bytes();
        let stat = fstat(&mount).at(Stage::Mount, subject)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => TargetKind::Dir,
            _ => TargetKind::File,
        };
        let place = targets.find(target, kind)?;
        onto(mount.as_fd(), place.as_fd()).at(Stage::Mount, subject)?;
    }
    Ok(())
}

struct Sources {
    no_device_nodes: bool,
    /// The file system of files in memory, made when the first is asked for.
    files: Option<OwnedFd>,
    made: usize,
}

impl Sources {
    fn open(&mut self, mount: &StepMount) -> Result<OwnedFd, Failure> {
        let read_only = if mount.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
        let no_devices = if self.no_device_nodes { libc::MOUNT_ATTR_NODEV } else { 0 };
        let (source, attributes, recursive) = match &mount.source {
            MountSource::Bind { path, subpath, recursive } => {
                let source = bind(path, subpath.as_deref(), *recursive)?;
                (source, read_only | no_devices, *recursive)
            }
            MountSource::Overlay { overlay, subpath } => {
                (self.overlay(overlay, subpath.as_deref())?, read_only | no_devices, false)
            }
            MountSource::Tmpfs { size, mode } => (
                tmpfs(*size, *mode).at(Stage::Mount, mount.target.as_bytes())?,
                read_only | no_devices,
                false,
            ),
            MountSource::File { content, mode, uid, gid } => {
                let source = self.file(content, *mode, *uid, *gid);
                let inert =
                    libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
                (
                    source.at(Stage::Mount, mount.target.as_bytes())?,
                    libc::MOUNT_ATTR_RDONLY | inert,
                    false,
                )
            }
        };
        if attributes != 0 {
            set_attributes(source.as_fd(), attributes, recursive)
                .at(Stage::Mount, mount.target.as_bytes())?;
        }
        Ok(source)
    }

    fn overlay(&self, layers: &Overlay, subpath: Option<&CStr>) -> Result<OwnedFd, Failure> {
        // Overlayfs joins two layers or more.
        if let ([only], None) = (layers.lower.as_slice(), &layers.upper) {
            return bind(only, subpath, false);
        }
        let whole = overlay::mount(layers, self.no_device_nodes)?;
        let Some(subpath) = subpath else { return Ok(whole) };
        // A part can be taken only of what is in place somewhere.
        pivot::cover_root(whole.as_fd()).at(Stage::Mount, "/")?;
        below(whole.as_fd(), subpath, false).at(Stage::Mount, subpath.to_bytes())
    }

    fn file(&mut self, content: &[u8], mode: u32, uid: u32, gid: u32) -> Result<OwnedFd, Errno> {
        let files = match self.files.take() {
            Some(files) => files,
            None => new_files()?,
        };
        let files = &*self.files.insert(files);
        let name = CString::new(self.made.to_string()).map_err(|_| Errno::INVAL)?;
        self.made += 1;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(files, &name, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = &rest[written..];
        }
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        copy(files.as_fd(), &name, false)
    }
}

/// The file system that holds the files in memory. It has to be in place somewhere for its files
/// to be mounted one by one.
fn new_files() -> Result<OwnedFd, Errno> {
    let options = [FsOption::Value(c"mode", "700")];
    let files = new_file_system(c"tmpfs", &options, MountAttrFlags::empty())?;
    pivot::cover_root(files.as_fd())?;
    Ok(files)
}

fn bind(path: &CStr, subpath: Option<&CStr>, recursive: bool) -> Result<OwnedFd, Failure> {
    match subpath {
        None => copy(CWD, path, recursive).at(Stage::Mount, path.to_bytes()),
        Some(subpath) => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let whole = open(path, flags, Mode::empty()).at(Stage::Mount, path.to_bytes())?;
            below(whole.as_fd(), subpath, recursive).at(Stage::Mount, subpath.to_bytes())
        }
    }
}

/// A detached mount of `subpath`, resolved inside `dir`.
fn below(dir: BorrowedFd<'_>, subpath: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let part = loop {
        match openat2(dir, subpath, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags) {
            Err(Errno::AGAIN) => {}
            other => break other?,
        }
    };
    copy(part.as_fd(), c"", recursive)
}

fn tmpfs(size: Option<u64>, mode: u32) -> Result<OwnedFd, Errno> {
    let mode = format!("{:o}", mode & 0o7777);
    let size = size.map(|size| size.to_string());
    let mut options = vec![FsOption::Value(c"mode", &mode)];
    options.extend(size.as_deref().map(|size| FsOption::Value(c"size", size)));
    new_file_system(c"tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)
}
