//! Rows in and out of RocksDB: typed values, prefixes, batches.

use std::{
    collections::HashMap,
    fs, iter,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rocksdb::{
    Cache, ColumnFamily, DB, DBPinnableSlice, DBRawIterator, PrefixRange, ReadOptions, WriteBatch,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    IndexError,
    error::{self, Result},
    schema::{CACHE, Family},
};
use crate::fault;

/// The database, whose families are all open.
pub(super) struct Db {
    rocks: DB,
    cache: Mutex<Cache>,
    /// Made when the database turns out to be damaged: the next process that opens it must know.
    mark: PathBuf,
    is_damaged: AtomicBool,
}

/// A key and an undecoded row.
pub(super) type RawRow = (Box<[u8]>, Box<[u8]>);

impl Db {
    pub(super) fn new(rocks: DB, cache: Cache, mark: PathBuf) -> Self {
        Self { rocks, cache: Mutex::new(cache), mark, is_damaged: AtomicBool::new(false) }
    }

    /// Forgets what was read.
    pub(super) fn clear_cache(&self) {
        let mut cache = self.cache.lock();
        cache.set_capacity(0);
        cache.set_capacity(CACHE);
    }

    /// Whether something could not be read as it was written.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    fn note(&self, error: rocksdb::Error) -> IndexError {
        if error::is_damage(&error) && !self.is_damaged.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the index of the cache is damaged");
            if let Err(error) = fs::write(&self.mark, "") {
                tracing::error!(path = %self.mark.display(), %error, "cannot note that");
            }
        }
        error.into()
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.rocks
            .cf_handle(family.name())
            .expect("every family of the schema is opened with the database")
    }

    fn pinned(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>> {
        self.rocks.get_pinned_cf(self.family(family), key).map_err(|error| self.note(error))
    }

    pub(super) fn get_raw(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.rocks.get_cf(self.family(family), key).map_err(|error| self.note(error))
    }

    /// Reads a row.
    pub(super) fn get<T: DeserializeOwned>(&self, family: Family, key: &[u8]) -> Result<Option<T>> {
        match self.pinned(family, key)? {
            Some(bytes) => decode(family, key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        Ok(self.pinned(family, key)?.is_some())
    }

    /// Changes whenever something is written.
    pub(super) fn state(&self) -> u64 {
        self.rocks.latest_sequence_number()
    }

    /// A walk over a family that only goes forward.
    pub(super) fn walk(&self, family: Family) -> Walk<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let rows = self.rocks.raw_iterator_cf_opt(self.family(family), options);
        // It holds trees of files: one row may be megabytes.
        let near = if family == Family::LayerData { 0 } else { NEAR };
        Walk { db: self, rows, is_begun: false, near }
    }

    /// All keys and undecoded rows of a family whose keys start with `prefix`, in order.
    pub(super) fn scan_raw<'a>(
        &'a self,
        family: Family,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<RawRow>> + use<'a> {
        self.rows(family, prefix, Order::Forward, |key, row| Ok((key.into(), row.into())))
    }

    /// All rows of a family whose keys start with `prefix`, in order of their keys.
    pub(super) fn scan<'a, T: DeserializeOwned + 'a>(
        &'a self,
        family: Family,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Box<[u8]>, T)>> + use<'a, T> {
        self.rows(family, prefix, Order::Forward, move |key, row| {
            Ok((key.into(), decode(family, key, row)?))
        })
    }

    /// The same from the last row to the first, for a walk over many.
    pub(super) fn scan_back<'a, T: DeserializeOwned + 'a>(
        &'a self,
        family: Family,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Box<[u8]>, T)>> + use<'a, T> {
        self.rows(family, prefix, Order::Back, move |key, row| {
            Ok((key.into(), decode(family, key, row)?))
        })
    }

    /// What `read` makes of all keys and rows of a family whose keys start with `prefix`.
    fn rows<'a, T, F>(
        &'a self,
        family: Family,
        prefix: &[u8],
        order: Order,
        read: F,
    ) -> impl Iterator<Item = Result<T>> + use<'a, T, F>
    where
        F: Fn(&[u8], &[u8]) -> Result<T>,
    {
        let mut options = ReadOptions::default();
        // A walk over many would push the rows that builds ask for out of the small cache.
        options.fill_cache(!prefix.is_empty() && matches!(order, Order::Forward));
        if !prefix.is_empty() {
            options.set_iterate_range(PrefixRange(prefix));
        }
        let mut rows = self.rocks.raw_iterator_cf_opt(self.family(family), options);
        match order {
            Order::Forward => rows.seek_to_first(),
            Order::Back => rows.seek_to_last(),
        }
        let mut is_over = false;
        iter::from_fn(move || {
            if is_over {
                return None;
            }
            let Some((key, row)) = rows.item() else {
                // An error would come again forever.
                is_over = true;
                return rows.status().err().map(|error| Err(self.note(error)));
            };
            let read = read(key, row);
            match order {
                Order::Forward => rows.next(),
                Order::Back => rows.prev(),
            }
            Some(read)
        })
    }
}

