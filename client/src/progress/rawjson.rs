//! Progress as JSON, one event a line, in the form that BuildKit's clients write.

use super::time::Time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use kiln_proto::kiln::{Difference, FileDifference, Miss, StepUsage};
use kiln_proto::pb::Range;
use prost_types::Timestamp;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Writes one event.
pub(crate) fn write(status: &StatusResponse, out: &mut impl Write) -> io::Result<()> {
    let mut line = Object::default();
    line.list("vertexes", status.vertexes.iter().map(vertex));
    line.list("statuses", status.statuses.iter().map(part));
    line.list("logs", status.logs.iter().map(log));
    line.list("warnings", status.warnings.iter().map(warning));
    line.list("misses", status.misses.iter().map(miss));
    line.list("usages", status.usages.iter().map(usage));
    let mut text = line.into_value().to_string();
    text.push('\n');
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn vertex(vertex: &Vertex) -> Value {
    let mut object = Object::default();
    object.text("digest", &vertex.digest);
    object.list("inputs", vertex.inputs.iter().map(|input| json!(input)));
    object.text("name", &vertex.name);
    object.time("started", vertex.started.as_ref());
    object.time("completed", vertex.completed.as_ref());
    object.flag("cached", vertex.cached);
    object.text("error", &vertex.error);
    if let Some(group) = &vertex.progress_group {
        let mut inner = Object::default();
        inner.text("id", &group.id);
        inner.text("name", &group.name);
        inner.flag("weak", group.weak);
        object.put("progressGroup", inner.into_value());
    }
    object.into_value()
}

fn part(part: &VertexStatus) -> Value {
    let mut object = Object::default();
    object.put("id", json!(part.id));
    object.text("vertex", &part.vertex);
    object.text("name", &part.name);
    object.number("total", part.total);
    object.put("current", json!(part.current));
    object.put("timestamp", moment(part.timestamp.as_ref()));
    object.time("started", part.started.as_ref());
    object.time("completed", part.completed.as_ref());
    object.into_value()
}

fn log(log: &VertexLog) -> Value {
    let mut object = Object::default();
    object.text("vertex", &log.vertex);
    object.number("stream", log.stream);
    object.put("data", json!(STANDARD.encode(&log.msg)));
    object.put("timestamp", moment(log.timestamp.as_ref()));
    object.into_value()
}

/// Why a step is run: what Kiln's daemon alone says.
fn miss(miss: &Miss) -> Value {
    let mut object = Object::default();
    object.text("vertex", &miss.vertex);
    object.put("reason", json!(word(miss.reason().as_str_name())));
    if let Some(earlier) = &miss.earlier {
        let mut inner = Object::default();
        inner.text("key", &earlier.key);
        inner.text("name", &earlier.name);
        inner.time("createdAt", earlier.created_at.as_ref());
        object.put("earlier", inner.into_value());
    }
    object.list("differences", miss.differences.iter().map(difference));
    object.into_value()
}

fn difference(difference: &Difference) -> Value {
    let mut object = Object::default();
    object.text("part", &difference.part);
    for (key, value) in [("before", &difference.before), ("now", &difference.now)] {
        if let Some(value) = value {
            object.put(key, json!(value));
        }
    }
    object.text("vertex", &difference.vertex);
    let file = |file: &FileDifference| json!({ "path": file.path, "change": word(file.change().as_str_name()) });
    object.list("files", difference.files.iter().map(file));
    object.number("fileCount", difference.file_count);
    object.into_value()
}

/// What a step used, in nanoseconds and bytes: what Kiln's daemon alone says.
fn usage(usage: &StepUsage) -> Value {
    json!({
        "vertex": usage.vertex,
        "wall": usage.wall,
        "cpuUser": usage.cpu_user,
        "cpuSystem": usage.cpu_system,
        "peakMemory": usage.peak_memory,
        "ioRead": usage.io_read,
        "ioWrite": usage.io_write,
    })
}

/// The last word of a constant's name.
fn word(name: &str) -> String {
    name.rsplit('_').next().unwrap_or_default().to_lowercase()
}

/// A warning, as it also stands in metadata files.
pub(crate) fn warning(warning: &VertexWarning) -> Value {
    let mut object = Object::default();
    object.text("vertex", &warning.vertex);
    object.number("level", warning.level);
    object.text("short", &STANDARD.encode(&warning.short));
    object.list("detail", warning.detail.iter().map(|line| json!(STANDARD.encode(line))));
    object.text("url", &warning.url);
    if let Some(info) = &warning.info {
        let mut inner = Object::default();
        inner.text("filename", &info.filename);
        inner.text("data", &STANDARD.encode(&info.data));
        inner.text("language", &info.language);
        object.put("sourceInfo", inner.into_value());
    }
    object.list("range", warning.ranges.iter().map(range));
    object.into_value()
}

fn range(range: &Range) -> Value {
    let position = |position: &Option<kiln_proto::pb::Position>| {
        let mut object = Object::default();
        let position = position.unwrap_or_default();
        object.number("line", position.line.into());
        object.number("character", position.character.into());
        object.into_value()
    };
    json!({ "start": position(&range.start), "end": position(&range.end) })
}

fn moment(timestamp: Option<&Timestamp>) -> Value {
    json!(Time::from(timestamp.unwrap_or(&Timestamp::default())).rfc3339())
}

/// An object whose members are left out where they are empty.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.put(key, json!(value));
        }
    }

    fn number(&mut self, key: &str, value: i64) {
        if value != 0 {
            self.put(key, json!(value));
        }
    }

    fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.put(key, json!(true));
        }
    }

    fn time(&mut self, key: &str, value: Option<&Timestamp>) {
        if value.is_some() {
            self.put(key, moment(value));
        }
    }

    fn list(&mut self, key: &str, values: impl Iterator<Item = Value>) {
        let values: Vec<Value> = values.collect();
        if !values.is_empty() {
            self.put(key, Value::Array(values));
        }
    }

    fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}
