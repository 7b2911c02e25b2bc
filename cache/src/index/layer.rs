//! Rows of layers.

use std::{collections::HashSet, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    Hit, Index, IndexError, Pin,
    db::Batch,
    durable::Volatile,
    error::Result,
    links,
    pin::{PinLock, Pinnable},
    schema::Family,
};
use crate::{
    descriptor::Descriptor,
    digest::Digest,
    layer::{ChainId, DiffId, LayerId},
    record_type::RecordType,
};

/// What is known of a layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayerRow {
    /// Its number, from [`Index::alloc_layer`].
    pub id: LayerId,
    /// What it was made on top of and makes no sense without: usually the one layer below it, the
    /// tops of several stacks where those were merged, nothing for a base or a linked copy.
    pub parents: Vec<LayerId>,
    /// The chain in OCI's terms that ends with this layer, if known.
    pub chain: Option<ChainId>,
    /// Its uncompressed digest, if known.
    pub diff_id: Option<DiffId>,
    /// Blobs that hold it, in different compressions. Whether a blob is in the content store is said
    /// by [`Index::blob`].
    pub blobs: Vec<Descriptor>,
    /// Where its files are.
    pub presence: Presence,
    /// What its directory takes up on the disk, in bytes, but for [shared files].
    ///
    /// [shared files]: Index::set_shared_files
    pub size: u64,
    /// When it was made.
    pub created_at: SystemTime,
    /// What people see in a list of disk usage.
    pub description: String,
    /// What kind of thing it is.
    pub record_type: RecordType,
}

/// A place from which a layer can be fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remote {
    /// The place, in words of whoever fetches.
    pub origin: String,
    /// Which of the layer's blobs it has.
    pub blob: Digest,
}

/// Where a layer's files are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presence {
    /// It has a directory here.
    pub is_local: bool,
    /// Places from which it can be fetched, the best first.
    pub remotes: Vec<Remote>,
}

impl Presence {
    /// In a directory, and nowhere else that is known.
    pub const LOCAL: Self = Self { is_local: true, remotes: Vec::new() };

    /// Not fetched yet.
    pub fn lazy(remotes: impl IntoIterator<Item = Remote>) -> Self {
        Self { is_local: false, remotes: remotes.into_iter().collect() }
    }
}

impl LayerRow {
    /// A step's result in a directory here; fill in what else is known.
    pub fn new(id: LayerId, parents: Vec<LayerId>) -> Self {
        Self {
            id,
            parents,
            chain: None,
            diff_id: None,
            blobs: Vec::new(),
            presence: Presence::LOCAL,
            size: 0,
            created_at: SystemTime::now(),
            description: String::new(),
            record_type: RecordType::Regular,
        }
    }

    /// Whether the layer could be had again if its directory were lost.
    pub(super) fn is_refetchable(&self) -> bool {
        !self.presence.remotes.is_empty() && !self.blobs.is_empty()
    }
}

impl Index {
    /// A number that no layer has or will have again.
    pub fn alloc_layer(&self) -> Result<LayerId> {
        self.next_number().map(LayerId)
    }

    /// The row of a layer.
    pub fn layer(&self, id: LayerId) -> Result<Option<LayerRow>> {
        self.db.get(Family::Layers, &id.0.to_be_bytes())
    }

    /// The layer that completes `chain`, pinned and touched.
    pub fn layer_by_chain(&self, chain: &ChainId) -> Result<Option<Hit<LayerRow>>> {
        let mut pins = self.pins.lock();
        let Some(id) = self.db.get(Family::Links, &links::chain(chain))? else { return Ok(None) };
        let Some(row) = self.layer(id)? else { return Ok(None) };
        let pin = pins.pin([Pinnable::Layer(id)]);
        drop(pins);
        self.touch([id]);
        Ok(Some(Hit { row, pin }))
    }

    /// Keeps layers, existing or about to be saved, from being collected.
    ///
    /// Of layers that are held by nothing yet, those that were just found must be taken from the
    /// [`Hit`] that found them.
    pub fn pin_layers(&self, layers: &[LayerId]) -> Pin {
        self.pins.lock().pin(layers.iter().copied().map(Pinnable::Layer))
    }

    /// Saves layers that are no step's result (yet), such as those of an image, in one write.
    ///
    /// A layer's parents must be in the index or in `rows`.
    pub fn save_layers(&self, rows: &[LayerRow]) -> Result<Pin> {
        let mut pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        self.put_layers(&mut pins, &mut batch, rows)?;
        batch.write()?;
        Ok(pins.pin(rows.iter().map(|row| Pinnable::Layer(row.id))))
    }

    /// Changes a layer's row: a digest became known, its files were fetched.
    ///
    /// A layer that becomes local is volatile from then on, as a new one is.
    pub fn update_layer(&self, id: LayerId, change: impl FnOnce(&mut LayerRow)) -> Result<()> {
        let mut pins = self.pins.lock();
        let old = self.layer(id)?.ok_or(IndexError::NoLayer(id))?;
        let mut new = old.clone();
        change(&mut new);
        // Neither may change: others refer to it.
        new.id = old.id;
        new.parents.clone_from(&old.parents);
        if new == old {
            return Ok(());
        }
        let mut batch = Batch::new(&self.db);
        if old.chain != new.chain
            && let Some(chain) = &old.chain
        {
            batch.delete(Family::Links, &links::chain(chain));
        }
        self.put_layer(&mut pins, &mut batch, &new, !old.presence.is_local)?;
        batch.write()
    }

