//! Work in flight: the same step wanted by two builds at once runs once, and both see its log.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::SolveError;
use super::progress::{Event, Progress, VertexProgress};

/// All work of the daemon that is under way, by key.
pub(crate) struct Flights<K, T: Clone> {
    running: Board<K, T>,
}

struct Flight<T: Clone> {
    answer: Shared<BoxFuture<'static, Result<T, SolveError>>>,
    progress: Progress,
}

impl<K: Eq + Hash + Clone + Send + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    pub(crate) fn new() -> Self {
        Self { running: Arc::default() }
    }

    /// Joins the work under `key`, or starts it; reports to `vertex` either way.
    ///
    /// The work has the session, the credentials and the secrets of whoever started it, who may
    /// even have left by now. So those who joined do not share its failure: they start it again,
    /// as theirs, unless it is one that they `share`.
    ///
    /// The work is aborted when the last one waiting for it is dropped.
    pub(crate) async fn join(
        &self,
        key: K,
        vertex: &VertexProgress,
        start: impl Fn(VertexProgress) -> BoxFuture<'static, Result<T, SolveError>>,
        shares: impl Fn(&SolveError) -> bool,
    ) -> Result<T, SolveError> {
        loop {
            let (flight, is_own) = self.board(&key, &start);
            let (outcome, failures) = flight.follow(vertex).await;
            if outcome.as_ref().is_err_and(|error| !is_own && !shares(error)) {
                continue;
            }
            failures.iter().for_each(|event| vertex.relay(event));
            return outcome;
        }
    }

    /// The flight under `key`, and whether it was started for this.
    fn board(
        &self,
        key: &K,
        start: impl Fn(VertexProgress) -> BoxFuture<'static, Result<T, SolveError>>,
    ) -> (Arc<Flight<T>>, bool) {
        let mut running = self.running.lock();
        if let Some(flight) = running.get(key).and_then(Weak::upgrade) {
            return (flight, false);
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
            let answer = async move { task.await.unwrap_or_else(|e| Err(SolveError::lost(e))) };
            Flight { answer: answer.boxed().shared(), progress }
        });
        running.insert(key.clone(), Arc::downgrade(&flight));
        (flight, true)
    }
}

impl<T: Clone> Flight<T> {
    /// Waits for the outcome and reports to `vertex` meanwhile. That the work has failed is for the
    /// caller to report: those events are returned.
    async fn follow(&self, vertex: &VertexProgress) -> (Result<T, SolveError>, Vec<Event>) {
        let mut failures = Vec::new();
        let mut report = |events: Vec<Event>| {
            for event in events {
                match &event {
                    Event::Vertex(other) if !other.error.is_empty() => failures.push(event),
                    _ => vertex.relay(&event),
                }
            }
        };
        let mut watcher = self.progress.watch();
        let mut answer = self.answer.clone();
        let outcome = loop {
            tokio::select! {
                biased;
                event = watcher.next() => match event {
                    Some(events) => report(events),
                    None => break answer.await,
                },
                outcome = &mut answer => break outcome,
            }
        };
        // What was said before the answer came.
        while let Some(Some(events)) = watcher.next().now_or_never() {
            report(events);
        }
        (outcome, failures)
    }
}

type Board<K, T> = Arc<Mutex<HashMap<K, Weak<Flight<T>>>>>;

/// Takes a flight off the board when its work ends, however it ends.
struct Landing<K: Eq + Hash, T: Clone> {
    key: K,
    flight: Weak<Flight<T>>,
    running: Board<K, T>,
}

impl<K: Eq + Hash, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // An aborted flight may have been replaced by now: leave the living one alone.
        if running.get(&self.key).is_some_and(|flight| flight.ptr_eq(&self.flight)) {
            running.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::solver::ProcessError;
    use crate::solver::progress::to_response;

    /// The first run ends with `failure`, later ones well with their number.
    async fn joined_by_two(failure: fn() -> SolveError) -> [Result<usize, SolveError>; 2] {
        let (flights, progress, runs) = (Flights::new(), Progress::new(), AtomicUsize::new(0));
        let start = |own: VertexProgress| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            let work = async move { if run == 0 { Err(failure()) } else { Ok(run) } };
            async move { own.run(work).await }.boxed()
        };
        let vertices = [progress.internal("a", "a"), progress.internal("b", "b")];
        // Both are on board before the first of them gets to run.
        let [starter, joiner] =
            vertices.each_ref().map(|it| flights.join("key", it, &start, SolveError::is_inherent));
        let (starter, joiner) = tokio::join!(starter, joiner);
        let ends = to_response(progress.watch().next().await.unwrap()).vertexes;
        for (name, outcome) in [("a", &starter), ("b", &joiner)] {
            let mut reports = ends.iter().filter(|vertex| vertex.name == name);
            let has_failed = reports.any(|vertex| !vertex.error.is_empty());
            assert_eq!(has_failed, outcome.is_err(), "what is reported of {name}");
        }
        [starter, joiner]
    }

    #[tokio::test]
    async fn who_joined_tries_again_what_failed_for_who_started() {
        let [starter, joiner] = joined_by_two(|| anyhow::anyhow!("no such secret").into()).await;
        assert_eq!(starter.unwrap_err().to_string(), "no such secret");
        assert_eq!(joiner.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_command_that_fails_fails_for_everybody() {
        let failed = || {
            let (command, reason) = ("false".to_owned(), "exit code: 1".to_owned());
            ProcessError { command, reason, exit_code: Some(1) }.into()
        };
        let outcomes = joined_by_two(failed).await;
        assert!(outcomes.iter().all(Result::is_err));
    }
}
