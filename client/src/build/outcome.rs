//! What is known of a result, written down where the user wants it.

use super::solve::Response;
use crate::args::boolean;
use crate::progress::warning_json;
use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::control::VertexWarning;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// The image's id: its configuration's digest, or that of its manifest where there is no other.
pub(super) fn image_id(response: &Response) -> &str {
    response
        .get("containerimage.config.digest")
        .or_else(|| response.get("containerimage.digest"))
        .map(String::as_str)
        .unwrap_or_default()
}

/// Whether the metadata file is to have the build's warnings, which have the whole Dockerfile with
/// each of them.
pub(super) fn wants_warnings(env: impl Fn(&str) -> Option<String>) -> bool {
    env("BUILDX_METADATA_WARNINGS").is_some_and(|text| boolean::holds(&text))
}

/// The metadata file's content: values that hold JSON are given as such.
pub(super) fn metadata(response: &Response, build: &str, warnings: &[VertexWarning]) -> Value {
    let mut metadata: Map<String, Value> =
        response.iter().map(|(key, value)| (key.clone(), decode(key, value))).collect();
    metadata.insert("buildx.build.ref".to_owned(), json!(format!("kiln/kiln/{build}")));
    if !warnings.is_empty() {
        let warnings = warnings.iter().map(warning_json).collect();
        metadata.insert("buildx.build.warnings".to_owned(), Value::Array(warnings));
    }
    Value::Object(metadata)
}

fn decode(key: &str, value: &str) -> Value {
    let json = if key == "result.json" {
        Some(value.as_bytes().to_vec())
    } else {
        STANDARD.decode(value).ok()
    };
    let parsed: Option<Value> = json.and_then(|json| serde_json::from_slice(&json).ok());
    match parsed {
        Some(Value::Object(object)) if !object.is_empty() => Value::Object(object),
        Some(Value::Array(array)) if !array.is_empty() && array.iter().all(Value::is_object) => {
            Value::Array(array)
        }
        _ => json!(value),
    }
}

/// Writes a file whole or not at all.
pub(super) fn write_metadata(path: &Path, metadata: &Value) -> Result<()> {
    let write = || {
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(directory.unwrap_or(Path::new(".")))?;
        serde_json::to_writer_pretty(&mut file, metadata)?;
        file.flush()?;
        file.persist(path)?;
        Ok::<(), anyhow::Error>(())
    };
    write().with_context(|| format!("--metadata-file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_hold_json_are_given_as_such() {
        let response = Response::from([
            ("containerimage.digest".to_owned(), "sha256:aa".to_owned()),
            ("containerimage.descriptor".to_owned(), STANDARD.encode(r#"{"size":1}"#)),
            ("image.name".to_owned(), "abcd".to_owned()),
        ]);
        insta::assert_snapshot!(metadata(&response, "r", &[]), @r#"{"buildx.build.ref":"kiln/kiln/r","containerimage.descriptor":{"size":1},"containerimage.digest":"sha256:aa","image.name":"abcd"}"#);
        assert_eq!(image_id(&response), "sha256:aa");
    }
}
