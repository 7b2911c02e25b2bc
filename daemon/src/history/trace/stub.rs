//! Spans as the JSON in which BuildKit keeps a trace: one object after another, each what Go's
//! `encoding/json` makes of a `SpanStub` of OpenTelemetry's SDK.

use kiln_proto::trace::any_value::Value as Any;
use kiln_proto::trace::span::{Event, Link};
use kiln_proto::trace::span_status::StatusCode;
use kiln_proto::trace::{
    AnyValue, InstrumentationScope, KeyValue, ResourceSpans, ScopeSpans, Span, SpanStatus,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The media type of a trace.
pub(in crate::history) const MEDIA_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";

/// Writes all spans of `groups`.
pub(in crate::history) fn to_json(groups: impl Iterator<Item = ResourceSpans>) -> Vec<u8> {
    let mut text = Vec::new();
    for group in groups {
        let resource = attributes(&group.resource.unwrap_or_default().attributes);
        for ScopeSpans { scope, spans, schema_url } in &group.scope_spans {
            let scope = scope_of(scope.as_ref(), schema_url);
            for span in spans {
                // Neither the values nor a vector can fail.
                let _ = serde_json::to_writer(&mut text, &stub(span, &resource, &scope));
                text.push(b'\n');
            }
        }
    }
    text
}

fn stub(span: &Span, resource: &[Value], scope: &Value) -> Value {
    let id = |span_id: &[u8]| context(&span.trace_id, span_id, span.flags, &span.trace_state);
    json!({
        "Name": span.name,
        "SpanContext": id(&span.span_id),
        "Parent": id(&span.parent_span_id),
        "SpanKind": span.kind,
        "StartTime": time(span.start_time_unix_nano),
        "EndTime": time(span.end_time_unix_nano),
        "Attributes": attributes(&span.attributes),
        "Events": span.events.iter().map(event).collect::<Vec<_>>(),
        "Links": span.links.iter().map(link).collect::<Vec<_>>(),
        "Status": status(span.status.as_ref()),
        "DroppedAttributes": span.dropped_attributes_count,
        "DroppedEvents": span.dropped_events_count,
        "DroppedLinks": span.dropped_links_count,
        "ChildSpanCount": 0,
        "Resource": resource,
        "InstrumentationScope": scope,
        "InstrumentationLibrary": scope,
    })
}

fn scope_of(scope: Option<&InstrumentationScope>, schema_url: &str) -> Value {
    let scope = scope.cloned().unwrap_or_default();
    json!({ "Name": scope.name, "Version": scope.version, "SchemaURL": schema_url })
}

/// Ids have their full length even where there is none.
fn context(trace: &[u8], span: &[u8], flags: u32, state: &str) -> Value {
    let or_zeros = |id: &[u8], length| {
        if id.len() == length { hex::encode(id) } else { "0".repeat(2 * length) }
    };
    json!({
        "TraceID": or_zeros(trace, 16),
        "SpanID": or_zeros(span, 8),
        "TraceFlags": format!("{:02x}", flags & 0xff),
        "TraceState": state,
        "Remote": false,
    })
}

fn event(event: &Event) -> Value {
    json!({
        "Name": event.name,
        "Attributes": attributes(&event.attributes),
        "DroppedAttributeCount": event.dropped_attributes_count,
        "Time": time(event.time_unix_nano),
    })
}

fn link(link: &Link) -> Value {
    json!({
        "SpanContext": context(&link.trace_id, &link.span_id, link.flags, &link.trace_state),
        "Attributes": attributes(&link.attributes),
        "DroppedAttributeCount": link.dropped_attributes_count,
    })
}

fn status(status: Option<&SpanStatus>) -> Value {
    let code = match status.map(SpanStatus::code) {
        Some(StatusCode::Ok) => "Ok",
        Some(StatusCode::Error) => "Error",
        Some(StatusCode::Unset) | None => "Unset",
    };
    json!({ "Code": code, "Description": status.map_or("", |status| &*status.message) })
}

fn time(nanos: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos.into());
    let text = time.ok().and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// Attributes without a value say nothing, and readers do not take them.
fn attributes(attributes: &[KeyValue]) -> Vec<Value> {
    let attribute = |pair: &KeyValue| {
        let (kind, value) = typed(pair.value.as_ref()?.value.as_ref()?);
        Some(json!({ "Key": pair.key, "Value": { "Type": kind, "Value": value } }))
    };
    attributes.iter().filter_map(attribute).collect()
}

/// A value with the name that Go's SDK has for its type. What the SDK has no type for is text.
fn typed(value: &Any) -> (&'static str, Value) {
    match value {
        Any::StringValue(text) => ("STRING", json!(text)),
        Any::BoolValue(flag) => ("BOOL", json!(flag)),
        Any::IntValue(number) => ("INT64", json!(number)),
        Any::DoubleValue(number) if number.is_finite() => ("FLOAT64", json!(number)),
        Any::DoubleValue(number) => ("STRING", json!(number.to_string())),
        Any::ArrayValue(array) => {
            let texts: Vec<String> = array.values.iter().map(text).collect();
            ("STRINGSLICE", json!(texts))
        }
        Any::KvlistValue(list) => ("STRING", json!(json!(attributes(&list.values)).to_string())),
        Any::BytesValue(bytes) => ("STRING", json!(hex::encode(bytes))),
    }
}

fn text(value: &AnyValue) -> String {
    let Some(value) = &value.value else { return String::new() };
    match typed(value).1 {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::trace::{ArrayValue, Resource};

    use super::*;

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }

    #[test]
    fn a_span_reads_as_buildkit_keeps_it() {
        let strings =
            ["a", "b"].map(|text| AnyValue { value: Some(Any::StringValue(text.to_owned())) });
        let span = Span {
            trace_id: vec![1; 16].into(),
            span_id: vec![2; 8].into(),
            name: "step".to_owned(),
            kind: 1,
            start_time_unix_nano: 1_500_000_000,
            end_time_unix_nano: 2_000_000_000,
            attributes: vec![
                pair("cached", Any::BoolValue(true)),
                pair("args", Any::ArrayValue(ArrayValue { values: strings.into() })),
                KeyValue { key: "nothing".to_owned(), value: None },
            ],
            status: Some(SpanStatus { message: "bad".to_owned(), code: 2 }),
            flags: 0x101,
            ..Span::default()
        };
        let group = ResourceSpans {
            resource: Some(Resource {
                attributes: vec![pair("service.name", Any::StringValue("x".to_owned()))],
                dropped_attributes_count: 0,
            }),
            scope_spans: vec![ScopeSpans { spans: vec![span.clone(), span], ..Default::default() }],
            ..ResourceSpans::default()
        };
        let text = to_json(std::iter::once(group));
        let mut spans = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
        let first = spans.next().unwrap().unwrap();
        assert_eq!(spans.count(), 1);
        let scope = json!({ "Name": "", "Version": "", "SchemaURL": "" });
        let expected = json!({
            "Name": "step",
            "SpanContext": {
                "TraceID": "01010101010101010101010101010101",
                "SpanID": "0202020202020202",
                "TraceFlags": "01",
                "TraceState": "",
                "Remote": false,
            },
            "Parent": {
                "TraceID": "01010101010101010101010101010101",
                "SpanID": "0000000000000000",
                "TraceFlags": "01",
                "TraceState": "",
                "Remote": false,
            },
            "SpanKind": 1,
            "StartTime": "1970-01-01T00:00:01.5Z",
            "EndTime": "1970-01-01T00:00:02Z",
            "Attributes": [
                { "Key": "cached", "Value": { "Type": "BOOL", "Value": true } },
                { "Key": "args", "Value": { "Type": "STRINGSLICE", "Value": ["a", "b"] } },
            ],
            "Events": [],
            "Links": [],
            "Status": { "Code": "Error", "Description": "bad" },
            "DroppedAttributes": 0,
            "DroppedEvents": 0,
            "DroppedLinks": 0,
            "ChildSpanCount": 0,
            "Resource": [
                { "Key": "service.name", "Value": { "Type": "STRING", "Value": "x" } },
            ],
            "InstrumentationScope": scope,
            "InstrumentationLibrary": scope,
        });
        assert_eq!(first, expected);
    }
}
