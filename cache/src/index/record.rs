//! Cache records: results by key.
//!
//! A record has one primary key, from which the keys of dependants are made, and may be found under
//! others. Its result is a stack of layers. It lives as long as all of them do: a layer cannot go
//! before those that build on it, and a record goes with the layers on top of its result. One with
//! an empty result goes when it is old.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    Hit, Index, IndexError, Pin,
    check::Problem,
    db::{Batch, decode},
    error::Result,
    layer::LayerRow,
    leads::{self, Leads},
    links,
    parts::KeyParts,
    pin::{PinLock, Pinnable},
    remove::CHUNK,
    schema::Family,
};
use crate::{
    digest::Digest,
    key::{CacheKey, Link},
    layer::LayerId,
    record_type::RecordType,
};

/// How many keys besides its primary one lead to a record. Beyond it the oldest is forgotten, which
/// can make a miss but nothing worse.
const MAX_ALIASES: usize = 64;
/// How many links a record remembers for one input.
const MAX_LINKS: usize = 16;
/// How long a record with an empty result is kept. It is cheap to make again: no step that runs
/// anything leaves no layer.
const EMPTY_LIFE: Duration = Duration::from_hours(7 * 24);
/// Stands on top of an empty result. No layer has this number.
const NO_LAYER: LayerId = LayerId(0);

/// A result and what it came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The primary key. Keys of dependants are made from this one.
    pub key: CacheKey,
    /// The digest of the op.
    pub op: Digest,
    /// Which of the op's outputs this is.
    pub output: u32,
    /// For each input, the links under which it is known; those that `key` was made from are first.
    ///
    /// Links of one input are alternatives: each stands for the same content as far as it matters.
    pub inputs: Vec<Vec<Link>>,
    /// The result: layers, bottom first. No layers is an empty file system.
    pub result: Vec<LayerId>,
    /// What people see of it.
    pub description: String,
    /// What kind of thing it is.
    pub record_type: RecordType,
    /// When the result was made.
    pub created_at: SystemTime,
    /// How long that took.
    pub duration: Option<Duration>,
}

/// The row of a record.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredRecord {
    pub(super) record: Record,
    /// The layers of the result on which no other of its layers builds: all the others live as long
    /// as these do. [`NO_LAYER`] if there are none. Each has a [link](Leads) back to the record.
    pub(super) tops: Vec<LayerId>,
    /// Other keys that lead to it, oldest first.
    pub(super) aliases: Vec<CacheKey>,
}

impl StoredRecord {
    /// Deletes the links of layers to the record.
    fn delete_links(&self, batch: &mut Batch<'_>) {
        for &layer in &self.tops {
            batch.delete(Family::Links, &links::record(layer, &self.record.key));
        }
    }

    /// Has one more key lead to it, which [was taken](Index::take_aliases) from others.
    fn put_alias(&mut self, batch: &mut Batch<'_>, alias: CacheKey) {
        if alias == self.record.key {
            return;
        }
        if !self.aliases.contains(&alias) {
            self.aliases.push(alias);
            if self.aliases.len() > MAX_ALIASES {
                let forgotten = self.aliases.remove(0);
                batch.delete(Family::Aliases, forgotten.digest().as_bytes());
            }
        }
        batch.put(Family::Aliases, alias.digest().as_bytes(), &self.record.key);
    }
}

/// Holds a result by its tops: a chain of five hundred steps has five hundred results, of which each
/// has all layers of the one before.
fn pin_result(pins: &mut PinLock<'_>, tops: &[LayerId]) -> Pin {
    pins.pin(tops.iter().copied().map(Pinnable::Layer))
}

