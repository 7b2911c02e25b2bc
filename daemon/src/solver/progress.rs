//! What a build tells its watchers: vertices, transfers, logs and warnings, replayed from the
//! start to whoever asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use kiln_proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use kiln_proto::kiln::{Miss, StepUsage};
use parking_lot::Mutex;
use prost::Message as _;
use prost_types::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::CANCELED;
use crate::graph::{Vertex as GraphVertex, VertexDigest};

/// Log bytes kept for one vertex; that there was more is said.
pub(crate) const MAX_LOG_BYTES: usize = 2 << 20;
/// What each piece of a log counts besides its text: a log of single bytes takes up far more memory
/// than its text does.
const LOG_PIECE: usize = 32;

/// How long after a message to a client the next one follows at the earliest, unless the build ends.
const PACE: Duration = Duration::from_millis(20);

/// The progress of one build. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Counts events and tells watchers that there are more.
    count: watch::Sender<usize>,
    /// There will be no more of them.
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    vertices: HashMap<String, Vertex>,
    logged: HashMap<String, usize>,
    /// How many things are done for a vertex after its own work.
    reopened: HashMap<String, usize>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Vertex(Vertex),
    Status(VertexStatus),
    Log(VertexLog),
    Warning(VertexWarning),
    Miss(Miss),
    Usage(StepUsage),
}

impl Progress {
    pub(crate) fn new() -> Self {
        let (count, _) = watch::channel(0);
        Self(Arc::new(Inner { state: Mutex::default(), count, closed: CancellationToken::new() }))
    }

    fn push(&self, state: &mut State, event: Event) {
        if self.0.closed.is_cancelled() {
            return;
        }
        state.events.push(event);
        self.0.count.send_replace(state.events.len());
    }

    /// Announces a graph vertex; announcing twice is the same as once.
    pub(crate) fn vertex(&self, vertex: &GraphVertex) -> VertexProgress {
        self.announce(vertex.digest().to_string(), |digest| Vertex {
            digest,
            name: vertex.name(),
            inputs: vertex.inputs().iter().map(|edge| edge.vertex.digest().to_string()).collect(),
            progress_group: vertex.meta().progress_group.clone(),
            ..Default::default()
        })
    }

    /// Announces a vertex of the daemon's own (`[internal] …`, `exporting to image`, …), named by
    /// `id` within this build.
    pub(crate) fn internal(&self, id: &str, name: &str) -> VertexProgress {
        let digest = VertexDigest(kiln_cache::Digest::of(format!("internal:{id}").as_bytes()));
        let name = name.to_owned();
        self.announce(digest.to_string(), |digest| Vertex { digest, name, ..Default::default() })
    }

    /// A vertex is asked for again and again, and described once.
    fn announce(&self, digest: String, describe: impl FnOnce(String) -> Vertex) -> VertexProgress {
        let mut state = self.0.state.lock();
        if !state.vertices.contains_key(&digest) {
            let vertex = describe(digest.clone());
            state.vertices.insert(digest.clone(), vertex.clone());
            self.push(&mut state, Event::Vertex(vertex));
        }
        VertexProgress { progress: self.clone(), digest }
    }

    /// Warns the user about the vertex that the warning names.
    pub(crate) fn warn(&self, warning: VertexWarning) {
        let mut state = self.0.state.lock();
        self.push(&mut state, Event::Warning(warning));
    }

    /// Ends the streams of all watchers once they have read everything. What is still going on has
    /// been given up.
    pub(crate) fn close(&self) {
        let mut state = self.0.state.lock();
        let is_open = |vertex: &&mut Vertex| vertex.started.is_some() && vertex.completed.is_none();
        let mut ended: Vec<Vertex> = Vec::new();
        for vertex in state.vertices.values_mut().filter(is_open) {
            vertex.completed = Some(now());
            CANCELED.clone_into(&mut vertex.error);
            ended.push(vertex.clone());
        }
        for vertex in ended {
            self.push(&mut state, Event::Vertex(vertex));
        }
        // Before anybody has the state again, so that nothing is added.
        self.0.closed.cancel();
    }

    /// A watcher at the first event.
    pub(crate) fn watch(&self) -> Watcher {
        Watcher { progress: self.clone(), count: self.0.count.subscribe(), next: 0 }
    }
}

