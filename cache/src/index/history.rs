//! Build history: one opaque entry per build.

use serde::{Deserialize, Serialize};

use super::{Index, IndexError, db::Batch, error::Result, pin::Pinnable, schema::Family};
use crate::digest::Digest;

/// What is kept of a build.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The entry itself, whose form is the caller's.
    pub data: Vec<u8>,
    /// Blobs that belong to it, such as logs. They stay as long as the entry does.
    pub blobs: Vec<Digest>,
}

impl Index {
    /// The entry of the build with that reference.
    pub fn history(&self, reference: &str) -> Result<Option<HistoryEntry>> {
        self.db.get(Family::History, reference.as_bytes())
    }

    /// Stores the entry of a build, replacing an older one.
    ///
    /// # Errors
    /// [`IndexError::NoBlob`] if a blob is not in the content store.
    pub fn put_history(&self, reference: &str, entry: &HistoryEntry) -> Result<()> {
        let mut pins = self.pins.lock();
        for digest in &entry.blobs {
            if !self.db.contains(Family::Blobs, digest.as_bytes())? {
                return Err(IndexError::NoBlob(*digest));
            }
            pins.note_reference(Pinnable::Blob(*digest));
        }
        let mut batch = Batch::new(&self.db);
        batch.put(Family::History, reference.as_bytes(), entry);
        batch.write()
    }

    /// Removes the entry of a build; `false` if there is none. Its blobs go with the next collection
    /// if nothing else needs them.
    pub fn remove_history(&self, reference: &str) -> Result<bool> {
        let _pins = self.pins.lock();
        let existed = self.db.contains(Family::History, reference.as_bytes())?;
        let mut batch = Batch::new(&self.db);
        batch.delete(Family::History, reference.as_bytes());
        batch.write()?;
        Ok(existed)
    }

    /// All entries with the references of their builds.
    pub fn history_all(&self) -> impl Iterator<Item = Result<(String, HistoryEntry)>> {
        self.db
            .scan(Family::History, &[])
            .map(|row| row.map(|(key, entry)| (String::from_utf8_lossy(&key).into_owned(), entry)))
    }

    pub(super) fn history_entries(&self) -> impl Iterator<Item = Result<HistoryEntry>> {
        self.history_all().map(|row| row.map(|(_, entry)| entry))
    }
}
