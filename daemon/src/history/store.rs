//! Records on the disk: rows of the index, and blobs that belong to them.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{ContentStore, Digest, HistoryEntry, Hit, Index};
use kiln_proto::control::{BuildHistoryRecord, Descriptor};
use parking_lot::Mutex;
use prost::Message as _;

use super::log::{self, LogStream};

/// Where records and their blobs are. Cheap to clone.
#[derive(Clone)]
pub(super) struct Store {
    index: Arc<Index>,
    content: Arc<ContentStore>,
    /// Held while a row is read to be written again.
    changing: Arc<Mutex<()>>,
}

/// A record, and the blobs that are kept with it.
pub(super) struct Entry {
    pub(super) record: BuildHistoryRecord,
    pub(super) blobs: Vec<Digest>,
}

impl Store {
    pub(super) fn new(index: Arc<Index>, content: Arc<ContentStore>) -> Self {
        Self { index, content, changing: Arc::default() }
    }

    /// Stores a blob, which stays while the hit is held. Blocks.
    pub(super) fn put_blob(
        &self,
        media_type: &str,
        bytes: &[u8],
    ) -> anyhow::Result<Hit<Descriptor>> {
        let mut ingest = self.content.ingest()?;
        ingest.write_all(bytes)?;
        let Hit { row: blob, pin } = self.index.commit_blob(ingest, None)?;
        let row = Descriptor {
            media_type: media_type.to_owned(),
            digest: blob.digest.to_string(),
            size: i64::try_from(blob.size)?,
            ..Descriptor::default()
        };
        Ok(Hit { row, pin })
    }

    /// Writes a record in place of an older one of its reference. Blocks.
    pub(super) fn save(&self, entry: &Entry) -> anyhow::Result<()> {
        let row = HistoryEntry { data: entry.record.encode_to_vec(), blobs: entry.blobs.clone() };
        Ok(self.index.put_history(&entry.record.r#ref, &row)?)
    }

    fn load(&self, reference: &str) -> anyhow::Result<Option<Entry>> {
        self.index.history(reference)?.map(decode).transpose()
    }

    /// Changes a record if it is still there, and returns what it is now. Blocks.
    pub(super) fn change(
        &self,
        reference: &str,
        change: impl FnOnce(&mut Entry),
    ) -> anyhow::Result<Option<BuildHistoryRecord>> {
        let _changing = self.changing.lock();
        let Some(mut entry) = self.load(reference)? else { return Ok(None) };
        change(&mut entry);
        entry.record.generation += 1;
        self.save(&entry)?;
        Ok(Some(entry.record))
    }

    /// [Changes](Self::change) a record.
    pub(super) async fn update(
        &self,
        reference: &str,
        change: impl FnOnce(&mut Entry) + Send + 'static,
    ) -> anyhow::Result<Option<BuildHistoryRecord>> {
        let (store, reference) = (self.clone(), reference.to_owned());
        tokio::task::spawn_blocking(move || store.change(&reference, change)).await?
    }

    /// All records. Blocks.
    pub(super) fn records(&self) -> anyhow::Result<Vec<BuildHistoryRecord>> {
        self.index.history_all().map(|row| Ok(decode(row?.1)?.record)).collect()
    }

    /// The record of that reference. Blocks.
    pub(super) fn record(&self, reference: &str) -> anyhow::Result<Option<BuildHistoryRecord>> {
        Ok(self.load(reference)?.map(|entry| entry.record))
    }

    /// Removes a record; `false` if there is none. Blocks.
    pub(super) fn remove(&self, reference: &str) -> anyhow::Result<bool> {
        let _changing = self.changing.lock();
        Ok(self.index.remove_history(reference)?)
    }

    /// Frees the blobs of removed records. Blocks.
    pub(super) fn collect(&self) -> anyhow::Result<()> {
        self.index.collect_blobs(&self.content)?;
        Ok(())
    }

    /// The log of a build; none if there is no record of it.
    pub(super) async fn log(&self, reference: &str) -> anyhow::Result<Option<LogStream>> {
        let (store, reference) = (self.clone(), reference.to_owned());
        let open = move || {
            let Some(record) = store.record(&reference)? else { return Ok(None) };
            let Some(logs) = record.logs else { return Ok(Some(log::empty())) };
            let file = store.content.open_sound(&logs.digest.parse()?)?;
            Ok(Some(log::read(file)))
        };
        tokio::task::spawn_blocking(open).await?
    }
}

fn decode(row: HistoryEntry) -> anyhow::Result<Entry> {
    let record = BuildHistoryRecord::decode(&*row.data).context("a build record is damaged")?;
    Ok(Entry { record, blobs: row.blobs })
}
