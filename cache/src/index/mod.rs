//! The index: what exists, what it came from, and who needs it.
//!
//! It is the only truth. A directory or blob without a row is garbage; a row without its data is
//! dropped. Both are settled at the start, by [`Index::reconcile`].
//!
//! # What is safe when
//! - A batch is written without waiting for the disk. It survives the end of the process at any
//!   moment, and is never seen in part.
//! - Data is safe against a loss of power after a pass of [`Index::begin_durable`], a sync of the
//!   file system, and [`Index::mark_durable`]. What was not is dropped when another boot finds it.
//! - Times of last use may be lost up to the last [`Index::flush_touches`].
//!
//! The whole of it is in `durable.rs`.
//!
//! # Who may be removed when
//! A layer goes after all that builds on it, and a record goes with the layers of its result. Under
//! one lock, short and never held while files are read or freed, a lookup pins what it finds and a
//! removal looks at the pins; so a build never loses what it found.
//!
//! Methods block for microseconds (reads, batches) unless they say that they walk over everything.

mod blob;
mod check;
mod db;
mod dir;
mod durable;
mod error;
mod history;
mod image;
mod layer;
mod leads;
mod links;
mod numbers;
mod owned;
mod parts;
mod pin;
mod reconcile;
mod record;
mod remove;
mod schema;
mod shared;
mod touch;
mod usage;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

pub use self::{
    blob::BlobRow,
    check::{Finding, Problem, Subject},
    dir::{DirId, DirKind, DirRow},
    durable::DurableGroup,
    error::IndexError,
    history::HistoryEntry,
    image::ImageRow,
    layer::{LayerRow, Presence, Remote},
    parts::{Earlier, InputPart, KeyPart, KeyParts, PartValue, StepId},
    pin::{Hit, Pin},
    reconcile::{Dropped, OnDisk, Reconciled},
    record::Record,
    remove::Removed,
    shared::SharedFile,
};

/// The index's database. Share it by reference or in an `Arc`.
pub struct Index {
    db: db::Db,
    path: PathBuf,
    numbers: numbers::Numbers,
    pins: pin::PinTable,
    touches: touch::Touches,
    /// Directories whose rows may not say their size any more. Locked after the pins.
    unmeasured: Mutex<BTreeSet<DirId>>,
    /// Held by a collection of blobs, of which there is one at a time.
    collecting: Mutex<()>,
}

impl Index {
    /// Opens the index in the directory `path`, or makes one.
    ///
    /// Nothing else may have it open; RocksDB sees to that.
    ///
    /// # Errors
    /// Some errors [are damage](IndexError::is_damage): then the index can only be
    /// [set aside](Self::set_aside).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IndexError> {
        let path = path.as_ref().to_owned();
        let db = schema::open(&path)?;
        let numbers = numbers::Numbers::load(&db)?;
        let index = Self {
            db,
            path,
            numbers,
            pins: pin::PinTable::default(),
            touches: touch::Touches::default(),
            unmeasured: Mutex::default(),
            collecting: Mutex::new(()),
        };
        // The last process may have been killed before it measured them.
        index.forget_sizes()?;
        Ok(index)
    }

    /// Puts a damaged index out of the way, in a directory beside it which is returned, so that the
    /// next one that is opened at `path` is a new one. An older one that was set aside goes.
    ///
    /// It is not repaired: what RocksDB can still read of a damaged database may be rows as they
    /// were at some earlier time, and a wrong result is worse than none.
    pub fn set_aside(path: impl AsRef<Path>) -> Result<PathBuf, IndexError> {
        let path = path.as_ref();
        let broken = |source| IndexError::SetAside { path: path.to_owned(), source };
        let aside = path.with_extension("broken");
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(broken)?;
        }
        if path.exists() {
            fs::rename(path, &aside).map_err(broken)?;
        }
        match fs::remove_file(schema::damage_mark(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(broken(error)),
            _ => Ok(aside),
        }
    }

    /// Whether a row could not be read because the database is damaged. What was read is right, and
    /// what cannot be read is an error or a miss; but the process should end, and the next one will
    /// find the index [damaged](IndexError::is_damage).
    pub fn is_damaged(&self) -> bool {
        self.db.is_damaged()
    }
}

impl Index {
    /// A number that changes whenever anything is written to the index.
    pub fn state(&self) -> u64 {
        self.db.state()
    }
}

impl Index {
    /// Frees what is only kept in memory to be read again soon.
    pub fn rest(&self) {
        self.db.clear_cache();
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.path).finish_non_exhaustive()
    }
}
