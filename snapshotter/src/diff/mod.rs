//! What a layer changes of the stack that it lies on: packed as an OCI layer, or brought down to
//! that.
//!
//! What is packed, and how, follows BuildKit's overlay differ, so that layers built by either look
//! the same: entries sorted depth first, modification times cut to seconds, a directory only if it
//! differs from the one below or something in it is packed, a file not at all if it equals the one
//! below, and only those extended attributes that mean the same on every machine. Opaque directories
//! are packed as such.

mod compare;
mod mirror;
mod pack;
mod reduce;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;

use crate::error::FsError;
use crate::layer::LayerDir;
use crate::metadata::Timestamp;
use crate::view::View;

pub use mirror::mirror;
pub use reduce::reduce;

/// A layer could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The layer, or the stack below it, cannot be read.
    #[error(transparent)]
    Read(#[from] FsError),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A name that would be read back as a whiteout.
    #[error("/{}: a name that begins with \".wh.\" cannot be part of a layer", .0.display())]
    ReservedName(PathBuf),
    /// A directory that overlayfs was allowed to rename in place: it is not what the layer says.
    #[error("/{}: the layer was written with redirect_dir or metacopy", .0.display())]
    Redirected(PathBuf),
    /// A file changed while it was read.
    #[error("/{}: the file changed while it was packed", .0.display())]
    Changed(PathBuf),
}

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffOptions {
    /// Modification times after this one become this one (`SOURCE_DATE_EPOCH`).
    pub max_mtime: Option<Timestamp>,
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Diffed {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Bytes of files' content.
    pub content: u64,
}

/// Writes a layer as an uncompressed tar stream.
///
/// `lower` is the stack that the layer was made on. Without it everything in the layer is packed,
/// also what changes nothing.
pub fn diff<W: Write>(
    layer: &LayerDir,
    lower: Option<&View>,
    out: W,
    options: &DiffOptions,
) -> Result<Diffed, DiffError> {
    let upper = View::of_directory(&layer.fs())?;
    pack::Packer::new(layer.marks(), lower, out, *options).run(&upper)
}
