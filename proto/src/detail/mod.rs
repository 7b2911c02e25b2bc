//! Typed details of errors: which vertex failed, and where in the user's files it came from.
//!
//! They travel in `google.rpc.Status.details`, either marshalled under their type's name, or as
//! JSON under BuildKit's own URL. Clients of all ages read the JSON, so what has a simple one is
//! sent so; both are read.

mod json;

use crate::errdefs::{
    CompatibilityFeature, Frontend, FrontendCap, ProvenanceMaterialsIncomplete, Solve, Source,
    Subrequest, Vertex,
};
use crate::rpc;
use prost::Message;
use prost_types::Any;
use serde_json::Value;
use tonic::{Code, Status};

const JSON_URL: &str = "github.com/moby/buildkit/";
const JSON_MARK: &str = "+json";
const BINARY_URL: &str = "type.googleapis.com/";

/// A message that may be a detail of an error.
pub trait Detail: Message + Default {
    /// The message's full name.
    const NAME: &'static str;

    /// Its JSON form, if it is simple enough to have one here.
    fn to_json(&self) -> Option<Value> {
        None
    }

    /// Reads its JSON form; what is missing or of another type is left at its default.
    fn from_json(_: &Value) -> Option<Self> {
        None
    }
}

/// Wraps a detail.
pub fn pack<D: Detail>(detail: &D) -> Any {
    match detail.to_json() {
        Some(json) => Any {
            type_url: format!("{JSON_URL}{}{JSON_MARK}", D::NAME),
            value: json.to_string().into_bytes(),
        },
        None => Any { type_url: format!("{BINARY_URL}{}", D::NAME), value: detail.encode_to_vec() },
    }
}

/// Unwraps a detail, if it is one of this type and can be read.
pub fn unpack<D: Detail>(any: &Any) -> Option<D> {
    let (_, name) = any.type_url.rsplit_once('/')?;
    if name == D::NAME {
        return D::decode(any.value.as_slice()).ok();
    }
    if name.strip_suffix(JSON_MARK)? != D::NAME {
        return None;
    }
    D::from_json(&serde_json::from_slice(&any.value).ok()?)
}

/// A gRPC error with details.
pub fn status(code: Code, message: impl Into<String>, details: Vec<Any>) -> Status {
    let message = message.into();
    let full = rpc::Status { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, full.encode_to_vec().into())
}

/// The details of a gRPC error.
pub fn details(status: &Status) -> Vec<Any> {
    rpc::Status::decode(status.details()).map(|full| full.details).unwrap_or_default()
}

/// The first detail of a type.
pub fn find<D: Detail>(status: &Status) -> Option<D> {
    details(status).iter().find_map(unpack)
}

impl Detail for Solve {
    const NAME: &'static str = "errdefs.Solve";

    /// Without the op, which is in the definition as well.
    fn from_json(value: &Value) -> Option<Self> {
        Some(json::to_solve(value))
    }
}

impl Detail for Frontend {
    const NAME: &'static str = "errdefs.Frontend";
}

impl Detail for CompatibilityFeature {
    const NAME: &'static str = "errdefs.CompatibilityFeature";
}

impl Detail for ProvenanceMaterialsIncomplete {
    const NAME: &'static str = "errdefs.ProvenanceMaterialsIncomplete";
}

impl Detail for Vertex {
    const NAME: &'static str = "errdefs.Vertex";

    fn to_json(&self) -> Option<Value> {
        Some(serde_json::json!({ "digest": self.digest }))
    }

    fn from_json(value: &Value) -> Option<Self> {
        let digest = value.get("digest")?.as_str()?.to_owned();
        Some(Self { digest })
    }
}

impl Detail for FrontendCap {
    const NAME: &'static str = "errdefs.FrontendCap";

    fn to_json(&self) -> Option<Value> {
        Some(serde_json::json!({ "name": self.name }))
    }

    fn from_json(value: &Value) -> Option<Self> {
        let name = value.get("name")?.as_str()?.to_owned();
        Some(Self { name })
    }
}

impl Detail for Subrequest {
    const NAME: &'static str = "errdefs.Subrequest";

    fn to_json(&self) -> Option<Value> {
        Some(serde_json::json!({ "name": self.name }))
    }

    fn from_json(value: &Value) -> Option<Self> {
        let name = value.get("name")?.as_str()?.to_owned();
        Some(Self { name })
    }
}

