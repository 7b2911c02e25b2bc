//! Files from web servers (`http://`, `https://`).
//!
//! A file with a checksum is known by it: nothing is asked of the server unless the file is needed
//! and not here. Any other is asked for in each build, with what the server said to tell its
//! versions apart (`ETag`): one that has not changed is not sent again.

mod attributes;
mod client;
mod disposition;
mod download;
mod error;
mod request;
mod resolve;

use std::sync::Arc;

use kiln_proto::pb;

use super::Loaded;
use crate::graph::Vertex;
use crate::solver::{Build, CacheMap, Outputs, Snapshot, VertexProgress};

pub(crate) use attributes::HttpSource;
pub(crate) use client::HttpClient;
pub(crate) use resolve::{Metadata, Resolved, metadata};

pub(super) async fn load(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    source: &pb::SourceOp,
    progress: &VertexProgress,
) -> anyhow::Result<Loaded> {
    let source = HttpSource::parse(source)?;
    if let Some(checksum) = source.checksum {
        build.source_pins.note(vertex.digest(), &checksum);
        let op = source.content_key(&source.file_name(None), &checksum, None)?;
        return Ok(Loaded::Key(CacheMap::of_source(op, vertex.name())));
    }
    let resolved = resolve::resolve(build, &source, progress).await?;
    build.source_pins.note(vertex.digest(), &resolved.digest);
    if resolved.was_here {
        return Ok(Loaded::Key(CacheMap::of_source(resolved.op(&source)?, vertex.name())));
    }
    let files = Snapshot::Layers(resolved.files.clone());
    Ok(Loaded::Outputs(Outputs::single(Some(resolved.key(&source)?), files)))
}

/// Downloads a file that is known by its checksum.
pub(super) async fn execute(
    build: &Arc<Build>,
    source: &pb::SourceOp,
    progress: &VertexProgress,
) -> anyhow::Result<Snapshot> {
    let source = HttpSource::parse(source)?;
    let response = request::get(build, &source, None).await?;
    let downloaded = download::download(build, &source, response, progress).await?;
    Ok(Snapshot::Layers(downloaded.files))
}
