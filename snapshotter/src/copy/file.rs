//! Copying one regular file, as cheaply as the file system allows.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::dir;
use crate::error::{At, FsError};
use crate::metadata::{Owner, is_hosts};
use crate::sys::xattr;
use crate::view::Entry;

/// Whether the file system shares blocks between files, as far as is known.
#[derive(Debug)]
pub(crate) struct Cloning {
    supported: bool,
}

impl Default for Cloning {
    fn default() -> Self {
        Self { supported: true }
    }
}

impl Cloning {
    /// Fills a new file with another's content.
    pub(crate) fn copy_content(&mut self, source: &File, target: &File) -> io::Result<()> {
        if self.supported {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => return Ok(()),
                Err(_) => self.supported = false,
            }
        }
        // The standard library uses copy_file_range between files.
        io::copy(&mut &*source, &mut &*target).map(drop)
    }
}

/// Fills a new file with another's content and metadata; `path` is where it is, for messages.
pub(crate) fn copy_whole(
    cloning: &mut Cloning,
    source: &Entry,
    target: &File,
    path: &Path,
) -> Result<(), FsError> {
    let metadata = source.metadata();
    let from = source.open()?;
    cloning.copy_content(&from, target).at("copy the content", path)?;
    set_metadata(target, metadata.owner(), metadata.mode).at("set the metadata", path)?;
    copy_xattrs(&from, target, path).at("read the extended attributes", source.path())?;
    dir::set_mtime(target, metadata.mtime).at("set the modification time", path)
}

pub(crate) fn set_metadata(file: &File, owner: Owner, mode: u32) -> io::Result<()> {
    dir::set_owner(file, owner)?;
    Ok(dir::set_mode(file, mode)?)
}

/// Copies extended attributes; those that the target cannot have are left out.
pub(crate) fn copy_xattrs(source: &File, target: &File, path: &Path) -> io::Result<()> {
    for (key, value) in xattr::read_all_of(source.as_fd())? {
        if !is_hosts(&key) {
            tolerate(xattr::set_of(target.as_fd(), &key, &value), &key, path);
        }
    }
    Ok(())
}

/// An attribute that cannot be set is no reason to fail a copy: file systems and user namespaces
/// differ in what they allow.
pub(crate) fn tolerate(result: io::Result<()>, key: &[u8], path: &Path) {
    if let Err(error) = result {
        let key = String::from_utf8_lossy(key);
        tracing::debug!(%key, path = %path.display(), %error, "extended attribute not copied");
    }
}