impl Index {
    /// The record under the first of `keys` that has one, with its layers pinned and touched.
    pub fn lookup(&self, keys: &[CacheKey]) -> Result<Option<Hit<Record>>> {
        let mut pins = self.pins.lock();
        for key in keys {
            let StoredRecord { record, tops, .. } = match self.find(key) {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "a cache record cannot be read and is not used");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let pin = pin_result(&mut pins, &tops);
            drop(pins);
            self.touch(record.result.last().copied());
            return Ok(Some(Hit { row: record, pin }));
        }
        Ok(None)
    }

    /// The record under `key`, without pinning it: for explanations and exports.
    pub fn record(&self, key: &CacheKey) -> Result<Option<Record>> {
        Ok(self.find(key)?.map(|stored| stored.record))
    }

    /// Saves a record, the keys that lead to it, and the layers that are new with it, in one write.
    ///
    /// It replaces a record with the same primary key, and takes over `aliases` from others. The
    /// layers of the result must be in `layers` or in the index, and held by a pin.
    ///
    /// # Errors
    /// [`IndexError::NoLayer`] if the index lacks a layer; nothing is saved then.
    pub fn save(
        &self,
        record: Record,
        parts: &KeyParts,
        aliases: &[CacheKey],
        layers: &[LayerRow],
    ) -> Result<Pin> {
        let mut pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        self.put_layers(&mut pins, &mut batch, layers)?;

        let key = record.key;
        let tops = self.tops(&record.result, layers)?;
        let mut stored = StoredRecord { record, tops, aliases: Vec::new() };
        if let Some(old) = self.stored(&key)? {
            leads::note_tops(&mut pins, &old);
            old.delete_links(&mut batch);
            stored.aliases = old.aliases;
        }
        self.take_aliases(&mut pins, &mut batch, aliases.iter().copied().chain([key]), &key)?;
        for alias in aliases {
            stored.put_alias(&mut batch, *alias);
        }
        batch.delete(Family::Aliases, key.digest().as_bytes());
        batch.put(Family::Records, key.digest().as_bytes(), &stored);
        Leads::new(&stored, parts).put(&mut batch, &key);
        self.put_parts(&mut pins, &mut batch, &stored.record, parts)?;
        batch.write()?;
        Ok(pin_result(&mut pins, &stored.tops))
    }

    /// Makes the record with the primary key `primary` findable under `alias` too, and remembers the
    /// links that `alias` was made from, one per input, if they are given.
    pub fn link(&self, alias: CacheKey, primary: &CacheKey, inputs: &[Link]) -> Result<()> {
        let mut pins = self.pins.lock();
        let mut stored = self.stored(primary)?.ok_or(IndexError::NoRecord(*primary))?;
        let mut batch = Batch::new(&self.db);
        self.take_aliases(&mut pins, &mut batch, [alias], primary)?;
        stored.put_alias(&mut batch, alias);
        if inputs.len() == stored.record.inputs.len() {
            for (known, link) in stored.record.inputs.iter_mut().zip(inputs) {
                if !known.contains(link) {
                    if known.len() >= MAX_LINKS {
                        // The first is what the primary key is made of.
                        known.remove(1);
                    }
                    known.push(link.clone());
                }
            }
        }
        self.put_changed(&mut pins, &mut batch, &stored)?;
        batch.write()
    }

    pub(super) fn stored(&self, primary: &CacheKey) -> Result<Option<StoredRecord>> {
        self.db.get(Family::Records, primary.digest().as_bytes())
    }

    /// The record that `key` leads to. Where a key is the primary one of a record and was given to
    /// another one since, the other is newer.
    fn find(&self, key: &CacheKey) -> Result<Option<StoredRecord>> {
        if let Some(primary) = self.alias(key)?
            && let Some(stored) = self.stored(&primary)?
        {
            return Ok(Some(stored));
        }
        self.stored(key)
    }

    /// Deletes the records in whose result `layer` is on top; returns how many.
    pub(super) fn delete_records_of(&self, batch: &mut Batch<'_>, layer: LayerId) -> Result<usize> {
        let records = self.records_of(layer)?;
        for (key, leads) in &records {
            leads.delete_record(batch, key)?;
        }
        Ok(records.len())
    }

