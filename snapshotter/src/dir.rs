//! An open directory, and the calls on one name inside it.
//!
//! Names are single components; none of these calls follows a symbolic link in the name it is
//! given. Everything the crate does to files goes through here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use crate::layer::OverlayMarks;
use crate::metadata::{Device, FileKind, Metadata, Owner, Timestamp, Xattrs};
use crate::sys::xattr;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
}

/// A name found in a directory.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: OsString,
    /// `None` where the file system does not tell types with names.
    pub(crate) kind: Option<FileKind>,
}

const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory of the host: the caller's own path, in which links are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens a directory in this one. A symbolic link is [`Errno::NOTDIR`], like any other
    /// non-directory.
    pub(crate) fn dir(&self, name: &OsStr) -> Result<Self, Errno> {
        match rustix::fs::openat(&self.fd, name, OPEN_DIR, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(Errno::LOOP) => Err(Errno::NOTDIR),
            Err(error) => Err(error),
        }
    }

    /// Opens the directory at a path, resolving symbolic links as if this directory were `/`.
    pub(crate) fn resolve_dir(&self, path: &Path) -> Result<Self, Errno> {
        if path.as_os_str().is_empty() {
            return self.dir(OsStr::new("."));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // EAGAIN says that a rename on the machine raced with the resolution of a "..".
        loop {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                Ok(fd) => return Ok(Self { fd }),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens the directory at a path in which no component is a symbolic link.
    pub(crate) fn strict_dir(&self, path: &Path) -> Result<Self, Errno> {
        if path.as_os_str().is_empty() {
            return self.dir(OsStr::new("."));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match rustix::fs::openat2(&self.fd, path, OPEN_DIR, Mode::empty(), resolve) {
                Ok(fd) => return Ok(Self { fd }),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What is known about a name; `None` if there is no such name.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Metadata::from_stat(&stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is known about the directory itself.
    pub(crate) fn own_stat(&self) -> io::Result<Metadata> {
        let stat = rustix::fs::fstat(&self.fd)?;
        Metadata::from_stat(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The names in it, in no order, without `.` and `..`.
    pub(crate) fn names(&self) -> Result<Vec<Name>, Errno> {
        // A descriptor of its own: the read position belongs to the open file.
        let fd = rustix::fs::openat(&self.fd, ".", OPEN_DIR, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut entries = RawDir::new(fd, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(Name {
                    name: OsString::from_vec(name.to_vec()),
                    kind: FileKind::from_raw(entry.file_type()),
                });
            }
        }
        Ok(names)
    }

    /// Opens a regular file for reading. Any other type is `None`, and is not waited for.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let file_type = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        Ok((file_type == FileType::RegularFile).then(|| File::from(fd)))
    }

    /// Creates a regular file, readable by its owner alone until its mode is set.
    pub(crate) fn create_file(&self, name: &OsStr) -> Result<File, Errno> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
    }

    /// Creates and opens a directory.
    pub(crate) fn create_dir(&self, name: &OsStr) -> Result<Self, Errno> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700))?;
        self.dir(name)
    }

    pub(crate) fn create_symlink(&self, name: &OsStr, target: &OsStr) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, &self.fd, name)
    }

    /// Creates a device node, fifo or socket name.
    pub(crate) fn create_node(
        &self,
        name: &OsStr,
        kind: FileKind,
        device: Device,
    ) -> Result<(), Errno> {
        let file_type = match kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::File | FileKind::Directory | FileKind::Symlink => return Err(Errno::INVAL),
        };
        let device = rustix::fs::makedev(device.major, device.minor);
        rustix::fs::mknodat(&self.fd, name, file_type, Mode::from_raw_mode(0o600), device)
    }

    /// Makes the name hide whatever the layers below have there.
    pub(crate) fn create_whiteout(&self, name: &OsStr) -> Result<(), Errno> {
        let mode = Mode::empty();
        rustix::fs::mknodat(&self.fd, name, FileType::CharacterDevice, mode, 0)
    }

    /// Gives a file of another directory a further name here.
    pub(crate) fn link(&self, name: &OsStr, from: &Self, from_name: &OsStr) -> Result<(), Errno> {
        rustix::fs::linkat(&from.fd, from_name, &self.fd, name, AtFlags::empty())
    }

    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Empties a regular file.
    pub(crate) fn truncate(&self, name: &OsStr) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        rustix::fs::ftruncate(&fd, 0)
    }

    /// Removes a name that is not a directory.
    pub(crate) fn unlink(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    pub(crate) fn set_owner(&self, name: &OsStr, owner: Owner) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(&self.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| owner_error(error, owner))
    }

    /// Sets the mode of a name that is not a symbolic link.
    pub(crate) fn set_mode(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        // fchmodat follows links; through a descriptor of the name itself nothing is left to
        // follow, even if somebody replaces the name meanwhile.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        Ok(rustix::fs::chmod(xattr::proc_fd(fd.as_fd()), Mode::from_raw_mode(mode))?)
    }

    pub(crate) fn set_mtime(&self, name: &OsStr, mtime: Timestamp) -> Result<(), Errno> {
        rustix::fs::utimensat(&self.fd, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(crate) fn xattrs(&self, name: &OsStr) -> io::Result<Xattrs> {
        xattr::read_all(self.fd.as_fd(), name)
    }

    pub(crate) fn set_xattr(&self, name: &OsStr, key: &[u8], value: &[u8]) -> io::Result<()> {
        xattr::set(self.fd.as_fd(), name, key, value)
    }

    pub(crate) fn own_xattrs(&self) -> io::Result<Xattrs> {
        xattr::read_all_of(self.fd.as_fd())
    }

    pub(crate) fn set_own_xattr(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        xattr::set_of(self.fd.as_fd(), key, value)
    }

    pub(crate) fn remove_own_xattr(&self, key: &str) -> io::Result<()> {
        Ok(rustix::fs::fremovexattr(&self.fd, key)?)
    }

    pub(crate) fn set_own_owner(&self, owner: Owner) -> io::Result<()> {
        set_owner(&self.fd, owner)
    }

    pub(crate) fn set_own_mode(&self, mode: u32) -> Result<(), Errno> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))
    }

    pub(crate) fn set_own_mtime(&self, mtime: Timestamp) -> Result<(), Errno> {
        set_mtime(&self.fd, mtime)
    }

    /// Whether, as part of a layer, it hides the directories below it.
    pub(crate) fn is_opaque(&self, marks: OverlayMarks) -> io::Result<bool> {
        Ok(xattr::get(self.fd.as_fd(), marks.opaque())?.is_some_and(|value| value == b"y"))
    }

    /// Makes it, as part of a layer, hide the directories below it.
    pub(crate) fn set_opaque(&self, marks: OverlayMarks) -> io::Result<()> {
        xattr::set_of(self.fd.as_fd(), marks.opaque().as_bytes(), b"y")
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sets the owner of an open file.
pub(crate) fn set_owner(fd: impl AsFd, owner: Owner) -> io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
        .map_err(|error| owner_error(error, owner))
}

/// An id that this process's user namespace does not have.
#[derive(Debug, thiserror::Error)]
#[error(
    "the owner {}:{} is not among the ids that this daemon's user may use: give it more of them in \
     /etc/subuid and /etc/subgid",
    .0.uid, .0.gid
)]
struct NotMapped(Owner);

fn owner_error(error: Errno, owner: Owner) -> io::Error {
    match error {
        // All numbers but the last can be had otherwise, which is no id to anybody.
        Errno::INVAL => io::Error::new(io::ErrorKind::InvalidInput, NotMapped(owner)),
        error => error.into(),
    }
}

/// Sets the mode of an open file.
pub(crate) fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
}

/// Sets the modification time of an open file, and its access time with it.
pub(crate) fn set_mtime(fd: impl AsFd, mtime: Timestamp) -> Result<(), Errno> {
    rustix::fs::futimens(fd, &timestamps(mtime))
}

fn timestamps(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// The components of a path below a root, `.` left out and `..` resolved lexically and clamped at
/// the root.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}
