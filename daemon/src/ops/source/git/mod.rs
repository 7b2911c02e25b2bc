//! Files from git repositories (`git://`), by the git program of the daemon's host.
//!
//! A source is known by its commit. Which one that is, is asked for in each build unless the source
//! names it; what the commit has is fetched only if it is needed and not here, into a copy of the
//! repository that is kept for the next time.

mod checkout;
mod command;
mod error;
mod object;
mod reference;
mod repository;
mod resolve;
mod source;
mod ssh;
mod url;

use std::sync::Arc;

use anyhow::Context as _;
use kiln_proto::pb;

use super::Loaded;
use crate::damage::Damaged;
use crate::graph::Vertex;
use crate::solver::{Build, CacheMap, Snapshot, VertexProgress};
use command::Git;
use repository::Repository;

pub(crate) use object::Objects;
pub(crate) use reference::{GitRef, InvalidGitRef};
pub(crate) use repository::Repositories;
pub(crate) use resolve::Resolved;
pub(crate) use source::GitSource;
pub(crate) use url::Transport;

pub(super) async fn load(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    source: &pb::SourceOp,
    progress: &VertexProgress,
) -> anyhow::Result<Loaded> {
    let source = GitSource::parse(source)?;
    let resolved = resolve::resolve(build, &source, progress).await?;
    build.source_pins.note(vertex.digest(), &resolved.checksum);
    let op = source.content_key(&resolved);
    Ok(Loaded::Key(CacheMap::of_source(op, vertex.name())))
}

/// Fetches what is missing of a commit, and makes a layer of its files.
pub(super) async fn execute(
    build: &Arc<Build>,
    source: &pb::SourceOp,
    progress: &VertexProgress,
) -> anyhow::Result<Snapshot> {
    let source = GitSource::parse(source)?;
    let resolved = resolve::resolve(build, &source, progress).await?;
    let (git, repository) = fetched(build, &source, &resolved, progress).await?;
    let from = (&git, &repository);
    let files = checkout::checkout(build, from, &source, &resolved, progress).await;
    sound(from, &source, progress, files).await.map(Snapshot::Layers)
}

/// Looks for the fault of a failure in the daemon's copy: git looks at what it reads. If it is there,
/// the next one who wants the copy makes a new one.
async fn sound<T>(
    (git, repository): (&Git, &Repository),
    source: &GitSource,
    progress: &VertexProgress,
    result: anyhow::Result<T>,
) -> anyhow::Result<T> {
    match result {
        Err(error) if repository.is_unsound(git, progress).await => {
            tracing::warn!(
                source = source.shown(),
                "{error:#}: the copy of a repository is damaged"
            );
            repository.condemn().await?;
            Err(error).context(Damaged::Repository(source.shown()))
        }
        result => result,
    }
}

/// What can be said of a source without its files; its objects only if they are wanted.
pub(crate) async fn metadata(
    build: &Arc<Build>,
    source: &GitSource,
    wants_objects: bool,
    progress: &VertexProgress,
) -> anyhow::Result<(Resolved, Option<Objects>)> {
    let resolved = resolve::resolve(build, source, progress).await?;
    if !wants_objects {
        return Ok((resolved, None));
    }
    let (git, repository) = fetched(build, source, &resolved, progress).await?;
    let git = git.with_git_dir(&repository.path);
    let objects = Objects::read(&git, &resolved.checksum, progress).await?;
    Ok((resolved, Some(objects)))
}

/// The daemon's copy of a repository, with what `resolved` is.
async fn fetched(
    build: &Arc<Build>,
    source: &GitSource,
    resolved: &Resolved,
    progress: &VertexProgress,
) -> anyhow::Result<(Git, Repository)> {
    let git = resolve::git(build, source).await?;
    let repositories = &build.daemon.repositories;
    let repository = repositories.lease(&git, source, resolved, progress).await?;
    let done = repository.fetch(&git, source, resolved, progress).await;
    sound((&git, &repository), source, progress, done).await?;
    Ok((git, repository))
}
