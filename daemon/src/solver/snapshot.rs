//! Results of vertices.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use kiln_cache::{CacheKey, LayerId, Pin};

use crate::layers::{LocalTree, NewLayer};

/// As many layers as may be put on top of one another: the kernel joins 500 directories, and one of
/// them is the daemon's own, below the root of every step. A definition of a few lines can name the
/// same layers any number of times, so this is checked before they are counted out.
const MAX_LAYERS: usize = 499;

/// File systems were merged that have too many layers together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the merged file system would have {0} layers, and it can have {MAX_LAYERS} at most")]
pub(crate) struct TooManyLayers(usize);

/// A file system that a vertex made.
#[derive(Clone, Debug)]
pub(crate) enum Snapshot {
    /// Immutable layers; they may still be remote.
    Layers(Stack),
    /// A client's files, which its next transfer changes in place: they are only stable while
    /// this is held, and are copied into a layer before a record may refer to them.
    Tree(Arc<LocalTree>),
}

/// Layers, bottom first, and what keeps them from being collected. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Stack {
    ids: Arc<[LayerId]>,
    holds: Arc<[Hold]>,
}

/// What keeps layers where they are.
#[derive(Clone)]
enum Hold {
    Pin(Arc<Pin>),
    /// A layer that no index knows: it is there as long as this is.
    Unfinished(Arc<NewLayer>),
}

impl Hold {
    fn address(&self) -> *const () {
        match self {
            Self::Pin(pin) => Arc::as_ptr(pin).cast(),
            Self::Unfinished(layer) => Arc::as_ptr(layer).cast(),
        }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids.iter()).finish()
    }
}

impl Stack {
    pub(crate) fn new(ids: Vec<LayerId>, pin: Pin) -> Self {
        Self { ids: ids.into(), holds: Arc::new([Hold::Pin(Arc::new(pin))]) }
    }

    pub(crate) fn ids(&self) -> &[LayerId] {
        &self.ids
    }

    /// This stack with one more layer on top.
    pub(crate) fn with(&self, top: LayerId, pin: Pin) -> Self {
        self.held(top, Hold::Pin(Arc::new(pin)))
    }

    /// This stack with a layer on top that is not finished, nor ever will be.
    pub(crate) fn with_unfinished(&self, top: Arc<NewLayer>) -> Self {
        self.held(top.id(), Hold::Unfinished(top))
    }

    fn held(&self, top: LayerId, hold: Hold) -> Self {
        Self {
            ids: self.ids.iter().copied().chain([top]).collect(),
            holds: self.holds.iter().cloned().chain([hold]).collect(),
        }
    }

    /// The layers that the index is to know.
    pub(crate) fn finished(&self) -> impl Iterator<Item = LayerId> {
        let is_unfinished = |id: &LayerId| {
            let same = |hold: &Hold| matches!(hold, Hold::Unfinished(layer) if layer.id() == *id);
            self.holds.iter().any(same)
        };
        self.ids.iter().copied().filter(move |id| !is_unfinished(id))
    }

    /// All layers of `stacks`, the first lowest.
    pub(crate) fn concat(stacks: &[Self]) -> Result<Self, TooManyLayers> {
        let count = stacks.iter().map(|stack| stack.ids.len()).sum();
        if count > MAX_LAYERS {
            return Err(TooManyLayers(count));
        }
        let ids = stacks.iter().flat_map(|stack| stack.ids.iter().copied()).collect();
        // A stack without layers may have holds: they must not add up when it is merged with itself.
        let mut known = HashSet::new();
        let holds = stacks.iter().flat_map(|stack| stack.holds.iter());
        let holds = holds.filter(|hold| known.insert(hold.address())).cloned().collect();
        Ok(Self { ids, holds })
    }

    /// The layers above the first `count`.
    pub(crate) fn above(&self, count: usize) -> Self {
        let ids = self.ids.get(count..).unwrap_or_default().into();
        Self { ids, holds: self.holds.clone() }
    }
}

/// What a vertex made.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    /// One key an output; none where the outputs are known by content only (local files).
    pub(crate) keys: Option<Vec<CacheKey>>,
    /// One an output; none for those that a cache does not have while it has others.
    pub(crate) snapshots: Vec<Option<Snapshot>>,
}

impl Outputs {
    /// Those of a vertex that has one.
    pub(crate) fn single(key: Option<CacheKey>, snapshot: Snapshot) -> Self {
        Self { keys: key.map(|key| vec![key]), snapshots: vec![Some(snapshot)] }
    }

    pub(crate) fn snapshot(&self, output: usize) -> Option<&Snapshot> {
        self.snapshots.get(output)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(ids: std::ops::Range<u64>) -> Stack {
        Stack { ids: ids.map(LayerId).collect(), holds: Arc::default() }
    }

    #[test]
    fn merged_layers_are_those_of_the_first_and_then_those_of_the_next() {
        let merged = Stack::concat(&[stack(3..5), stack(0..0), stack(1..3)]).unwrap();
        assert_eq!(merged.ids(), [3, 4, 1, 2].map(LayerId));
    }

    #[test]
    fn a_stack_that_is_merged_with_itself_over_and_over_gets_too_high() {
        let mut merged = Ok(stack(0..1));
        let mut times = 0;
        while let Ok(stack) = merged {
            merged = Stack::concat(&[stack.clone(), stack]);
            times += 1;
        }
        assert_eq!((times, merged.unwrap_err()), (9, TooManyLayers(512)));
    }
}
