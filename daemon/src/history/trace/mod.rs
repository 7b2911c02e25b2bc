//! The trace of a build: spans that its client sends, and those of the daemon.
//!
//! The daemon's own are made from the build's progress when it has ended, so that a build takes no
//! time for them: one for the call, and below it one for each step.

mod collect;
mod context;
mod stub;

use kiln_proto::control::{BuildHistoryRecord, Vertex};
use kiln_proto::rpc;
use kiln_proto::trace::any_value::Value;
use kiln_proto::trace::span::SpanKind;
use kiln_proto::trace::span_status::StatusCode;
use kiln_proto::trace::{
    AnyValue, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, SpanStatus,
};
use prost_types::Timestamp;

use super::log::Log;

pub(super) use collect::{Collected, Traces};
pub(crate) use context::TraceContext;
pub(super) use stub::{MEDIA_TYPE, to_json};

/// The daemon's spans of a build that has ended.
pub(super) fn of_build(
    context: &TraceContext,
    record: &BuildHistoryRecord,
    log: &Log,
    error: Option<&rpc::Status>,
) -> ResourceSpans {
    let root = Span {
        trace_id: context.trace.to_vec().into(),
        span_id: context.span_id(&record.r#ref),
        parent_span_id: context.parent.map(|id| id.to_vec().into()).unwrap_or_default(),
        name: "moby.buildkit.v1.Control/Solve".to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(record.created_at),
        end_time_unix_nano: nanos(record.completed_at),
        attributes: vec![
            attribute("ref", Value::StringValue(record.r#ref.clone())),
            attribute("frontend", Value::StringValue(record.frontend.clone())),
        ],
        status: Some(status(error.map(|error| &*error.message))),
        flags: SAMPLED,
        ..Span::default()
    };
    let steps = log.vertices.values().filter(|vertex| vertex.started.is_some());
    let steps: Vec<Span> = steps.map(|vertex| of_step(&root, context, vertex)).collect();
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let service = Value::StringValue(env!("CARGO_PKG_NAME").to_owned());
    let spans = std::iter::once(root).chain(steps).collect();
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![attribute("service.name", service)],
            dropped_attributes_count: 0,
        }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
        schema_url: String::new(),
    }
}

fn of_step(root: &Span, context: &TraceContext, vertex: &Vertex) -> Span {
    Span {
        trace_id: root.trace_id.clone(),
        span_id: context.span_id(&vertex.digest),
        parent_span_id: root.span_id.clone(),
        name: vertex.name.clone(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanos(vertex.started),
        end_time_unix_nano: nanos(vertex.completed.or(vertex.started)),
        attributes: vec![
            attribute("vertex", Value::StringValue(vertex.digest.clone())),
            attribute("cached", Value::BoolValue(vertex.cached)),
        ],
        status: Some(status(Some(&*vertex.error).filter(|error| !error.is_empty()))),
        flags: SAMPLED,
        ..Span::default()
    }
}

/// The flag of a span that is recorded.
const SAMPLED: u32 = 1;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn status(error: Option<&str>) -> SpanStatus {
    let code = if error.is_some() { StatusCode::Error } else { StatusCode::Unset };
    SpanStatus { message: error.unwrap_or_default().to_owned(), code: code.into() }
}

fn nanos(time: Option<Timestamp>) -> u64 {
    let time = time.unwrap_or_default();
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Progress;

    #[tokio::test]
    async fn a_build_is_a_span_with_one_below_it_for_each_step() {
        let progress = Progress::new();
        progress.internal("a", "[internal] a").cached();
        progress.internal("b", "RUN false").complete(Some("exit code: 1"));
        progress.internal("c", "never begun");
        progress.close();
        let log = Log::of(progress.watch()).await;
        let context = TraceContext::new("ref");
        let record = BuildHistoryRecord { r#ref: "ref".to_owned(), ..Default::default() };
        let error = rpc::Status { message: "failed".to_owned(), ..Default::default() };
        let spans = of_build(&context, &record, &log, Some(&error));
        let spans = &spans.scope_spans[0].spans;
        let failed = |span: &Span| span.status.as_ref().unwrap().message.clone();
        let mut steps: Vec<_> =
            spans[1..].iter().map(|span| (span.name.clone(), failed(span))).collect();
        steps.sort();
        let expected = [("RUN false", "exit code: 1"), ("[internal] a", "")];
        assert_eq!(steps, expected.map(|(name, error)| (name.to_owned(), error.to_owned())));
        assert_eq!(failed(&spans[0]), "failed");
        assert!(spans[1..].iter().all(|span| span.parent_span_id == spans[0].span_id));
    }
}
