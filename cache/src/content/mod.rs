//! The content store: blobs by digest.
//!
//! ```text
//! <root>/blobs/sha256/<hex>   complete blobs, each with the content that its name says
//! <root>/tmp/                 what is being written
//! ```
//!
//! A blob is read whole or not at all: it is written to a temporary file while it is hashed, and
//! renamed into place. Nothing here waits for the disk. After `kill -9` every blob is intact; after
//! a loss of power a blob may be short, so those that the [index](crate::Index) has not marked as
//! durable are dropped then ([`Index::reconcile`](crate::Index::reconcile)).
//!
//! Disks change what is written, rarely and without a word. A blob that leaves the store is read by
//! [`ContentStore::read`] or [`ContentStore::open_sound`], which notice.
//!
//! The store knows nothing of why a blob is kept; that is the index's business.

mod ingest;
mod seen;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    digest::{Digest, Hasher},
    fault,
};

pub use ingest::{Expected, Ingest};

/// Blobs in a directory. Cheap to share; all methods block on the file system.
#[derive(Debug)]
pub struct ContentStore {
    blobs: PathBuf,
    tmp: PathBuf,
    seen: seen::Seen,
}

/// A blob that is in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blob {
    /// The content's digest.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
}

/// What can go wrong with blobs.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store has no such blob.
    #[error("blob {0} is not in the content store")]
    NotFound(Digest),
    /// The bytes written are not those that were announced; nothing was kept.
    #[error("content is {actual_size} bytes of {actual}, expected {size} bytes of {digest}")]
    Mismatch {
        /// The announced digest.
        digest: Digest,
        /// The announced size.
        size: u64,
        /// The digest of what was written.
        actual: Digest,
        /// The length of what was written.
        actual_size: u64,
    },
    /// A blob's file has not the content that its name says.
    #[error("blob {digest} is damaged: its file has {actual_size} bytes of {actual}")]
    Damaged {
        /// The blob.
        digest: Digest,
        /// The digest of what its file has.
        actual: Digest,
        /// The length of that.
        actual_size: u64,
    },
    /// The file system refused.
    #[error("{}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ContentError {
    /// Whether it is a blob in the store that cannot be had as it should be.
    pub fn is_of_blob(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Damaged { .. })
    }
}

impl ContentStore {
    /// Opens the store below `root` and makes its directories if needed.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, ContentError> {
        let store = Self {
            blobs: root.as_ref().join("blobs").join("sha256"),
            tmp: root.as_ref().join("tmp"),
            seen: seen::Seen::default(),
        };
        for directory in [&store.blobs, &store.tmp] {
            fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
        }
        Ok(store)
    }

    /// Starts to write a blob.
    pub fn ingest(&self) -> Result<Ingest, ContentError> {
        Ingest::start(self)
    }

    /// Stores `content`.
    pub fn put(&self, content: &[u8]) -> Result<Blob, ContentError> {
        let digest = Digest::of(content);
        let mut ingest = self.ingest()?;
        io::Write::write_all(&mut ingest, content)
            .map_err(|source| failed(&self.path(&digest), source))?;
        ingest.commit(None)
    }

    /// Opens a blob for reading, and reads it to its end before: what is read then is what the name
    /// says. What was written or read a moment ago is not read again.
    ///
    /// # Errors
    /// [`ContentError::Damaged`] if it is not; see [`Index::drop_blob`](crate::Index::drop_blob).
    pub fn open_sound(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        let broken = |source| failed(&path, source);
        let mut file = self.open_blob(digest)?;
        let metadata = file.metadata().map_err(broken)?;
        if self.seen.is_sound(digest, &metadata) {
            return Ok(file);
        }
        let mut hasher = Hasher::new();
        let actual_size = io::copy(&mut file, &mut hasher).map_err(broken)?;
        let actual = hasher.finish();
        if actual != *digest {
            return Err(ContentError::Damaged { digest: *digest, actual, actual_size });
        }
        io::Seek::rewind(&mut file).map_err(broken)?;
        self.seen.note(*digest, &metadata);
        Ok(file)
    }

    /// Opens a blob for reading. Whether its content is what it should be is not looked at.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ContentError::NotFound(*digest),
            _ => failed(&path, source),
        })
    }

    /// Reads a blob of at most `limit` bytes, such as a manifest, and verifies it.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let path = self.path(digest);
        let file = self.open_blob(digest)?;
        let mut content = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, limit.saturating_add(1)), &mut content)
            .map_err(|source| failed(&path, source))?;
        if content.len() as u64 > limit {
            return Err(failed(&path, io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        let actual = Digest::of(&content);
        if actual != *digest {
            let actual_size = content.len() as u64;
            return Err(ContentError::Damaged { digest: *digest, actual, actual_size });
        }
        Ok(content)
    }

    /// The size of a blob, if the store has it.
    pub fn stat(&self, digest: &Digest) -> Result<Option<u64>, ContentError> {
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.size())),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(&path, source)),
        }
    }

    /// Removes a blob; `false` if it was not there.
    ///
    /// Who has it open reads on undisturbed.
    pub fn remove(&self, digest: &Digest) -> Result<bool, ContentError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed(&path, source)),
        }
    }

    /// Takes a blob out of sight at once; its space is freed when the result is dropped.
    pub(crate) fn retire(&self, digest: &Digest) -> Result<Option<Retired>, ContentError> {
        let from = self.path(digest);
        let to = self.tmp.join(format!("retired-{}", digest.to_hex()));
        match fs::rename(&from, &to) {
            Ok(()) => {
                fault::may_die();
                Ok(Some(Retired(to)))
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(&from, source)),
        }
    }

    /// All blobs with their sizes, in no order. Files that are not blobs by name are left out.
    pub fn list(&self) -> Result<Vec<Blob>, ContentError> {
        let broken = |source| failed(&self.blobs, source);
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let Some(digest) =
                entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok())
            else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => blobs.push(Blob { digest, size: metadata.size() }),
                // Removed since the directory was read.
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(broken(source)),
            }
        }
        Ok(blobs)
    }

    /// The file that holds, or would hold, the blob: for reflinks, hardlinks and `sendfile`.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.to_hex())
    }
}

