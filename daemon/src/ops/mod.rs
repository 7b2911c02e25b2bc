//! What each op of the graph does, and what of it counts for its cache keys.

pub(crate) mod agent;
pub(crate) mod content;
mod diff;
pub(crate) mod exec;
mod file;
mod filter;
mod merge;
pub(crate) mod mode;
mod owner;
pub(crate) mod path;
pub(crate) mod source;

use std::sync::Arc;

use kiln_proto::pb::op::Op;

use crate::graph::Vertex;
use crate::solver::{Build, CacheMap, OpFailure, Snapshot, VertexProgress};

/// Whether the vertex brings files in from outside: such a vertex is loaded, not looked up.
pub(crate) fn is_source(vertex: &Vertex) -> bool {
    matches!(vertex.op(), Op::Source(_))
}

/// What the keys of `vertex` are made of. Also checks its op, which may come from a client.
pub(crate) fn cache_map(vertex: &Vertex) -> anyhow::Result<CacheMap> {
    match vertex.op() {
        Op::Exec(op) => exec::cache_map(vertex, op),
        Op::File(op) => file::cache_map(vertex, op),
        Op::Merge(op) => merge::cache_map(vertex, op),
        Op::Diff(op) => diff::cache_map(vertex, op),
        Op::Source(_) => anyhow::bail!("a source has no cache map"),
        Op::Build(_) => anyhow::bail!("build ops are not supported by this daemon"),
        Op::Passthrough(_) => anyhow::bail!("passthrough ops are not supported by this daemon"),
    }
}

/// Fails unless `build` has the rights that `vertex` asks for: with a result from the cache, or
/// from another build's run, it would get what it could not have made itself.
pub(crate) fn require_entitlements(build: &Build, vertex: &Vertex) -> Result<(), exec::Refused> {
    match vertex.op() {
        Op::Exec(op) => exec::require_entitlements(build, op),
        _ => Ok(()),
    }
}

/// What is said of the layer that an output of `vertex` adds, where images list how they were made.
/// It is the same wherever the layer comes from, for it is part of their digests.
pub(crate) fn description(vertex: &Vertex, output: u32) -> String {
    match vertex.op() {
        Op::Exec(op) => exec::description(op, output),
        _ => vertex.name(),
    }
}

/// Runs `vertex`, to which the build is entitled, on its inputs; one snapshot an output.
pub(crate) async fn execute(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    inputs: &[Snapshot],
    progress: &VertexProgress,
) -> Result<Vec<Snapshot>, OpFailure> {
    let made = match vertex.op() {
        Op::Exec(op) => return exec::execute(build, vertex, op, inputs, progress).await,
        Op::File(op) => return file::execute(build, vertex, op, inputs).await,
        Op::Merge(op) => merge::execute(build, op, inputs).await,
        Op::Diff(op) => diff::execute(build, vertex, op, inputs).await,
        Op::Source(source) => source::execute(build, source, progress).await,
        Op::Build(_) | Op::Passthrough(_) => {
            Err(anyhow::anyhow!("{} cannot be run", vertex.name()))
        }
    };
    Ok(made?)
}
