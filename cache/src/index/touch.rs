//! When layers and directories were last used, and how often.
//!
//! A lookup must not cost a write, so uses are counted in memory and written now and then. A crash
//! loses the last of them, which makes something look a little less used than it is.

use std::{cmp::Ordering, collections::HashMap, iter::Peekable, time::SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{DirId, Index, db::Batch, error::Result, schema::Family};
use crate::layer::LayerId;

/// Uses of one layer or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Uses {
    pub(super) last: SystemTime,
    pub(super) count: u64,
}

impl Uses {
    /// These and earlier ones together.
    fn after(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) => Self {
                last: self.last.max(earlier.last),
                count: self.count.saturating_add(earlier.count),
            },
            None => self,
        }
    }
}

/// Uses that are not written yet, by the number of the layer or directory.
#[derive(Default, Debug)]
pub(super) struct Touches(Mutex<HashMap<u64, Uses>>);

impl Touches {
    fn note(&self, number: u64) {
        let now = Uses { last: SystemTime::now(), count: 1 };
        let mut unwritten = self.0.lock();
        let uses = now.after(unwritten.get(&number).copied());
        unwritten.insert(number, uses);
    }
}

impl Index {
    /// Notes a use of layers, in memory.
    pub fn touch(&self, layers: impl IntoIterator<Item = LayerId>) {
        for layer in layers {
            self.touches.note(layer.0);
        }
    }

    /// Notes a use of a mutable directory, in memory.
    pub fn touch_dir(&self, dir: DirId) {
        self.touches.note(dir.0);
    }

    /// Writes the uses noted so far; to be called every few seconds while builds run, and at the end.
    pub fn flush_touches(&self) -> Result<()> {
        let _pins = self.pins.lock();
        let unwritten = std::mem::take(&mut *self.touches.0.lock());
        if unwritten.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(&self.db);
        for (number, uses) in unwritten {
            let key = number.to_be_bytes();
            if !self.db.contains(Family::Layers, &key)? && !self.db.contains(Family::Dirs, &key)? {
                // Collected meanwhile.
                continue;
            }
            batch.put(Family::Uses, &key, &uses.after(self.db.get(Family::Uses, &key)?));
        }
        batch.write()
    }

    /// All uses, those of this minute included, for who asks for them in order.
    pub(super) fn uses_in_order(
        &self,
    ) -> UsesInOrder<impl Iterator<Item = Result<(Box<[u8]>, Uses)>>> {
        let unwritten = self.touches.0.lock().clone();
        UsesInOrder { written: self.db.scan(Family::Uses, &[]).peekable(), unwritten }
    }
}

/// Uses of layers or directories that are asked for in order of their numbers.
pub(super) struct UsesInOrder<I: Iterator> {
    written: Peekable<I>,
    unwritten: HashMap<u64, Uses>,
}

impl<I: Iterator<Item = Result<(Box<[u8]>, Uses)>>> UsesInOrder<I> {
    /// The uses of the next number.
    pub(super) fn of(&mut self, number: u64) -> Result<Option<Uses>> {
        let key = number.to_be_bytes();
        let is = |order: Ordering, row: &I::Item| matches!(row, Ok((at, _)) if (**at).cmp(&key) == order);
        while self.written.next_if(|row| is(Ordering::Less, row)).is_some() {}
        let written = self.written.next_if(|row| !is(Ordering::Greater, row)).transpose()?;
        let written = written.map(|(_, uses)| uses);
        Ok(match self.unwritten.get(&number) {
            Some(unwritten) => Some(unwritten.after(written)),
            None => written,
        })
    }
}
