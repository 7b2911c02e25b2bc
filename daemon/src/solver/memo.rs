//! Functions that run once per key: everybody who asks shares one task and its answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, ready};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::SolveError;

/// A memoised answer on its way.
pub(crate) type Answer<T> = Shared<BoxFuture<'static, Result<Arc<T>, SolveError>>>;

/// Answers by key. Each is computed by a task of its own, so that a chain of a thousand keys is a
/// thousand tasks that wait for one another and not a stack a thousand futures deep. Dropping
/// the `Memo` aborts what nobody else waits for.
pub(crate) struct Memo<K, T> {
    answers: Mutex<Answers<K, T>>,
}

struct Answers<K, T> {
    by_key: HashMap<K, Answer<T>>,
    is_closed: bool,
}

impl<K: Eq + Hash, T: Send + Sync + 'static> Memo<K, T> {
    pub(crate) fn new() -> Self {
        Self { answers: Mutex::new(Answers { by_key: HashMap::new(), is_closed: false }) }
    }

    /// The answer for `key`, which `compute` makes if nobody asked before; that it is canceled if
    /// the memo is closed.
    pub(crate) fn get(
        &self,
        key: K,
        compute: impl FnOnce() -> BoxFuture<'static, Result<Arc<T>, SolveError>>,
    ) -> Answer<T> {
        let mut answers = self.answers.lock();
        if answers.is_closed {
            return ready(Err(SolveError::canceled())).boxed().shared();
        }
        let answer = answers.by_key.entry(key).or_insert_with(|| {
            let task = AbortOnDropHandle::new(tokio::spawn(compute()));
            async move { task.await.unwrap_or_else(|error| Err(SolveError::lost(error))) }
                .boxed()
                .shared()
        });
        answer.clone()
    }

    /// Whether anybody has asked for `key`.
    pub(crate) fn is_asked(&self, key: &K) -> bool {
        self.answers.lock().by_key.contains_key(key)
    }

    /// The answer for `key`, if there is one already and it is no error. A closed memo still knows.
    pub(crate) fn known(&self, key: &K) -> Option<Arc<T>> {
        let answers = self.answers.lock();
        answers.by_key.get(key)?.peek()?.as_ref().ok().cloned()
    }

    /// Forgets all answers, which aborts those that nobody else waits for.
    pub(super) fn clear(&self) {
        // Taken out first: an aborted task may own the last handles of others.
        let forgotten = std::mem::take(&mut self.answers.lock().by_key);
        drop(forgotten);
    }

    /// Forgets what is not answered yet, for good. Somebody may still ask, for a task is aborted
    /// only when it next waits, but nothing is computed any more.
    pub(crate) fn close(&self) {
        let unanswered: Vec<_> = {
            let mut answers = self.answers.lock();
            answers.is_closed = true;
            answers.by_key.extract_if(|_, answer| answer.peek().is_none()).collect()
        };
        drop(unanswered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_answered_is_not_computed_again_until_it_is_forgotten() {
        let memo = Memo::new();
        let answer = |value: u32| memo.get("key", move || ready(Ok(Arc::new(value))).boxed());
        assert_eq!(*answer(1).await.unwrap(), 1);
        assert_eq!(*answer(2).await.unwrap(), 1);
        memo.clear();
        assert_eq!(*answer(3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_closed_memo_starts_nothing() {
        let memo: Memo<&str, ()> = Memo::new();
        let waiting = memo.get("one", || std::future::pending().boxed());
        memo.close();
        let late = memo.get("two", || panic!("computed after the end"));
        assert!(late.await.unwrap_err().is_canceled());
        // Whoever waits already is still answered.
        assert!(waiting.now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_closed_memo_knows_what_it_was_told() {
        let memo = Memo::new();
        memo.get("one", || ready(Ok(Arc::new(1))).boxed()).await.unwrap();
        memo.close();
        assert_eq!(memo.known(&"one").as_deref(), Some(&1));
    }
}
