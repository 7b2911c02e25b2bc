//! Diff: what an upper file system adds to a lower one.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_cache::Digest;
use kiln_proto::pb;

use crate::graph::Vertex;
use crate::solver::{Build, CacheMap, Dep, Snapshot, Stack};

const NONE: i64 = -1;

fn sides(op: &pb::DiffOp) -> (i64, i64) {
    let lower = op.lower.as_ref().map_or(NONE, |lower| lower.input);
    (lower, op.upper.as_ref().map_or(NONE, |upper| upper.input))
}

fn input<T>(inputs: &[T], index: i64) -> anyhow::Result<Option<&T>> {
    if index == NONE {
        return Ok(None);
    }
    let found = usize::try_from(index).ok().and_then(|index| inputs.get(index));
    Ok(Some(found.with_context(|| format!("diff op has no input {index}"))?))
}

pub(super) fn cache_map(vertex: &Vertex, op: &pb::DiffOp) -> anyhow::Result<CacheMap> {
    let (lower, upper) = sides(op);
    input(vertex.inputs(), lower)?;
    input(vertex.inputs(), upper)?;
    Ok(CacheMap {
        op: Digest::of(format!("diff\0{lower},{upper}")),
        deps: vec![Dep::default(); vertex.inputs().len()],
        outputs: 1,
        parts: BTreeMap::new(),
    })
}

/// The layers of `upper` above those of `lower`, without reading any.
pub(super) async fn execute(
    build: &Arc<Build>,
    op: &pb::DiffOp,
    inputs: &[Snapshot],
) -> anyhow::Result<Vec<Snapshot>> {
    let layers = &build.daemon.layers;
    let (lower, upper) = sides(op);
    let (lower, upper) = (input(inputs, lower)?, input(inputs, upper)?);
    let above = match (lower, upper) {
        (_, None) => Stack::default(),
        (None, Some(upper)) => layers.freeze(upper).await?,
        (Some(lower), Some(upper)) => {
            let (lower, upper) = (layers.freeze(lower).await?, layers.freeze(upper).await?);
            if !upper.ids().starts_with(lower.ids()) {
                bail!("diff of file systems that are not built on one another is not supported");
            }
            upper.above(lower.ids().len())
        }
    };
    Ok(vec![Snapshot::Layers(above)])
}
