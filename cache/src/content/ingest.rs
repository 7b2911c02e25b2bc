//! Writing one blob.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use tempfile::{Builder, NamedTempFile};

use super::{Blob, ContentError, ContentStore, failed, seen::Seen};
use crate::{
    digest::{Digest, Hasher},
    fault,
};

/// A blob up to this size is compared with one that is there already, whose bits may have changed.
/// Larger ones are left for whoever reads them.
const COMPARED: u64 = 1 << 20;

/// The content that a blob was announced to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The digest.
    pub digest: Digest,
    /// The length in bytes.
    pub size: u64,
}

/// Writes one blob; readers see it whole or not at all.
///
/// What is written is hashed on the way, so a commit reads nothing again. Dropping an `Ingest`
/// discards what was written. It owns all that it needs and may be moved to another thread.
#[derive(Debug)]
pub struct Ingest {
    file: NamedTempFile,
    blobs: PathBuf,
    seen: Seen,
    hasher: Hasher,
    size: u64,
}

impl Ingest {
    pub(super) fn start(store: &ContentStore) -> Result<Self, ContentError> {
        let file = Builder::new()
            .prefix("ingest-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&store.tmp)
            .map_err(|source| failed(&store.tmp, source))?;
        let (blobs, seen) = (store.blobs.clone(), store.seen.clone());
        Ok(Self { file, blobs, seen, hasher: Hasher::new(), size: 0 })
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Verifies digest and size, and makes the blob visible.
    ///
    /// The blob survives the end of this process from here on, but not yet a loss of power.
    ///
    /// # Errors
    /// [`ContentError::Mismatch`] if the content is not what `expected` says; nothing is kept then.
    pub fn commit(self, expected: Option<Expected>) -> Result<Blob, ContentError> {
        let blob = Blob { digest: self.hasher.finish(), size: self.size };
        if let Some(Expected { digest, size }) = expected
            && (digest, size) != (blob.digest, blob.size)
        {
            let (actual, actual_size) = (blob.digest, blob.size);
            return Err(ContentError::Mismatch { digest, size, actual, actual_size });
        }
        let path = self.blobs.join(blob.digest.to_hex());
        // Replacing an equal blob would only give the disk work; a short one is a wreck.
        if fs::symlink_metadata(&path).is_ok_and(|there| there.len() == blob.size)
            && (blob.size > COMPARED
                || fs::read(&path).is_ok_and(|there| Digest::of(there) == blob.digest))
        {
            return Ok(blob);
        }
        fault::may_fail().map_err(|source| failed(&path, source))?;
        let file = self.file.persist(&path).map_err(|error| failed(&path, error.error))?;
        fault::may_die();
        let metadata = file.metadata().map_err(|source| failed(&path, source))?;
        self.seen.note(blob.digest, &metadata);
        Ok(blob)
    }
}

impl Write for Ingest {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        fault::may_fail()?;
        let written = self.file.write(piece)?;
        self.hasher.update(&piece[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
