//! Frontends turn what a client sends into graphs: the built-in Dockerfile frontend, and the
//! gateway through which clients bring their own.

mod assignment;
pub(crate) mod dockerfile;
pub(crate) mod gateway;
pub(crate) mod metadata;
mod platforms;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;

use crate::attestation::Attestation;
use crate::graph::Edge;
use crate::policy::SourcePolicy;
use crate::solver::{Build, SolveError};

pub(crate) use assignment::{Assignment, Request};

/// What a frontend answers: graphs yet to be solved, and what the exporters need to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrontendResult {
    pub(crate) refs: Refs,
    /// By the keys of BuildKit's exporters: `containerimage.config`, `refs.platforms`, …
    pub(crate) metadata: BTreeMap<String, Bytes>,
    /// What is attested of the file systems, by platform id.
    pub(crate) attestations: BTreeMap<String, Vec<Attestation>>,
}

/// A file system of a result, and the request that it came about by.
#[derive(Clone, Debug)]
pub(crate) struct Ref {
    pub(crate) edge: Edge,
    pub(crate) work: Arc<Assignment>,
}

/// The file systems of a result; `None` is scratch.
#[derive(Clone, Debug)]
pub(crate) enum Refs {
    Single(Option<Ref>),
    /// One a platform, by the ids that `refs.platforms` explains.
    Many(BTreeMap<String, Option<Ref>>),
}

impl Default for Refs {
    fn default() -> Self {
        Self::Single(None)
    }
}

impl Refs {
    /// Those that are not scratch.
    pub(crate) fn all(&self) -> Vec<&Ref> {
        match self {
            Self::Single(one) => one.iter().collect(),
            Self::Many(refs) => refs.values().flatten().collect(),
        }
    }

    /// The graphs of those that are not scratch.
    pub(crate) fn edges(&self) -> Vec<&Edge> {
        self.all().into_iter().map(|one| &one.edge).collect()
    }

    /// The one for the platform of that id; where there is only one, it is for all.
    pub(crate) fn of_platform(&self, id: &str) -> Option<&Ref> {
        match self {
            Self::Single(one) => one.as_ref(),
            Self::Many(refs) => refs.get(id)?.as_ref(),
        }
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
        let admit = |found: Option<Ref>| async move {
            let Some(Ref { edge, work }) = found else { return Ok(None) };
            let edge = match more {
                None => build.admit(&edge).await?,
                Some(policy) => build.admit_by(policy, &edge).await?,
            };
            Ok::<_, SolveError>(Some(Ref { edge, work }))
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
#[error("unknown frontend {0:?}: this daemon has dockerfile.v0 and gateway.v0")]
struct UnknownFrontend(String);

/// Something else than a build, which the frontend does not answer.
#[derive(Debug, thiserror::Error)]
#[error("unsupported request {0}")]
pub(crate) struct UnsupportedRequest(pub(crate) String);

/// Something that a client relies on and the frontend does not have.
#[derive(Debug, thiserror::Error)]
#[error("unsupported frontend capability {0}")]
pub(crate) struct UnsupportedCapability(pub(crate) String);

/// The frontend that is built in.
pub(crate) const DOCKERFILE: &str = "dockerfile.v0";
/// The frontend that runs others, which are in images.
pub(crate) const GATEWAY: &str = "gateway.v0";

/// Lets the frontend that `request` names answer it, as a part of `work`.
pub(crate) async fn solve(
    work: &Assignment,
    mut request: Request,
) -> Result<FrontendResult, SolveError> {
    match request.frontend.as_str() {
        DOCKERFILE => work.daemon.config.check_dockerfile_frontend()?,
        GATEWAY => match request.options.get("source") {
            Some(source) if is_built_in(source) => {
                request.options.remove("source");
                DOCKERFILE.clone_into(&mut request.frontend);
            }
            Some(source) => {
                let source = source.clone();
                return Box::pin(gateway::external::solve(work, &source, request)).await;
            }
            None => {
                let missing = anyhow::anyhow!("the frontend {GATEWAY} needs the option source");
                return Err(missing.into());
            }
        },
        other => return Err(UnknownFrontend(other.to_owned()).into()),
    }
    Box::pin(dockerfile::solve(&work.below(request.clone()), &request)).await
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
