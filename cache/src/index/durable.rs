//! What survives what. This is the one place where it is decided.
//!
//! **The end of the process, at any moment.** Data comes before its row and goes after it. A blob is
//! written to a temporary file and renamed, then gets its row; a layer's directory is filled under a
//! number that no row has, then all rows of the step appear in one batch; a mutable directory is made
//! empty; an image layer is unpacked under a number of its own and renamed before its row says that it
//! is here. Removal takes the rows first. A batch goes to the kernel before its writer goes on. So
//! every row's data is there, what is lost are the steps in flight, and what is left over is data
//! without a row, which the next start removes ([`Index::reconcile`]).
//!
//! **A loss of power.** Nobody waits for the disk; a pass every few seconds, and at the end, makes
//! what there is durable, as described below. Times of last use may be lost, and so may the builds of
//! the last seconds.
//!
//! **A write that fails.** It is an error of the step or the build that wrote, and what was not
//! committed is removed. RocksDB refuses writes after one of its own has failed, until it has found
//! that there is space again. Who keeps the state directory keeps some space aside, for a start and
//! for what a collection of garbage has to write.
//!
//! **A disk that changes what was written.** Rows have RocksDB's checksums. What cannot be read is a
//! miss or an error, never another row; a database that shows it is not used by the next process,
//! which [sets it aside](Index::set_aside) and begins with an empty cache, since no repair can tell
//! rows that are missing from rows that were deleted. Blobs are compared with their names when they
//! leave the store, layers with what they were packed to when they are packed again. Files of layers
//! that steps read are not looked at: that would cost more than the steps. For those,
//! [`Index::check`] and who calls it.
//!
//! # Marks
//!
//! Writing a blob, a layer or a directory leaves a **mark** in the same batch: this would not survive
//! a loss of power. A background pass removes marks in groups: it takes the marks there are, has the
//! caller sync the file system once, and deletes them in one synced batch, which also puts every
//! earlier batch on the disk. After another boot, what still has a mark is dropped with its data.
//!
//! A row without its mark cannot come about: RocksDB recovers a prefix of the batches, across all
//! column families.

use super::{DirId, Index, db::Batch, error::Result, pin::Pinnable, schema::Family};
use crate::{digest::Digest, layer::LayerId};

/// Data that has a mark. A mark's key is the data's, then the mark's own number: removing a mark
/// never removes one that was set later on the same data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Volatile {
    Layer(LayerId),
    Blob(Digest),
    Dir(DirId),
}

impl Volatile {
    fn prefix(&self) -> Vec<u8> {
        match self {
            Self::Layer(id) => [&b"l"[..], &id.0.to_be_bytes()].concat(),
            Self::Blob(digest) => [&b"b"[..], digest.as_bytes()].concat(),
            Self::Dir(id) => [&b"d"[..], &id.0.to_be_bytes()].concat(),
        }
    }

    /// The data that a mark is on.
    pub(super) fn from_mark(mark: &[u8]) -> Option<Self> {
        let (tag, rest) = mark.split_first()?;
        let data = rest.get(..rest.len().checked_sub(8)?)?;
        let number = || data.try_into().ok().map(u64::from_be_bytes);
        match tag {
            b'l' => number().map(LayerId).map(Self::Layer),
            b'b' => data.try_into().ok().map(Digest::from_bytes).map(Self::Blob),
            b'd' => number().map(DirId).map(Self::Dir),
            _ => None,
        }
    }
}

/// The marks that one pass is about to remove.
#[must_use = "marks stay until `mark_durable` is given the group"]
#[derive(Debug)]
pub struct DurableGroup {
    marks: Vec<Box<[u8]>>,
}

impl DurableGroup {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// How many layers, blobs and directories it covers.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// The layers among it, finished all of them. One may be there twice, or removed by now.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> {
        self.marks.iter().filter_map(|mark| match Volatile::from_mark(mark)? {
            Volatile::Layer(id) => Some(id),
            Volatile::Blob(_) | Volatile::Dir(_) => None,
        })
    }
}

impl Index {
    /// Starts a pass: what is to become durable.
    ///
    /// Then sync the file systems that hold blobs, layers and directories (`syncfs`), and give the
    /// group to [`Index::mark_durable`]. Directories in use are left for a later pass.
    pub fn begin_durable(&self) -> Result<DurableGroup> {
        let pins = self.pins.lock();
        let mut marks = Vec::new();
        for row in self.db.scan_raw(Family::Volatile, &[]) {
            let (mark, _) = row?;
            match Volatile::from_mark(&mark) {
                Some(Volatile::Dir(id)) if pins.is_pinned(Pinnable::Dir(id)) => {}
                _ => marks.push(mark),
            }
        }
        Ok(DurableGroup { marks })
    }

    /// Ends a pass after the sync. When it returns, everything of the group survives a loss of power.
    pub fn mark_durable(&self, group: DurableGroup) -> Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(&self.db);
        for mark in group.marks {
            batch.delete(Family::Volatile, &mark);
        }
        batch.write_synced()
    }

    /// Whether a layer would survive a loss of power.
    pub fn is_layer_durable(&self, id: LayerId) -> Result<bool> {
        match self.marks(Volatile::Layer(id)).next() {
            Some(mark) => mark.map(|_| false),
            None => Ok(true),
        }
    }

    pub(super) fn put_volatile(&self, batch: &mut Batch<'_>, data: Volatile) -> Result<()> {
        let mark = [data.prefix(), self.next_number()?.to_be_bytes().to_vec()].concat();
        batch.put_raw(Family::Volatile, &mark, &[]);
        Ok(())
    }

    pub(super) fn delete_volatile(&self, batch: &mut Batch<'_>, data: Volatile) -> Result<()> {
        for mark in self.marks(data) {
            batch.delete(Family::Volatile, &mark?);
        }
        Ok(())
    }

    fn marks(&self, data: Volatile) -> impl Iterator<Item = Result<Box<[u8]>>> {
        self.db.scan_raw(Family::Volatile, &data.prefix()).map(|row| row.map(|(mark, _)| mark))
    }
}
