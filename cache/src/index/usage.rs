//! What takes up the disk, row by row.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    time::SystemTime,
};

use super::{DirRow, Index, error::Result, layer::LayerRow, pin::Pinnable, schema::Family};
use crate::{
    digest::Digest,
    gc::{Usage, UsageId, position_from_end},
    layer::LayerId,
    record_type::RecordType,
};

impl Index {
    /// All that takes up the disk, in order of ids. The sizes of all rows add up to what the disk
    /// shows. Walks over everything.
    ///
    /// A blob that several layers share is counted with the first of them; one that is no layer's is
    /// counted with [`UsageId::Content`].
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let shared = self.layers_of_images()?;
        let mut blobs: HashMap<Digest, u64> =
            self.blobs()?.into_iter().map(|blob| (blob.digest, blob.size)).collect();
        let mut uses = self.uses_in_order();

        let mut rows = Vec::new();
        // Both in order of their numbers, and one at a time: there may be a million.
        for layer in self.db.scan::<LayerRow>(Family::Layers, &[]) {
            let (_, layer) = layer?;
            let of_blobs: u64 = layer
                .blobs
                .iter()
                .filter_map(|blob| blobs.remove(&blob.digest))
                .map(whole_blocks)
                .sum();
            let used = uses.of(layer.id.0)?;
            rows.push(Usage {
                id: UsageId::Layer(layer.id),
                parents: layer.parents.iter().copied().map(UsageId::Layer).collect(),
                in_use: false,
                shared: shared.contains(&layer.id),
                mutable: false,
                size: layer.size.saturating_add(of_blobs),
                created_at: layer.created_at,
                last_used_at: used.map(|used| used.last),
                usage_count: used.map_or(0, |used| used.count),
                description: layer.description,
                record_type: layer.record_type,
            });
        }
        let mut uses = self.uses_in_order();
        for dir in self.db.scan::<DirRow>(Family::Dirs, &[]) {
            let (_, dir) = dir?;
            let used = uses.of(dir.id.0)?;
            rows.push(Usage {
                id: UsageId::Dir(dir.id),
                parents: Vec::new(),
                in_use: false,
                shared: false,
                mutable: true,
                size: dir.size,
                created_at: dir.created_at,
                last_used_at: used.map(|used| used.last),
                usage_count: used.map_or(0, |used| used.count),
                description: dir.description,
                record_type: dir.kind.record_type(),
            });
        }
        self.add_shared_files(&mut rows)?;
        self.mark_in_use(&mut rows);
        pass_down(&mut rows);

        let content = blobs.values().copied().map(whole_blocks).sum::<u64>();
        rows.push(overhead(UsageId::Content, content, "manifests and configs"));
        rows.push(overhead(UsageId::Index, self.size_on_disk(), "index of the cache"));
        Ok(rows)
    }

    fn layers_of_images(&self) -> Result<HashSet<LayerId>> {
        let images = self.images()?;
        Ok(images.into_iter().flat_map(|(_, image)| image.layers).collect())
    }

    fn mark_in_use(&self, rows: &mut [Usage]) {
        let pinned = self.pins.lock().all();
        for row in rows {
            row.in_use = match row.id {
                UsageId::Layer(id) => pinned.contains(&Pinnable::Layer(id)),
                UsageId::Dir(id) => pinned.contains(&Pinnable::Dir(id)),
                UsageId::Content | UsageId::Index => true,
            };
        }
    }

    /// What the database's files take up, in bytes.
    fn size_on_disk(&self) -> u64 {
        let Ok(files) = fs::read_dir(&self.path) else { return 0 };
        // A file may go while its directory is read.
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.blocks() * 512)).sum()
    }
}

/// What a file of `size` bytes takes up on the file systems there are.
fn whole_blocks(size: u64) -> u64 {
    size.div_ceil(4096).saturating_mul(4096)
}

/// A use of something is a use of all that it builds on, and so is a pin. Rows are ordered by their
/// ids, so what builds on something comes after it.
fn pass_down(rows: &mut [Usage]) {
    for at in (0..rows.len()).rev() {
        let (below, row) = rows.split_at_mut(at);
        let Some(row) = row.first() else { continue };
        for parent in &row.parents {
            let Some(at) = position_from_end(below, *parent) else { continue };
            let parent = &mut below[at];
            parent.in_use |= row.in_use;
            parent.shared |= row.shared;
            parent.last_used_at = parent.last_used_at.max(row.last_used_at);
        }
    }
}

fn overhead(id: UsageId, size: u64, description: &str) -> Usage {
    Usage {
        id,
        parents: Vec::new(),
        in_use: true,
        shared: false,
        mutable: true,
        size,
        created_at: SystemTime::UNIX_EPOCH,
        last_used_at: None,
        usage_count: 0,
        description: description.to_owned(),
        record_type: RecordType::Internal,
    }
}
