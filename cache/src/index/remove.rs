//! Removing layers and directories, with all that depends on them.

use std::{collections::HashSet, time::SystemTime};

use super::{
    DirId, DirKind, Index,
    db::Batch,
    error::Result,
    links,
    owned::Owned,
    parts::note_steps,
    pin::{PinLock, Pinnable},
    schema::Family,
};
use crate::{
    gc::{self, DiskStat, Policy, Usage, UsageId},
    layer::LayerId,
};

/// How many rows are removed in one batch, between which builds get their turn.
pub(super) const CHUNK: usize = 16;

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
    /// What all that is left takes up, in bytes.
    pub left: u64,
}

impl Removed {
    /// Whether nothing was removed.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.dirs.is_empty()
    }
}

impl Index {
    /// Removes what `policies` say. Walks over everything.
    ///
    /// Remove the directories then, and [collect](Index::collect_blobs) the blobs that no layer
    /// holds any more.
    pub fn prune(&self, policies: &[Policy], disk: DiskStat) -> Result<Removed> {
        let now = SystemTime::now();
        let (mut rows, removed) = self.collect(|| {
            let rows = self.usage()?;
            self.delete_old_empty_records(now)?;
            self.remove_images_without_layers(policies, now)?;
            let victims = gc::plan(&rows, policies, disk, now);
            let removed = self.remove(&victims, self.owned(&victims)?)?;
            Ok((rows, removed))
        })?;
        let gone: HashSet<_> = removed
            .layers
            .iter()
            .copied()
            .map(UsageId::Layer)
            .chain(removed.dirs.iter().copied().map(UsageId::Dir))
            .collect();
        let mut left = 0_u64;
        rows.retain(|row| {
            let is_gone = gone.contains(&row.id);
            if !is_gone {
                left = left.saturating_add(row.size);
            }
            is_gone
        });
        Ok(Removed { rows, left, ..removed })
    }

    /// Sees to it that no lookup finds a layer whose files are damaged, or what was made on it. Who
    /// has them may go on; they are removed when nobody has, as all that no record leads to.
    pub fn disown_layer(&self, id: LayerId) -> Result<()> {
        let mut pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        for id in self.descendants(&[id])? {
            // What is made anew in its place is not what a collection may have read of it.
            pins.note_reference(Pinnable::Layer(id));
            for (key, leads) in self.records_of(id)? {
                for &top in &leads.tops {
                    pins.note_reference(Pinnable::Layer(top));
                }
                note_steps(&mut pins, &leads.steps);
                leads.delete_record(&mut batch, &key)?;
            }
            if let Some(row) = self.layer(id)? {
                self.delete_chain(&mut batch, id, row.chain.as_ref())?;
            }
        }
        batch.write()
    }

    /// Removes layers with all that was made on them, newest first; for a checker, when there are no
    /// builds.
    pub(super) fn remove_with_descendants(&self, layers: &[LayerId]) -> Result<Removed> {
        self.collect(|| {
            let mut victims: Vec<_> = self.descendants(layers)?.into_iter().collect();
            victims.sort_unstable_by_key(|&layer| std::cmp::Reverse(layer));
            let victims: Vec<_> = victims.into_iter().map(UsageId::Layer).collect();
            self.remove(&victims, self.owned(&victims)?)
        })
    }

    /// Looks for what nothing needs, and removes it, with `work`. Builds go on meanwhile: what they
    /// come to need is noted, and [stays](PinLock::is_needed).
    pub(super) fn collect<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _alone = self.collecting.lock();
        self.pins.lock().start_notes();
        let done = work();
        self.pins.lock().stop_notes();
        done
    }

    /// Layers, and all that build on them.
    fn descendants(&self, layers: &[LayerId]) -> Result<HashSet<LayerId>> {
        let (mut found, mut next) = (HashSet::new(), layers.to_vec());
        while let Some(id) = next.pop() {
            if found.insert(id) {
                for link in self.db.scan_raw(Family::Links, &links::children_of(id)) {
                    next.extend(links::trailing_number(&link?.0).map(LayerId));
                }
            }
        }
        Ok(found)
    }

    /// Removes layers and directories in that order, and what [they own](Self::owned).
    ///
    /// Of what builds on a layer, all that was there when the collection began must go before it.
    /// Those that have come to be needed since then stay, and so do layers on which others build that
    /// stay. An image of which a layer goes loses its name.
    pub(super) fn remove(&self, victims: &[UsageId], mut owned: Owned) -> Result<Removed> {
        let mut removed = Removed::default();
        let mut kept = HashSet::new();
        for chunk in victims.chunks(CHUNK) {
            let pins = self.pins.lock();
            let mut batch = Batch::new(&self.db);
            for victim in chunk {
                match *victim {
                    UsageId::Layer(id) => {
                        let Some(rows) = owned.take(id) else { continue };
                        if kept.contains(&id) || pins.is_needed(Pinnable::Layer(id)) {
                            kept.extend(rows.parents);
                            continue;
                        }
                        owned.delete(self, &pins, &mut batch, id, &rows)?;
                        removed.layers.push(id);
                    }
                    UsageId::Dir(id) if self.remove_dir(&pins, &mut batch, id)? => {
                        removed.dirs.push(id);
                    }
                    _ => {}
                }
            }
            batch.write()?;
            pins.hand_over();
        }
        Ok(removed)
    }

    /// Removes the directories of one kind and name that nobody holds; removing them from the disk is
    /// the caller's.
    pub fn remove_dirs(&self, kind: DirKind, name: &str) -> Result<Vec<DirId>> {
        let pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        let mut removed = Vec::new();
        for link in self.db.scan_raw(Family::Links, &links::dirs_of(kind, name)) {
            let Some(id) = links::trailing_number(&link?.0).map(DirId) else { continue };
            if self.remove_dir(&pins, &mut batch, id)? {
                removed.push(id);
            }
        }
        batch.write()?;
        Ok(removed)
    }

    fn remove_dir(&self, pins: &PinLock<'_>, batch: &mut Batch<'_>, id: DirId) -> Result<bool> {
        if pins.is_pinned(Pinnable::Dir(id)) {
            return Ok(false);
        }
        let Some(row) = self.dir(id)? else { return Ok(false) };
        self.delete_dir(batch, &row)?;
        Ok(true)
    }
}
