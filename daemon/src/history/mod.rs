//! The history of builds: what clients may ask of a build while it runs and after it has ended.
//!
//! A build is recorded from its [start](History::start) by a [`Recording`]. When it has ended, its
//! record is written behind the client's back, so that a build costs no time for it; whoever asks for
//! records waits for those of builds that have ended before. A few seconds later, when the client has
//! had time to send its spans, the record is given its trace, and is final.
//!
//! Records are rows of the index with the blobs that belong to them: the log, which is the whole
//! stream of the build's progress; the error with its details; the trace; manifests of what was
//! exported. Clients read blobs by the content API.

mod expiry;
mod filter;
mod listen;
mod log;
mod outcome;
mod recording;
mod store;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_cache::{ContentStore, Index};
use kiln_proto::control::{BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use store::Store;
use trace::Traces;

pub(crate) use expiry::Expiry;
pub(crate) use filter::InvalidHistoryFilter;
pub(crate) use listen::Events;
pub(crate) use log::LogStream;
pub(crate) use outcome::{ExportedImage, Outcome};
pub(crate) use trace::TraceContext;

/// Events that a listener may be behind; one that is slower than that has lost touch.
const EVENTS: usize = 1024;

/// The daemon's build history.
pub(crate) struct History {
    store: Store,
    expiry: Expiry,
    state: Mutex<State>,
    events: broadcast::Sender<BuildHistoryEvent>,
    traces: Traces,
    /// Records that are being written.
    tasks: TaskTracker,
    closing: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Numbers builds: references may be used again.
    next: u64,
    /// Records of the builds that run.
    active: BTreeMap<u64, BuildHistoryRecord>,
    /// Builds that have ended, and whose records are not final yet.
    ending: Vec<Arc<Ending>>,
}

/// The way of a build's record from the build's end until it is final.
#[derive(Default)]
struct Ending {
    reference: String,
    /// The record can be read.
    written: CancellationToken,
    /// Somebody wants it to be final now.
    is_wanted: CancellationToken,
    finalized: CancellationToken,
}

/// What there is no record of.
#[derive(Debug, thiserror::Error)]
#[error("no build record of {0}")]
pub(crate) struct NoRecord(String);

impl History {
    pub(crate) fn new(index: Arc<Index>, content: Arc<ContentStore>, expiry: Expiry) -> Self {
        Self {
            store: Store::new(index, content),
            expiry,
            state: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            traces: Traces::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Where clients' spans go.
    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }

    fn publish(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        // There may be nobody who listens.
        let event = BuildHistoryEvent { r#type: kind.into(), record: Some(record) };
        let _ = self.events.send(event);
    }

    /// Builds of that reference, or all, whose records are not final yet.
    fn ending(&self, reference: Option<&str>) -> Vec<Arc<Ending>> {
        let mut state = self.state.lock();
        state.ending.retain(|ending| !ending.finalized.is_cancelled());
        let wanted = |ending: &&Arc<Ending>| reference.is_none_or(|name| ending.reference == name);
        state.ending.iter().filter(wanted).cloned().collect()
    }

    /// Waits until builds that have ended can be read. Until then they hold what they have used.
    pub(crate) async fn settled(&self, reference: Option<&str>) {
        for ending in self.ending(reference) {
            ending.written.cancelled().await;
        }
    }

    /// Makes the record of a build final without waiting for more spans.
    pub(crate) async fn finalize(&self, reference: &str) {
        for ending in self.ending(Some(reference)) {
            ending.is_wanted.cancel();
            ending.finalized.cancelled().await;
        }
    }

    /// Keeps a record whatever its age, or does so no longer.
    pub(crate) async fn pin(&self, reference: &str, pinned: bool) -> anyhow::Result<()> {
        self.settled(Some(reference)).await;
        let record =
            self.store.update(reference, move |entry| entry.record.pinned = pinned).await?;
        let record = record.ok_or_else(|| NoRecord(reference.to_owned()))?;
        self.publish(BuildHistoryEventType::Complete, record);
        Ok(())
    }

    /// Removes a record, and the blobs that only it needed.
    pub(crate) async fn delete(self: &Arc<Self>, reference: &str) -> anyhow::Result<()> {
        self.finalize(reference).await;
        let (history, reference) = (self.clone(), reference.to_owned());
        let delete = move || {
            if !history.remove(&reference)? {
                return Err(NoRecord(reference).into());
            }
            history.store.collect()
        };
        tokio::task::spawn_blocking(delete).await?
    }

    /// Removes a record and says so; `false` if there is none.
    fn remove(&self, reference: &str) -> anyhow::Result<bool> {
        let existed = self.store.remove(reference)?;
        if existed {
            let record =
                BuildHistoryRecord { r#ref: reference.to_owned(), ..BuildHistoryRecord::default() };
            self.publish(BuildHistoryEventType::Deleted, record);
        }
        Ok(existed)
    }

    /// The progress of a build that has ended; none if there is no record of it.
    pub(crate) async fn status(&self, reference: &str) -> anyhow::Result<Option<LogStream>> {
        self.settled(Some(reference)).await;
        self.store.log(reference).await
    }

    /// Writes what is still to be written, and ends the streams of listeners.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
