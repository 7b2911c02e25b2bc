//! Definitions as clients and frontends send them, to vertices and back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kiln_cache::Digest;
use kiln_proto::pb;
use prost::Message as _;

use super::{Edge, SourceLocation, Vertex, VertexDigest, VertexMeta};

/// More ops than any real build has; a limit on what one request can make the daemon hold.
const MAX_OPS: usize = 100_000;

/// Why a definition was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DefinitionError {
    #[error("definition has {0} ops, more than the {MAX_OPS} allowed")]
    TooManyOps(usize),
    #[error("invalid nil input definition to definition op")]
    Nil,
    #[error("op {index} of the definition is not a valid pb.Op message")]
    Decode { index: usize, source: prost::DecodeError },
    #[error("op {0} of the definition has no operation, or one this daemon does not know")]
    UnknownOp(VertexDigest),
    #[error("definition refers to {0}, which it does not contain")]
    MissingInput(String),
    #[error("op {digest} has input index {index}, which is out of range")]
    InputIndex { digest: String, index: i64 },
    #[error("the last op of a definition must name one result, this one has {0} inputs")]
    Result(usize),
    #[error("definition needs capability {0}, which this daemon does not have")]
    UnknownCap(String),
    #[error("source location refers to source {0}, which the definition does not contain")]
    SourceIndex(i32),
}

/// The result that a definition describes; `None` is the empty file system (scratch).
///
/// Definitions are foreign input: every digest, index and size in them is checked.
pub(crate) fn from_definition(
    definition: &pb::Definition,
) -> Result<Option<Edge>, DefinitionError> {
    if definition.def.len() > MAX_OPS {
        return Err(DefinitionError::TooManyOps(definition.def.len()));
    }
    let Some((last, _)) = definition.def.split_last() else { return Ok(None) };
    let mut ops: HashMap<String, (usize, pb::Op)> = HashMap::with_capacity(definition.def.len());
    for (index, bytes) in definition.def.iter().enumerate() {
        let op = pb::Op::decode(bytes.clone())
            .map_err(|source| DefinitionError::Decode { index, source })?;
        ops.insert(Digest::of(bytes).to_string(), (index, op));
    }
    let result = ops[&Digest::of(last).to_string()].1.clone();
    let [result] = result.inputs.as_slice() else {
        return Err(DefinitionError::Result(result.inputs.len()));
    };
    let sources = Sources::new(definition);
    let vertex = build(&result.digest, definition, &ops, &sources)?;
    Ok(Some(Edge { vertex, output: output_index(result)? }))
}

/// Reads a definition that a frontend is given as an input: there, nothing is not scratch.
pub(crate) fn from_input(definition: &pb::Definition) -> Result<Option<Edge>, DefinitionError> {
    if definition.def.is_empty() && definition.metadata.is_empty() {
        return Err(DefinitionError::Nil);
    }
    from_definition(definition)
}

fn output_index(input: &pb::Input) -> Result<usize, DefinitionError> {
    usize::try_from(input.index).ok().filter(|&index| index < 1024).ok_or_else(|| {
        DefinitionError::InputIndex { digest: input.digest.clone(), index: input.index }
    })
}

