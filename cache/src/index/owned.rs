//! What goes with layers, read before a collection takes the lock under which it removes them.
//!
//! Rows that are read in the order of their keys cost a fraction of what they cost one by one, all
//! over the disk. They may change until they are deleted: whoever changes one notes that its layer is
//! needed, which then stays, or, of a link of a chain and a row of a step, that it is not as it was.
//! Names of images are asked for once more.

use std::{collections::HashMap, rc::Rc};

use super::{
    Index,
    db::{Batch, decode},
    error::Result,
    layer::{LayerRow, delete_layer},
    leads::Leads,
    links,
    parts::{StepId, remembers},
    pin::{PinLock, Pinnable},
    schema::Family,
};
use crate::{
    gc::UsageId,
    key::CacheKey,
    layer::{ChainId, LayerId},
};

/// Layers, and what goes with them.
pub(super) struct Owned {
    layers: HashMap<LayerId, OwnedRows>,
    /// Rows of [`Family::Steps`] that remember their records.
    steps: HashMap<StepId, Vec<u8>>,
    /// Names of the images that they are part of.
    names: HashMap<LayerId, Vec<Rc<str>>>,
}

/// Rows that go with a layer.
#[derive(Default)]
pub(super) struct OwnedRows {
    pub(super) parents: Vec<LayerId>,
    /// The chain whose link leads to it.
    chain: Option<ChainId>,
    /// The records in whose result it is on top.
    records: Vec<(CacheKey, Leads)>,
    /// In [`Family::LayerData`].
    data: Vec<Box<[u8]>>,
}

impl Owned {
    /// What goes with a layer; `None` if there is no such layer.
    pub(super) fn take(&mut self, id: LayerId) -> Option<OwnedRows> {
        self.layers.remove(&id)
    }

    /// Deletes a layer, and what goes with it.
    pub(super) fn delete(
        &mut self,
        index: &Index,
        pins: &PinLock<'_>,
        batch: &mut Batch<'_>,
        id: LayerId,
        rows: &OwnedRows,
    ) -> Result<()> {
        delete_layer(batch, id, &rows.parents);
        match &rows.chain {
            // It may lead to another layer now.
            Some(chain) if pins.is_needed(Pinnable::Chain(*chain)) => {
                index.delete_chain(batch, id, Some(chain))?;
            }
            Some(chain) => batch.delete(Family::Links, &links::chain(chain)),
            None => {}
        }
        for data in &rows.data {
            batch.delete(Family::LayerData, data);
        }
        for name in self.names.get(&id).into_iter().flatten() {
            // It may be another image's now.
            if index.image(name)?.is_some_and(|image| image.layers.contains(&id)) {
                batch.delete(Family::Images, name.as_bytes());
            }
        }
        for (key, leads) in &rows.records {
            for step in &leads.steps {
                // Taken out, for it changes now.
                if let Some(row) = self.steps.remove(step)
                    && !pins.is_needed(Pinnable::Step(*step))
                {
                    batch.expect(Family::Steps, &step.0, row);
                }
            }
            leads.delete_record(batch, key)?;
            // What is made anew under this key before another of its layers goes is not this record.
            for top in leads.tops.iter().filter(|&&top| top != id) {
                if let Some(rows) = self.layers.get_mut(top) {
                    rows.records.retain(|(other, _)| other != key);
                }
            }
        }
        Ok(())
    }
}

impl Index {
    /// Reads what goes with those of `victims` that are layers.
    pub(super) fn owned(&self, victims: &[UsageId]) -> Result<Owned> {
        let layer = |victim: &UsageId| match *victim {
            UsageId::Layer(id) => Some(id),
            _ => None,
        };
        let mut ids: Vec<_> = victims.iter().filter_map(layer).collect();
        ids.sort_unstable();
        let mut layers: HashMap<_, OwnedRows> = HashMap::with_capacity(ids.len());
        let mut chains = Vec::new();
        let mut rows = self.db.walk(Family::Layers);
        for &id in &ids {
            let key = id.0.to_be_bytes();
            let Some(row) = rows.row(&key)? else { continue };
            let row: LayerRow = decode(Family::Layers, &key, row)?;
            chains.extend(row.chain.map(|chain| (chain, id)));
            layers.insert(id, OwnedRows { parents: row.parents, ..OwnedRows::default() });
        }

        chains.sort_unstable();
        let mut links = self.db.walk(Family::Links);
        for (chain, id) in chains {
            let link = links::chain(&chain);
            if let Some(row) = links.row(&link)?
                && decode::<LayerId>(Family::Links, &link, row)? == id
                && let Some(rows) = layers.get_mut(&id)
            {
                rows.chain = Some(chain);
            }
        }

        let mut data = self.db.walk(Family::LayerData);
        for id in ids {
            let Some(rows) = layers.get_mut(&id) else { continue };
            for (link, row) in links.rows(&links::records_of(id))? {
                let Some(key) = links::trailing_key(&link) else { continue };
                rows.records.push((key, self.leads(id, &key, &row)?));
            }
            rows.data = data.keys(&id.0.to_be_bytes())?;
        }
        let steps = self.steps_that_remember(&mut layers)?;
        Ok(Owned { layers, steps, names: self.names_of_layers()? })
    }

    /// The images that each layer is part of.
    fn names_of_layers(&self) -> Result<HashMap<LayerId, Vec<Rc<str>>>> {
        let mut names: HashMap<_, Vec<_>> = HashMap::new();
        for (name, image) in self.images()? {
            let name: Rc<str> = name.into();
            for layer in image.layers {
                names.entry(layer).or_default().push(name.clone());
            }
        }
        Ok(names)
    }

    /// The rows of steps that remember these records. The records forget the other steps, which do
    /// not come to remember them unless they are saved again.
    fn steps_that_remember(
        &self,
        layers: &mut HashMap<LayerId, OwnedRows>,
    ) -> Result<HashMap<StepId, Vec<u8>>> {
        let mut steps: Vec<_> = layers
            .values()
            .flat_map(|rows| &rows.records)
            .flat_map(|(_, leads)| leads.steps.iter().copied())
            .collect();
        steps.sort_unstable();
        steps.dedup();
        let mut found = HashMap::new();
        let mut rows = self.db.walk(Family::Steps);
        for step in steps {
            if let Some(row) = rows.row(&step.0)? {
                found.insert(step, row.to_vec());
            }
        }
        for (key, leads) in layers.values_mut().flat_map(|rows| &mut rows.records) {
            leads.steps.retain(|step| found.get(step).is_some_and(|row| remembers(step, row, key)));
        }
        Ok(found)
    }
}
