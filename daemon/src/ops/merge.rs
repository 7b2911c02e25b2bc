//! Merge: the layers of several file systems on top of one another. Nothing is copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::Digest;
use kiln_proto::pb;

use crate::graph::Vertex;
use crate::solver::{Build, CacheMap, Dep, Snapshot, Stack};

pub(super) fn cache_map(vertex: &Vertex, op: &pb::MergeOp) -> anyhow::Result<CacheMap> {
    let order: Vec<String> = op.inputs.iter().map(|input| input.input.to_string()).collect();
    inputs(op, vertex.inputs())?;
    Ok(CacheMap {
        op: Digest::of(format!("merge\0{}", order.join(","))),
        deps: vec![Dep::default(); vertex.inputs().len()],
        outputs: 1,
        parts: BTreeMap::new(),
    })
}

fn inputs<'a, T>(op: &pb::MergeOp, inputs: &'a [T]) -> anyhow::Result<Vec<&'a T>> {
    let input = |merge: &pb::MergeInput| {
        let found = usize::try_from(merge.input).ok().and_then(|index| inputs.get(index));
        found.with_context(|| format!("merge op has no input {}", merge.input))
    };
    op.inputs.iter().map(input).collect()
}

pub(super) async fn execute(
    build: &Arc<Build>,
    op: &pb::MergeOp,
    snapshots: &[Snapshot],
) -> anyhow::Result<Vec<Snapshot>> {
    let mut stacks = Vec::with_capacity(snapshots.len());
    for snapshot in inputs(op, snapshots)? {
        stacks.push(build.daemon.layers.freeze(snapshot).await?);
    }
    Ok(vec![Snapshot::Layers(Stack::concat(&stacks)?)])
}
