//! Rows of blobs, and which of them nothing needs any more.

use std::{collections::HashSet, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    Hit, Index, IndexError, Pin, db::Batch, durable::Volatile, error::Result, image::ImageRow,
    layer::LayerRow, pin::Pinnable, remove::CHUNK, schema::Family,
};
use crate::{
    content::{Blob, ContentStore, Expected, Ingest},
    digest::Digest,
};

/// What is known of a blob in the content store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlobRow {
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored.
    pub created_at: SystemTime,
}

impl Index {
    /// Commits what was written to the content store and makes the blob's row.
    ///
    /// The blob stays while the pin is held, and afterwards if a layer, an image or a history entry
    /// refers to it.
    pub fn commit_blob(&self, ingest: Ingest, expected: Option<Expected>) -> Result<Hit<Blob>> {
        // Under the lock, so that a collection does not take an equal blob away in between.
        let mut pins = self.pins.lock();
        let blob = ingest.commit(expected)?;
        let row = BlobRow { size: blob.size, created_at: SystemTime::now() };
        let key = *blob.digest.as_bytes();
        if self.db.get::<BlobRow>(Family::Blobs, &key)?.is_none_or(|old| old.size != row.size) {
            let mut batch = Batch::new(&self.db);
            batch.put(Family::Blobs, &key, &row);
            self.put_volatile(&mut batch, Volatile::Blob(blob.digest))?;
            batch.write()?;
        }
        Ok(Hit { row: blob, pin: pins.pin([Pinnable::Blob(blob.digest)]) })
    }

    /// The row of a blob, pinned; `None` if it is not in the content store.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Hit<BlobRow>>> {
        let mut pins = self.pins.lock();
        let row = self.db.get(Family::Blobs, digest.as_bytes())?;
        Ok(row.map(|row| Hit { row, pin: pins.pin([Pinnable::Blob(*digest)]) }))
    }

    /// Keeps blobs, existing or about to be stored, from being collected.
    pub fn pin_blobs(&self, digests: &[Digest]) -> Pin {
        self.pins.lock().pin(digests.iter().copied().map(Pinnable::Blob))
    }

    /// Removes the blobs that no layer, image, history entry or pin needs; returns them.
    ///
    /// Builds go on meanwhile: what they come to need is noted, and looked at in the end.
    pub fn collect_blobs(&self, store: &ContentStore) -> Result<Vec<Blob>> {
        self.collect(|| self.remove_blobs(store, &self.unreferenced_blobs()?))
    }

    /// Removes those of `unneeded` that have not come to be needed since notes were started.
    fn remove_blobs(&self, store: &ContentStore, unneeded: &[Blob]) -> Result<Vec<Blob>> {
        let mut removed = Vec::new();
        for chunk in unneeded.chunks(CHUNK) {
            let pins = self.pins.lock();
            let mut batch = Batch::new(&self.db);
            let mut free = chunk.to_vec();
            free.retain(|blob| !pins.is_needed(Pinnable::Blob(blob.digest)));
            for blob in &free {
                self.delete_blob(&mut batch, &blob.digest)?;
            }
            batch.write()?;
            // Moving a file aside is quick, freeing a gigabyte is not: only the first is done under
            // the lock, which keeps an equal blob that is committed from meeting the old one.
            let retired =
                free.iter().map(|blob| store.retire(&blob.digest)).collect::<Result<Vec<_>, _>>();
            pins.hand_over();
            drop(retired?);
            removed.extend(free);
        }
        Ok(removed)
    }

    /// Drops a blob whose file is missing or damaged, and the images and entries of the history that
    /// are not whole without it. Layers that were packed into it can be packed again.
    pub fn drop_blob(&self, store: &ContentStore, digest: &Digest) -> Result<()> {
        let _pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        self.delete_blob(&mut batch, digest)?;
        for (name, image) in self.images()? {
            if image.target.digest == *digest || image.blobs.contains(digest) {
                batch.delete(Family::Images, name.as_bytes());
            }
        }
        for entry in self.history_all() {
            let (reference, entry) = entry?;
            if entry.blobs.contains(digest) {
                batch.delete(Family::History, reference.as_bytes());
            }
        }
        batch.write()?;
        drop(store.retire(digest)?);
        Ok(())
    }

    fn unreferenced_blobs(&self) -> Result<Vec<Blob>> {
        let mut needed = self.kept_blobs()?;
        for row in self.db.scan::<LayerRow>(Family::Layers, &[]) {
            needed.extend(row?.1.blobs.iter().map(|descriptor| descriptor.digest));
        }
        let mut blobs = self.blobs()?;
        blobs.retain(|blob| !needed.contains(&blob.digest));
        Ok(blobs)
    }

    /// All blobs, in order of their digests. Walks over everything.
    pub fn blob_rows(&self) -> Result<Vec<(Digest, BlobRow)>> {
        self.db
            .scan(Family::Blobs, &[])
            .map(|row| {
                let (key, row) = row?;
                let bytes = key.as_ref().try_into().map_err(|_| IndexError::Damaged {
                    family: Family::Blobs.name(),
                    key: hex::encode(&key),
                })?;
                Ok((Digest::from_bytes(bytes), row))
            })
            .collect()
    }

    pub(super) fn blobs(&self) -> Result<Vec<Blob>> {
        let rows = self.blob_rows()?.into_iter();
        Ok(rows.map(|(digest, row)| Blob { digest, size: row.size }).collect())
    }

    /// Deletes all rows of a blob.
    pub(super) fn delete_blob(&self, batch: &mut Batch<'_>, digest: &Digest) -> Result<()> {
        batch.delete(Family::Blobs, digest.as_bytes());
        self.delete_volatile(batch, Volatile::Blob(*digest))
    }

    /// All blobs that an image or a history entry refers to.
    pub(super) fn kept_blobs(&self) -> Result<HashSet<Digest>> {
        let mut needed = HashSet::new();
        for row in self.db.scan::<ImageRow>(Family::Images, &[]) {
            let (_, image) = row?;
            needed.insert(image.target.digest);
            needed.extend(image.blobs);
        }
        for entry in self.history_entries() {
            needed.extend(entry?.blobs);
        }
        Ok(needed)
    }
}
