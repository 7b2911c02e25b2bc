//! Whether an entry of a layer is the same as the one it lies on.

use std::ffi::OsStr;
use std::io::{self, Read};

use crate::dir::Dir;
use crate::metadata::{FileKind, Metadata, Xattrs, is_hosts};

const CAPABILITY: &[u8] = b"security.capability";

/// An entry, with what was read of it already.
pub(super) struct Side<'a> {
    pub(super) dir: &'a Dir,
    pub(super) name: &'a OsStr,
    pub(super) metadata: &'a Metadata,
}

/// Whether nothing about an entry changed that a layer records.
///
/// A directory's modification time does not count: it follows from its entries. A file's does, but
/// it never makes two files the same: the clock that it is taken from stands still for milliseconds,
/// in which two steps can write one name.
pub(super) fn is_same(upper: &Side<'_>, xattrs: &Xattrs, lower: &Side<'_>) -> io::Result<bool> {
    let (a, b) = (upper.metadata, lower.metadata);
    if (a.dev, a.ino) == (b.dev, b.ino) {
        return Ok(true);
    }
    if !is_same_kind(a, b) {
        return Ok(false);
    }
    if capability(xattrs) != capability(&lower.dir.xattrs(lower.name)?) {
        return Ok(false);
    }
    if a.kind == FileKind::Directory {
        return Ok(true);
    }
    Ok(a.size == b.size && a.mtime == b.mtime && is_same_data(upper, lower)?)
}

/// Whether nobody who looks at one entry can tell it from the other.
///
/// A file with several names is like no other: it is known by them, too.
pub(super) fn is_alike(upper: &Side<'_>, lower: &Side<'_>) -> io::Result<bool> {
    let (a, b) = (upper.metadata, lower.metadata);
    if (a.dev, a.ino) == (b.dev, b.ino) {
        return Ok(true);
    }
    let is_dir = a.is_dir();
    if !is_same_kind(a, b)
        || a.mtime != b.mtime
        || !is_dir && (a.nlink > 1 || a.size != b.size)
        || foreign(upper)? != foreign(lower)?
    {
        return Ok(false);
    }
    is_same_data(upper, lower)
}

fn is_same_kind(a: &Metadata, b: &Metadata) -> bool {
    a.kind == b.kind && a.mode == b.mode && a.owner() == b.owner() && a.rdev == b.rdev
}

/// The attributes that are not the host's.
fn foreign(side: &Side<'_>) -> io::Result<Xattrs> {
    let mut xattrs = side.dir.xattrs(side.name)?;
    xattrs.retain(|(key, _)| !is_hosts(key));
    Ok(xattrs)
}

/// Whether two entries of a kind have the same target, or content.
fn is_same_data(upper: &Side<'_>, lower: &Side<'_>) -> io::Result<bool> {
    match upper.metadata.kind {
        FileKind::Symlink => {
            Ok(upper.dir.read_link(upper.name)? == lower.dir.read_link(lower.name)?)
        }
        FileKind::File => is_same_content(upper, lower),
        _ => Ok(true),
    }
}

fn capability(xattrs: &Xattrs) -> Option<&[u8]> {
    xattrs.iter().find(|(key, _)| key == CAPABILITY).map(|(_, value)| value.as_slice())
}

fn is_same_content(upper: &Side<'_>, lower: &Side<'_>) -> io::Result<bool> {
    const CHUNK: usize = 64 * 1024;
    let (Some(a), Some(b)) = (upper.dir.open_file(upper.name)?, lower.dir.open_file(lower.name)?)
    else {
        return Ok(false);
    };
    let (mut left, mut right) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    loop {
        left.clear();
        right.clear();
        (&a).take(CHUNK as u64).read_to_end(&mut left)?;
        (&b).take(CHUNK as u64).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