/// Reads a build's events in order, from the first.
pub(crate) struct Watcher {
    progress: Progress,
    count: watch::Receiver<usize>,
    next: usize,
}

impl Watcher {
    /// The [next](Self::next) events, a moment after the last ones: a build that finds five hundred
    /// steps in the cache has a few messages for its client, not a thousand.
    pub(crate) async fn next_few(&mut self) -> Option<Vec<Event>> {
        if self.next > 0 {
            let _ = tokio::time::timeout(PACE, self.progress.0.closed.cancelled()).await;
        }
        self.next().await
    }

    /// The events since the last call, at least one; `None` when the build has ended.
    pub(crate) async fn next(&mut self) -> Option<Vec<Event>> {
        let next = self.next;
        tokio::select! {
            count = self.count.wait_for(|&count| count > next) => drop(count.ok()?),
            () = self.progress.0.closed.cancelled() => {}
        }
        let state = self.progress.0.state.lock();
        let mut bytes = 0;
        let fits = |event: &&Event| {
            // Well below the 4 MiB that gRPC clients accept by default.
            let fits = bytes < 1 << 20;
            bytes += match event {
                Event::Log(log) => log.msg.len(),
                Event::Miss(miss) => miss.encoded_len(),
                _ => 200,
            };
            fits
        };
        let events: Vec<Event> =
            state.events.get(self.next..)?.iter().take_while(fits).cloned().collect();
        self.next += events.len();
        (!events.is_empty()).then_some(events)
    }
}

/// Events as the `Status` stream says them.
pub(crate) fn to_response(events: Vec<Event>) -> StatusResponse {
    let mut response = StatusResponse::default();
    for event in events {
        match event {
            Event::Vertex(vertex) => response.vertexes.push(vertex),
            Event::Status(status) => response.statuses.push(status),
            Event::Log(log) => response.logs.push(log),
            Event::Warning(warning) => response.warnings.push(warning),
            Event::Miss(miss) => response.misses.push(miss),
            Event::Usage(usage) => response.usages.push(usage),
        }
    }
    response
}

/// Reports about one vertex of one build.
#[derive(Clone)]
pub(crate) struct VertexProgress {
    progress: Progress,
    digest: String,
}

impl VertexProgress {
    fn update(&self, change: impl FnOnce(&mut Vertex)) {
        let mut state = self.progress.0.state.lock();
        let Some(vertex) = state.vertices.get_mut(&self.digest) else { return };
        change(vertex);
        let vertex = vertex.clone();
        self.progress.push(&mut state, Event::Vertex(vertex));
    }

    /// The vertex runs from now on. Starting twice is the same as once.
    pub(crate) fn start(&self) {
        self.update(|vertex| {
            vertex.started.get_or_insert_with(now);
            vertex.completed = None;
        });
    }

    /// The vertex goes on, if it has ended, until what is returned is dropped.
    pub(crate) fn reopen(&self) -> Reopened {
        let mut state = self.progress.0.state.lock();
        *state.reopened.entry(self.digest.clone()).or_default() += 1;
        drop(state);
        self.start();
        Reopened(self.clone())
    }

    /// The vertex was found in the cache.
    pub(crate) fn cached(&self) {
        self.update(|vertex| {
            let now = now();
            vertex.started.get_or_insert(now);
            vertex.completed = Some(now);
            vertex.cached = true;
        });
    }

    /// The vertex ended; with a message if it failed.
    pub(crate) fn complete(&self, error: Option<&str>) {
        self.update(|vertex| {
            let now = now();
            vertex.started.get_or_insert(now);
            vertex.completed = Some(now);
            error.unwrap_or_default().clone_into(&mut vertex.error);
        });
    }

