//! Rows in and out of RocksDB: typed values, prefixes, batches.

use rocksdb::{ColumnFamily, DB, IteratorMode, PrefixRange, ReadOptions, WriteBatch, WriteOptions};
use serde::{Serialize, de::DeserializeOwned};

use super::{IndexError, error::Result, schema::Family};

/// The database, whose families are all open.
pub(super) struct Db(DB);

/// A key and an undecoded row.
pub(super) type RawRow = (Box<[u8]>, Box<[u8]>);

impl Db {
    pub(super) fn new(db: DB) -> Self {
        Self(db)
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.0
            .cf_handle(family.name())
            .expect("every family of the schema is opened with the database")
    }

    pub(super) fn get_raw(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get_cf(self.family(family), key)?)
    }

    /// Reads a row.
    pub(super) fn get<T: DeserializeOwned>(&self, family: Family, key: &[u8]) -> Result<Option<T>> {
        match self.0.get_pinned_cf(self.family(family), key)? {
            Some(bytes) => decode(family, key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        Ok(self.0.get_pinned_cf(self.family(family), key)?.is_some())
    }

    /// Changes whenever something is written.
    pub(super) fn state(&self) -> u64 {
        self.0.latest_sequence_number()
    }

    /// All keys and undecoded rows of a family whose keys start with `prefix`, in order.
    pub(super) fn scan_raw<'a>(
        &'a self,
        family: Family,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<RawRow>> + use<'a> {
        let mut options = ReadOptions::default();
        if prefix.is_empty() {
            // Would push the rows that builds ask for out of the small cache.
            options.fill_cache(false);
        } else {
            options.set_iterate_range(PrefixRange(prefix));
        }
        self.0
            .iterator_cf_opt(self.family(family), options, IteratorMode::Start)
            .map(|row| row.map_err(IndexError::from))
    }

    /// The same from the last row to the first, for a walk over many.
    pub(super) fn scan_back<'a, T: DeserializeOwned>(
        &'a self,
        family: Family,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Box<[u8]>, T)>> + use<'a, T> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_iterate_range(PrefixRange(prefix));
        self.0.iterator_cf_opt(self.family(family), options, IteratorMode::End).map(move |row| {
            let (key, bytes) = row?;
            let value = decode(family, &key, &bytes)?;
            Ok((key, value))
        })
    }

    /// All rows of a family whose keys start with `prefix`, in order of their keys.
    pub(super) fn scan<'a, T: DeserializeOwned>(
        &'a self,
        family: Family,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Box<[u8]>, T)>> + use<'a, T> {
        self.scan_raw(family, prefix).map(move |row| {
            let (key, bytes) = row?;
            let value = decode(family, &key, &bytes)?;
            Ok((key, value))
        })
    }
}

/// The first byte of a row says how the rest is encoded.
const POSTCARD: u8 = 1;

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_extend(row, vec![POSTCARD]).expect("rows are plain data, and memory has no limit")
}

pub(super) fn decode<T: DeserializeOwned>(family: Family, key: &[u8], bytes: &[u8]) -> Result<T> {
    let damaged = || IndexError::Damaged { family: family.name(), key: hex::encode(key) };
    match bytes.split_first() {
        Some((&POSTCARD, row)) => postcard::from_bytes(row).map_err(|_| damaged()),
        _ => Err(damaged()),
    }
}

/// Changes that become visible, and survive a crash, together or not at all.
pub(super) struct Batch<'a> {
    db: &'a Db,
    changes: WriteBatch,
}

impl<'a> Batch<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db, changes: WriteBatch::default() }
    }

    pub(super) fn put<T: Serialize>(&mut self, family: Family, key: &[u8], row: &T) {
        self.put_raw(family, key, &encode(row));
    }

    pub(super) fn put_raw(&mut self, family: Family, key: &[u8], bytes: &[u8]) {
        self.changes.put_cf(self.db.family(family), key, bytes);
    }

    pub(super) fn delete(&mut self, family: Family, key: &[u8]) {
        self.changes.delete_cf(self.db.family(family), key);
    }

    /// Writes without waiting for the disk: safe against the end of the process only.
    pub(super) fn write(self) -> Result<()> {
        Ok(self.db.0.write(self.changes)?)
    }

    /// Writes, and waits until this and all that was written before is on the disk.
    pub(super) fn write_synced(self) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.0.write_opt(self.changes, &options)?)
    }
}
