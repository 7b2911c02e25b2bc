//! Why a layer cannot be unpacked.

use std::path::PathBuf;

use crate::error::FsError;
use crate::tar::TarError;

/// A layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The stream is not a readable archive.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// An entry could not be made.
    #[error(transparent)]
    Write(#[from] FsError),
    /// A name leaves the tree.
    #[error("{name}: the archive's entry lies outside the layer")]
    Escapes {
        /// The name as written.
        name: String,
    },
    /// A name is longer than any path, or has a NUL.
    #[error("{name}: not a usable name")]
    Name {
        /// Its beginning.
        name: String,
    },
    /// A name begins like a whiteout but hides nothing.
    #[error("/{}: malformed whiteout", .0.display())]
    Whiteout(PathBuf),
    /// A hardlink's target is not in the layer, nor in those below.
    #[error("/{}: the hardlink's target /{} does not exist", link.display(), target.display())]
    LinkTarget {
        /// The link.
        link: PathBuf,
        /// What it should be a further name of.
        target: PathBuf,
    },
}