    /// Runs `work` as this vertex: started, then completed with its outcome.
    pub(crate) async fn run<T, E: std::fmt::Display>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.start();
        let mut guard = Abandoned { vertex: self, armed: true };
        let result = work.await;
        guard.armed = false;
        match &result {
            Ok(_) => self.complete(None),
            Err(error) => self.complete(Some(&error.to_string())),
        }
        result
    }

    /// Appends output: stream 1 is stdout, 2 is stderr.
    pub(crate) fn log(&self, stream: i64, msg: Bytes) {
        let mut state = self.progress.0.state.lock();
        let logged = state.logged.entry(self.digest.clone()).or_default();
        if *logged >= MAX_LOG_BYTES {
            return;
        }
        *logged += msg.len() + LOG_PIECE;
        let msg = if *logged >= MAX_LOG_BYTES {
            let note = format!("\n[output clipped, log limit {MAX_LOG_BYTES} bytes reached]\n");
            Bytes::from([&msg, note.as_bytes()].concat())
        } else {
            msg
        };
        let vertex = self.digest.clone();
        let log = VertexLog { vertex, timestamp: Some(now()), stream, msg };
        self.progress.push(&mut state, Event::Log(log));
    }

    /// Starts a transfer or another part of the vertex that has a count of its own.
    pub(crate) fn status(&self, id: impl Into<String>) -> StatusProgress {
        self.action(id, "")
    }

    /// A [`status`](Self::status) that clients can tell by what is done, too.
    pub(crate) fn action(&self, id: impl Into<String>, name: &str) -> StatusProgress {
        let status = VertexStatus {
            id: id.into(),
            name: name.to_owned(),
            vertex: self.digest.clone(),
            started: Some(now()),
            timestamp: Some(now()),
            ..Default::default()
        };
        let status = StatusProgress {
            progress: self.progress.clone(),
            state: Mutex::new((status, Instant::now())),
        };
        status.send(&status.state.lock().0);
        status
    }

    /// Says why the vertex has to run.
    pub(crate) fn missed(&self, mut miss: Miss) {
        miss.vertex.clone_from(&self.digest);
        let mut state = self.progress.0.state.lock();
        self.progress.push(&mut state, Event::Miss(miss));
    }

    /// Says what the vertex used.
    pub(crate) fn used(&self, mut usage: StepUsage) {
        usage.vertex.clone_from(&self.digest);
        let mut state = self.progress.0.state.lock();
        self.progress.push(&mut state, Event::Usage(usage));
    }

    /// Warns the user.
    pub(crate) fn warn(&self, mut warning: VertexWarning) {
        warning.vertex.clone_from(&self.digest);
        self.progress.warn(warning);
    }

    /// Repeats an event of another build's vertex as this one's.
    pub(crate) fn relay(&self, event: &Event) {
        match event {
            // Its announcement says nothing of this vertex.
            Event::Vertex(other) if other.started.is_none() => {}
            Event::Vertex(other) => self.update(|vertex| {
                vertex.started = vertex.started.or(other.started);
                vertex.completed = other.completed;
                vertex.cached = other.cached;
                vertex.error.clone_from(&other.error);
            }),
            Event::Log(log) => self.log(log.stream, log.msg.clone()),
            Event::Status(status) => {
                let status = VertexStatus { vertex: self.digest.clone(), ..status.clone() };
                let mut state = self.progress.0.state.lock();
                self.progress.push(&mut state, Event::Status(status));
            }
            Event::Warning(warning) => self.warn(warning.clone()),
            Event::Miss(miss) => self.missed(miss.clone()),
            Event::Usage(usage) => self.used(usage.clone()),
        }
    }
}

/// Something is done for a vertex after its own work. While such things go on it is not complete.
pub(crate) struct Reopened(VertexProgress);

impl Drop for Reopened {
    fn drop(&mut self) {
        let mut state = self.0.progress.0.state.lock();
        let Some(count) = state.reopened.get_mut(&self.0.digest) else { return };
        *count -= 1;
        if *count == 0 {
            state.reopened.remove(&self.0.digest);
            drop(state);
            self.0.update(|vertex| vertex.completed = Some(now()));
        }
    }
}

/// Completes a vertex whose work was dropped, so that no watcher sees it run for ever.
struct Abandoned<'a> {
    vertex: &'a VertexProgress,
    armed: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.vertex.complete(Some(CANCELED));
        }
    }
}

/// A count within a vertex: bytes sent, layers written.
pub(crate) struct StatusProgress {
    progress: Progress,
    state: Mutex<(VertexStatus, Instant)>,
}

impl StatusProgress {
    fn send(&self, status: &VertexStatus) {
        let mut state = self.progress.0.state.lock();
        self.progress.push(&mut state, Event::Status(status.clone()));
    }

