//! One step of a build and where it came from.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use kiln_cache::Digest;
use kiln_proto::pb;
use prost::Message as _;

/// The name of a vertex: sha256 of its marshalled `pb.Op`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct VertexDigest(pub(crate) Digest);

impl fmt::Display for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A step of a build. Immutable; shared by every step that uses its outputs.
#[derive(Debug)]
pub(crate) struct Vertex {
    digest: VertexDigest,
    marshalled: Bytes,
    op: pb::op::Op,
    platform: Option<pb::Platform>,
    inputs: Vec<Edge>,
    meta: VertexMeta,
}

/// One output of a vertex.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) vertex: Arc<Vertex>,
    pub(crate) output: usize,
}

/// What a vertex carries besides its op: nothing here changes what it makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct VertexMeta {
    /// Display name; the op's own description where empty.
    pub(crate) name: String,
    /// Run even if a record exists (`--no-cache`).
    pub(crate) ignore_cache: bool,
    /// `llb.*` descriptions as sent by the client, for marshalling back.
    pub(crate) description: BTreeMap<String, String>,
    /// Vertices of one group are shown as one line.
    pub(crate) progress_group: Option<pb::ProgressGroup>,
    /// Memory and CPU limits of an exec.
    pub(crate) resources: Option<pb::LinuxResources>,
    /// The source lines this vertex was made from.
    pub(crate) locations: Vec<SourceLocation>,
}

/// Lines of a source text that vertices were made from, as shown in errors.
#[derive(Clone, Debug)]
pub(crate) struct SourceLocation {
    pub(crate) file: Arc<pb::SourceInfo>,
    pub(crate) ranges: Vec<pb::Range>,
}

/// Lines of an instruction that are ranges of their own. More than an instruction has that a
/// person wrote, and few enough that every step may carry them.
const SINGLE_LINES: u32 = 1000;

impl SourceLocation {
    /// Lines `first..=last`, counted from 1. Each is a range of its own, as in what BuildKit's
    /// frontend sends; what goes beyond that measure is one range.
    pub(crate) fn lines(file: &Arc<pb::SourceInfo>, first: u32, last: u32) -> Self {
        let range = |first: u32, last: u32| {
            let at =
                |line| pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 };
            pb::Range { start: Some(at(first)), end: Some(at(last)) }
        };
        let singles = first..=last.min(first.saturating_add(SINGLE_LINES - 1));
        let rest = singles.end().saturating_add(1);
        let mut ranges: Vec<pb::Range> = singles.map(|line| range(line, line)).collect();
        if rest <= last {
            ranges.push(range(rest, last));
        }
        Self { file: file.clone(), ranges }
    }
}

impl Vertex {
    /// Makes a vertex; its digest follows from the op, the platform and the inputs.
    pub(crate) fn new(
        op: pb::op::Op,
        inputs: Vec<Edge>,
        platform: Option<pb::Platform>,
        meta: VertexMeta,
    ) -> Arc<Self> {
        let message = pb::Op {
            inputs: inputs
                .iter()
                .map(|edge| pb::Input {
                    digest: edge.vertex.digest.to_string(),
                    index: edge.output as i64,
                })
                .collect(),
            op: Some(op.clone()),
            platform: platform.clone(),
            constraints: None,
        };
        Self::from_marshalled(message.encode_to_vec().into(), op, inputs, platform, meta)
    }

    /// Makes a vertex whose marshalled form is already known, and names it by exactly those bytes.
    pub(super) fn from_marshalled(
        marshalled: Bytes,
        op: pb::op::Op,
        inputs: Vec<Edge>,
        platform: Option<pb::Platform>,
        meta: VertexMeta,
    ) -> Arc<Self> {
        let digest = VertexDigest(Digest::of(&marshalled));
        Arc::new(Self { digest, marshalled, op, platform, inputs, meta })
    }

    /// The same step with inputs that are the same steps as its own, and other meta.
    pub(super) fn with(&self, inputs: Vec<Arc<Self>>, meta: VertexMeta) -> Arc<Self> {
        let outputs = self.inputs.iter().map(|edge| edge.output);
        let inputs = inputs.into_iter().zip(outputs);
        Arc::new(Self {
            digest: self.digest,
            marshalled: self.marshalled.clone(),
            op: self.op.clone(),
            platform: self.platform.clone(),
            inputs: inputs.map(|(vertex, output)| Edge { vertex, output }).collect(),
            meta,
        })
    }

    pub(crate) fn digest(&self) -> VertexDigest {
        self.digest
    }

    pub(crate) fn marshalled(&self) -> &Bytes {
        &self.marshalled
    }

    pub(crate) fn op(&self) -> &pb::op::Op {
        &self.op
    }

    pub(crate) fn platform(&self) -> Option<&pb::Platform> {
        self.platform.as_ref()
    }

    pub(crate) fn inputs(&self) -> &[Edge] {
        &self.inputs
    }

    pub(crate) fn meta(&self) -> &VertexMeta {
        &self.meta
    }

    /// This vertex and all that it needs, each after its inputs.
    pub(crate) fn with_inputs(self: &Arc<Self>) -> Vec<Arc<Self>> {
        self.with_inputs_of(|_| true)
    }

