//! Reads recorded builds.

use super::Time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use kiln_proto::pb::{Position, ProgressGroup, Range, SourceInfo};
use prost_types::Timestamp;
use serde_json::Value;

/// The events of a build, each with the time at which it came: that of its latest moment.
pub(super) struct Recording;

impl Recording {
    pub(super) fn read(events: &str) -> Vec<(StatusResponse, Time)> {
        let mut now = Time::from(&Timestamp::default());
        events
            .lines()
            .map(|line| {
                let event: Value = serde_json::from_str(line).unwrap();
                let status = status(&event);
                now = moments(&status).fold(now, Ord::max);
                (status, now)
            })
            .collect()
    }
}

fn moments(status: &StatusResponse) -> impl Iterator<Item = Time> {
    let vertexes = status.vertexes.iter().flat_map(|v| [&v.started, &v.completed]);
    let parts = status.statuses.iter().map(|part| &part.timestamp);
    let logs = status.logs.iter().map(|log| &log.timestamp);
    vertexes.chain(parts).chain(logs).flatten().map(Time::from)
}

fn status(event: &Value) -> StatusResponse {
    fn list<T>(event: &Value, key: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
        event[key].as_array().into_iter().flatten().map(read).collect()
    }
    StatusResponse {
        vertexes: list(event, "vertexes", |vertex| Vertex {
            digest: text(&vertex["digest"]),
            inputs: list(vertex, "inputs", text),
            name: text(&vertex["name"]),
            cached: vertex["cached"] == true,
            started: time(&vertex["started"]),
            completed: time(&vertex["completed"]),
            error: text(&vertex["error"]),
            progress_group: vertex["progressGroup"].as_object().map(|group| ProgressGroup {
                id: text(&group["id"]),
                name: group.get("name").map(text).unwrap_or_default(),
                weak: group.get("weak").is_some_and(|weak| weak == true),
            }),
        }),
        statuses: list(event, "statuses", |part| VertexStatus {
            id: text(&part["id"]),
            vertex: text(&part["vertex"]),
            name: text(&part["name"]),
            current: number(&part["current"]),
            total: number(&part["total"]),
            timestamp: time(&part["timestamp"]),
            started: time(&part["started"]),
            completed: time(&part["completed"]),
        }),
        logs: list(event, "logs", |log| VertexLog {
            vertex: text(&log["vertex"]),
            timestamp: time(&log["timestamp"]),
            stream: number(&log["stream"]),
            msg: data(&log["data"]),
        }),
        warnings: list(event, "warnings", |warning| VertexWarning {
            vertex: text(&warning["vertex"]),
            level: number(&warning["level"]),
            short: data(&warning["short"]),
            detail: list(warning, "detail", data),
            url: text(&warning["url"]),
            info: warning["sourceInfo"].as_object().map(|info| SourceInfo {
                filename: text(&info["filename"]),
                data: data(&info["data"]),
                language: info.get("language").map(text).unwrap_or_default(),
                definition: None,
            }),
            ranges: list(warning, "range", |range| Range {
                start: Some(position(&range["start"])),
                end: Some(position(&range["end"])),
            }),
        }),
        misses: Vec::new(),
        usages: Vec::new(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn data(value: &Value) -> bytes::Bytes {
    STANDARD.decode(text(value)).unwrap().into()
}

fn position(value: &Value) -> Position {
    Position { line: number(&value["line"]) as i32, character: number(&value["character"]) as i32 }
}

fn time(value: &Value) -> Option<Timestamp> {
    let format = &time::format_description::well_known::Rfc3339;
    let moment = time::OffsetDateTime::parse(value.as_str()?, format).unwrap();
    Some(Timestamp { seconds: moment.unix_timestamp(), nanos: moment.nanosecond() as i32 })
}
