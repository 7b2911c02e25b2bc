//! The mounts that a step asks for: bind, overlay, tmpfs and files in memory.
//!
//! Sources are the host's and targets are the step's, so they are made in two parts: [`open`] while
//! the process is in the host's mount namespace, [`make`] and [`attach`] when it is in its own.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod,
    fchown, fstat, makedev, mknodat, openat, openat2,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::attach::{FsOption, copy, max_files, new_file_system, onto};
use super::target::{TargetKind, Targets};
use super::{Users, devices, overlay, root};
use crate::sys::mount::isolate;
use crate::user_namespace::in_user_namespace;
use crate::zygote::protocol::{At, Failure, MountSource, Overlay, Stage, Step, StepMount};

/// A detached mount and where it goes.
pub(super) struct Made<'a> {
    mount: OwnedFd,
    target: &'a CStr,
}

/// Opens what is on the host: a detached mount for each source that is.
pub(super) fn open(step: &Step) -> Result<Vec<Option<OwnedFd>>, Failure> {
    let open_one = |mount: &StepMount| match &mount.source {
        MountSource::Bind { path, subpath, recursive } => {
            bind(path, subpath.as_deref(), *recursive).map(Some)
        }
        // Overlayfs joins two layers or more.
        MountSource::Overlay { overlay: Overlay { lower, upper: None }, subpath }
            if lower.len() == 1 =>
        {
            bind(&lower[0], subpath.as_deref(), false).map(Some)
        }
        MountSource::Overlay { overlay, .. } => {
            overlay::mount(overlay, step.no_device_nodes, step.file_label()).map(Some)
        }
        MountSource::Device { host, major, minor, .. } if in_user_namespace() => {
            let node = devices::open_node(host, makedev(*major, *minor));
            node.map(Some).at(Stage::Devices, host.as_bytes())
        }
        MountSource::Tmpfs { .. } | MountSource::File { .. } | MountSource::Device { .. } => {
            Ok(None)
        }
    };
    step.mounts.iter().map(open_one).collect()
}

/// Makes the mounts from what has been opened.
pub(super) fn make<'a>(
    step: &'a Step,
    users: Option<&Users>,
    opened: Vec<Option<OwnedFd>>,
) -> Result<Vec<Made<'a>>, Failure> {
    let mut maker = Maker {
        no_device_nodes: step.no_device_nodes,
        label: step.file_label(),
        users,
        files: None,
        made: 0,
    };
    let make_one = |(mount, opened)| maker.make(mount, opened);
    step.mounts.iter().zip(opened).map(make_one).collect()
}

