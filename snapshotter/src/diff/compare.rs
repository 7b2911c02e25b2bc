//! Whether an entry of a layer is the same as the one it lies on.

use std::ffi::OsStr;
use std::io::{self, Read};

use crate::dir::Dir;
use crate::metadata::{FileKind, Metadata, Xattrs};

const CAPABILITY: &[u8] = b"security.capability";

/// An entry, with what was read of it already.
pub(super) struct Side<'a> {
    pub(super) dir: &'a Dir,
    pub(super) name: &'a OsStr,
    pub(super) metadata: &'a Metadata,
}

/// Whether nothing about an entry changed that a layer records.
///
/// A directory's modification time does not count: it follows from its entries. A file's does, and
/// where both sides have a time without fraction, as unpacked files have, the content decides.
pub(super) fn is_same(upper: &Side<'_>, xattrs: &Xattrs, lower: &Side<'_>) -> io::Result<bool> {
    let (a, b) = (upper.metadata, lower.metadata);
    if (a.dev, a.ino) == (b.dev, b.ino) {
        return Ok(true);
    }
    if a.kind != b.kind || a.mode != b.mode || a.owner() != b.owner() || a.rdev != b.rdev {
        return Ok(false);
    }
    if capability(xattrs) != capability(&lower.dir.xattrs(lower.name)?) {
        return Ok(false);
    }
    if a.kind == FileKind::Directory {
        return Ok(true);
    }
    if a.size != b.size || a.mtime != b.mtime {
        return Ok(false);
    }
    match a.kind {
        FileKind::Symlink => {
            Ok(upper.dir.read_link(upper.name)? == lower.dir.read_link(lower.name)?)
        }
        FileKind::File if a.mtime.nanos == 0 && a.size > 0 => same_content(upper, lower),
        _ => Ok(true),
    }
}

fn capability(xattrs: &Xattrs) -> Option<&[u8]> {
    xattrs.iter().find(|(key, _)| key == CAPABILITY).map(|(_, value)| value.as_slice())
}

fn same_content(upper: &Side<'_>, lower: &Side<'_>) -> io::Result<bool> {
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
