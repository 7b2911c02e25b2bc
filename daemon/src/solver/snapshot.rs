//! Results of vertices.

use std::fmt;
use std::sync::Arc;

use kiln_cache::{CacheKey, LayerId, Pin};

use crate::layers::LocalTree;

/// A file system that a vertex made.
#[derive(Clone, Debug)]
pub(crate) enum Snapshot {
    /// Immutable layers; they may still be remote.
    Layers(Stack),
    /// A client's files, which its next transfer changes in place: they are only stable while
    /// this is held, and are copied into a layer before a record may refer to them.
    Tree(Arc<LocalTree>),
}

/// Layers, bottom first, and what keeps them from being collected.
#[derive(Clone, Default)]
pub(crate) struct Stack {
    ids: Arc<[LayerId]>,
    pins: Vec<Arc<Pin>>,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids.iter()).finish()
    }
}

impl Stack {
    pub(crate) fn new(ids: Vec<LayerId>, pin: Pin) -> Self {
        Self { ids: ids.into(), pins: vec![Arc::new(pin)] }
    }

    pub(crate) fn ids(&self) -> &[LayerId] {
        &self.ids
    }

    /// This stack with one more layer on top.
    pub(crate) fn with(&self, top: LayerId, pin: Pin) -> Self {
        let mut pins = self.pins.clone();
        pins.push(Arc::new(pin));
        Self { ids: self.ids.iter().copied().chain([top]).collect(), pins }
    }

    /// All layers of `stacks`, the first lowest.
    pub(crate) fn concat<'a>(stacks: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut ids, mut pins) = (Vec::new(), Vec::new());
        for stack in stacks {
            ids.extend_from_slice(&stack.ids);
            pins.extend(stack.pins.iter().cloned());
        }
        Self { ids: ids.into(), pins }
    }

    /// The layers above the first `count`.
    pub(crate) fn above(&self, count: usize) -> Self {
        let ids = self.ids.get(count..).unwrap_or_default().into();
        Self { ids, pins: self.pins.clone() }
    }
}

/// What a vertex made.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    /// One key an output; none where the outputs are known by content only (local files).
    pub(crate) keys: Option<Vec<CacheKey>>,
    pub(crate) snapshots: Vec<Snapshot>,
}
