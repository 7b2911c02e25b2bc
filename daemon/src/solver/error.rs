//! Why a build failed, and where in the graph.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::LeftBehind;
use crate::damage::Damaged;
use crate::graph::{SourceLocation, Vertex, VertexDigest};
use crate::image::LostLayer;

/// A failed build. Shared by everybody who waited for the same vertex.
#[derive(Clone)]
pub(crate) struct SolveError(Arc<Failure>);

struct Failure {
    cause: anyhow::Error,
    /// Where in this program it became a failure of the build.
    origin: &'static Location<'static>,
    step: Option<Step>,
    locations: Vec<SourceLocation>,
    /// What the step left, which belongs to the builds that keep it.
    left: Weak<LeftBehind>,
}

/// The vertex that failed.
struct Step {
    digest: VertexDigest,
    marshalled: Bytes,
    description: BTreeMap<String, String>,
}

/// A step's process ended badly.
#[derive(Debug, thiserror::Error)]
#[error("process \"{command}\" did not complete successfully: {reason}")]
pub(crate) struct ProcessError {
    pub(crate) command: String,
    /// `exit code: 1`, `killed by signal 9 (out of memory)`, …
    pub(crate) reason: String,
    pub(crate) exit_code: Option<u32>,
}

/// The error of what was given up, by which clients know it.
pub(crate) const CANCELED: &str = "context canceled";

/// The build was given up by its client.
#[derive(Debug, thiserror::Error)]
#[error("{CANCELED}")]
pub(crate) struct Canceled;

impl SolveError {
    /// The failure of one vertex.
    #[track_caller]
    pub(crate) fn at(vertex: &Vertex, cause: impl Into<anyhow::Error>) -> Self {
        Self::leaving(vertex, cause, Weak::new())
    }

    /// The failure of one vertex that left something.
    #[track_caller]
    pub(super) fn leaving(
        vertex: &Vertex,
        cause: impl Into<anyhow::Error>,
        left: Weak<LeftBehind>,
    ) -> Self {
        let step = Step {
            digest: vertex.digest(),
            marshalled: vertex.marshalled().clone(),
            description: vertex.description(),
        };
        Self::new(cause.into(), Some(step), vertex.meta().locations.clone(), left)
    }

    #[track_caller]
    fn new(
        cause: anyhow::Error,
        step: Option<Step>,
        locations: Vec<SourceLocation>,
        left: Weak<LeftBehind>,
    ) -> Self {
        Self(Arc::new(Failure { cause, origin: Location::caller(), step, locations, left }))
    }

    /// A mistake in a source text.
    #[track_caller]
    pub(crate) fn in_source(location: SourceLocation, cause: impl Into<anyhow::Error>) -> Self {
        Self::in_sources(vec![location], cause)
    }

    /// A mistake that takes several places of source texts to make.
    #[track_caller]
    pub(crate) fn in_sources(
        locations: Vec<SourceLocation>,
        cause: impl Into<anyhow::Error>,
    ) -> Self {
        Self::new(cause.into(), None, locations, Weak::new())
    }

    #[track_caller]
    pub(crate) fn canceled() -> Self {
        Canceled.into()
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.0.cause.is::<Canceled>()
    }

    pub(crate) fn cause(&self) -> &anyhow::Error {
        &self.0.cause
    }

    pub(crate) fn vertex(&self) -> Option<VertexDigest> {
        self.0.step.as_ref().map(|step| step.digest)
    }

    /// The op of the vertex that failed, marshalled, and what was said of it.
    pub(crate) fn op(&self) -> Option<(&Bytes, &BTreeMap<String, String>)> {
        self.0.step.as_ref().map(|step| (&step.marshalled, &step.description))
    }

    /// What the vertex left, as long as a build keeps it.
    pub(super) fn left(&self) -> Option<Arc<LeftBehind>> {
        self.0.left.upgrade()
    }

    pub(crate) fn locations(&self) -> &[SourceLocation] {
        &self.0.locations
    }

    /// The first cause of that type, also of the failures that this one came from.
    pub(crate) fn find<T: std::error::Error + Send + Sync + 'static>(&self) -> Option<&T> {
        self.cause().chain().find_map(|cause| {
            let shared = || cause.downcast_ref::<Shared>()?.0.find();
            cause.downcast_ref::<T>().or_else(shared)
        })
    }

    /// Where in this program the failure came about, the innermost place first.
    pub(crate) fn origins(&self) -> Vec<&'static Location<'static>> {
        let causes = self.cause().chain().filter_map(|cause| cause.downcast_ref::<Shared>());
        let mut origins: Vec<_> = causes.flat_map(|shared| shared.0.origins()).collect();
        origins.push(self.0.origin);
        origins
    }

    /// The failure as the cause of another one.
    pub(crate) fn into_cause(self) -> anyhow::Error {
        anyhow::Error::new(Shared(self))
    }

    /// Whether it was the work itself that failed: a command that ends badly does so for everybody.
    /// Other failures may be of one build: its session, its credentials, its secrets.
    pub(crate) fn is_inherent(&self) -> bool {
        self.cause().is::<ProcessError>()
    }

    /// Whether a layer could not be fetched that a cache had. The build may be tried again: the
    /// step that makes the layer is no hit any more.
    pub(crate) fn has_lost_layer(&self) -> bool {
        self.is_due_to::<LostLayer>()
    }

    /// Whether something was damaged that was here. The build may be tried again, as often as there
    /// is more of that: it has been dropped.
    pub(crate) fn has_met_damage(&self) -> bool {
        self.is_due_to::<Damaged>()
    }

    fn is_due_to<E: fmt::Display + fmt::Debug + Send + Sync + 'static>(&self) -> bool {
        let cause = self.cause();
        // A context is not in the chain of causes, and can only be asked for.
        cause.is::<E>()
            || cause.chain().any(|cause| {
                cause.downcast_ref::<Shared>().is_some_and(|shared| shared.0.is_due_to::<E>())
            })
    }

    /// The answer of a task that died: shut down, or a bug.
    pub(crate) fn lost(error: tokio::task::JoinError) -> Self {
        if error.is_cancelled() { Self::canceled() } else { anyhow::Error::new(error).into() }
    }
}

/// A failure that several steps have in common.
#[derive(Debug)]
struct Shared(SolveError);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Shared {}

impl<E: Into<anyhow::Error>> From<E> for SolveError {
    #[track_caller]
    fn from(cause: E) -> Self {
        Self::new(cause.into(), None, Vec::new(), Weak::new())
    }
}

impl fmt::Display for SolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The whole chain on one line, as BuildKit's wrapped errors read.
        write!(f, "{:#}", self.0.cause)
    }
}

impl fmt::Debug for SolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_knows_where_it_came_about() {
        let inner = || -> Result<(), SolveError> { Err(anyhow::anyhow!("inner"))? };
        let inner = inner().unwrap_err();
        let outer = SolveError::from(inner.into_cause().context("outer"));
        let lines: Vec<_> = outer.origins().iter().map(|origin| origin.line()).collect();
        assert!(outer.origins().iter().all(|origin| origin.file() == file!()));
        assert!(lines[0] < lines[1] && lines.len() == 2, "{lines:?}");
    }
}