    /// The same without those that are not `wanted`, and what only they need.
    pub(crate) fn with_inputs_of(
        self: &Arc<Self>,
        wanted: impl Fn(&Self) -> bool,
    ) -> Vec<Arc<Self>> {
        let mut order = Vec::new();
        let (mut entered, mut done) = (HashSet::new(), HashSet::new());
        // Not by recursion: graphs can be deep.
        let mut stack = vec![self.clone()];
        while let Some(vertex) = stack.last().cloned() {
            if entered.insert(vertex.digest) {
                let inputs = vertex.inputs.iter().map(|edge| edge.vertex.clone());
                let is_new = |input: &Arc<Self>| !entered.contains(&input.digest);
                stack.extend(inputs.filter(|input| is_new(input) && wanted(input)));
                continue;
            }
            stack.pop();
            if done.insert(vertex.digest) {
                order.push(vertex);
            }
        }
        order
    }

    /// What is said of the vertex on the wire.
    pub(crate) fn description(&self) -> BTreeMap<String, String> {
        let mut description = self.meta.description.clone();
        if !self.meta.name.is_empty() {
            description.insert("llb.customname".into(), self.meta.name.clone());
        }
        description
    }

    /// The name that progress shows.
    pub(crate) fn name(&self) -> String {
        if !self.meta.name.is_empty() {
            return self.meta.name.clone();
        }
        match &self.op {
            pb::op::Op::Source(source) => source.identifier.clone(),
            pb::op::Op::Exec(exec) => {
                exec.meta.as_ref().map_or_else(|| "exec".into(), |meta| meta.args.join(" "))
            }
            pb::op::Op::File(file) => file_name(file),
            pb::op::Op::Build(_) => "build".into(),
            pb::op::Op::Merge(_) => "merge".into(),
            pb::op::Op::Diff(_) => "diff".into(),
            pb::op::Op::Passthrough(_) => "passthrough".into(),
        }
    }

    /// Makes output `output` of this vertex an input of another.
    pub(crate) fn output(self: &Arc<Self>, output: usize) -> Edge {
        Edge { vertex: self.clone(), output }
    }
}

impl Drop for Vertex {
    /// Takes long chains apart in a loop: dropping them by recursion would overflow the stack.
    fn drop(&mut self) {
        let mut pending = std::mem::take(&mut self.inputs);
        while let Some(edge) = pending.pop() {
            if let Some(mut vertex) = Arc::into_inner(edge.vertex) {
                pending.append(&mut vertex.inputs);
            }
        }
    }
}

fn file_name(file: &pb::FileOp) -> String {
    use pb::file_action::Action;
    let names: Vec<String> = file
        .actions
        .iter()
        .filter_map(|action| match action.action.as_ref()? {
            Action::Copy(copy) => Some(format!("copy {} {}", copy.src, copy.dest)),
            Action::Mkfile(file) => Some(format!("mkfile {}", file.path)),
            Action::Mkdir(dir) => Some(format!("mkdir {}", dir.path)),
            Action::Rm(rm) => Some(format!("rm {}", rm.path)),
            Action::Symlink(link) => Some(format!("symlink {} -> {}", link.newpath, link.oldpath)),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str) -> Arc<Vertex> {
        let op = pb::SourceOp { identifier: identifier.to_owned(), ..Default::default() };
        Vertex::new(pb::op::Op::Source(op), vec![], None, VertexMeta::default())
    }

    fn merge(inputs: &[&Arc<Vertex>]) -> Arc<Vertex> {
        let op = pb::MergeOp {
            inputs: (0..inputs.len() as i64).map(|input| pb::MergeInput { input }).collect(),
        };
        let inputs = inputs.iter().map(|input| input.output(0)).collect();
        Vertex::new(pb::op::Op::Merge(op), inputs, None, VertexMeta::default())
    }

    #[test]
    fn inputs_come_before_what_needs_them_and_each_comes_once() {
        let (a, b) = (source("a"), source("b"));
        let middle = merge(&[&a, &b, &a]);
        let root = merge(&[&middle, &a, &middle]);
        let order = root.with_inputs();
        let at = |vertex: &Arc<Vertex>| {
            order.iter().position(|one| one.digest() == vertex.digest()).unwrap()
        };
        assert_eq!(order.len(), 4);
        assert!(at(&a) < at(&middle) && at(&b) < at(&middle) && at(&middle) < at(&root));
        let rest = root.with_inputs_of(|vertex| vertex.digest() != middle.digest());
        let names: Vec<_> = rest.iter().map(|vertex| vertex.digest()).collect();
        assert_eq!(names, [a.digest(), root.digest()]);
    }

    #[test]
    fn each_line_of_an_instruction_is_a_range_up_to_a_measure() {
        let lines = |first, last| {
            let line = |position: Option<pb::Position>| position.map_or(0, |at| at.line);
            let location = SourceLocation::lines(&Arc::default(), first, last);
            location
                .ranges
                .iter()
                .map(|range| (line(range.start), line(range.end)))
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(7, 7), [(7, 7)]);
        assert_eq!(lines(2, 4), [(2, 2), (3, 3), (4, 4)]);
        let long = lines(1, u32::MAX);
        assert_eq!((long.len(), long[999], long[1000]), (1001, (1000, 1000), (1001, i32::MAX)));
    }
}
