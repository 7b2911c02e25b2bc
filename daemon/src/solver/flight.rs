//! Work in flight: the same step wanted by two builds at once runs once, and both see its log.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::progress::{Progress, VertexProgress};

/// All work of the daemon that is under way, by key.
pub(crate) struct Flights<K, V: Clone> {
    running: Board<K, V>,
}

struct Flight<V: Clone> {
    answer: Shared<BoxFuture<'static, V>>,
    progress: Progress,
}

impl<K: Eq + Hash + Clone + Send + 'static, V: Clone + Send + Sync + 'static> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self { running: Arc::default() }
    }

    /// Joins the work under `key`, or starts it; reports to `vertex` either way.
    ///
    /// The work is aborted when the last one waiting for it is dropped.
    pub(crate) async fn join(
        &self,
        key: K,
        vertex: &VertexProgress,
        start: impl FnOnce(VertexProgress) -> BoxFuture<'static, V>,
        lost: impl FnOnce(tokio::task::JoinError) -> V + Send + 'static,
    ) -> V {
        let flight = self.board(key, start, lost);
        let mut watcher = flight.progress.watch();
        let mut answer = flight.answer.clone();
        let value = loop {
            tokio::select! {
                biased;
                event = watcher.next() => match event {
                    Some(events) => events.iter().for_each(|event| vertex.relay(event)),
                    None => break answer.await,
                },
                value = &mut answer => break value,
            }
        };
        // What was said before the answer came.
        while let Some(Some(events)) = watcher.next().now_or_never() {
            events.iter().for_each(|event| vertex.relay(event));
        }
        value
    }

    fn board(
        &self,
        key: K,
        start: impl FnOnce(VertexProgress) -> BoxFuture<'static, V>,
        lost: impl FnOnce(tokio::task::JoinError) -> V + Send + 'static,
    ) -> Arc<Flight<V>> {
        let mut running = self.running.lock();
        if let Some(flight) = running.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        let progress = Progress::new();
        let work = start(progress.internal("flight", ""));
        let flight = Arc::new_cyclic(|flight| {
            let landing =
                Landing { key: key.clone(), flight: flight.clone(), running: self.running.clone() };
            let task = AbortOnDropHandle::new(tokio::spawn(async move {
                let _landing = landing;
                work.await
            }));
            let answer = async move { task.await.unwrap_or_else(lost) };
            Flight { answer: answer.boxed().shared(), progress }
        });
        running.insert(key, Arc::downgrade(&flight));
        flight
    }
}

type Board<K, V> = Arc<Mutex<HashMap<K, Weak<Flight<V>>>>>;

/// Takes a flight off the board when its work ends, however it ends.
struct Landing<K: Eq + Hash, V: Clone> {
    key: K,
    flight: Weak<Flight<V>>,
    running: Board<K, V>,
}

impl<K: Eq + Hash, V: Clone> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // An aborted flight may have been replaced by now: leave the living one alone.
        if running.get(&self.key).is_some_and(|flight| flight.ptr_eq(&self.flight)) {
            running.remove(&self.key);
        }
    }
}
