//! Functions that run once per key: everybody who asks shares one task and its answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::future::{BoxFuture, Shared, ready};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::SolveError;

/// A memoised answer on its way.
pub(crate) type Answer<T> = Shared<Work<T>>;

/// What computes an answer.
pub(crate) type Work<T> = BoxFuture<'static, Result<Arc<T>, SolveError>>;

/// Answers by key. They are computed by tasks, so that a chain of a thousand keys is a thousand
/// works that wait for one another and not a stack a thousand futures deep. Dropping the `Memo`
/// aborts what nobody else waits for.
pub(crate) struct Memo<K, T> {
    answers: Mutex<Answers<K, T>>,
}

struct Answers<K, T> {
    by_key: HashMap<K, Answer<T>>,
    is_closed: bool,
}

impl<K: Eq + Hash, T: Send + Sync + 'static> Answers<K, T> {
    /// The answer, if somebody asked before or nobody may any more.
    fn of(&self, key: &K) -> Option<Answer<T>> {
        let canceled = || ready(Err(SolveError::canceled())).boxed().shared();
        self.by_key.get(key).cloned().or_else(|| self.is_closed.then(canceled))
    }

    fn add(&mut self, key: K, answer: Answer<T>) -> Answer<T> {
        self.by_key.insert(key, answer.clone());
        answer
    }
}

impl<K: Eq + Hash, T: Send + Sync + 'static> Memo<K, T> {
    pub(crate) fn new() -> Self {
        Self { answers: Mutex::new(Answers { by_key: HashMap::new(), is_closed: false }) }
    }

    /// The answer for `key`, which `compute` makes if nobody asked before; that it is canceled if
    /// the memo is closed.
    pub(crate) fn get(&self, key: K, compute: impl FnOnce() -> Work<T>) -> Answer<T> {
        let mut answers = self.answers.lock();
        if let Some(answer) = answers.of(&key) {
            return answer;
        }
        let task = AbortOnDropHandle::new(tokio::spawn(compute()));
        let answer = async move { task.await.unwrap_or_else(|error| Err(SolveError::lost(error))) };
        answers.add(key, answer.boxed().shared())
    }

    /// The same of what is usually at hand: it is computed here, and becomes a task only if it has to
    /// wait. It must not ask for answers of this memo itself.
    pub(super) fn get_at_once(&self, key: K, compute: impl FnOnce() -> Work<T>) -> Answer<T> {
        if let Some(answer) = self.answers.lock().of(&key) {
            return answer;
        }
        let mut work = compute();
        let Some(made) = (&mut work).now_or_never() else { return self.get(key, || work) };
        let answer = ready(made).boxed().shared();
        // Who asks whether it is known does not wait for it.
        let _ = answer.clone().now_or_never();
        let mut answers = self.answers.lock();
        answers.of(&key).unwrap_or_else(|| answers.add(key, answer))
    }

    /// Has one task compute the answers of those of `works` that nobody asked for before. Short works
    /// of which each waits for another, as those of a chain of cached steps do, are done much sooner
    /// than by tasks of their own, which wake one another across threads.
    pub(super) fn start_all(&self, works: impl IntoIterator<Item = (K, Work<T>)>) {
        let mut answers = self.answers.lock();
        if answers.is_closed {
            return;
        }
        let (batch, mut receivers) = (FuturesUnordered::new(), Vec::new());
        for (key, work) in works {
            if !answers.by_key.contains_key(&key) {
                let (sender, receiver) = oneshot::channel();
                batch.push(async move { drop(sender.send(work.await)) });
                receivers.push((key, receiver));
            }
        }
        if receivers.is_empty() {
            return;
        }
        let task = AbortOnDropHandle::new(tokio::spawn(batch.for_each(ready)));
        let died = async { task.await.err().map_or_else(SolveError::canceled, SolveError::lost) };
        let died = died.boxed().shared();
        for (key, receiver) in receivers {
            let died = died.clone();
            let answer = async move {
                match receiver.await {
                    Ok(answer) => answer,
                    Err(_) => Err(died.await),
                }
            };
            answers.by_key.insert(key, answer.boxed().shared());
        }
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
    async fn works_of_one_task_may_wait_for_one_another() {
        let memo = Arc::new(Memo::new());
        let after = |before: Option<u32>| {
            let memo = memo.clone();
            let work = async move {
                let Some(before) = before else { return Ok(Arc::new(0)) };
                let before: Arc<u32> = memo.get(before, || panic!("asked already")).await?;
                Ok(Arc::new(*before + 1))
            };
            work.boxed()
        };
        // The last first: each of the others waits for one that comes after it.
        memo.start_all((0..1000).rev().map(|key: u32| (key, after(key.checked_sub(1)))));
        assert_eq!(*memo.get(999, || panic!("asked already")).await.unwrap(), 999);
        memo.start_all([(999, ready(Ok(Arc::new(7))).boxed())]);
        assert_eq!(memo.known(&999).as_deref(), Some(&999));
    }

    #[tokio::test]
    async fn what_is_at_hand_is_known_at_once_and_what_is_not_is_waited_for() {
        let memo = Memo::new();
        drop(memo.get_at_once("here", || ready(Ok(Arc::new(1))).boxed()));
        assert_eq!(memo.known(&"here").as_deref(), Some(&1));
        let later = async { tokio::task::yield_now().await }.map(|()| Ok(Arc::new(2)));
        let later = memo.get_at_once("later", || later.boxed());
        assert_eq!(memo.known(&"later"), None);
        assert_eq!(*later.await.unwrap(), 2);
        memo.close();
        let late = memo.get_at_once("late", || panic!("computed after the end"));
        assert!(late.await.unwrap_err().is_canceled());
    }

    #[tokio::test]
    async fn a_closed_memo_knows_what_it_was_told() {
        let memo = Memo::new();
        memo.get("one", || ready(Ok(Arc::new(1))).boxed()).await.unwrap();
        memo.close();
        assert_eq!(memo.known(&"one").as_deref(), Some(&1));
    }
}
