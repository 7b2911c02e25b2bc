//! Failed steps, as long as somebody may want to look at what they left.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Snapshot;
use crate::graph::VertexDigest;
use crate::layers::NewLayer;

/// An op that did not come to its end.
#[derive(Debug)]
pub(crate) struct OpFailure {
    pub(crate) cause: anyhow::Error,
    /// Told only for a build that [keeps](FailedSteps::are_kept) it.
    pub(crate) left: Option<LeftBehind>,
}

impl<E: Into<anyhow::Error>> From<E> for OpFailure {
    fn from(cause: E) -> Self {
        Self { cause: cause.into(), left: None }
    }
}

/// What a failed step started from, and what it left.
#[derive(Debug)]
pub(crate) struct LeftBehind {
    pub(crate) subject: Subject,
    /// Of a process one a mount, of a file op one an input; `None` is nothing, or nothing to show.
    pub(crate) inputs: Vec<Option<Snapshot>>,
    /// Of a process one a mount, of a file op one an action.
    pub(crate) outputs: Vec<Option<LeftFiles>>,
}

/// What of a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Process,
    /// The action of a file op that has this index.
    Action(usize),
    /// Before the step ran: the look at the input that has this index.
    CacheKey(usize),
}

/// Files as a failed step left them. What it wrote is in no index, and gone when this is.
#[derive(Clone, Debug)]
pub(crate) struct LeftFiles {
    pub(crate) below: Option<Snapshot>,
    pub(crate) written: Option<Arc<NewLayer>>,
}

/// The failed steps of one build. Nothing of them is kept unless somebody is there who can ask.
#[derive(Default)]
pub(crate) struct FailedSteps(Mutex<Option<HashMap<VertexDigest, Arc<LeftBehind>>>>);

impl FailedSteps {
    /// From now on they are kept.
    pub(crate) fn keep(&self) {
        self.0.lock().get_or_insert_default();
    }

    pub(crate) fn are_kept(&self) -> bool {
        self.0.lock().is_some()
    }

    pub(super) fn add(&self, vertex: VertexDigest, left: Arc<LeftBehind>) {
        if let Some(steps) = &mut *self.0.lock() {
            steps.insert(vertex, left);
        }
    }

    /// What a step left; nothing if it has not failed, or not in a way that leaves something.
    pub(crate) fn get(&self, vertex: VertexDigest) -> Option<Arc<LeftBehind>> {
        self.0.lock().as_ref()?.get(&vertex).cloned()
    }

    /// Forgets all of them, and keeps no more. Says whether there were any.
    pub(crate) fn forget(&self) -> bool {
        let forgotten = self.0.lock().take();
        forgotten.is_some_and(|steps| !steps.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use kiln_cache::Digest;

    use super::*;

    #[test]
    fn what_failed_steps_left_is_kept_only_while_somebody_can_ask() {
        let vertex = VertexDigest(Digest::of("vertex"));
        let left = || {
            let subject = Subject::Process;
            Arc::new(LeftBehind { subject, inputs: Vec::new(), outputs: Vec::new() })
        };
        let steps = FailedSteps::default();
        steps.add(vertex, left());
        assert!(!steps.are_kept() && steps.get(vertex).is_none());

        steps.keep();
        let kept = left();
        steps.add(vertex, kept.clone());
        assert!(steps.get(vertex).is_some());
        assert!(steps.forget());
        assert_eq!(Arc::strong_count(&kept), 1);

        steps.add(vertex, left());
        assert!(!steps.are_kept() && steps.get(vertex).is_none());
    }
}
