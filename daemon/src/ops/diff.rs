//! Diff: what an upper file system adds to a lower one.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_proto::pb;
use serde::Serialize;

use crate::graph::Vertex;
use crate::graph::go_json::{self, is_empty};
use crate::solver::{Build, CacheMap, Dep, Snapshot, Stack};

const NONE: i64 = -1;
/// The name of this form of an op.
const KIND: &str = "buildkit.diff.v0";

/// What the digest of a diff is of, as in BuildKit.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Canonical {
    #[serde(rename = "Type")]
    kind: &'static str,
    diff: Diff,
}

#[derive(Serialize)]
struct Diff {
    lower: Side,
    upper: Side,
}

#[derive(Serialize)]
struct Side {
    #[serde(skip_serializing_if = "is_empty")]
    input: i64,
}

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
    let (lower, upper) = (Side { input: lower }, Side { input: upper });
    Ok(CacheMap {
        op: go_json::digest(&Canonical { kind: KIND, diff: Diff { lower, upper } })?,
        deps: vec![Dep::default(); vertex.inputs().len()],
        outputs: 1,
        parts: BTreeMap::new(),
    })
}

/// Where `upper` was made of `lower`, the layers that it has above it, without reading any; else a
/// layer with the difference.
pub(super) async fn execute(
    build: &Arc<Build>,
    vertex: &Vertex,
    op: &pb::DiffOp,
    inputs: &[Snapshot],
) -> anyhow::Result<Vec<Snapshot>> {
    let layers = &build.daemon.layers;
    let (lower, upper) = sides(op);
    let stack = async |side| match input(inputs, side)? {
        Some(snapshot) => layers.freeze(snapshot).await,
        None => Ok(Stack::default()),
    };
    let (lower, upper) = (stack(lower).await?, stack(upper).await?);
    if upper.ids().starts_with(lower.ids()) {
        return Ok(vec![Snapshot::Layers(upper.above(lower.ids().len()))]);
    }
    let [below, above] = [&lower, &upper].map(|stack| Snapshot::Layers(stack.clone()));
    tokio::try_join!(layers.fetch(build, &below), layers.fetch(build, &above))?;
    Ok(vec![Snapshot::Layers(layers.difference(&lower, &upper, vertex.name()).await?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests that BuildKit 0.32.2 computes of the same ops.
    #[test]
    fn a_diff_has_the_digest_that_buildkit_gives_it() {
        for (lower, upper, expected) in [
            (0, 1, "164ae6dac10aea8de6cb7cda35914a10011485523f807ea840bca3e0ab19d8ff"),
            (NONE, 0, "f5284a0f1782a8c2cdb29841228c32706cbf04332ad37c3c7cb41659c6eeba0a"),
        ] {
            let diff = Diff { lower: Side { input: lower }, upper: Side { input: upper } };
            let digest = go_json::digest(&Canonical { kind: KIND, diff }).unwrap();
            assert_eq!(digest.to_string(), format!("sha256:{expected}"));
        }
    }
}
