//! Frontends turn what a client sends into graphs: the built-in Dockerfile frontend, and the
//! gateway through which clients bring their own.

pub(crate) mod dockerfile;
pub(crate) mod gateway;
pub(crate) mod metadata;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;

use crate::graph::Edge;
use crate::policy::SourcePolicy;
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

impl FrontendResult {
    /// The result with the graphs that the build's source policy makes of its own, or the policy of
    /// one call that `more` adds to it.
    pub(crate) async fn admitted(
        self,
        build: &Arc<Build>,
        more: Option<&SourcePolicy>,
    ) -> Result<Self, SolveError> {
        if more.is_none() && build.policy().is_empty() {
            return Ok(self);
        }
        let admit = |edge: Option<Edge>| async move {
            match (edge, more) {
                (Some(edge), None) => build.admit(&edge).await.map(Some),
                (Some(edge), Some(policy)) => build.admit_by(policy, &edge).await.map(Some),
                (None, _) => Ok(None),
            }
        };
        let refs = match self.refs {
            Refs::Single(edge) => Refs::Single(admit(edge).await?),
            Refs::Many(refs) => {
                let refs = refs
                    .into_iter()
                    .map(|(id, edge)| async move { Ok::<_, SolveError>((id, admit(edge).await?)) });
                Refs::Many(try_join_all(refs).await?.into_iter().collect())
            }
        };
        Ok(Self { refs, ..self })
    }
}

/// A frontend that this daemon does not have.
#[derive(Debug, thiserror::Error)]
#[error("unknown frontend {0:?}: this daemon has dockerfile.v0")]
struct UnknownFrontend(String);

/// A frontend in an image, which this daemon does not run.
#[derive(Debug, thiserror::Error)]
#[error(
    "the frontend {0} cannot be used: this daemon has its own Dockerfile frontend, which stands \
     for docker/dockerfile and docker/dockerfile-upstream, and runs no others"
)]
pub(crate) struct ForeignFrontend(pub(crate) String);

/// Something else than a build, which the frontend does not answer.
#[derive(Debug, thiserror::Error)]
#[error("unsupported request {0}")]
pub(crate) struct UnsupportedRequest(pub(crate) String);

/// Something that a client relies on and the frontend does not have.
#[derive(Debug, thiserror::Error)]
#[error("unsupported frontend capability {0}")]
pub(crate) struct UnsupportedCapability(pub(crate) String);

/// The frontend that is built in.
const DOCKERFILE: &str = "dockerfile.v0";
/// The frontend that runs others, which are in images.
const GATEWAY: &str = "gateway.v0";

/// Lets the frontend of that name answer.
pub(crate) async fn solve(
    build: &Arc<Build>,
    name: &str,
    request: FrontendRequest,
) -> Result<FrontendResult, SolveError> {
    match name {
        DOCKERFILE => dockerfile::solve(build, request).await,
        GATEWAY => match request.options.get("source") {
            Some(source) if is_built_in(source) => dockerfile::solve(build, request).await,
            Some(source) => Err(ForeignFrontend(source.clone()).into()),
            None => Err(anyhow::anyhow!("the frontend {GATEWAY} needs the option source").into()),
        },
        other => Err(UnknownFrontend(other.to_owned()).into()),
    }
}

/// Whether a source of a frontend is the built-in one: by its name, or by that of the official
/// Dockerfile frontend's images, which the built-in one stands for.
pub(crate) fn is_built_in(source: &str) -> bool {
    source == DOCKERFILE
        || source.parse::<kiln_registry::ImageRef>().is_ok_and(|image| {
            let official = ["docker/dockerfile", "docker/dockerfile-upstream"];
            image.host() == "docker.io" && official.contains(&image.repository())
        })
}

#[cfg(test)]
mod tests {
    use super::is_built_in;

    #[test]
    fn the_official_images_are_the_built_in_frontend() {
        for source in [
            "dockerfile.v0",
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile-upstream:master",
        ] {
            assert!(is_built_in(source), "{source}");
        }
        for source in ["", "dockerfile", "example.com/docker/dockerfile:1", "docker/other"] {
            assert!(!is_built_in(source), "{source}");
        }
    }
}
