//! Unpacking an archive into a directory of a layer being written: what `ADD` does.
//!
//! Other than a layer ([`apply`](crate::apply)), an archive hides nothing: names that begin with
//! `.wh.` are names. The directory it goes to is the root for it: links on the way are resolved
//! there, and no entry leaves it.

mod place;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;

use crate::apply::ApplyError;
use crate::metadata::{Owner, Timestamp};
use crate::tar::{Reader, is_header};
use crate::writer::{LayerWriter, NewEntry};

/// How to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnpackOptions {
    /// Everything gets this owner; `None` keeps the archive's.
    pub owner: Option<Owner>,
    /// When the destination was modified, if it is made; entries keep the archive's times.
    pub timestamp: Option<Timestamp>,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of files' content.
    pub content: u64,
}

/// An archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UnpackError(#[from] ApplyError);

impl UnpackError {
    /// Whether the archive is at fault, rather than the destination.
    pub fn is_archive(&self) -> bool {
        !matches!(self.0, ApplyError::Write(_))
    }
}

/// Whether an uncompressed stream that begins like this is a tar archive.
pub fn is_archive(beginning: &[u8]) -> bool {
    is_header(beginning)
}

/// Unpacks an uncompressed archive into the directory `dst_path`, which is made if missing, with
/// its parents.
///
/// # Errors
/// An error leaves the layer half written.
pub fn unpack<R: Read>(
    stream: R,
    dst: &mut LayerWriter,
    dst_path: impl AsRef<Path>,
    options: &UnpackOptions,
) -> Result<Unpacked, UnpackError> {
    run(stream, dst, dst_path.as_ref(), options).map_err(UnpackError)
}

fn run<R: Read>(
    stream: R,
    dst: &mut LayerWriter,
    dst_path: &Path,
    options: &UnpackOptions,
) -> Result<Unpacked, ApplyError> {
    let new = NewEntry { mode: 0o755, owner: options.owner, mtime: options.timestamp };
    dst.mkdir_all(dst_path, &new)?;
    let mut reader = Reader::new(stream);
    let mut target = place::Target::open(dst, dst_path)?;
    let mut unpacked = Unpacked::default();
    while let Some(mut entry) = reader.next_entry()? {
        if let Some(owner) = options.owner {
            (entry.uid, entry.gid) = (owner.uid, owner.gid);
        }
        unpacked.entries += 1;
        unpacked.content += target.entry(&entry, &mut reader)?;
    }
    reader.drain()?;
    target.finish();
    Ok(unpacked)
}
