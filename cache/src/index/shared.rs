//! Files that several layers and directories have: hard links, which take up the disk once.
//!
//! A layer that is made of others' files says which those are, and whose they were at first. As long
//! as that layer is there it counts them among its own. Otherwise, and where they came out of a
//! directory, whose files come and go, the youngest of those that have them counts them: it is the
//! last to be removed.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{DirId, Index, db::Batch, error::Result, links, schema::Family};
use crate::{
    gc::{Usage, UsageId},
    layer::LayerId,
};

/// A file that has names in several layers or directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SharedFile {
    /// The number of its inode.
    pub ino: u64,
    /// What it takes up, in bytes.
    pub bytes: u64,
    /// The layer that has it among its own, and in its size.
    pub origin: Option<LayerId>,
}

impl Index {
    /// Notes the files of a layer that are others', too, and not in its size.
    pub fn set_shared_files(&self, layer: LayerId, files: &[SharedFile]) -> Result<()> {
        let _pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        put(&mut batch, layer.0, files);
        batch.write()
    }

    /// Adds to `rows`, which are in order of ids, what each has to count of shared files.
    pub(super) fn add_shared_files(&self, rows: &mut [Usage]) -> Result<()> {
        let mut counted = HashSet::new();
        let position = |rows: &[Usage], id| rows.binary_search_by_key(&id, |row| row.id);
        for row in self.db.scan_back::<Vec<SharedFile>>(Family::Links, &links::ALL_SHARED) {
            let (key, files) = row?;
            let Some(number) = links::trailing_number(&key) else { continue };
            // No two have one number.
            let holder = position(rows, UsageId::Layer(LayerId(number)))
                .or_else(|_| position(rows, UsageId::Dir(DirId(number))));
            let Ok(holder) = holder else { continue };
            for file in files {
                let is_elsewhere = file
                    .origin
                    .is_some_and(|origin| position(rows, UsageId::Layer(origin)).is_ok());
                if !is_elsewhere && counted.insert(file.ino) {
                    rows[holder].size = rows[holder].size.saturating_add(file.bytes);
                }
            }
        }
        Ok(())
    }
}

/// Replaces what is known of the files that a layer or directory shares.
pub(super) fn put(batch: &mut Batch<'_>, number: u64, files: &[SharedFile]) {
    if files.is_empty() {
        batch.delete(Family::Links, &links::shared(number));
    } else {
        batch.put(Family::Links, &links::shared(number), &files);
    }
}
