//! Errors as BuildKit's clients know them: a gRPC status whose details name the vertex and the
//! source lines, from which the client prints its excerpt.
//!
//! A detail is a `google.protobuf.Any` whose type URL ends in `+json` and whose value is the
//! message in the JSON of Go's `encoding/json` (moby/buildkit, `util/grpcerrors`).

use std::panic::Location;

use kiln_proto::rpc;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::frontend::{UnsupportedCapability, UnsupportedRequest};
use crate::graph::{SourceLocation, go_json};
use crate::policy::Denied;
use crate::provenance::{IncompleteMaterials, LOCAL_SOURCE};
use crate::solver::SolveError;

const TYPE_PREFIX: &str = "github.com/moby/buildkit/";

/// The status of a failed build.
pub(crate) fn to_status(error: &SolveError) -> Status {
    from_rpc(to_rpc(error))
}

/// The same with `more` details.
pub(crate) fn to_status_with(
    error: &SolveError,
    more: impl IntoIterator<Item = prost_types::Any>,
) -> Status {
    let mut status = to_rpc(error);
    status.details.extend(more);
    from_rpc(status)
}

/// The status of a failed build as a message.
pub(crate) fn to_rpc(error: &SolveError) -> rpc::Status {
    if let Some(status) = error.cause().downcast_ref::<Status>() {
        // The client's own frontend failed: its details are those of the step that failed.
        let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
        let message = status.message().to_owned();
        return rpc::Status { code: status.code().into(), message, details };
    }
    let message = error.to_string();
    rpc::Status { code: code(error).into(), message, details: details(error) }
}

/// What gRPC says for a message of its own.
pub(super) fn from_rpc(status: rpc::Status) -> Status {
    let details = status.encode_to_vec().into();
    Status::with_details(Code::from_i32(status.code), status.message, details)
}

fn code(error: &SolveError) -> Code {
    if error.is_canceled() {
        Code::Cancelled
    } else if error.cause().is::<UnsupportedCapability>() {
        Code::Unimplemented
    } else {
        Code::Unknown
    }
}

fn details(error: &SolveError) -> Vec<prost_types::Any> {
    let vertex = error
        .vertex()
        .map(|digest| detail("errdefs.Vertex", &json!({ "digest": digest.to_string() })));
    let sources = error.locations().iter().map(|at| detail("errdefs.Source", &source(at)));
    let named = |kind, name: &str| detail(kind, &json!({ "name": name }));
    let cause = error.cause();
    let request = cause.downcast_ref::<UnsupportedRequest>();
    let request = request.map(|request| named("errdefs.Subrequest", &request.0));
    let capability = cause.downcast_ref::<UnsupportedCapability>();
    let capability = capability.map(|capability| named("errdefs.FrontendCap", &capability.0));
    let incomplete = cause.downcast_ref::<IncompleteMaterials>().map(|materials| {
        let incomplete = materials.locals.iter();
        let incomplete: Value =
            incomplete.map(|name| json!({ "name": name, "reason": LOCAL_SOURCE })).collect();
        detail("errdefs.ProvenanceMaterialsIncomplete", &json!({ "incomplete": incomplete }))
    });
    let denied = error.find::<Denied>().and_then(Denied::messages);
    let denied = denied.map(|messages| {
        let messages: Vec<_> =
            messages.iter().map(|said| json!({ "message": said.message })).collect();
        let decision = json!({ "action": "DENY", "denyMessages": messages });
        detail("policysession.DecisionResponse", &decision)
    });
    let stack = detail("stack.Stack", &stack(&error.origins()));
    let details = vertex.into_iter().chain(sources).chain(request).chain(capability);
    details.chain(incomplete).chain(denied).chain([stack]).collect()
}

/// Where in this program a failure came about, for who looks for a mistake in it.
fn stack(origins: &[&Location<'_>]) -> Value {
    let frame = |origin: &&Location<'_>| {
        let path = origin.file().trim_start_matches("daemon/src/").trim_end_matches(".rs");
        let name = format!("{}::{}", env!("CARGO_PKG_NAME"), path.replace('/', "::"));
        json!({ "Name": name, "File": origin.file(), "Line": origin.line() })
    };
    json!({
        "frames": origins.iter().map(frame).collect::<Vec<_>>(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn detail(name: &str, value: &Value) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("{TYPE_PREFIX}{name}+json"),
        value: value.to_string().into_bytes(),
    }
}

fn source(location: &SourceLocation) -> Value {
    json!({
        "info": go_json::SourceInfo::from(&*location.file),
        "ranges": go_json::ranges(&location.ranges),
    })
}

#[cfg(test)]
mod tests {
    use kiln_proto::policysession::DenyMessage;

    use super::*;

    fn details_of(error: &SolveError) -> (Code, Vec<(String, String)>) {
        let status = to_status(error);
        let sent = rpc::Status::decode(status.details()).unwrap();
        let text = |detail: &prost_types::Any| {
            let kind = detail.type_url.rsplit('/').next().unwrap_or_default().to_owned();
            (kind, String::from_utf8(detail.value.clone()).unwrap())
        };
        let (stack, details) = sent.details.split_last().unwrap();
        assert!(stack.type_url.ends_with("/stack.Stack+json"), "{stack:?}");
        (status.code(), details.iter().map(text).collect())
    }

    #[test]
    fn what_a_client_says_of_a_denied_source_comes_back_to_it() {
        let denied = Denied::ByClient {
            identifier: "local://a".to_owned(),
            action: "DENY",
            messages: vec![DenyMessage { message: "no".to_owned() }],
        };
        // Several steps may fail for it.
        let shared = SolveError::from(denied).into_cause().context("outer");
        let expected = (
            "policysession.DecisionResponse+json".to_owned(),
            r#"{"action":"DENY","denyMessages":[{"message":"no"}]}"#.to_owned(),
        );
        assert_eq!(details_of(&shared.into()), (Code::Unknown, vec![expected]));
    }

    #[test]
    fn what_a_frontend_cannot_do_is_named_for_its_clients() {
        let request = SolveError::from(UnsupportedRequest("frontend.x".to_owned()));
        let expected =
            ("errdefs.Subrequest+json".to_owned(), r#"{"name":"frontend.x"}"#.to_owned());
        assert_eq!(details_of(&request), (Code::Unknown, vec![expected]));
        let capability = SolveError::from(UnsupportedCapability("x".to_owned()));
        let expected = ("errdefs.FrontendCap+json".to_owned(), r#"{"name":"x"}"#.to_owned());
        assert_eq!(details_of(&capability), (Code::Unimplemented, vec![expected]));
        let incomplete = IncompleteMaterials { locals: vec!["context".to_owned()] };
        let expected = (
            "errdefs.ProvenanceMaterialsIncomplete+json".to_owned(),
            r#"{"incomplete":[{"name":"context","reason":"local_source"}]}"#.to_owned(),
        );
        assert_eq!(details_of(&SolveError::from(incomplete)), (Code::Unknown, vec![expected]));
    }
}
