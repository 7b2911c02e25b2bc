//! Functions that run once per key: everybody who asks shares one task and its answer.

use std::collections::HashMap;
use std::hash::Hash;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// Answers by key. Each is computed by a task of its own, so that a chain of a thousand keys is a
/// thousand tasks that wait for one another and not a stack a thousand futures deep. Dropping
/// the `Memo` aborts what nobody else waits for.
pub(crate) struct Memo<K, V: Clone> {
    answers: Mutex<HashMap<K, Shared<BoxFuture<'static, V>>>>,
}

impl<K: Eq + Hash, V: Clone + Send + Sync + 'static> Memo<K, V> {
    pub(crate) fn new() -> Self {
        Self { answers: Mutex::new(HashMap::new()) }
    }

    /// The answer for `key`, which `compute` makes if nobody asked before.
    ///
    /// `lost` is the answer if the task dies: the runtime shuts down, or the task panics.
    pub(crate) fn get(
        &self,
        key: K,
        compute: impl FnOnce() -> BoxFuture<'static, V>,
        lost: impl FnOnce(tokio::task::JoinError) -> V + Send + 'static,
    ) -> Shared<BoxFuture<'static, V>> {
        let mut answers = self.answers.lock();
        let answer = answers.entry(key).or_insert_with(|| {
            let task = AbortOnDropHandle::new(tokio::spawn(compute()));
            let answer = async move { task.await.unwrap_or_else(lost) };
            answer.boxed().shared()
        });
        answer.clone()
    }

    /// Forgets all answers, which aborts those that nobody else waits for.
    pub(crate) fn clear(&self) {
        // Taken out first: an aborted task may own the last handles of others.
        let answers = std::mem::take(&mut *self.answers.lock());
        drop(answers);
    }
}
