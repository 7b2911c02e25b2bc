//! Failed steps, into which a frontend may look.
//!
//! The error of a call says which step failed, and by which names its files can be mounted into a
//! container: those that it started from, and those that it left (moby/buildkit,
//! `solver/errdefs/errdefs.proto`). A name is made of the step's digest, so that it is the same
//! whichever call comes by the step.

use kiln_proto::errdefs::solve::Subject as WireSubject;
use kiln_proto::errdefs::{ContentCache, FileAction, Solve};
use kiln_proto::{detail, pb};
use prost::Message as _;
use tonic::Status;

use super::GatewayBuild;
use crate::control::to_status_with;
use crate::graph::VertexDigest;
use crate::solver::{LeftBehind, LeftFiles, Snapshot, SolveError, Subject};

/// Details travel in the trailers of an answer, which have to stay small. The op of a step is in
/// the definition as well.
const MOST_OP: usize = 16 << 10;

/// What names of files of failed steps begin with. Those of results begin with their build's.
const PREFIX: &str = "failed";

/// The status of a call that has failed.
pub(super) fn to_status(gateway: &GatewayBuild, error: &SolveError) -> Status {
    let step = error.vertex().zip(error.op());
    let more = step.map(|(vertex, (op, description))| {
        let left = gateway.work.failed_steps.get(vertex);
        let is_small = op.len() <= MOST_OP;
        let left = left.as_deref();
        detail::pack(&Solve {
            input_ids: left
                .map(|left| names(vertex, Side::Input, &left.inputs))
                .unwrap_or_default(),
            mount_ids: left
                .map(|left| names(vertex, Side::Output, &left.outputs))
                .unwrap_or_default(),
            op: is_small.then(|| pb::Op::decode(op.clone()).ok()).flatten(),
            subject: left.and_then(subject),
            description: description.clone(),
        })
    });
    to_status_with(error, more)
}

/// Whether files are those that a step started from, or those that it left.
#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "mount",
        }
    }
}

fn names<T>(vertex: VertexDigest, side: Side, files: &[Option<T>]) -> Vec<String> {
    let name = |(position, files): (usize, &Option<T>)| match files {
        Some(_) => format!("{PREFIX}/{vertex}/{}/{position}", side.name()),
        None => String::new(),
    };
    files.iter().enumerate().map(name).collect()
}

fn subject(left: &LeftBehind) -> Option<WireSubject> {
    let index = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
    match left.subject {
        Subject::Process => None,
        Subject::Action(action) => Some(WireSubject::File(FileAction { index: index(action) })),
        Subject::CacheKey(input) => Some(WireSubject::Cache(ContentCache { index: index(input) })),
    }
}

/// The files that a name of a failed step stands for; none if it is the name of something else.
pub(super) fn find(gateway: &GatewayBuild, name: &str) -> Option<LeftFiles> {
    let mut parts = name.split('/');
    let (PREFIX, Some(vertex), Some(side), Some(position), None) =
        (parts.next()?, parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let left = gateway.work.failed_steps.get(VertexDigest(vertex.parse().ok()?))?;
    let position: usize = position.parse().ok()?;
    if side == Side::Output.name() {
        return left.outputs.get(position)?.clone();
    }
    let below: Option<Snapshot> = left.inputs.get(position)?.clone();
    (side == Side::Input.name()).then_some(LeftFiles { below: Some(below?), written: None })
}
