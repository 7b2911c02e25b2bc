//! Frontends turn what a client sends into graphs: the built-in Dockerfile frontend, and the
//! gateway through which clients bring their own.

pub(crate) mod dockerfile;
pub(crate) mod gateway;
pub(crate) mod metadata;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::graph::Edge;
use crate::solver::{Build, SolveError};

/// What a client asks a frontend for.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrontendRequest {
    /// Options, by BuildKit's names: `target`, `filename`, `build-arg:X`, …
    pub(crate) options: BTreeMap<String, String>,
    /// Named inputs that are graphs themselves; `None` is scratch.
    pub(crate) inputs: BTreeMap<String, Option<Edge>>,
}

/// What a frontend answers: graphs yet to be solved, and what the exporters need to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrontendResult {
    pub(crate) refs: Refs,
    /// By the keys of BuildKit's exporters: `containerimage.config`, `refs.platforms`, …
    pub(crate) metadata: BTreeMap<String, Bytes>,
}

/// The file systems of a result; `None` is scratch.
#[derive(Clone, Debug)]
pub(crate) enum Refs {
    Single(Option<Edge>),
    /// One a platform, by the ids that `refs.platforms` explains.
    Many(BTreeMap<String, Option<Edge>>),
}

impl Default for Refs {
    fn default() -> Self {
        Self::Single(None)
    }
}

impl Refs {
    /// All of them, with the platform ids of several.
    pub(crate) fn all(&self) -> Vec<(Option<&str>, Option<&Edge>)> {
        match self {
            Self::Single(edge) => vec![(None, edge.as_ref())],
            Self::Many(refs) => {
                refs.iter().map(|(id, edge)| (Some(&**id), edge.as_ref())).collect()
            }
        }
    }

    /// Those that are not scratch.
    pub(crate) fn edges(&self) -> Vec<&Edge> {
        self.all().into_iter().filter_map(|(_, edge)| edge).collect()
    }
}

/// A frontend that this daemon does not have.
#[derive(Debug, thiserror::Error)]
#[error("unknown frontend {0:?}: this daemon has dockerfile.v0")]
struct UnknownFrontend(String);

/// Lets the frontend of that name answer.
pub(crate) async fn solve(
    build: &Arc<Build>,
    name: &str,
    request: FrontendRequest,
) -> Result<FrontendResult, SolveError> {
    match name {
        "dockerfile.v0" => dockerfile::solve(build, request).await,
        // The official Dockerfile frontend's images are what the built-in one stands for.
        "gateway.v0" if request.options.get("source").is_some_and(|s| is_official(s)) => {
            dockerfile::solve(build, request).await
        }
        other => Err(UnknownFrontend(other.to_owned()).into()),
    }
}

/// Whether an image is one of the official Dockerfile frontend.
pub(crate) fn is_official(source: &str) -> bool {
    source.parse::<kiln_registry::ImageRef>().is_ok_and(|image| {
        let official = ["docker/dockerfile", "docker/dockerfile-upstream"];
        image.host() == "docker.io" && official.contains(&image.repository())
    })
}
