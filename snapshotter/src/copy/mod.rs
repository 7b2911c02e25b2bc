//! Copying out of a tree into a layer: what `COPY` and LLB's file copy mean.
//!
//! The rules are BuildKit's, so that its Dockerfiles give the same trees:
//! - A destination written with a trailing `/` or `/.` is a directory, and is made if missing.
//! - A file copied to an existing directory goes below it, under the source's name. So does a
//!   directory, unless [`CopyOptions::dir_copy_contents`] is set.
//! - Links on the way to the destination are followed. A link that stands where a file is to be
//!   copied is replaced; a link, even one to a directory, is no place for a directory.
//! - An existing destination directory keeps its owner and mode, except below the source: what is
//!   merged there gets the source's.

mod engine;
mod file;
mod options;

#[cfg(test)]
mod tests;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::dir::clean;
use crate::error::FsError;
use crate::view::{Follow, View};
use crate::writer::{LayerWriter, NewEntry};

pub(crate) use file::{Cloning, copy_whole};
pub use options::{CopyOptions, Decision, Filter, ModeChange};

/// A copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(FsError),
    /// The destination cannot be written.
    #[error(transparent)]
    Destination(FsError),
    /// [`CopyOptions::cancelled`] said so.
    #[error("the copy was cancelled")]
    Cancelled,
}

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Files, directories and others that were made or replaced.
    pub entries: u64,
    /// How many of them share their inode with the source.
    pub linked: u64,
}

/// Copies what `src_path` names in `src` to `dst_path` in `dst`.
///
/// Regular files whose metadata do not change are hardlinked, others are cloned or copied.
///
/// # Errors
/// [`CopyError::Source`] with [`FsError::NotFound`] if there is no such source. An error leaves the
/// layer half written.
pub fn copy(
    src: &View,
    src_path: impl AsRef<Path>,
    dst: &mut LayerWriter,
    dst_path: impl AsRef<Path>,
    options: &mut CopyOptions<'_>,
) -> Result<Copied, CopyError> {
    let (src_path, dst_path) = (src_path.as_ref(), dst_path.as_ref());
    let destination = clean(dst_path);
    let parents = NewEntry {
        mode: match options.mode {
            Some(ModeChange::Set(mode)) => mode & 0o777,
            _ => 0o755,
        },
        owner: options.owner,
        mtime: options.timestamp,
    };

    if !options.create_dest_path {
        require_parent(dst, &destination).map_err(CopyError::Destination)?;
    }
    let parent = if names_directory(dst_path) {
        destination.as_path()
    } else {
        destination.parent().unwrap_or(Path::new(""))
    };
    dst.mkdir_all(parent, &parents).map_err(CopyError::Destination)?;

    let follow = if options.follow_symlink { Follow::Last } else { Follow::NoLast };
    let src_name = clean(src_path);
    if src.depth() == 0 && src_name.as_os_str().is_empty() {
        // The root of an empty tree has no metadata to give, and no content.
        dst.mkdir_all(&destination, &parents).map_err(CopyError::Destination)?;
        return Ok(Copied::default());
    }
    let source = src.existing(&src_name, follow).map_err(CopyError::Source)?;

    let is_dir = source.metadata().is_dir();
    let mut target =
        dst.view().real_path(&destination, Follow::Last).map_err(CopyError::Destination)?;
    let existing = dst.view().lookup(&target, Follow::Last).map_err(CopyError::Destination)?;
    let goes_below = match &existing {
        Some(_) if is_dir => !options.dir_copy_contents,
        Some(entry) => entry.metadata().is_dir(),
        None => false,
    };
    if goes_below && let Some(name) = source_name(src_path) {
        target.push(name);
    }
    let made = if is_dir && options.dir_copy_contents && existing.is_none() {
        target.as_path()
    } else {
        target.parent().unwrap_or(Path::new(""))
    };
    dst.mkdir_all(made, &parents).map_err(CopyError::Destination)?;

    engine::Engine::new(src, dst, options).run(source, target)
}

/// Whether a destination is written as a directory.
fn names_directory(path: &Path) -> bool {
    let text = path.as_os_str().as_bytes();
    matches!(text, b"" | b".") || text.ends_with(b"/") || text.ends_with(b"/.")
}

/// The name that a source has below a directory; `dir/.` and the root have none.
fn source_name(path: &Path) -> Option<std::ffi::OsString> {
    if path.as_os_str().as_bytes().ends_with(b"/.") {
        return None;
    }
    clean(path).file_name().map(ToOwned::to_owned)
}

fn require_parent(dst: &LayerWriter, destination: &Path) -> Result<(), FsError> {
    let real = dst.view().real_path(destination, Follow::Last)?;
    match real.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            dst.view().existing(parent, Follow::NoLast).map(drop)
        }
        _ => Ok(()),
    }
}