/// Builds vertices inputs first, with an explicit stack: definitions can be deep.
fn build(
    root: &str,
    definition: &pb::Definition,
    ops: &HashMap<String, (usize, pb::Op)>,
    sources: &Sources,
) -> Result<Arc<Vertex>, DefinitionError> {
    let mut done: HashMap<&str, Arc<Vertex>> = HashMap::with_capacity(ops.len());
    let mut stack = vec![root];
    while let Some(&digest) = stack.last() {
        if done.contains_key(digest) {
            stack.pop();
            continue;
        }
        let (index, op) =
            ops.get(digest).ok_or_else(|| DefinitionError::MissingInput(digest.to_owned()))?;
        let waiting = stack.len();
        stack.extend(op.inputs.iter().map(|i| i.digest.as_str()).filter(|d| !done.contains_key(d)));
        if stack.len() > waiting {
            continue;
        }
        let inputs = op
            .inputs
            .iter()
            .map(|input| {
                let vertex = done[input.digest.as_str()].clone();
                Ok(Edge { vertex, output: output_index(input)? })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let marshalled = definition.def[*index].clone();
        let kind = op
            .op
            .clone()
            .ok_or_else(|| DefinitionError::UnknownOp(VertexDigest(Digest::of(&marshalled))))?;
        let meta = sources.meta(digest, definition)?;
        done.insert(
            digest,
            Vertex::from_marshalled(marshalled, kind, inputs, op.platform.clone(), meta),
        );
        stack.pop();
    }
    Ok(done[root].clone())
}

/// The source texts of a definition, shared by the vertices that point into them.
struct Sources {
    files: Vec<Arc<pb::SourceInfo>>,
}

impl Sources {
    fn new(definition: &pb::Definition) -> Self {
        let infos = definition.source.as_ref().map_or(&[][..], |source| &source.infos);
        Self { files: infos.iter().cloned().map(Arc::new).collect() }
    }

    fn meta(
        &self,
        digest: &str,
        definition: &pb::Definition,
    ) -> Result<VertexMeta, DefinitionError> {
        let mut meta = VertexMeta::default();
        if let Some(sent) = definition.metadata.get(digest) {
            meta.name = sent.description.get("llb.customname").cloned().unwrap_or_default();
            meta.ignore_cache = sent.ignore_cache;
            meta.description = sent.description.clone();
            meta.progress_group = sent.progress_group.clone();
            meta.resources = sent.linux_resources.clone();
            for (cap, needed) in &sent.caps {
                if *needed && !crate::caps::LLB.contains(&cap.as_str()) {
                    return Err(DefinitionError::UnknownCap(cap.clone()));
                }
            }
        }
        let locations = definition.source.as_ref().and_then(|source| source.locations.get(digest));
        for location in locations.iter().flat_map(|locations| &locations.locations) {
            let file = usize::try_from(location.source_index)
                .ok()
                .and_then(|index| self.files.get(index))
                .ok_or(DefinitionError::SourceIndex(location.source_index))?;
            meta.locations
                .push(SourceLocation { file: file.clone(), ranges: location.ranges.clone() });
        }
        Ok(meta)
    }
}

/// The definition of one result, for clients that go on working with it.
pub(crate) fn to_definition(edge: Option<&Edge>) -> pb::Definition {
    let mut definition = pb::Definition::default();
    let Some(edge) = edge else { return definition };
    let mut source = pb::Source::default();
    let mut file_index: BTreeMap<*const pb::SourceInfo, i32> = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut stack = vec![(edge.vertex.clone(), false)];
    while let Some((vertex, inputs_done)) = stack.pop() {
        if !inputs_done {
            if seen.insert(vertex.digest()) {
                stack.push((vertex.clone(), true));
                stack.extend(vertex.inputs().iter().map(|e| (e.vertex.clone(), false)));
            }
            continue;
        }
        definition.def.push(vertex.marshalled().clone());
        let meta = vertex.meta();
        definition.metadata.insert(
            vertex.digest().to_string(),
            pb::OpMetadata {
                ignore_cache: meta.ignore_cache,
                description: vertex.description(),
                progress_group: meta.progress_group.clone(),
                linux_resources: meta.resources.clone(),
                ..Default::default()
            },
        );
        let locations = meta.locations.iter().map(|location| {
            let index = *file_index.entry(Arc::as_ptr(&location.file)).or_insert_with(|| {
                source.infos.push((*location.file).clone());
                source.infos.len() as i32 - 1
            });
            pb::Location { source_index: index, ranges: location.ranges.clone() }
        });
        let locations = pb::Locations { locations: locations.collect() };
        source.locations.insert(vertex.digest().to_string(), locations);
    }
    let result = pb::Op {
        inputs: vec![pb::Input {
            digest: edge.vertex.digest().to_string(),
            index: edge.output as i64,
        }],
        ..Default::default()
    };
    definition.def.push(result.encode_to_vec().into());
    definition.source = Some(source);
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str) -> Arc<Vertex> {
        let op = pb::SourceOp { identifier: identifier.into(), ..Default::default() };
        Vertex::new(pb::op::Op::Source(op), vec![], None, VertexMeta::default())
    }

    fn merge(inputs: Vec<Edge>) -> Arc<Vertex> {
        let op = pb::MergeOp {
            inputs: (0..inputs.len() as i64).map(|input| pb::MergeInput { input }).collect(),
        };
        Vertex::new(pb::op::Op::Merge(op), inputs, None, VertexMeta::default())
    }

    #[test]
    fn a_definition_survives_the_round_trip() {
        let a = source("docker-image://a");
        let top = merge(vec![a.output(0), source("docker-image://b").output(0), a.output(0)]);
        let edge = from_definition(&to_definition(Some(&top.output(0)))).unwrap().unwrap();
        assert_eq!(edge.vertex.digest(), top.digest());
        assert_eq!(edge.vertex.inputs().len(), 3);
    }

    #[test]
    fn no_ops_are_scratch() {
        assert!(from_definition(&pb::Definition::default()).unwrap().is_none());
    }

    #[test]
    fn a_reference_to_nothing_is_refused() {
        let mut definition = to_definition(Some(&merge(vec![source("a").output(0)]).output(0)));
        definition.def.remove(0);
        assert!(matches!(from_definition(&definition), Err(DefinitionError::MissingInput(_))));
    }

    #[test]
    fn deep_chains_neither_build_nor_drop_by_recursion() {
        let mut vertex = source("a");
        for _ in 0..50_000 {
            vertex = merge(vec![vertex.output(0)]);
        }
        let edge = from_definition(&to_definition(Some(&vertex.output(0)))).unwrap().unwrap();
        assert_eq!(edge.vertex.digest(), vertex.digest());
    }

    #[test]
    fn garbage_is_an_error() {
        let definition = pb::Definition { def: vec![vec![0xff; 8].into()], ..Default::default() };
        assert!(matches!(from_definition(&definition), Err(DefinitionError::Decode { .. })));
    }
}