/// A blob that is no longer in the store, and whose file goes when this is dropped.
pub(crate) struct Retired(PathBuf);

impl Drop for Retired {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            // The directory is emptied when the daemon starts.
            tracing::warn!(path = %self.0.display(), %error, "cannot remove a collected blob");
        }
    }
}

fn failed(path: &Path, source: io::Error) -> ContentError {
    ContentError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn store() -> (tempfile::TempDir, ContentStore) {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        (root, store)
    }

    fn leftovers(root: &tempfile::TempDir) -> usize {
        fs::read_dir(root.path().join("tmp")).unwrap().count()
    }

    #[test]
    fn a_blob_is_found_under_the_digest_of_what_was_written() {
        let (root, store) = store();
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(b"hello ").unwrap();
        ingest.write_all(b"world").unwrap();
        let digest = Digest::of("hello world");
        let blob = ingest.commit(Some(Expected { digest, size: 11 })).unwrap();
        assert_eq!(blob, Blob { digest, size: 11 });

        let mut content = String::new();
        store.open_blob(&digest).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "hello world");
        assert_eq!(store.read(&digest, 11).unwrap(), b"hello world");
        assert_eq!(store.stat(&digest).unwrap(), Some(11));
        assert_eq!(store.list().unwrap(), [blob]);
        assert_eq!(leftovers(&root), 0);
    }

    #[test]
    fn other_content_than_announced_is_not_kept() {
        for expected in [
            Expected { digest: Digest::of("b"), size: 1 },
            Expected { digest: Digest::of("a"), size: 2 },
        ] {
            let (root, store) = store();
            let mut ingest = store.ingest().unwrap();
            ingest.write_all(b"a").unwrap();
            assert!(matches!(
                ingest.commit(Some(expected)),
                Err(ContentError::Mismatch { actual_size: 1, .. })
            ));
            assert_eq!(store.list().unwrap(), []);
            assert_eq!(leftovers(&root), 0);
        }
    }

    #[test]
    fn a_dropped_ingest_leaves_nothing() {
        let (root, store) = store();
        store.ingest().unwrap().write_all(b"a").unwrap();
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(leftovers(&root), 0);
    }

    #[test]
    fn the_same_content_twice_is_one_blob() {
        let (root, store) = store();
        assert_eq!(store.put(b"x").unwrap(), store.put(b"x").unwrap());
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(b"x").unwrap();
        ingest.commit(None).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        assert_eq!(leftovers(&root), 0);
    }

    #[test]
    fn a_short_file_left_by_a_power_loss_is_replaced() {
        let (_root, store) = store();
        let digest = Digest::of("content");
        fs::write(store.path(&digest), b"").unwrap();
        store.put(b"content").unwrap();
        assert_eq!(store.read(&digest, 100).unwrap(), b"content");
    }

    #[test]
    fn a_flipped_bit_is_noticed_when_a_manifest_is_read() {
        let (_root, store) = store();
        let blob = store.put(b"manifest").unwrap();
        fs::remove_file(store.path(&blob.digest)).unwrap();
        fs::write(store.path(&blob.digest), b"manifesu").unwrap();
        assert!(matches!(store.read(&blob.digest, 100), Err(ContentError::Damaged { .. })));
    }

    #[test]
    fn a_flipped_bit_is_noticed_before_a_blob_is_read() {
        let (_root, store) = store();
        let blob = store.put(b"layer").unwrap();
        let mut content = String::new();
        store.open_sound(&blob.digest).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "layer");

        fs::write(store.path(&blob.digest), b"laydr").unwrap();
        let error = store.open_sound(&blob.digest).unwrap_err();
        assert!(matches!(error, ContentError::Damaged { actual_size: 5, .. }), "{error}");
    }

    #[test]
    fn a_damaged_manifest_is_replaced_when_it_is_stored_again() {
        let (_root, store) = store();
        let blob = store.put(b"manifest").unwrap();
        fs::write(store.path(&blob.digest), b"manifesu").unwrap();
        store.put(b"manifest").unwrap();
        assert_eq!(store.read(&blob.digest, 100).unwrap(), b"manifest");
    }

    #[test]
    fn a_blob_larger_than_the_limit_is_not_read() {
        let (_root, store) = store();
        let blob = store.put(&[0; 100]).unwrap();
        assert!(matches!(store.read(&blob.digest, 99), Err(ContentError::Io { .. })));
    }

    #[test]
    fn what_is_not_there_is_said_by_name() {
        let (_root, store) = store();
        let digest = Digest::of("none");
        assert_eq!(
            store.open_blob(&digest).unwrap_err().to_string(),
            format!("blob {digest} is not in the content store")
        );
        assert_eq!(store.stat(&digest).unwrap(), None);
        assert!(!store.remove(&digest).unwrap());
    }

    #[test]
    fn a_removed_blob_can_still_be_read_by_who_has_it_open() {
        let (_root, store) = store();
        let blob = store.put(b"x").unwrap();
        let mut file = store.open_blob(&blob.digest).unwrap();
        assert!(store.remove(&blob.digest).unwrap());
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"x");
        assert_eq!(store.list().unwrap(), []);
    }
}
