//! Errors as BuildKit's clients know them: a gRPC status whose details name the vertex and the
//! source lines, from which the client prints its excerpt.
//!
//! A detail is a `google.protobuf.Any` whose type URL ends in `+json` and whose value is the
//! message in the JSON of Go's `encoding/json` (moby/buildkit, `util/grpcerrors`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::{pb, rpc};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::graph::SourceLocation;
use crate::solver::SolveError;

const TYPE_PREFIX: &str = "github.com/moby/buildkit/";

/// The status of a failed build.
pub(crate) fn to_status(error: &SolveError) -> Status {
    if let Some(status) = error.cause().downcast_ref::<Status>() {
        // The client's own frontend failed: its details are those of the step that failed.
        return status.clone();
    }
    let code = code(error);
    let message = error.to_string();
    let status =
        rpc::Status { code: code.into(), message: message.clone(), details: details(error) };
    Status::with_details(code, message, status.encode_to_vec().into())
}

fn code(error: &SolveError) -> Code {
    if error.is_canceled() { Code::Cancelled } else { Code::Unknown }
}

fn details(error: &SolveError) -> Vec<prost_types::Any> {
    let vertex = error
        .vertex()
        .map(|digest| detail("errdefs.Vertex", &json!({ "digest": digest.to_string() })));
    let sources = error.locations().iter().map(|at| detail("errdefs.Source", &source(at)));
    vertex.into_iter().chain(sources).collect()
}

fn detail(name: &str, value: &Value) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("{TYPE_PREFIX}{name}+json"),
        value: value.to_string().into_bytes(),
    }
}

fn source(location: &SourceLocation) -> Value {
    let position = |position: &Option<pb::Position>| {
        let position = position.unwrap_or_default();
        json!({ "line": position.line, "character": position.character })
    };
    let ranges: Vec<Value> = location
        .ranges
        .iter()
        .map(|range| json!({ "start": position(&range.start), "end": position(&range.end) }))
        .collect();
    json!({
        "info": {
            "filename": location.file.filename,
            "data": STANDARD.encode(&location.file.data),
            "language": location.file.language,
        },
        "ranges": ranges,
    })
}
