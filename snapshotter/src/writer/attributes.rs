//! Setting owner, mode and times, in the order in which they do not undo each other: changing the
//! owner clears setuid bits and capabilities, changing the content or the entries moves the time.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use crate::dir::{self, Dir};
use crate::metadata::{Owner, Timestamp, Xattrs, is_hosts};
use crate::view::merged_dir::MergedDir;
use crate::writer::NewEntry;

pub(crate) fn set_on_file(file: &File, new: &NewEntry) -> io::Result<()> {
    dir::set_owner(file, new.owner.unwrap_or_default())?;
    dir::set_mode(file, new.mode)?;
    if let Some(mtime) = new.mtime {
        dir::set_mtime(file, mtime)?;
    }
    Ok(())
}

/// Leaves out the time: entries are still to come.
pub(crate) fn set_on_dir(dir: &Dir, new: &NewEntry) -> io::Result<()> {
    dir.set_own_owner(new.owner.unwrap_or_default())?;
    Ok(dir.set_own_mode(new.mode)?)
}

/// For what cannot be opened: links, devices, fifos. A link has no mode.
pub(crate) fn set_on_name(
    dir: &Dir,
    name: &OsStr,
    owner: Option<Owner>,
    mode: Option<u32>,
    mtime: Option<Timestamp>,
) -> io::Result<()> {
    dir.set_owner(name, owner.unwrap_or_default())?;
    if let Some(mode) = mode {
        dir.set_mode(name, mode)?;
    }
    if let Some(mtime) = mtime {
        dir.set_mtime(name, mtime)?;
    }
    Ok(())
}

/// Gives a directory the metadata of the one below, and returns the time it is to get at the end.
pub(crate) fn copy_up(lower: &MergedDir, upper: &Dir) -> io::Result<Timestamp> {
    let Some(top) = lower.top() else { return Err(io::ErrorKind::NotFound.into()) };
    let metadata = top.dir.own_stat()?;
    upper.set_own_owner(metadata.owner())?;
    upper.set_own_mode(metadata.mode)?;
    for (key, value) in foreign(top.dir.own_xattrs()?) {
        upper.set_own_xattr(&key, &value)?;
    }
    Ok(metadata.mtime)
}

/// The attributes that are not the host's.
fn foreign(xattrs: Xattrs) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    xattrs.into_iter().filter(|(key, _)| !is_hosts(key))
}
