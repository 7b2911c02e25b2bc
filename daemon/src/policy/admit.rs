//! Graphs whose sources are those that the policy makes of them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::try_join_all;
use kiln_proto::pb::op::Op;

use super::{SourcePolicy, Wanted};
use crate::graph::{Edge, Vertex, VertexDigest};
use crate::solver::{Build, SolveError};

impl SourcePolicy {
    /// The graph to be built in the place of the one that leads to `edge`.
    pub(crate) async fn admit(&self, build: &Arc<Build>, edge: &Edge) -> Result<Edge, SolveError> {
        if self.is_empty() {
            return Ok(edge.clone());
        }
        let order = edge.vertex.with_inputs();
        let sources = order.iter().filter_map(|vertex| match vertex.op() {
            Op::Source(source) => Some((vertex, source)),
            _ => None,
        });
        let decisions = sources.map(|(vertex, source)| async move {
            let wanted = Wanted { source: source.clone(), platform: vertex.platform().cloned() };
            let decided = self.decide(build, wanted).await;
            let decided = decided.context("error evaluating the source policy");
            let decided = decided.map_err(|cause| SolveError::at(vertex, cause))?;
            Ok::<_, SolveError>((vertex.digest(), decided))
        });
        let decisions: HashMap<VertexDigest, Wanted> =
            try_join_all(decisions).await?.into_iter().collect();
        let mut admitted: HashMap<VertexDigest, Arc<Vertex>> = HashMap::with_capacity(order.len());
        for vertex in order {
            let replaced = replace(&vertex, &admitted, decisions.get(&vertex.digest()));
            admitted.insert(vertex.digest(), replaced);
        }
        Ok(Edge { vertex: admitted[&edge.vertex.digest()].clone(), output: edge.output })
    }
}

/// The vertex with what is admitted in the place of its source or its inputs.
fn replace(
    vertex: &Arc<Vertex>,
    admitted: &HashMap<VertexDigest, Arc<Vertex>>,
    decision: Option<&Wanted>,
) -> Arc<Vertex> {
    let input = |edge: &Edge| Edge {
        vertex: admitted.get(&edge.vertex.digest()).unwrap_or(&edge.vertex).clone(),
        output: edge.output,
    };
    let inputs: Vec<Edge> = vertex.inputs().iter().map(input).collect();
    let mut is_new = inputs
        .iter()
        .zip(vertex.inputs())
        .any(|(new, old)| new.vertex.digest() != old.vertex.digest());
    let mut op = vertex.op().clone();
    if let (Op::Source(source), Some(decision)) = (&mut op, decision) {
        is_new |= *source != decision.source;
        *source = decision.source.clone();
    }
    if is_new {
        Vertex::new(op, inputs, vertex.platform().cloned(), vertex.meta().clone())
    } else {
        vertex.clone()
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::pb;

    use super::*;
    use crate::graph::VertexMeta;

    fn source(identifier: &str) -> Arc<Vertex> {
        let op = pb::SourceOp { identifier: identifier.to_owned(), ..Default::default() };
        Vertex::new(Op::Source(op), vec![], None, VertexMeta::default())
    }

    fn merge(inputs: &[&Arc<Vertex>]) -> Arc<Vertex> {
        let op = pb::MergeOp {
            inputs: (0..inputs.len() as i64).map(|input| pb::MergeInput { input }).collect(),
        };
        let inputs = inputs.iter().map(|input| input.output(0)).collect();
        Vertex::new(Op::Merge(op), inputs, None, VertexMeta::default())
    }

    #[test]
    fn what_needs_a_converted_source_is_new_and_the_rest_is_the_same() {
        let (a, b) = (source("local://a"), source("local://b"));
        let wanted = Wanted {
            source: pb::SourceOp { identifier: "local://c".to_owned(), ..Default::default() },
            platform: None,
        };
        let converted = replace(&a, &HashMap::new(), Some(&wanted));
        assert_eq!(converted.digest(), source("local://c").digest());
        let admitted = HashMap::from([(a.digest(), converted.clone()), (b.digest(), b.clone())]);
        let replaced = replace(&merge(&[&a, &b]), &admitted, None);
        assert_eq!(replaced.digest(), merge(&[&converted, &b]).digest());
        let untouched = merge(&[&b]);
        assert!(Arc::ptr_eq(&replace(&untouched, &admitted, None), &untouched));
    }
}
