//! Removing layers and directories, with all that depends on them.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    time::SystemTime,
};

use super::{
    DirId, DirKind, Index,
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
        let (rows, now) = (self.usage()?, SystemTime::now());
        self.delete_old_empty_records(now)?;
        let victims = gc::plan(&rows, policies, disk, now);
        let removed = self.remove(&victims)?;
        let gone: HashSet<_> = removed
            .layers
            .iter()
            .copied()
            .map(UsageId::Layer)
            .chain(removed.dirs.iter().copied().map(UsageId::Dir))
            .collect();
        let (rows, left): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| gone.contains(&row.id));
        let left = left.iter().fold(0, |sum: u64, row| sum.saturating_add(row.size));
        Ok(Removed { rows, left, ..removed })
    }

    /// Sees to it that no lookup finds a layer whose files are damaged, or what was made on it. Who
    /// has them may go on; they are removed when nobody has, as all that no record leads to.
    pub fn disown_layer(&self, id: LayerId) -> Result<()> {
        let _pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        for id in self.descendants(&[id])? {
            self.delete_records_of(&mut batch, id)?;
            if let Some(chain) = self.layer(id)?.and_then(|row| row.chain)
                && self.db.get(Family::Links, &links::chain(&chain))? == Some(id)
            {
                batch.delete(Family::Links, &links::chain(&chain));
            }
        }
        batch.write()
    }

    /// Removes layers with all that was made on them, newest first; for a checker, when there are no
    /// builds.
    pub(super) fn remove_with_descendants(&self, layers: &[LayerId]) -> Result<Removed> {
        let mut victims: Vec<_> = self.descendants(layers)?.into_iter().collect();
        victims.sort_unstable_by_key(|&layer| std::cmp::Reverse(layer));
        self.remove(&victims.into_iter().map(UsageId::Layer).collect::<Vec<_>>())
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

    /// Removes layers and directories in that order, and the records whose results they are.
    ///
    /// Those that are pinned by now stay, and so do layers on which others build that stay. An image
    /// of which a layer goes loses its name.
    fn remove(&self, victims: &[UsageId]) -> Result<Removed> {
        let mut removed = Removed::default();
        let names = self.names_of_layers()?;
        let mut gone = HashSet::new();
        for chunk in victims.chunks(CHUNK) {
            let pins = self.pins.lock();
            let mut batch = Batch::new(&self.db);
            for victim in chunk {
                match *victim {
                    UsageId::Layer(id) if self.remove_layer(&pins, &mut batch, id, &gone)? => {
                        gone.insert(id);
                        for name in names.get(&id).into_iter().flatten() {
                            batch.delete(Family::Images, name.as_bytes());
                        }
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

    /// Deletes a layer and its records, unless a layer builds on it that is not `gone`.
    fn remove_layer(
        &self,
        pins: &PinLock<'_>,
        batch: &mut Batch<'_>,
        id: LayerId,
        gone: &HashSet<LayerId>,
    ) -> Result<bool> {
        if pins.is_pinned(Pinnable::Layer(id)) {
            return Ok(false);
        }
        for link in self.db.scan_raw(Family::Links, &links::children_of(id)) {
            let child = links::trailing_number(&link?.0).map(LayerId);
            if child.is_none_or(|child| !gone.contains(&child)) {
                return Ok(false);
            }
        }
        let Some(row) = self.layer(id)? else { return Ok(false) };
        self.delete_records_of(batch, id)?;
        self.delete_layer(batch, &row)?;
        Ok(true)
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
