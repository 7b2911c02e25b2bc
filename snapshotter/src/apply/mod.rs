//! Unpacking an OCI layer into a layer's directory.
//!
//! A layer is unpacked by itself, so that those of an image can be unpacked at the same time.
//! Only two things of a layer concern the stack below it: the metadata of directories that an
//! archive takes for granted, and hardlinks to files of other layers. Both are noted, and settled
//! when the stack is there ([`Deferred::settle`]).
//!
//! The stream is foreign. Whatever it contains, nothing outside the layer's directory is touched,
//! no device that reads as a whiteout and no attribute of overlayfs's is made, and a name that
//! would leave the tree is an error.

mod content;
mod deferred;
mod error;
pub(crate) mod metadata;
pub(crate) mod name;
mod target;

#[cfg(test)]
pub(crate) mod tests;

use std::io::Read;

use crate::layer::LayerDir;
use crate::tar::Reader;
use crate::view::View;

pub use crate::tar::TarError;
pub(crate) use content::write_entry;
pub use deferred::Deferred;
pub use error::ApplyError;

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Applied {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of files' content.
    pub content: u64,
    /// What is still to be settled with the stack below.
    pub deferred: Deferred,
}

/// Unpacks an uncompressed layer into a fresh layer, and reads the stream to its end.
///
/// With `parents`, the stack below, everything is settled; without, [`Applied::deferred`] is left
/// to the caller.
///
/// # Errors
/// The layer is half unpacked then, and is to be removed.
pub fn apply<R: Read>(
    stream: R,
    layer: &LayerDir,
    parents: Option<&View>,
) -> Result<Applied, ApplyError> {
    let mut reader = Reader::new(stream);
    let mut target = target::Target::open(layer)?;
    let mut applied = Applied::default();
    while let Some(entry) = reader.next_entry()? {
        applied.entries += 1;
        applied.content += target.entry(&entry, &mut reader)?;
    }
    reader.drain()?;
    applied.deferred = target.finish()?;
    if let Some(parents) = parents {
        std::mem::take(&mut applied.deferred).settle(layer, parents)?;
    }
    Ok(applied)
}
