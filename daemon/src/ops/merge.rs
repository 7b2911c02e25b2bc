//! Merge: the layers of several file systems on top of one another. Nothing is copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_proto::pb;
use serde::Serialize;

use crate::graph::Vertex;
use crate::graph::go_json::{self, is_empty};
use crate::solver::{Build, CacheMap, Dep, Snapshot, Stack};

pub(super) fn cache_map(vertex: &Vertex, op: &pb::MergeOp) -> anyhow::Result<CacheMap> {
    inputs(op, vertex.inputs())?;
    let inputs = op.inputs.iter().map(|input| Input { input: input.input }).collect();
    let canonical = Canonical { kind: "buildkit.merge.v0", merge: Merge { inputs } };
    Ok(CacheMap {
        op: go_json::digest(&canonical)?,
        deps: vec![Dep::default(); vertex.inputs().len()],
        outputs: 1,
        parts: BTreeMap::new(),
    })
}

/// What the digest of a merge is of, as in BuildKit.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Canonical {
    #[serde(rename = "Type")]
    kind: &'static str,
    merge: Merge,
}

#[derive(Serialize)]
struct Merge {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Input>,
}

#[derive(Serialize)]
struct Input {
    #[serde(skip_serializing_if = "is_empty")]
    input: i64,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::VertexMeta;

    /// The digest that BuildKit 0.32.2 computes of the same op.
    #[test]
    fn a_merge_has_the_digest_that_buildkit_gives_it() {
        let source = |name: &str| {
            let op = pb::SourceOp { identifier: name.into(), ..Default::default() };
            Vertex::new(pb::op::Op::Source(op), Vec::new(), None, VertexMeta::default()).output(0)
        };
        let op = pb::MergeOp { inputs: (0..2).map(|input| pb::MergeInput { input }).collect() };
        let inputs = vec![source("a"), source("b")];
        let merge = pb::op::Op::Merge(op.clone());
        let vertex = Vertex::new(merge, inputs, None, VertexMeta::default());
        assert_eq!(
            cache_map(&vertex, &op).unwrap().op.to_string(),
            "sha256:436287a2dc2ce494f564331be9ea3a9f27ebec398567877043da2f618f33d6c8"
        );
    }
}
