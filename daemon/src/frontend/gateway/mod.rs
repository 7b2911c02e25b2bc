//! The gateway: clients that act as frontends themselves call it to solve graphs, read results,
//! and hand back what is to be exported (`moby.buildkit.v1.frontend.LLBBridge`).

mod convert;
mod files;
mod service;
mod source_meta;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_proto::pb;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::FrontendResult;
use crate::graph::Edge;
use crate::solver::{Build, SolveError};

pub(crate) use service::GatewayService;
pub(crate) use source_meta::source_meta;

/// A name that no result has.
#[derive(Debug, thiserror::Error)]
#[error("no such ref {0}")]
struct UnknownRef(String);

/// A build whose frontend is its client. It ends when the client returns a result.
pub(crate) struct GatewayBuild {
    build: Arc<Build>,
    /// What the client gave itself to start from.
    inputs: BTreeMap<String, pb::Definition>,
    /// What the client was told of, by the ids it was told.
    refs: Mutex<HashMap<String, Option<Edge>>>,
    returned: watch::Sender<Option<Result<FrontendResult, SolveError>>>,
}

impl GatewayBuild {
    pub(crate) fn new(build: Arc<Build>, inputs: BTreeMap<String, pb::Definition>) -> Self {
        Self { build, inputs, refs: Mutex::default(), returned: watch::Sender::new(None) }
    }

    /// Waits for what the client returns.
    pub(crate) async fn returned(&self) -> Result<FrontendResult, SolveError> {
        let mut returned = self.returned.subscribe();
        match returned.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or_else(|| Err(SolveError::canceled())),
            Err(_) => Err(SolveError::canceled()),
        }
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
    fn name(&self, edge: Option<&Edge>) -> String {
        let mut refs = self.refs.lock();
        let id = format!("{}:{}", self.build.id, refs.len());
        refs.insert(id.clone(), edge.cloned());
        id
    }

    /// The result of that name; an error is that there is none.
    fn find(&self, id: &str) -> Result<Option<Edge>, UnknownRef> {
        self.refs.lock().get(id).cloned().ok_or_else(|| UnknownRef(id.to_owned()))
    }
}
