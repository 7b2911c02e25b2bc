//! Graphs in which each step is there once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Edge, Vertex, VertexDigest, VertexMeta};

/// The same graph with one vertex for each step. Where there were several (stages that begin alike),
/// it has the name of the one that comes last when inputs go before what is made of them, the lines
/// of all, and runs without cache if one of them is to: so do BuildKit's frontends say it.
pub(crate) fn unify(root: &Edge) -> Edge {
    let order = in_order(&root.vertex);
    let mut known = HashSet::new();
    let again = order.iter().map(|vertex| vertex.digest()).filter(|digest| !known.insert(*digest));
    let is_shared: HashSet<VertexDigest> = again.collect();
    if is_shared.is_empty() {
        return root.clone();
    }
    let mut metas: HashMap<VertexDigest, VertexMeta> = HashMap::new();
    for vertex in order.iter().filter(|vertex| is_shared.contains(&vertex.digest())) {
        merge(metas.entry(vertex.digest()).or_default(), vertex.meta().clone());
    }
    let mut made: HashMap<VertexDigest, Arc<Vertex>> = HashMap::new();
    for vertex in &order {
        let digest = vertex.digest();
        if made.contains_key(&digest) {
            continue;
        }
        let input = |edge: &Edge| made.get(&edge.vertex.digest()).unwrap_or(&edge.vertex).clone();
        let inputs: Vec<_> = vertex.inputs().iter().map(input).collect();
        let is_same = |(old, new): (&Edge, &Arc<Vertex>)| Arc::ptr_eq(&old.vertex, new);
        let one = match metas.remove(&digest) {
            Some(meta) => vertex.with(inputs, meta),
            None if vertex.inputs().iter().zip(&inputs).all(is_same) => vertex.clone(),
            None => vertex.with(inputs, vertex.meta().clone()),
        };
        made.insert(digest, one);
    }
    let vertex = made.remove(&root.vertex.digest()).unwrap_or_else(|| root.vertex.clone());
    Edge { vertex, output: root.output }
}

/// All vertices, each after its inputs; those of one digest may be several.
fn in_order(root: &Arc<Vertex>) -> Vec<Arc<Vertex>> {
    let mut order = Vec::new();
    let mut entered = HashSet::new();
    // Not by recursion: graphs can be deep.
    let mut stack = vec![(root.clone(), false)];
    while let Some((vertex, is_left)) = stack.pop() {
        if is_left {
            order.push(vertex);
        } else if entered.insert(Arc::as_ptr(&vertex)) {
            let inputs = vertex.inputs().iter().rev().map(|edge| (edge.vertex.clone(), false));
            let inputs: Vec<_> = inputs.collect();
            stack.push((vertex, true));
            stack.extend(inputs);
        }
    }
    order
}

fn merge(known: &mut VertexMeta, later: VertexMeta) {
    let VertexMeta { name, ignore_cache, description, progress_group, resources, locations } =
        later;
    if !name.is_empty() {
        known.name = name;
    }
    known.ignore_cache |= ignore_cache;
    known.description.extend(description);
    known.progress_group = progress_group.or(known.progress_group.take());
    known.resources = resources.or(known.resources.take());
    known.locations.extend(locations);
}

#[cfg(test)]
mod tests {
    use kiln_proto::pb;

    use super::*;

    fn source(name: &str, ignore_cache: bool) -> Arc<Vertex> {
        let op = pb::SourceOp { identifier: "local://x".to_owned(), ..pb::SourceOp::default() };
        let meta = VertexMeta { name: name.to_owned(), ignore_cache, ..VertexMeta::default() };
        Vertex::new(pb::op::Op::Source(op), Vec::new(), None, meta)
    }

    fn merged(inputs: &[&Arc<Vertex>]) -> Edge {
        let op = pb::op::Op::Merge(pb::MergeOp::default());
        let inputs = inputs.iter().map(|input| input.output(0)).collect();
        Vertex::new(op, inputs, None, VertexMeta::default()).output(0)
    }

    #[test]
    fn of_steps_that_are_the_same_the_last_one_gives_the_name() {
        let (first, last) = (source("first", true), source("last", false));
        let graph = merged(&[&first, &last, &first]);
        let one = unify(&graph);
        assert_eq!(one.vertex.digest(), graph.vertex.digest());
        let [a, b, c] = one.vertex.inputs() else { panic!("three inputs") };
        assert!(Arc::ptr_eq(&a.vertex, &b.vertex) && Arc::ptr_eq(&b.vertex, &c.vertex));
        assert_eq!(a.vertex.name(), "last");
        assert!(a.vertex.meta().ignore_cache);
    }

    #[test]
    fn a_graph_without_such_steps_stays_as_it_is() {
        let shared = source("shared", false);
        let graph = merged(&[&shared, &shared]);
        assert!(Arc::ptr_eq(&unify(&graph).vertex, &graph.vertex));
    }
}
