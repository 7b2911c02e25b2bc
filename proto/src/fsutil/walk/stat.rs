//! What the protocol says about one file.

use super::super::{GoMode, Stat};
use super::{Owner, WalkError};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kernel's limit for a list of names and for a value.
const MAX_XATTR: usize = 64 << 10;

/// Attributes that only mean something on another system.
const FOREIGN_XATTRS: &str = "com.apple.";

/// Looks at files, and remembers what it has seen of hardlinks.
#[derive(Debug)]
pub(super) struct Inspector {
    root: Arc<Path>,
    owner: Owner,
    /// The first path of each inode with several.
    linked: HashMap<(u64, u64), String>,
    names: Vec<u8>,
    value: Vec<u8>,
    /// Scratch space for a path below the root.
    full: Vec<u8>,
}

/// Where a file is.
pub(super) struct Place<'a, Fd> {
    pub(super) directory: Fd,
    pub(super) name: &'a CStr,
    /// From the root of the tree.
    pub(super) path: &'a str,
}

impl Inspector {
    pub(super) fn new(root: Arc<Path>, owner: Owner) -> Self {
        Self {
            root,
            owner,
            linked: HashMap::new(),
            names: vec![0; MAX_XATTR],
            value: vec![0; MAX_XATTR],
            full: Vec::new(),
        }
    }

    /// `None` if the file has vanished.
    pub(super) fn look<Fd: AsFd>(
        &mut self,
        place: &Place<'_, Fd>,
    ) -> Result<Option<Stat>, WalkError> {
        match self.try_look(place) {
            Ok(stat) => Ok(Some(stat)),
            Err(Failure::Errno(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            Err(Failure::Errno(errno)) => {
                Err(WalkError::Io { path: self.root.join(place.path), source: errno.into() })
            }
            Err(Failure::Walk(error)) => Err(error),
        }
    }

    fn try_look<Fd: AsFd>(&mut self, place: &Place<'_, Fd>) -> Result<Stat, Failure> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let file = rustix::fs::statat(&place.directory, place.name, flags)?;
        let kind = FileType::from_raw_mode(file.st_mode);
        let (uid, gid) = match self.owner {
            Owner::Kept => (file.st_uid, file.st_gid),
            Owner::Set { uid, gid } => (uid, gid),
        };
        let mut stat = Stat {
            path: place.path.to_owned(),
            mode: GoMode::from_st_mode(file.st_mode).without_socket().0,
            uid,
            gid,
            mod_time: file
                .st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add_unsigned(file.st_mtime_nsec),
            xattrs: self.xattrs(place.path)?,
            ..Stat::default()
        };
        if kind != FileType::Directory {
            stat.size = file.st_size;
        }
        match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&place.directory, place.name, Vec::new())?;
                stat.linkname = target
                    .into_string()
                    .map_err(|_| WalkError::NotUtf8 { path: self.root.join(place.path) })?;
            }
            FileType::BlockDevice | FileType::CharacterDevice => {
                stat.devmajor = rustix::fs::major(file.st_rdev).into();
                stat.devminor = rustix::fs::minor(file.st_rdev).into();
            }
            _ => {}
        }
        if file.st_nlink > 1 && !matches!(kind, FileType::Directory | FileType::Symlink) {
            let first = self.linked.entry((file.st_dev, file.st_ino));
            let first = first.or_insert_with(|| place.path.to_owned());
            if first != place.path {
                stat.linkname.clone_from(first);
            }
        }
        Ok(stat)
    }

    /// The extended attributes of a file, by path: the kernel has no call by directory for this.
    fn xattrs(&mut self, path: &str) -> Result<BTreeMap<String, bytes::Bytes>, Errno> {
        self.full.clear();
        self.full.extend_from_slice(self.root.as_os_str().as_bytes());
        self.full.push(b'/');
        self.full.extend_from_slice(path.as_bytes());
        let full = OsStr::from_bytes(&self.full);
        let mut xattrs = BTreeMap::new();
        let length = match rustix::fs::llistxattr(full, self.names.as_mut_slice()) {
            Err(Errno::NOTSUP) => return Ok(xattrs),
            length => length?,
        };
        for name in self.names[..length].split(|&byte| byte == 0) {
            let Ok(name) = std::str::from_utf8(name) else {
                continue;
            };
            if name.is_empty() || name.starts_with(FOREIGN_XATTRS) {
                continue;
            }
            // One that may be listed but not read is no part of what this user sees.
            if let Ok(length) = rustix::fs::lgetxattr(full, name, self.value.as_mut_slice()) {
                let value = bytes::Bytes::copy_from_slice(&self.value[..length]);
                xattrs.insert(name.to_owned(), value);
            }
        }
        Ok(xattrs)
    }

    /// Where a path of the tree is on this machine.
    pub(super) fn full_path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

enum Failure {
    Errno(Errno),
    Walk(WalkError),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<WalkError> for Failure {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}
