//! The start: the index and the disk are brought into agreement.

use std::collections::{HashMap, HashSet};

use super::{
    BlobRow, DirId, DirRow, Index,
    db::{Batch, decode},
    durable::Volatile,
    error::Result,
    history::HistoryEntry,
    image::ImageRow,
    layer::LayerRow,
    links,
    schema::Family,
};
use crate::{content::Blob, digest::Digest, layer::LayerId};

const BOOT_KEY: &[u8] = b"boot";

/// What a look at the disk found.
#[derive(Clone, Debug, Default)]
pub struct OnDisk {
    /// Layers that have a directory.
    pub layers: Vec<LayerId>,
    /// Mutable directories.
    pub dirs: Vec<DirId>,
    /// Blobs in the content store.
    pub blobs: Vec<Blob>,
}

/// What the caller is to remove from the disk, and what is lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciled {
    /// Directories of layers without a row, or whose row was dropped.
    pub layers: Vec<LayerId>,
    /// Mutable directories of the same kind.
    pub dirs: Vec<DirId>,
    /// Blobs of the same kind.
    pub blobs: Vec<Digest>,
    /// Rows that were dropped.
    pub dropped: Dropped,
}

/// How many rows were dropped because their data is gone or cannot be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// Layers.
    pub layers: usize,
    /// Records whose results had a dropped layer.
    pub records: usize,
    /// Mutable directories.
    pub dirs: usize,
    /// Blobs.
    pub blobs: usize,
    /// Images that lost a blob.
    pub images: usize,
    /// Entries of the build history that lost a blob.
    pub history: usize,
}

/// Data that may have been lost with the power.
#[derive(Default)]
struct Suspects {
    layers: HashSet<LayerId>,
    dirs: HashSet<DirId>,
    blobs: HashSet<Digest>,
}

impl Index {
    /// Drops rows whose data is not on the disk, and says which data has no row.
    ///
    /// To be called once, before anything else uses the index. If `boot_id` is not that of the last
    /// call, the machine was started anew, and data that was not durable is dropped, too.
    pub fn reconcile(&self, on_disk: &OnDisk, boot_id: &str) -> Result<Reconciled> {
        let suspects = self.suspects(boot_id)?;
        let mut reconciled = Reconciled::default();
        self.reconcile_blobs(&suspects, on_disk, &mut reconciled)?;
        self.reconcile_layers(&suspects, on_disk, &mut reconciled)?;
        self.reconcile_dirs(&suspects, on_disk, &mut reconciled)?;
        self.reconcile_owners(&mut reconciled)?;
        // Only now: a crash in between begins anew.
        let mut batch = Batch::new(&self.db);
        batch.put(Family::Meta, BOOT_KEY, &boot_id);
        batch.write_synced()?;
        Ok(reconciled)
    }

    fn suspects(&self, boot_id: &str) -> Result<Suspects> {
        let mut suspects = Suspects::default();
        let last_boot: Option<String> = self.db.get(Family::Meta, BOOT_KEY)?;
        if last_boot.is_none_or(|last| last == boot_id) {
            return Ok(suspects);
        }
        for row in self.db.scan_raw(Family::Volatile, &[]) {
            match Volatile::from_mark(&row?.0) {
                Some(Volatile::Layer(id)) => _ = suspects.layers.insert(id),
                Some(Volatile::Dir(id)) => _ = suspects.dirs.insert(id),
                Some(Volatile::Blob(digest)) => _ = suspects.blobs.insert(digest),
                None => {}
            }
        }
        Ok(suspects)
    }

    fn reconcile_blobs(
        &self,
        suspects: &Suspects,
        on_disk: &OnDisk,
        reconciled: &mut Reconciled,
    ) -> Result<()> {
        let mut found: HashMap<_, _> =
            on_disk.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        let mut batch = Batch::new(&self.db);
        for row in self.db.scan_raw(Family::Blobs, &[]) {
            let (key, bytes) = row?;
            let Ok(digest) = key.as_ref().try_into().map(Digest::from_bytes) else {
                batch.delete(Family::Blobs, &key);
                continue;
            };
            let row = decode::<BlobRow>(Family::Blobs, &key, &bytes);
            let is_sound = row.is_ok_and(|row| found.get(&digest) == Some(&row.size))
                && !suspects.blobs.contains(&digest);
            if is_sound {
                found.remove(&digest);
            } else {
                self.delete_blob(&mut batch, &digest)?;
                reconciled.dropped.blobs += 1;
            }
        }
        batch.write()?;
        reconciled.blobs = found.into_keys().collect();
        Ok(())
    }

