//! Rows of mutable directories: cache mounts, the files of local sources, git repositories.
//!
//! They are written in place, so a row says what the directory is for and not what it holds. Who may
//! use one at a time is for the caller to decide; a directory in use is pinned.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    Hit, Index, IndexError, Pin, SharedFile, db::Batch, durable::Volatile, error::Result, links,
    pin::Pinnable, schema::Family, shared,
};
use crate::{fault, record_type::RecordType};

/// A mutable directory: the number of its row, and of the directory. Layers are numbered from the
/// same counter, so no layer has this number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DirId(pub u64);

impl fmt::Display for DirId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DirId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.0)
    }
}

/// What a mutable directory is for.
///
/// The numbers are part of the index's format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum DirKind {
    /// A cache mount; named by its id.
    CacheMount = 0,
    /// Files received from clients; named by what identifies the client's directory across builds.
    LocalSource = 1,
    /// A copy of a git repository; named by its address.
    GitRepository = 2,
}

impl DirKind {
    /// Its type in lists of disk usage.
    pub const fn record_type(self) -> RecordType {
        match self {
            Self::CacheMount => RecordType::CacheMount,
            Self::LocalSource => RecordType::LocalSource,
            // As BuildKit lists them: it is the checkouts that have a type of their own.
            Self::GitRepository => RecordType::Regular,
        }
    }
}

/// What is known of a mutable directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirRow {
    /// Its number.
    pub id: DirId,
    /// What it is for.
    pub kind: DirKind,
    /// Its name; several directories may share one.
    pub name: String,
    /// What it took up on the disk when it was last measured, in bytes.
    pub size: u64,
    /// When it was made.
    pub created_at: SystemTime,
    /// What people see in a list of disk usage.
    pub description: String,
}

impl Index {
    /// Makes a new mutable directory by `make`, and then its row.
    pub fn create_dir<E: From<IndexError>>(
        &self,
        kind: DirKind,
        name: &str,
        description: &str,
        make: impl FnOnce(DirId) -> Result<(), E>,
    ) -> Result<Hit<DirRow>, E> {
        let row = DirRow {
            id: DirId(self.next_number()?),
            kind,
            name: name.to_owned(),
            size: 0,
            created_at: SystemTime::now(),
            description: description.to_owned(),
        };
        make(row.id)?;
        fault::may_die();
        let mut pins = self.pins.lock();
        let mut batch = Batch::new(&self.db);
        batch.put(Family::Dirs, &row.id.0.to_be_bytes(), &row);
        batch.put_raw(Family::Links, &links::dir(kind, name, row.id), &[]);
        self.put_volatile(&mut batch, Volatile::Dir(row.id))?;
        batch.write()?;
        let pin = pins.pin([Pinnable::Dir(row.id)]);
        self.unmeasured.lock().insert(row.id);
        Ok(Hit { row, pin })
    }

    /// All directories of one kind and name, oldest first, each pinned.
    pub fn dirs(&self, kind: DirKind, name: &str) -> Result<Vec<Hit<DirRow>>> {
        let mut pins = self.pins.lock();
        let mut found = Vec::new();
        for link in self.db.scan_raw(Family::Links, &links::dirs_of(kind, name)) {
            let Some(id) = links::trailing_number(&link?.0).map(DirId) else { continue };
            if let Some(row) = self.dir(id)? {
                found.push(Hit { row, pin: pins.pin([Pinnable::Dir(id)]) });
            }
        }
        Ok(found)
    }

    /// The row of a directory.
    pub fn dir(&self, id: DirId) -> Result<Option<DirRow>> {
        self.db.get(Family::Dirs, &id.0.to_be_bytes())
    }

    /// Notes that a directory is about to be written, and touches it. The pin shows that the caller
    /// has it.
    ///
    /// Until it is made durable again, a loss of power drops it: half-written files in a cache mount
    /// would break builds for as long as they stay.
    pub fn open_dir_for_writing(&self, id: DirId, _pin: &Pin) -> Result<()> {
        let mut batch = Batch::new(&self.db);
        self.put_volatile(&mut batch, Volatile::Dir(id))?;
        batch.write()?;
        self.touch_dir(id);
        self.unmeasured.lock().insert(id);
        Ok(())
    }

    /// The directories that may have changed in size since they were last asked for here: those that
    /// were opened for writing, and all when the index was just opened. One that is in use is named
    /// again the next time.
    pub fn unmeasured_dirs(&self) -> Result<Vec<DirRow>> {
        let pins = self.pins.lock();
        let mut unmeasured = self.unmeasured.lock();
        let rows = unmeasured.iter().filter_map(|&id| self.dir(id).transpose()).collect();
        unmeasured.retain(|&id| pins.is_pinned(Pinnable::Dir(id)));
        rows
    }

    /// Makes all directories count as not measured.
    pub(super) fn forget_sizes(&self) -> Result<()> {
        for row in self.db.scan_raw(Family::Dirs, &[]) {
            self.unmeasured.lock().extend(links::trailing_number(&row?.0).map(DirId));
        }
        Ok(())
    }

    /// Notes the measured size of a directory, in bytes, and the files that are not in it because
    /// they are others', too.
    pub fn set_dir_size(&self, id: DirId, size: u64, shared: &[SharedFile]) -> Result<()> {
        let _pins = self.pins.lock();
        let Some(mut row) = self.dir(id)? else { return Ok(()) };
        let known: Option<Vec<SharedFile>> = self.db.get(Family::Links, &links::shared(id.0))?;
        if row.size == size && known.unwrap_or_default() == shared {
            return Ok(());
        }
        row.size = size;
        let mut batch = Batch::new(&self.db);
        shared::put(&mut batch, id.0, shared);
        batch.put(Family::Dirs, &id.0.to_be_bytes(), &row);
        batch.write()
    }

    /// Deletes all rows of a directory.
    pub(super) fn delete_dir(&self, batch: &mut Batch<'_>, row: &DirRow) -> Result<()> {
        let key = row.id.0.to_be_bytes();
        batch.delete(Family::Dirs, &key);
        batch.delete(Family::Uses, &key);
        batch.delete(Family::Links, &links::shared(row.id.0));
        batch.delete(Family::Links, &links::dir(row.kind, &row.name, row.id));
        self.delete_volatile(batch, Volatile::Dir(row.id))
    }
}
