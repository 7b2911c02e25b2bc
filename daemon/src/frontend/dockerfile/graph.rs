//! Small pieces of graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;

use crate::graph::{Edge, Vertex, VertexMeta};
use crate::image::Platform;

/// An index that means "no input" or "no output".
pub(super) const NONE: i64 = -1;

/// The inputs of an op, each once.
#[derive(Default)]
pub(super) struct Inputs(pub(super) Vec<Edge>);

impl Inputs {
    /// The index of `edge`; [`NONE`] for scratch.
    pub(super) fn index(&mut self, edge: Option<&Edge>) -> i64 {
        let Some(edge) = edge else { return NONE };
        let same = |other: &Edge| {
            other.vertex.digest() == edge.vertex.digest() && other.output == edge.output
        };
        let index = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(edge.clone());
            self.0.len() - 1
        });
        i64::try_from(index).unwrap_or(NONE)
    }
}

/// Meta of a vertex that has nothing but a name.
pub(super) fn named(name: impl Into<String>) -> VertexMeta {
    VertexMeta { name: name.into(), ..VertexMeta::default() }
}

/// A source.
pub(super) fn source(
    identifier: String,
    attrs: BTreeMap<String, String>,
    platform: Option<&Platform>,
    meta: VertexMeta,
) -> Arc<Vertex> {
    let op = pb::SourceOp { identifier, attrs: attrs.into_iter().collect() };
    Vertex::new(pb::op::Op::Source(op), Vec::new(), platform.map(Platform::to_pb), meta)
}

/// A file op of a single action on `base`.
pub(super) fn file(
    base: Option<&Edge>,
    action: Action,
    platform: &Platform,
    meta: VertexMeta,
) -> Edge {
    let mut inputs = Inputs::default();
    let input = inputs.index(base);
    let action = pb::FileAction { input, secondary_input: NONE, output: 0, action: Some(action) };
    let op = pb::FileOp { actions: vec![action] };
    Vertex::new(pb::op::Op::File(op), inputs.0, Some(platform.to_pb()), meta).output(0)
}

/// A file system with one file, whose content the Dockerfile has.
pub(super) fn inline_file(name: &str, mode: i32, content: String, platform: &Platform) -> Edge {
    let action = Action::Mkfile(pb::FileActionMkFile {
        path: format!("/{name}"),
        mode,
        data: content.into(),
        owner: None,
        timestamp: -1,
    });
    file(None, action, platform, named("[internal] preparing inline document"))
}

/// `user[:group]`, each by name or number. Names are looked up in input `input`.
pub(super) fn owner(spec: &str, input: i64) -> pb::ChownOpt {
    let part = |text: &str| {
        let user = match text.parse::<u32>() {
            Ok(id) => pb::user_opt::User::ById(id),
            // Whatever the image says.
            Err(_) if text == "root" => pb::user_opt::User::ById(0),
            Err(_) => pb::user_opt::User::ByName(pb::NamedUserOpt { name: text.to_owned(), input }),
        };
        pb::UserOpt { user: Some(user) }
    };
    match spec.split_once(':') {
        Some((user, group)) => pb::ChownOpt { user: Some(part(user)), group: Some(part(group)) },
        None => pb::ChownOpt { user: Some(part(spec)), group: None },
    }
}