    fn reconcile_layers(
        &self,
        suspects: &Suspects,
        on_disk: &OnDisk,
        reconciled: &mut Reconciled,
    ) -> Result<()> {
        let mut on_disk = on_disk.layers.clone();
        on_disk.sort_unstable();
        let mut on_disk = on_disk.into_iter().peekable();
        let mut kept = Vec::new();
        let mut batch = Batch::new(&self.db);
        // In order of numbers: what a layer builds on comes before it.
        for row in self.db.scan_raw(Family::Layers, &[]) {
            let (key, bytes) = row?;
            let Ok(row) = decode::<LayerRow>(Family::Layers, &key, &bytes) else {
                batch.delete(Family::Layers, &key);
                reconciled.dropped.layers += 1;
                if let Some(number) = links::trailing_number(&key) {
                    reconciled.dropped.records +=
                        self.delete_records_of(&mut batch, LayerId(number))?;
                }
                continue;
            };
            while let Some(unclaimed) = on_disk.next_if(|id| *id < row.id) {
                reconciled.layers.push(unclaimed);
            }
            let is_on_disk = on_disk.next_if_eq(&row.id).is_some();
            let has_parents = row.parents.iter().all(|parent| kept.binary_search(parent).is_ok());
            let has_files = is_on_disk && !suspects.layers.contains(&row.id);
            let keeps_files = has_parents && has_files && row.presence.is_local;
            if is_on_disk && !keeps_files {
                reconciled.layers.push(row.id);
            }
            if keeps_files {
                kept.push(row.id);
            } else if has_parents && row.is_refetchable() {
                kept.push(row.id);
                if row.presence.is_local {
                    self.make_lazy(&mut batch, row)?;
                }
            } else if has_parents && !row.presence.is_local {
                kept.push(row.id);
            } else {
                reconciled.dropped.records += self.delete_records_of(&mut batch, row.id)?;
                self.delete_layer(&mut batch, &row)?;
                self.delete_data_of(&mut batch, row.id)?;
                reconciled.dropped.layers += 1;
            }
        }
        batch.write()?;
        reconciled.layers.extend(on_disk);
        Ok(())
    }

    /// A layer whose files are lost, but can be fetched again.
    fn make_lazy(&self, batch: &mut Batch<'_>, mut row: LayerRow) -> Result<()> {
        row.presence.is_local = false;
        row.size = 0;
        batch.put(Family::Layers, &row.id.0.to_be_bytes(), &row);
        self.delete_volatile(batch, Volatile::Layer(row.id))
    }

    fn reconcile_dirs(
        &self,
        suspects: &Suspects,
        on_disk: &OnDisk,
        reconciled: &mut Reconciled,
    ) -> Result<()> {
        let mut unclaimed: HashSet<_> = on_disk.dirs.iter().copied().collect();
        let mut batch = Batch::new(&self.db);
        for row in self.db.scan_raw(Family::Dirs, &[]) {
            let (key, bytes) = row?;
            match decode::<DirRow>(Family::Dirs, &key, &bytes) {
                Ok(row) if unclaimed.contains(&row.id) && !suspects.dirs.contains(&row.id) => {
                    unclaimed.remove(&row.id);
                    continue;
                }
                Ok(row) => self.delete_dir(&mut batch, &row)?,
                Err(_) => batch.delete(Family::Dirs, &key),
            }
            reconciled.dropped.dirs += 1;
        }
        batch.write()?;
        reconciled.dirs = unclaimed.into_iter().collect();
        Ok(())
    }

    /// Drops the images and the entries of the history that lost a blob.
    fn reconcile_owners(&self, reconciled: &mut Reconciled) -> Result<()> {
        let blobs: HashSet<_> = self.blobs()?.into_iter().map(|blob| blob.digest).collect();
        let mut batch = Batch::new(&self.db);
        for row in self.db.scan_raw(Family::Images, &[]) {
            let (key, bytes) = row?;
            let is_whole = decode::<ImageRow>(Family::Images, &key, &bytes).is_ok_and(|image| {
                image.blobs.iter().chain([&image.target.digest]).all(|blob| blobs.contains(blob))
            });
            if !is_whole {
                batch.delete(Family::Images, &key);
                reconciled.dropped.images += 1;
            }
        }
        for row in self.db.scan_raw(Family::History, &[]) {
            let (key, bytes) = row?;
            let is_whole = decode::<HistoryEntry>(Family::History, &key, &bytes)
                .is_ok_and(|entry| entry.blobs.iter().all(|blob| blobs.contains(blob)));
            if !is_whole {
                batch.delete(Family::History, &key);
                reconciled.dropped.history += 1;
            }
        }
        batch.write()
    }
}