    /// Adds a blob to those that hold a layer, or replaces the one with the same digest.
    pub fn set_blob(&self, id: LayerId, descriptor: Descriptor) -> Result<()> {
        self.update_layer(id, |row| {
            if row.diff_id.is_none() {
                row.diff_id = descriptor.diff_id();
            }
            match row.blobs.iter_mut().find(|known| known.digest == descriptor.digest) {
                Some(known) => *known = descriptor,
                None => row.blobs.push(descriptor),
            }
        })
    }

    /// Opaque data that was stored with a layer under a name.
    pub fn layer_data(&self, id: LayerId, kind: &str) -> Result<Option<Vec<u8>>> {
        self.db.get_raw(Family::LayerData, &data_key(id, kind))
    }

    /// Stores opaque data with a layer, such as its tree of content digests; it goes with the layer.
    pub fn put_layer_data(&self, id: LayerId, kind: &str, data: &[u8]) -> Result<()> {
        let mut pins = self.pins.lock();
        if !self.db.contains(Family::Layers, &id.0.to_be_bytes())? {
            return Err(IndexError::NoLayer(id));
        }
        pins.note_reference(Pinnable::Layer(id));
        let mut batch = Batch::new(&self.db);
        batch.put_raw(Family::LayerData, &data_key(id, kind), data);
        batch.write()
    }

    /// Deletes the data of a layer.
    pub(super) fn delete_data_of(&self, batch: &mut Batch<'_>, id: LayerId) -> Result<()> {
        for data in self.db.scan_raw(Family::LayerData, &id.0.to_be_bytes()) {
            batch.delete(Family::LayerData, &data?.0);
        }
        Ok(())
    }

    /// Puts new layers into a batch; the pins are locked.
    pub(super) fn put_layers(
        &self,
        pins: &mut PinLock<'_>,
        batch: &mut Batch<'_>,
        rows: &[LayerRow],
    ) -> Result<()> {
        let mut fresh = HashSet::with_capacity(rows.len());
        for row in rows {
            for &parent in &row.parents {
                if parent >= row.id {
                    return Err(IndexError::NewerParent { layer: row.id, parent });
                }
                if !fresh.contains(&parent)
                    && !self.db.contains(Family::Layers, &parent.0.to_be_bytes())?
                {
                    return Err(IndexError::NoLayer(parent));
                }
                pins.note_reference(Pinnable::Layer(parent));
                batch.put_raw(Family::Links, &links::child(parent, row.id), &[]);
            }
            fresh.insert(row.id);
            self.put_layer(pins, batch, row, true)?;
        }
        Ok(())
    }

    fn put_layer(
        &self,
        pins: &mut PinLock<'_>,
        batch: &mut Batch<'_>,
        row: &LayerRow,
        was_absent: bool,
    ) -> Result<()> {
        pins.note_reference(Pinnable::Layer(row.id));
        for blob in &row.blobs {
            pins.note_reference(Pinnable::Blob(blob.digest));
        }
        batch.put(Family::Layers, &row.id.0.to_be_bytes(), row);
        if let Some(chain) = &row.chain {
            pins.note_reference(Pinnable::Chain(*chain));
            batch.put(Family::Links, &links::chain(chain), &row.id);
        }
        if row.presence.is_local && was_absent {
            self.put_volatile(batch, Volatile::Layer(row.id))?;
        }
        Ok(())
    }

    /// Deletes all rows of a layer but those of its children, records and data. A mark on it
    /// is left to the next pass that makes data durable: looking for one costs more than all the rest.
    pub(super) fn delete_layer(&self, batch: &mut Batch<'_>, row: &LayerRow) -> Result<()> {
        delete_layer(batch, row.id, &row.parents);
        self.delete_chain(batch, row.id, row.chain.as_ref())
    }

    /// Deletes the link of a layer's chain, if it does not lead to another layer.
    pub(super) fn delete_chain(
        &self,
        batch: &mut Batch<'_>,
        id: LayerId,
        chain: Option<&ChainId>,
    ) -> Result<()> {
        if let Some(chain) = chain
            && self.db.get(Family::Links, &links::chain(chain))? == Some(id)
        {
            batch.delete(Family::Links, &links::chain(chain));
        }
        Ok(())
    }
}

/// Deletes the rows of a layer whose keys follow from its own row, but for its chain's.
pub(super) fn delete_layer(batch: &mut Batch<'_>, id: LayerId, parents: &[LayerId]) {
    let key = id.0.to_be_bytes();
    batch.delete(Family::Layers, &key);
    batch.delete(Family::Uses, &key);
    batch.delete(Family::Links, &links::shared(id.0));
    for parent in parents {
        batch.delete(Family::Links, &links::child(*parent, id));
    }
}

fn data_key(id: LayerId, kind: &str) -> Vec<u8> {
    [&id.0.to_be_bytes(), kind.as_bytes()].concat()
}
