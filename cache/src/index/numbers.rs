//! The counter that numbers layers, directories and marks.

use parking_lot::Mutex;

use super::{
    Index,
    db::{Batch, Db},
    error::Result,
    schema::Family,
};

const KEY: &[u8] = b"numbers";
/// Numbers are reserved so many at a time, so that taking one costs no write.
const BLOCK: u64 = 1024;

/// Numbers that are reserved and not yet taken.
#[derive(Debug)]
pub(super) struct Numbers(Mutex<std::ops::Range<u64>>);

impl Numbers {
    /// Starts after everything that was ever reserved.
    pub(super) fn load(db: &Db) -> Result<Self> {
        let first = db.get(Family::Meta, KEY)?.unwrap_or(1);
        Ok(Self(Mutex::new(first..first)))
    }
}

impl Index {
    /// Whether a number that is in use may be given out again.
    pub(super) fn may_repeat(&self, number: u64) -> Result<bool> {
        Ok(self.db.get::<u64>(Family::Meta, KEY)?.unwrap_or(1) <= number)
    }

    /// Sees to it that no number up to this one is given out again.
    pub(super) fn skip_numbers(&self, number: u64) -> Result<()> {
        let mut reserved = self.numbers.0.lock();
        let end = number.saturating_add(1).max(reserved.end);
        let mut batch = Batch::new(&self.db);
        batch.put(Family::Meta, KEY, &end);
        batch.write_synced()?;
        *reserved = end..end;
        Ok(())
    }

    /// A number that was never given out before, higher than all that were.
    pub(super) fn next_number(&self) -> Result<u64> {
        let mut reserved = self.numbers.0.lock();
        if let Some(number) = reserved.next() {
            return Ok(number);
        }
        let end = reserved.end + BLOCK;
        let mut batch = Batch::new(&self.db);
        batch.put(Family::Meta, KEY, &end);
        batch.write()?;
        let number = reserved.end;
        *reserved = number + 1..end;
        Ok(number)
    }
}
