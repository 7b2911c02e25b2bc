//! The JSON of places in source files, and of failed steps.

use crate::errdefs::solve::Subject;
use crate::errdefs::{ContentCache, FileAction, Solve, Source};
use crate::pb::{Position, Range, SourceInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub(super) fn from_source(source: &Source) -> Value {
    let position = |position: &Option<Position>| {
        let Position { line, character } = position.unwrap_or_default();
        json!({ "line": line, "character": character })
    };
    let ranges: Vec<Value> = source
        .ranges
        .iter()
        .map(|range| json!({ "start": position(&range.start), "end": position(&range.end) }))
        .collect();
    // The definition behind a source is of no use to who prints an excerpt of it.
    let info = source.info.as_ref().map(|info| {
        json!({
            "filename": info.filename,
            "data": STANDARD.encode(&info.data),
            "language": info.language,
        })
    });
    json!({ "info": info, "ranges": ranges })
}

pub(super) fn to_source(value: &Value) -> Source {
    let info = value.get("info").filter(|info| info.is_object());
    let ranges = value.get("ranges").and_then(Value::as_array);
    Source {
        info: info.map(|info| SourceInfo {
            filename: text(info, "filename"),
            data: STANDARD.decode(text(info, "data")).unwrap_or_default().into(),
            definition: None,
            language: text(info, "language"),
        }),
        ranges: ranges.into_iter().flatten().map(to_range).collect(),
    }
}

pub(super) fn to_solve(value: &Value) -> Solve {
    let strings = |name: &str| {
        let strings = value.get(name).and_then(Value::as_array).into_iter().flatten();
        strings.map(|string| string.as_str().unwrap_or_default().to_owned()).collect()
    };
    // 64 bits are more than a number of JSON is sure to have, so that they are text.
    let index = |name: &str| {
        let index = value.get(name).filter(|subject| subject.is_object())?;
        Some(text(index, "index").parse().unwrap_or_default())
    };
    let file = index("file").map(|index| Subject::File(FileAction { index }));
    let cache = || index("cache").map(|index| Subject::Cache(ContentCache { index }));
    let description = value.get("description").and_then(Value::as_object).into_iter().flatten();
    Solve {
        input_ids: strings("inputIDs"),
        mount_ids: strings("mountIDs"),
        op: None,
        subject: file.or_else(cache),
        description: description
            .map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()))
            .collect(),
    }
}

fn to_range(value: &Value) -> Range {
    let position = |name| {
        value.get(name).map(|position| Position {
            line: number(position, "line"),
            character: number(position, "character"),
        })
    };
    Range { start: position("start"), end: position("end") }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, name: &str) -> i32 {
    value
        .get(name)
        .and_then(Value::as_i64)
        .and_then(|number| i32::try_from(number).ok())
        .unwrap_or_default()
}
