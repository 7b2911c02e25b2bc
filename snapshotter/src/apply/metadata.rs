//! Metadata of entries, as far as an archive may set them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::dir::{self, Dir};
use crate::metadata::{Owner, is_hosts};
use crate::sys::xattr;
use crate::tar::Entry;

/// Sets everything on an open file that has its content.
pub(crate) fn set_on_file(file: &File, entry: &Entry) -> io::Result<()> {
    dir::set_owner(file, owner(entry))?;
    for (key, value) in settable(entry) {
        tolerate(xattr::set_of(file.as_fd(), key, value), key)?;
    }
    dir::set_mode(file, entry.mode)?;
    Ok(dir::set_mtime(file, entry.mtime)?)
}

/// Sets all but the modification time, which entries yet to come would move.
pub(crate) fn set_on_dir(dir: &Dir, entry: &Entry) -> io::Result<()> {
    dir.set_own_owner(owner(entry))?;
    for (key, value) in settable(entry) {
        tolerate(dir.set_own_xattr(key, value), key)?;
    }
    Ok(dir.set_own_mode(entry.mode)?)
}

/// Sets everything on a name that cannot be opened; `has_mode` is false for a symbolic link.
pub(crate) fn set_on_name(
    dir: &Dir,
    name: &OsStr,
    entry: &Entry,
    has_mode: bool,
) -> io::Result<()> {
    dir.set_owner(name, owner(entry))?;
    for (key, value) in settable(entry) {
        tolerate(dir.set_xattr(name, key, value), key)?;
    }
    if has_mode {
        dir.set_mode(name, entry.mode)?;
    }
    Ok(dir.set_mtime(name, entry.mtime)?)
}

fn owner(entry: &Entry) -> Owner {
    Owner { uid: entry.uid, gid: entry.gid }
}

/// The attributes that an archive may set: `trusted.*` is the administrator's.
fn settable(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(key, _)| !key.starts_with(b"trusted.") && !is_hosts(key))
        .map(|(key, value)| (key.as_slice(), value.as_slice()))
}

/// Attributes that the file system, the type of file or the user namespace cannot have are left
/// out.
fn tolerate(result: io::Result<()>, key: &[u8]) -> io::Result<()> {
    match result {
        Err(error) if is_unsupported(&error) => {
            let key = String::from_utf8_lossy(key);
            tracing::debug!(%key, %error, "extended attribute left out");
            Ok(())
        }
        result => result,
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL))
}
