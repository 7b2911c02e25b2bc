//! A build that is being recorded.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kiln_cache::Digest;
use kiln_proto::control::{BuildHistoryEventType, BuildHistoryRecord, Exporter, SolveRequest};
use kiln_proto::rpc;
use prost::Message as _;
use tonic::Code;

use super::log::{self, Log};
use super::store::Entry;
use super::trace::{self, Collected, TraceContext};
use super::{Ending, History, Outcome};
use crate::remote::hide_secrets;
use crate::solver::{CANCELED, Progress, now};

/// How long a client has to send its spans, unless it says that it has sent them.
const SPANS: Duration = Duration::from_secs(3);

/// The media type of an error's details. It is misspelt on the wire.
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// A build that is being recorded. Dropped before its [end](Self::end), it was given up.
pub(crate) struct Recording {
    history: Arc<History>,
    number: u64,
    record: BuildHistoryRecord,
    progress: Progress,
    context: TraceContext,
    spans: Arc<Collected>,
    outcome: Option<Outcome>,
}

impl History {
    /// Begins to record a build. Clients hear of it.
    pub(crate) fn start(
        self: &Arc<Self>,
        request: &SolveRequest,
        exporters: &[Exporter],
        progress: &Progress,
        context: TraceContext,
    ) -> Recording {
        let mut frontend_attrs = request.frontend_attrs.clone();
        hide_secrets(&mut frontend_attrs);
        let record = BuildHistoryRecord {
            r#ref: request.r#ref.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs,
            exporters: exporters.to_vec(),
            created_at: Some(now()),
            ..BuildHistoryRecord::default()
        };
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.active.insert(number, record.clone());
        self.publish(BuildHistoryEventType::Started, record.clone());
        drop(state);
        Recording {
            history: self.clone(),
            number,
            record,
            progress: progress.clone(),
            spans: self.traces.collect(&context),
            context,
            outcome: None,
        }
    }
}

impl Recording {
    /// The build has ended. Its record is written when its progress is closed.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Recording {
    /// Does nothing that takes time: the client waits.
    fn drop(&mut self) {
        let given_up = || {
            let message = CANCELED.to_owned();
            let code = Code::Cancelled.into();
            Outcome::failed(rpc::Status { code, message, details: Vec::new() })
        };
        let mut record = std::mem::take(&mut self.record);
        record.completed_at = Some(now());
        let reference = record.r#ref.clone();
        let ending = Arc::new(Ending { reference, ..Ending::default() });
        let mut state = self.history.state.lock();
        state.ending.retain(|ending| !ending.finalized.is_cancelled());
        state.ending.push(ending.clone());
        drop(state);
        let ended = Ended {
            history: self.history.clone(),
            number: self.number,
            record,
            progress: self.progress.clone(),
            outcome: self.outcome.take().unwrap_or_else(given_up),
            context: self.context.clone(),
            spans: self.spans.clone(),
        };
        self.history.tasks.spawn(ended.finish(ending));
    }
}

/// A build that has ended, and is to be written down.
struct Ended {
    history: Arc<History>,
    number: u64,
    record: BuildHistoryRecord,
    progress: Progress,
    outcome: Outcome,
    context: TraceContext,
    spans: Arc<Collected>,
}

impl Ended {
    async fn finish(self, ending: Arc<Ending>) {
        // Whatever happens, nobody waits for ever.
        let written = ending.written.clone().drop_guard();
        let _finalized = ending.finalized.clone().drop_guard();
        let Self { history, number, record, progress, outcome, context, spans } = self;
        let log = Log::of(progress.watch()).await;
        drop(progress);
        let own = trace::of_build(&context, &record, &log, outcome.error.as_ref());
        let saving = history.clone();
        let save = move || saving.save(record, outcome, &log);
        let (record, saved) = match tokio::task::spawn_blocking(save).await {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!("cannot record a build: {error}");
                history.forget(number);
                return;
            }
        };
        let reference = record.r#ref.clone();
        history.forget(number);
        history.publish(BuildHistoryEventType::Complete, record);
        if let Err(error) = saved {
            tracing::warn!(build = reference, "cannot record a build: {error:#}");
            return;
        }
        drop(written);
        tokio::select! {
            () = tokio::time::sleep(SPANS) => {}
            () = ending.is_wanted.cancelled() => {}
            () = history.closing.cancelled() => {}
        }
        let trace = trace::to_json(spans.spans().into_iter().chain([own]));
        if let Err(error) = history.add_trace(&reference, trace).await {
            tracing::warn!(build = reference, "cannot record the trace of a build: {error:#}");
        }
    }
}

impl History {
    /// The build is none of those that run any more.
    fn forget(&self, number: u64) {
        self.state.lock().active.remove(&number);
    }

    /// Completes and writes a record, which is returned in any case. Blocks.
    fn save(
        &self,
        mut record: BuildHistoryRecord,
        mut outcome: Outcome,
        log: &Log,
    ) -> (BuildHistoryRecord, anyhow::Result<()>) {
        record.num_total_steps = log.count(|_| true);
        record.num_cached_steps = log.count(|vertex| vertex.cached);
        record.num_completed_steps = log.count(|vertex| vertex.completed.is_some());
        record.num_warnings = i32::try_from(log.warnings).unwrap_or(i32::MAX);
        let error = outcome.error.clone();
        // The details are in a blob of their own.
        record.error =
            error.as_ref().map(|error| rpc::Status { details: Vec::new(), ..error.clone() });
        if let Err(error) = outcome.attach_provenance(&self.store) {
            tracing::warn!(build = record.r#ref, "cannot record provenance: {error:#}");
        }
        let (mut blobs, mut pins) = outcome.describe(&mut record);
        let mut put = |media_type: &str, bytes: &[u8]| {
            let stored = self.store.put_blob(media_type, bytes)?;
            blobs.push(stored.row.digest.parse::<Digest>()?);
            pins.push(stored.pin);
            anyhow::Ok(stored.row)
        };
        let mut work = || {
            record.logs = Some(put(log::MEDIA_TYPE, &log.bytes).context("cannot keep its log")?);
            if let Some(error) = &error {
                record.external_error = Some(put(ERROR, &error.encode_to_vec())?);
            }
            anyhow::Ok(())
        };
        let saved = work().and_then(|()| {
            let entry = Entry { record: record.clone(), blobs };
            self.store.save(&entry)
        });
        drop(pins);
        (record, saved)
    }

    async fn add_trace(&self, reference: &str, trace: Vec<u8>) -> anyhow::Result<()> {
        let (store, name) = (self.store.clone(), reference.to_owned());
        let add = move || {
            let stored = store.put_blob(trace::MEDIA_TYPE, &trace)?;
            let digest: Digest = stored.row.digest.parse()?;
            let changed = store.change(&name, |entry| {
                entry.record.trace = Some(stored.row);
                entry.blobs.push(digest);
            });
            drop(stored.pin);
            changed
        };
        // It may have been removed meanwhile.
        if let Some(record) = tokio::task::spawn_blocking(add).await?? {
            self.publish(BuildHistoryEventType::Complete, record);
        }
        Ok(())
    }
}