    /// Sets the expected total.
    pub(crate) fn total(&self, total: u64) {
        self.state.lock().0.total = i64::try_from(total).unwrap_or(i64::MAX);
    }

    /// Adds to the count; watchers hear of it ten times a second at most.
    pub(crate) fn add(&self, count: u64) {
        let mut state = self.state.lock();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        state.0.current = state.0.current.saturating_add(count);
        if state.1.elapsed() >= Duration::from_millis(100) {
            state.1 = Instant::now();
            state.0.timestamp = Some(now());
            self.send(&state.0);
        }
    }
}

impl Drop for StatusProgress {
    /// A status ends with its work.
    fn drop(&mut self) {
        let mut status = self.state.lock().0.clone();
        status.timestamp = Some(now());
        status.completed = status.timestamp;
        self.send(&status);
    }
}

/// The present as the wire says it.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_watcher_reads_everything_from_the_start() {
        let progress = Progress::new();
        let vertex = progress.internal("a", "[internal] a");
        vertex.run(async { Ok::<_, std::io::Error>(()) }).await.unwrap();
        vertex.log(1, Bytes::from_static(b"hello"));
        progress.close();
        vertex.log(1, Bytes::from_static(b"too late"));
        let mut watcher = progress.watch();
        let status = to_response(watcher.next().await.unwrap());
        assert_eq!(status.vertexes.len(), 3);
        assert!(status.vertexes[2].completed.is_some());
        assert_eq!(status.logs[0].msg, "hello");
        assert!(watcher.next().await.is_none());
    }

    #[tokio::test]
    async fn a_clipped_log_says_so() {
        let progress = Progress::new();
        let vertex = progress.internal("a", "a");
        for _ in 0..4 {
            vertex.log(1, Bytes::from(vec![b'x'; MAX_LOG_BYTES / 2]));
        }
        progress.close();
        let mut watcher = progress.watch();
        let mut logs = Vec::new();
        while let Some(events) = watcher.next().await {
            logs.extend(to_response(events).logs);
        }
        assert_eq!(logs.len(), 2);
        assert!(logs[1].msg.ends_with(b"bytes reached]\n"));
    }

    #[test]
    fn a_log_of_tiny_pieces_is_clipped_long_before_its_text_is_long() {
        let progress = Progress::new();
        let vertex = progress.internal("a", "a");
        for _ in 0..MAX_LOG_BYTES {
            vertex.log(1, Bytes::from_static(b"."));
        }
        let kept = progress.0.state.lock().events.len();
        assert!(kept <= MAX_LOG_BYTES / LOG_PIECE + 1, "{kept} pieces are kept");
    }

    #[tokio::test]
    async fn a_vertex_that_is_worked_for_later_ends_with_the_last_of_it() {
        let progress = Progress::new();
        let vertex = progress.internal("a", "a");
        vertex.cached();
        let (first, second) = (vertex.reopen(), vertex.reopen());
        let mut watcher = progress.watch();
        let mut last = async || {
            let status = to_response(watcher.next().await.unwrap());
            status.vertexes.last().unwrap().clone()
        };
        assert_eq!(last().await.completed, None);
        drop(first);
        drop(second);
        let end = last().await;
        assert!(end.completed.is_some() && end.cached);
    }

    #[tokio::test]
    async fn what_goes_on_at_the_end_is_given_up() {
        let progress = Progress::new();
        progress.internal("a", "a").start();
        progress.internal("b", "announced only");
        progress.close();
        let status = to_response(progress.watch().next().await.unwrap());
        assert_eq!(status.vertexes.len(), 4);
        assert_eq!(status.vertexes[3].error, "context canceled");
    }

    #[tokio::test]
    async fn abandoned_work_is_completed() {
        let progress = Progress::new();
        let vertex = progress.internal("a", "a");
        drop(vertex.run(std::future::pending::<Result<(), std::io::Error>>()));
        let pending = vertex.run(std::future::pending::<Result<(), std::io::Error>>());
        tokio::select! { biased; _ = pending => {}, () = async {} => {} }
        let status = to_response(progress.watch().next().await.unwrap());
        assert_eq!(status.vertexes.last().unwrap().error, "context canceled");
    }
}
