//! What leads to a record, and what is stored beside it.
//!
//! It follows from the record and its parts, and stands once more in the rows of its [links from
//! layers](links::record): a collection reads those of a hundred thousand layers in one walk, where
//! records and parts, in the order of their digests, would be as many reads all over the disk.
//!
//! A collection reads them before it takes the lock under which it deletes. So whoever changes them
//! notes the layers as needed ([`PinLock::note_reference`]), which leaves those to the next one.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    Index,
    db::{Batch, decode},
    error::Result,
    links,
    parts::{KeyParts, StepId, delete_parts},
    pin::{PinLock, Pinnable},
    record::StoredRecord,
    schema::Family,
};
use crate::{key::CacheKey, layer::LayerId};

/// The row of a link from a layer to a record. Empty in what earlier versions wrote.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Leads {
    /// The layers that have such a link.
    pub(super) tops: Vec<LayerId>,
    /// The rows of [`Family::Aliases`] that lead to it.
    aliases: Vec<CacheKey>,
    /// The rows of [`Family::Steps`] that remember it.
    pub(super) steps: Vec<StepId>,
    /// How many inputs may have a list of files.
    inputs: usize,
}

impl Leads {
    pub(super) fn new(stored: &StoredRecord, parts: &KeyParts) -> Self {
        Self {
            tops: stored.tops.clone(),
            aliases: stored.aliases.clone(),
            steps: parts.steps.clone(),
            inputs: parts.inputs.len(),
        }
    }

    /// Writes the links of all layers on top of the result of the record with this key.
    pub(super) fn put(&self, batch: &mut Batch<'_>, key: &CacheKey) {
        for &layer in &self.tops {
            batch.put(Family::Links, &links::record(layer, key), self);
        }
    }

    /// Deletes the record with this key, and all that leads to it.
    pub(super) fn delete_record(&self, batch: &mut Batch<'_>, key: &CacheKey) -> Result<()> {
        batch.delete(Family::Records, key.digest().as_bytes());
        for &layer in &self.tops {
            batch.delete(Family::Links, &links::record(layer, key));
        }
        for alias in &self.aliases {
            batch.delete(Family::Aliases, alias.digest().as_bytes());
        }
        delete_parts(batch, key, &self.steps, self.inputs)
    }
}

impl Index {
    /// Writes a record of which something but its result was changed.
    pub(super) fn put_changed(
        &self,
        pins: &mut PinLock<'_>,
        batch: &mut Batch<'_>,
        stored: &StoredRecord,
    ) -> Result<()> {
        let key = &stored.record.key;
        note_tops(pins, stored);
        if let Some(&top) = stored.tops.first()
            && let link = links::record(top, key)
            && let Some(row) = self.db.get_raw(Family::Links, &link)?
            && let Ok(leads) = decode::<Leads>(Family::Links, &link, &row)
        {
            let aliases = stored.aliases.clone();
            Leads { aliases, ..leads }.put(batch, key);
        }
        batch.put(Family::Records, key.digest().as_bytes(), stored);
        Ok(())
    }

    /// Has all records but `primary` forget these keys, which no longer lead to them.
    pub(super) fn take_aliases(
        &self,
        pins: &mut PinLock<'_>,
        batch: &mut Batch<'_>,
        keys: impl IntoIterator<Item = CacheKey>,
        primary: &CacheKey,
    ) -> Result<()> {
        let mut taken: HashMap<_, Vec<_>> = HashMap::new();
        for key in keys {
            if let Some(owner) = self.alias(&key)?.filter(|owner| owner != primary) {
                taken.entry(owner).or_default().push(key);
            }
        }
        for (owner, keys) in taken {
            if let Some(mut stored) = self.stored(&owner)? {
                stored.aliases.retain(|alias| !keys.contains(alias));
                self.put_changed(pins, batch, &stored)?;
            }
        }
        Ok(())
    }

    /// The records in whose result `layer` is on top, and what leads to them.
    pub(super) fn records_of(&self, layer: LayerId) -> Result<Vec<(CacheKey, Leads)>> {
        let mut records = Vec::new();
        for row in self.db.scan_raw(Family::Links, &links::records_of(layer)) {
            let (link, row) = row?;
            let Some(key) = links::trailing_key(&link) else { continue };
            records.push((key, self.leads(layer, &key, &row)?));
        }
        Ok(records)
    }

    /// What leads to the record with this key, which `top` is said to have a link to. `row` is the
    /// link's, if there is one.
    pub(super) fn leads(&self, top: LayerId, key: &CacheKey, row: &[u8]) -> Result<Leads> {
        let leads: Result<Leads> = decode(Family::Links, &links::record(top, key), row);
        let mut leads = leads.or_else(|_| self.leads_from_record(key))?;
        if !leads.tops.contains(&top) {
            leads.tops.push(top);
        }
        Ok(leads)
    }

    /// What a record and its parts say, as far as they can be read. What a damaged row had to say is
    /// lost: an alias that leads nowhere is a miss, and a step forgets its records after some more.
    fn leads_from_record(&self, key: &CacheKey) -> Result<Leads> {
        let mut leads = Leads::default();
        if let Ok(Some(stored)) = self.stored(key) {
            leads.tops = stored.tops;
            for alias in stored.aliases {
                // Earlier versions left keys with a record that had come to lead to another.
                if self.alias(&alias)?.as_ref() == Some(key) {
                    leads.aliases.push(alias);
                }
            }
        }
        if let Ok(Some(parts)) = self.parts(key) {
            leads.inputs = parts.inputs.len();
            leads.steps = parts.steps;
        }
        Ok(leads)
    }

    /// Whether the link of `top` to a record is there, and says what the record does.
    pub(super) fn has_link(&self, top: LayerId, stored: &StoredRecord) -> Result<bool> {
        let key = &stored.record.key;
        let link = links::record(top, key);
        let Some(row) = self.db.get_raw(Family::Links, &link)? else { return Ok(false) };
        let parts = match self.parts(key) {
            Ok(parts) => parts.unwrap_or_default(),
            // A finding of its own.
            Err(_) => return Ok(true),
        };
        Ok(row.is_empty()
            || decode::<Leads>(Family::Links, &link, &row)
                .is_ok_and(|leads| leads == Leads::new(stored, &parts)))
    }

    /// The record that a key leads to besides its own, if there is one.
    pub(super) fn alias(&self, key: &CacheKey) -> Result<Option<CacheKey>> {
        self.db.get(Family::Aliases, key.digest().as_bytes())
    }
}

/// Notes that what leads to a record is changed.
pub(super) fn note_tops(pins: &mut PinLock<'_>, stored: &StoredRecord) {
    for &top in &stored.tops {
        pins.note_reference(Pinnable::Layer(top));
    }
}
