//! The gateway: clients that act as frontends themselves call it to solve graphs, read results,
//! and hand back what is to be exported (`moby.buildkit.v1.frontend.LLBBridge`).

mod container;
mod containers;
mod convert;
pub(crate) mod external;
mod failed;
mod files;
mod process;
mod service;
mod source_meta;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_proto::pb;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Assignment, FrontendResult, Ref};
use crate::solver::SolveError;
use containers::Containers;

pub(crate) use service::GatewayService;
pub(crate) use source_meta::source_meta;

/// A name that no result has.
#[derive(Debug, thiserror::Error)]
#[error("no such ref {0}")]
struct UnknownRef(String);

/// A build whose frontend is its client. It ends when the client returns a result.
pub(crate) struct GatewayBuild {
    work: Arc<Assignment>,
    /// What the client gave itself to start from.
    inputs: BTreeMap<String, pb::Definition>,
    /// What the client was told of, by the ids it was told.
    refs: Mutex<HashMap<String, Option<Ref>>>,
    containers: Containers,
    returned: watch::Sender<Option<Result<FrontendResult, SolveError>>>,
}

impl GatewayBuild {
    pub(crate) fn new(work: Arc<Assignment>, inputs: BTreeMap<String, pb::Definition>) -> Self {
        let (containers, returned) = (Containers::new(), watch::Sender::new(None));
        work.failed_steps.keep();
        Self { work, inputs, refs: Mutex::default(), containers, returned }
    }

    /// Ends what runs for the frontend.
    pub(crate) fn close(&self) {
        self.containers.close();
    }

    /// Waits for what the client returns.
    pub(crate) async fn returned(&self) -> Result<FrontendResult, SolveError> {
        let mut returned = self.returned.subscribe();
        match returned.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or_else(|| Err(SolveError::canceled())),
            Err(_) => Err(SolveError::canceled()),
        }
    }

    /// What the frontend has returned, if it has.
    fn answer(&self) -> Option<Result<FrontendResult, SolveError>> {
        self.returned.borrow().clone()
    }

    /// Whether the frontend has returned a failure.
    fn has_failed(&self) -> bool {
        self.returned.borrow().as_ref().is_some_and(Result::is_err)
    }

    /// Ends the build with what the client says; only the first word counts.
    fn end(&self, answer: Result<FrontendResult, SolveError>) {
        self.returned.send_if_modified(|returned| {
            let first = returned.is_none();
            if first {
                *returned = Some(answer);
            }
            first
        });
    }

    /// Gives a result a name that the client can use.
    fn name(&self, result: Option<&Ref>) -> String {
        if let Some(answer) = result {
            self.work.daemon.producers.note(answer);
        }
        let mut refs = self.refs.lock();
        let id = format!("{}:{}", self.work.id, refs.len());
        refs.insert(id.clone(), result.cloned());
        id
    }

    /// The result of that name; an error is that there is none.
    fn find(&self, id: &str) -> Result<Option<Ref>, UnknownRef> {
        self.refs.lock().get(id).cloned().ok_or_else(|| UnknownRef(id.to_owned()))
    }
}
