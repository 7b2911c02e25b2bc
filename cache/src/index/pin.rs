//! Pins: what running builds hold, in memory only.
//!
//! A build ends with the daemon, so nothing of this is written down. A garbage collection decides
//! under the same lock under which a lookup pins what it found: what is found stays.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use super::{dir::DirId, parts::StepId};
use crate::{
    digest::Digest,
    layer::{ChainId, LayerId},
};

/// Something that can be pinned, or is noted when it changes while a collection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Pinnable {
    Layer(LayerId),
    Blob(Digest),
    Dir(DirId),
    /// The link of a chain, which is never pinned.
    Chain(ChainId),
    /// The row of a step, which is never pinned.
    Step(StepId),
}

/// How many pins hold what.
#[derive(Default, Debug)]
pub(super) struct Pins {
    counts: HashMap<Pinnable, usize>,
    /// What was pinned or came to be referred to since a collection began to look for what nothing
    /// needs; `None` while there is no collection.
    noted: Option<HashSet<Pinnable>>,
}

/// The table of pins, shared with the pins that are out.
#[derive(Default, Clone, Debug)]
pub(super) struct PinTable(Arc<Mutex<Pins>>);

impl PinTable {
    /// Stops pins, lookups and collections of others until the guard is dropped.
    pub(super) fn lock(&self) -> PinLock<'_> {
        PinLock { table: self, pins: self.0.lock() }
    }
}

/// The locked table.
pub(super) struct PinLock<'a> {
    table: &'a PinTable,
    pins: MutexGuard<'a, Pins>,
}

impl PinLock<'_> {
    pub(super) fn pin(&mut self, held: impl IntoIterator<Item = Pinnable>) -> Pin {
        let held: Vec<_> = held.into_iter().collect();
        for one in &held {
            *self.pins.counts.entry(*one).or_default() += 1;
            self.note_reference(*one);
        }
        Pin { table: self.table.clone(), held }
    }

    /// Notes that something is needed, for a collection that may be running; or, of what is never
    /// pinned, that it changes.
    pub(super) fn note_reference(&mut self, one: Pinnable) {
        if let Some(noted) = &mut self.pins.noted {
            noted.insert(one);
        }
    }

    /// Starts to note what comes to be needed.
    pub(super) fn start_notes(&mut self) {
        self.pins.noted = Some(HashSet::new());
    }

    /// Stops that.
    pub(super) fn stop_notes(&mut self) {
        self.pins.noted = None;
    }

    /// Whether something is held, or came to be needed since notes were started; or, of what is never
    /// pinned, whether it may have changed since.
    pub(super) fn is_needed(&self, one: Pinnable) -> bool {
        self.is_pinned(one) || self.pins.noted.as_ref().is_some_and(|noted| noted.contains(&one))
    }

    /// All that is pinned.
    pub(super) fn all(&self) -> HashSet<Pinnable> {
        self.pins.counts.keys().copied().collect()
    }

    /// Unlocks it, and lets who waits have it before this thread has it again.
    pub(super) fn hand_over(self) {
        MutexGuard::unlock_fair(self.pins);
    }

    pub(super) fn is_pinned(&self, one: Pinnable) -> bool {
        self.pins.counts.contains_key(&one)
    }
}

/// Keeps layers, blobs or directories from being collected, until it is dropped.
///
/// A pinned layer also keeps all that it builds on.
#[must_use = "what was pinned is free again when the pin is dropped"]
#[derive(Debug)]
pub struct Pin {
    table: PinTable,
    held: Vec<Pinnable>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.table.0.lock();
        for one in &self.held {
            if let Some(count) = pins.counts.get_mut(one) {
                *count -= 1;
                if *count == 0 {
                    pins.counts.remove(one);
                }
            }
        }
        // A thousand builds must not leave a table of their size behind.
        if pins.counts.is_empty() {
            pins.counts.shrink_to_fit();
        }
    }
}

/// A row that was found, with a pin on what it needs.
#[derive(Debug)]
pub struct Hit<T> {
    /// The row.
    pub row: T,
    /// Holds the row's layers, or its directory.
    pub pin: Pin,
}