/// Puts the mounts in place, in their order.
pub(super) fn attach(mounts: Vec<Made<'_>>, targets: &mut Targets<'_>) -> Result<(), Failure> {
    for Made { mount, target } in mounts {
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

struct Maker<'s> {
    no_device_nodes: bool,
    label: Option<&'s CStr>,
    users: Option<&'s Users>,
    /// The file system of files in memory, made when the first is asked for.
    files: Option<OwnedFd>,
    made: usize,
}

impl Maker<'_> {
    fn make<'a>(
        &mut self,
        mount: &'a StepMount,
        opened: Option<OwnedFd>,
    ) -> Result<Made<'a>, Failure> {
        let subject = mount.target.as_bytes();
        let mut attributes = mount.attributes;
        if self.no_device_nodes && !matches!(mount.source, MountSource::Device { .. }) {
            attributes |= libc::MOUNT_ATTR_NODEV;
        }
        let made = match (&mount.source, opened) {
            (MountSource::Overlay { overlay, subpath: Some(subpath) }, Some(whole))
                if overlay.upper.is_some() || overlay.lower.len() > 1 =>
            {
                // A part can be taken only of what is in place somewhere.
                root::cover(whole.as_fd()).at(Stage::Mount, subject)?;
                below(whole.as_fd(), subpath, false).at(Stage::Mount, subpath.to_bytes())?
            }
            (_, Some(opened)) => opened,
            (MountSource::Tmpfs { size, mode }, None) => {
                tmpfs(*size, *mode, self.label).at(Stage::Mount, subject)?
            }
            (MountSource::File { content, mode, uid, gid }, None) => {
                attributes |=
                    libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
                self.owner(*uid, *gid)
                    .and_then(|owner| self.file(content, *mode, owner))
                    .at(Stage::Mount, subject)?
            }
            (MountSource::Device { is_block, major, minor, mode, uid, gid, .. }, None) => {
                attributes |= libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
                let kind =
                    if *is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.owner(*uid, *gid)
                    .and_then(|owner| self.node(kind, makedev(*major, *minor), *mode, owner))
                    .at(Stage::Devices, subject)?
            }
            (MountSource::Bind { .. } | MountSource::Overlay { .. }, None) => {
                return Err(Errno::BADF).at(Stage::Mount, subject);
            }
        };
        let recursive = matches!(mount.source, MountSource::Bind { recursive: true, .. });
        isolate(made.as_fd(), attributes, recursive).at(Stage::Mount, subject)?;
        Ok(Made { mount: made, target: &mount.target })
    }

    /// The host's ids for those of the step.
    fn owner(&self, uid: u32, gid: u32) -> Result<(Uid, Gid), Errno> {
        let (uid, gid) = self.users.map_or(Ok((uid, gid)), |users| users.ids(uid, gid))?;
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// The file system of files in memory, and a name in it that is free.
    fn place(&mut self) -> Result<(&OwnedFd, CString), Errno> {
        let files = match self.files.take() {
            Some(files) => files,
            None => new_files(self.label)?,
        };
        let name = CString::new(self.made.to_string()).map_err(|_| Errno::INVAL)?;
        self.made += 1;
        Ok((self.files.insert(files), name))
    }

    fn node(
        &mut self,
        kind: FileType,
        device: Dev,
        mode: u32,
        (uid, gid): (Uid, Gid),
    ) -> Result<OwnedFd, Errno> {
        let (files, name) = self.place()?;
        // The umask is 0.
        mknodat(files, &name, kind, Mode::from_raw_mode(mode & 0o777), device)?;
        chownat(files, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        copy(files.as_fd(), &name, false)
    }

    fn file(
        &mut self,
        content: &[u8],
        mode: u32,
        (uid, gid): (Uid, Gid),
    ) -> Result<OwnedFd, Errno> {
        let (files, name) = self.place()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(files, &name, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = &rest[written..];
        }
        fchown(&file, Some(uid), Some(gid))?;
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        copy(files.as_fd(), &name, false)
    }
}

/// The file system that holds the files in memory. It has to be in place somewhere for its files
/// to be mounted one by one.
fn new_files(label: Option<&CStr>) -> Result<OwnedFd, Errno> {
    let options = [FsOption::Value(c"mode", "700"), FsOption::Label(label)];
    let files = new_file_system(c"tmpfs", &options, MountAttrFlags::empty())?;
    root::cover(files.as_fd())?;
    Ok(files)
}

fn bind(path: &CStr, subpath: Option<&CStr>, recursive: bool) -> Result<OwnedFd, Failure> {
    match subpath {
        None => copy(CWD, path, recursive).at(Stage::Mount, path.to_bytes()),
        Some(subpath) => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let whole = fs::open(path, flags, Mode::empty()).at(Stage::Mount, path.to_bytes())?;
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

fn tmpfs(size: Option<u64>, mode: u32, label: Option<&CStr>) -> Result<OwnedFd, Errno> {
    let mode = format!("{:o}", mode & 0o7777);
    let limits = size.map(|size| (size.to_string(), max_files(size)));
    let mut options = vec![FsOption::Value(c"mode", &mode), FsOption::Label(label)];
    if let Some((size, files)) = &limits {
        options.push(FsOption::Value(c"size", size));
        options.push(FsOption::Value(c"nr_inodes", files));
    }
    new_file_system(c"tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)
}
