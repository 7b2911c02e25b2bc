//! Removing layers and directories, with all that depends on them.

use std::{collections::HashSet, time::SystemTime};

use super::{
    DirId, Index,
    db::Batch,
    error::Result,
    links,
    pin::{PinLock, Pinnable},
    schema::Family,
};
use crate::{
    gc::{self, DiskStat, Policy, Usage, UsageId},
    layer::LayerId,
};

/// How many rows are removed in one batch, between which builds get their turn.
const CHUNK: usize = 64;

/// What was removed from the index, and whose directories the caller now removes.
///
/// If the caller does not come to that, the next start does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// The rows as they were.
    pub rows: Vec<Usage>,
    /// Layers that may have directories.
    pub layers: Vec<LayerId>,
    /// Mutable directories.
    pub dirs: Vec<DirId>,
}

impl Index {
    /// Removes what `policies` say. Walks over everything.
    ///
    /// Remove the directories then, and [collect](Index::collect_blobs) the blobs that no layer
    /// holds any more.
    pub fn prune(&self, policies: &[Policy], disk: DiskStat) -> Result<Removed> {
        let rows = self.usage()?;
        let victims = gc::plan(&rows, policies, disk, SystemTime::now());
        let removed = self.remove(&victims)?;
        let gone: HashSet<_> = removed
            .layers
            .iter()
            .copied()
            .map(UsageId::Layer)
            .chain(removed.dirs.iter().copied().map(UsageId::Dir))
            .collect();
        Ok(Removed {
            rows: rows.into_iter().filter(|row| gone.contains(&row.id)).collect(),
            ..removed
        })
    }

    /// Removes layers and directories in that order, and the records whose results they are.
    ///
    /// Those that are pinned by now stay, and so do layers on which others build that stay.
    fn remove(&self, victims: &[UsageId]) -> Result<Removed> {
        let mut removed = Removed::default();
        for chunk in victims.chunks(CHUNK) {
            let pins = self.pins.lock();
            for victim in chunk {
                match *victim {
                    UsageId::Layer(id) if self.remove_layer(&pins, id)? => removed.layers.push(id),
                    UsageId::Dir(id) if self.remove_dir(&pins, id)? => removed.dirs.push(id),
                    _ => {}
                }
            }
        }
        Ok(removed)
    }

    fn remove_layer(&self, pins: &PinLock<'_>, id: LayerId) -> Result<bool> {
        if pins.is_pinned(Pinnable::Layer(id)) {
            return Ok(false);
        }
        if let Some(child) = self.db.scan_raw(Family::Links, &links::children_of(id)).next() {
            return child.map(|_| false);
        }
        let Some(row) = self.layer(id)? else { return Ok(false) };
        let mut batch = Batch::new(&self.db);
        self.delete_records_of(&mut batch, id)?;
        self.delete_layer(&mut batch, &row)?;
        batch.write()?;
        Ok(true)
    }

    fn remove_dir(&self, pins: &PinLock<'_>, id: DirId) -> Result<bool> {
        if pins.is_pinned(Pinnable::Dir(id)) {
            return Ok(false);
        }
        let Some(row) = self.dir(id)? else { return Ok(false) };
        let mut batch = Batch::new(&self.db);
        self.delete_dir(&mut batch, &row)?;
        batch.write()?;
        Ok(true)
    }
}