impl Detail for Source {
    const NAME: &'static str = "errdefs.Source";

    fn to_json(&self) -> Option<Value> {
        Some(json::from_source(self))
    }

    fn from_json(value: &Value) -> Option<Self> {
        Some(json::to_source(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errdefs::solve::Subject;
    use crate::errdefs::{ContentCache, FileAction};
    use crate::pb::{Position, Range, SourceInfo};

    fn source() -> Source {
        let position = |line, character| Some(Position { line, character });
        Source {
            info: Some(SourceInfo {
                filename: "Dockerfile".to_owned(),
                data: "FROM scratch\n".into(),
                definition: None,
                language: "Dockerfile".to_owned(),
            }),
            ranges: vec![Range { start: position(1, 0), end: position(1, 12) }],
        }
    }

    #[test]
    fn the_files_of_a_failed_step_are_read_from_buildkits_json() {
        let read = |json: &str| {
            let type_url = "github.com/moby/buildkit/errdefs.Solve+json".to_owned();
            unpack::<Solve>(&Any { type_url, value: json.as_bytes().to_vec() })
        };
        let solve = read(
            r#"{"inputIDs":["a",""],"mountIDs":["b"],"op":{"exec":{}},"file":{"index":"2"},
                "description":{"llb.customname":"x"}}"#,
        );
        let expected = Solve {
            input_ids: vec!["a".to_owned(), String::new()],
            mount_ids: vec!["b".to_owned()],
            op: None,
            subject: Some(Subject::File(FileAction { index: 2 })),
            description: [("llb.customname".to_owned(), "x".to_owned())].into(),
        };
        assert_eq!(solve, Some(expected));
        // A zero is not written.
        let first = Some(Subject::Cache(ContentCache { index: 0 }));
        let only = |subject| Some(Solve { subject, ..Solve::default() });
        assert_eq!(read(r#"{"cache":{}}"#), only(first));
        for json in ["{}", "[]", r#"{"inputIDs":"a","file":3,"cache":null}"#] {
            assert_eq!(read(json), only(None), "{json}");
        }
        assert_eq!(read("{"), None);
    }

    #[test]
    fn details_survive_the_wire() {
        let vertex = Vertex { digest: "sha256:1".to_owned() };
        let solve = Solve { input_ids: vec!["a".to_owned()], ..Solve::default() };
        let status =
            status(Code::Unknown, "it failed", vec![pack(&vertex), pack(&source()), pack(&solve)]);
        assert_eq!(find::<Vertex>(&status), Some(vertex));
        assert_eq!(find::<Source>(&status), Some(source()));
        assert_eq!(find::<Solve>(&status), Some(solve));
        assert_eq!(find::<Subrequest>(&status), None);
        assert_eq!(details(&status).len(), 3);
        assert!(details(&Status::unknown("no details")).is_empty());
    }

    #[test]
    fn a_source_has_the_json_that_other_programs_read() {
        let any = pack(&source());
        assert_eq!(any.type_url, "github.com/moby/buildkit/errdefs.Source+json");
        insta::assert_snapshot!(
            String::from_utf8(any.value).unwrap(),
            @r#"{"info":{"data":"RlJPTSBzY3JhdGNoCg==","filename":"Dockerfile","language":"Dockerfile"},"ranges":[{"end":{"character":12,"line":1},"start":{"character":0,"line":1}}]}"#
        );
    }

    #[test]
    fn json_of_another_shape_is_no_detail() {
        let any = |url: &str, value: &str| Any {
            type_url: url.to_owned(),
            value: value.as_bytes().to_vec(),
        };
        let url = "github.com/moby/buildkit/errdefs.Vertex+json";
        assert_eq!(unpack::<Vertex>(&any(url, "[")), None);
        assert_eq!(unpack::<Vertex>(&any(url, "{\"digest\":1}")), None);
        assert_eq!(unpack::<Vertex>(&any("errdefs.Vertex", "")), None);
        let url = "github.com/moby/buildkit/errdefs.Source+json";
        let sparse = unpack::<Source>(&any(url, "{\"ranges\":[{\"start\":{\"line\":3}}]}"));
        let line = sparse.unwrap().ranges[0].start.unwrap().line;
        assert_eq!(line, 3);
    }
}
