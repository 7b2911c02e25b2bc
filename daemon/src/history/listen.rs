//! Listening: what there is, then what happens.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use kiln_proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest,
};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{History, filter};

/// Events for one listener.
pub(crate) type Events = BoxStream<'static, Result<BuildHistoryEvent, Status>>;

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind.into(), record: Some(record) }
}

impl History {
    /// The builds that run and the records that there are, and unless the listener wants no more,
    /// what becomes of them.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        request: BuildHistoryRequest,
    ) -> anyhow::Result<Events> {
        // First, so that nothing is missed between what there is and what comes.
        let live = self.events.subscribe();
        let reference = Some(request.r#ref.clone()).filter(|name| !name.is_empty());
        self.settled(reference.as_deref()).await;
        let mut known = self.active(reference.as_deref());
        if !request.active_only {
            let (history, request, reference) = (self.clone(), request.clone(), reference.clone());
            let read = move || history.completed(&request, reference.as_deref());
            known.extend(tokio::task::spawn_blocking(read).await??);
        }
        let known = stream::iter(known.into_iter().map(Ok));
        if request.early_exit {
            return Ok(known.boxed());
        }
        let is_wanted = move |event: &BuildHistoryEvent| {
            let Some(name) = &reference else { return true };
            event.record.as_ref().is_some_and(|record| record.r#ref == *name)
        };
        let live = follow(live, self.closing.clone()).filter(move |event| {
            let wanted = event.as_ref().is_ok_and(&is_wanted) || event.is_err();
            std::future::ready(wanted)
        });
        Ok(known.chain(live).boxed())
    }

    fn active(&self, reference: Option<&str>) -> Vec<BuildHistoryEvent> {
        let state = self.state.lock();
        let records = state.active.values();
        let wanted = records.filter(|record| reference.is_none_or(|name| record.r#ref == name));
        wanted.map(|record| event(BuildHistoryEventType::Started, record.clone())).collect()
    }

    fn completed(
        &self,
        request: &BuildHistoryRequest,
        reference: Option<&str>,
    ) -> anyhow::Result<Vec<BuildHistoryEvent>> {
        let records = match reference {
            Some(name) => self.store.record(name)?.into_iter().collect(),
            None => self.store.records()?,
        };
        let records = filter::apply(records, &request.filter, request.limit)?;
        let complete = |record| event(BuildHistoryEventType::Complete, record);
        Ok(records.into_iter().map(complete).collect())
    }
}

/// Events as they happen, until the daemon ends.
fn follow(
    events: broadcast::Receiver<BuildHistoryEvent>,
    closing: CancellationToken,
) -> impl futures::Stream<Item = Result<BuildHistoryEvent, Status>> + Send {
    stream::unfold(Some(events), move |events| {
        let closing = closing.clone();
        async move {
            let mut events = events?;
            match closing.run_until_cancelled(events.recv()).await? {
                Ok(event) => Some((Ok(event), Some(events))),
                Err(RecvError::Closed) => None,
                Err(RecvError::Lagged(missed)) => {
                    let message = format!("too slow: {missed} events of the history are lost");
                    Some((Err(Status::resource_exhausted(message)), None))
                }
            }
        }
    })
}