    /// Deletes one record, and all that leads to it.
    pub(super) fn delete_record(&self, batch: &mut Batch<'_>, key: &CacheKey) -> Result<()> {
        self.leads(NO_LAYER, key, &[])?.delete_record(batch, key)
    }

    /// All that is wrong with the record in a row: what it says of itself, and who leads to it.
    pub(super) fn check_record(
        &self,
        row: &[u8],
        stored: &[u8],
        layers: &HashSet<LayerId>,
    ) -> Result<Vec<Problem>> {
        let Ok(stored) = decode::<StoredRecord>(Family::Records, row, stored) else {
            return Ok(vec![Problem::Undecodable]);
        };
        let StoredRecord { record, tops, aliases } = &stored;
        let mut problems = Vec::new();
        if record.key.digest().as_bytes() != row {
            problems.push(Problem::OfAnother(record.key.to_string()));
        }
        for layer in record.result.iter().chain(tops) {
            if *layer != NO_LAYER && !layers.contains(layer) {
                problems.push(Problem::Missing(format!("{layer:?}")));
            }
        }
        if tops.is_empty() {
            problems.push(Problem::Unlinked("its layers".to_owned()));
        }
        for top in tops {
            if !self.has_link(*top, &stored)? {
                problems.push(Problem::Unlinked(format!("{top:?}")));
            }
        }
        if aliases.len() > MAX_ALIASES {
            problems.push(Problem::Unlinked("keys beyond the limit".to_owned()));
        }
        Ok(problems)
    }

    /// Whether an alias leads to a record that knows of it, and so takes it along.
    pub(super) fn is_alias_of(&self, alias: &[u8], primary: &CacheKey) -> Result<bool> {
        let stored = self.stored(primary)?;
        Ok(stored.is_some_and(|stored| {
            stored.aliases.iter().any(|known| known.digest().as_bytes() == alias)
        }))
    }

    /// Deletes the records with empty results that are old at `now`; none while one is in use.
    pub(super) fn delete_old_empty_records(&self, now: SystemTime) -> Result<()> {
        let mut old = Vec::new();
        for row in self.db.scan_raw(Family::Links, &links::records_of(NO_LAYER)) {
            let Some(key) = links::trailing_key(&row?.0) else { continue };
            if self.is_old(&key, now) {
                old.push(key);
            }
        }
        for chunk in old.chunks(CHUNK) {
            let pins = self.pins.lock();
            if pins.is_pinned(Pinnable::Layer(NO_LAYER)) {
                return Ok(());
            }
            let mut batch = Batch::new(&self.db);
            for key in chunk {
                // It may have been made anew.
                if self.is_old(key, now) {
                    self.delete_record(&mut batch, key)?;
                }
            }
            batch.write()?;
            pins.hand_over();
        }
        Ok(())
    }

    /// Whether the record with this key was made long before `now`, or cannot be read.
    fn is_old(&self, key: &CacheKey, now: SystemTime) -> bool {
        !matches!(self.stored(key), Ok(Some(StoredRecord { record, .. }))
            if now.duration_since(record.created_at).unwrap_or_default() < EMPTY_LIFE)
    }

    /// The layers of a result on which no other of its layers builds.
    fn tops(&self, result: &[LayerId], fresh: &[LayerRow]) -> Result<Vec<LayerId>> {
        if result.is_empty() {
            return Ok(vec![NO_LAYER]);
        }
        let mut below = HashSet::new();
        let mut parents = |row: &LayerRow| below.extend(row.parents.iter().copied());
        for &id in result {
            if let Some(row) = fresh.iter().find(|row| row.id == id) {
                parents(row);
            } else {
                parents(&self.layer(id)?.ok_or(IndexError::NoLayer(id))?);
            }
        }
        Ok(result.iter().copied().filter(|id| !below.contains(id)).collect())
    }
}