/// From which end rows are read.
#[derive(Clone, Copy)]
enum Order {
    Forward,
    Back,
}

/// Finds rows by prefixes that are asked for in order: for many of them a small part of the work of
/// as many [scans](Db::scan_raw), and deleted rows between them are stepped over once.
pub(super) struct Walk<'a> {
    db: &'a Db,
    rows: DBRawIterator<'a>,
    is_begun: bool,
    /// How many rows may be stepped over.
    near: usize,
}

/// How many rows a walk steps over before it looks for the place that is asked for, which takes as
/// long as a dozen steps.
const NEAR: usize = 16;

impl Walk<'_> {
    /// The row with this key, which must not be before one that was asked for already.
    pub(super) fn row(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.go_to(key)?;
        Ok(self.rows.item().filter(|(at, _)| *at == key).map(|(_, row)| row))
    }

    /// The rows whose keys start with `prefix`, which must not be before one that was asked for
    /// already.
    pub(super) fn rows(&mut self, prefix: &[u8]) -> Result<Vec<RawRow>> {
        self.collect(prefix, |key, row| (key.into(), row.into()))
    }

    /// The keys of these rows.
    pub(super) fn keys(&mut self, prefix: &[u8]) -> Result<Vec<Box<[u8]>>> {
        self.collect(prefix, |key, _| key.into())
    }

    fn collect<T>(&mut self, prefix: &[u8], part: impl Fn(&[u8], &[u8]) -> T) -> Result<Vec<T>> {
        self.go_to(prefix)?;
        let mut found = Vec::new();
        while let Some((key, row)) = self.rows.item().filter(|(key, _)| key.starts_with(prefix)) {
            found.push(part(key, row));
            self.rows.next();
        }
        self.status()?;
        Ok(found)
    }

    /// Goes on to the first row whose key is not before `key`.
    fn go_to(&mut self, key: &[u8]) -> Result<()> {
        let mut near = if self.is_begun { self.near } else { 0 };
        while !self.is_begun || self.rows.key().is_some_and(|at| at < key) {
            if near == 0 {
                self.rows.seek(key);
                self.is_begun = true;
                break;
            }
            self.rows.next();
            near -= 1;
        }
        self.status()
    }

    fn status(&self) -> Result<()> {
        self.rows.status().map_err(|error| self.db.note(error))
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
    /// What [`update`](Self::update) left of rows; `None` where there is none.
    updated: HashMap<(&'static str, Vec<u8>), Option<Vec<u8>>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db, changes: WriteBatch::default(), updated: HashMap::new() }
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

    /// Changes a row of which several changes may be in this batch, which see one another. One that
    /// is not there, or is damaged, is the default, and is not there after a change to that.
    pub(super) fn update<T>(
        &mut self,
        family: Family,
        key: &[u8],
        change: impl FnOnce(&mut T),
    ) -> Result<()>
    where
        T: Serialize + DeserializeOwned + Default + PartialEq,
    {
        let place = (family.name(), key.to_vec());
        let old = match self.updated.get(&place) {
            Some(old) => old.clone(),
            None => self.db.get_raw(family, key)?,
        };
        let decoded = old.as_ref().and_then(|bytes| decode(family, key, bytes).ok());
        let mut row: T = decoded.unwrap_or_default();
        change(&mut row);
        let new = (row != T::default()).then(|| encode(&row));
        if new != old {
            match &new {
                Some(bytes) => self.put_raw(family, key, bytes),
                None => self.delete(family, key),
            }
        }
        self.updated.insert(place, new);
        Ok(())
    }

    /// Has [`update`](Self::update) find `row`, as it was read before, where it would read it.
    pub(super) fn expect(&mut self, family: Family, key: &[u8], row: Vec<u8>) {
        self.updated.entry((family.name(), key.to_vec())).or_insert(Some(row));
    }

    /// Writes without waiting for the disk: safe against the end of the process only.
    pub(super) fn write(self) -> Result<()> {
        fault::may_die();
        let written = self.db.rocks.write(self.changes);
        fault::may_die();
        written.map_err(|error| self.db.note(error))
    }

    /// Writes, and waits until this and all that was written before is on the disk.
    pub(super) fn write_synced(self) -> Result<()> {
        let db = self.db;
        self.write()?;
        // As an option of the write, it would have everybody's writes wait for the disk.
        db.rocks.flush_wal(true).map_err(|error| db.note(error))
    }
}
