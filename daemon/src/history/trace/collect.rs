//! Spans that clients send while their builds are recorded.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use kiln_proto::trace::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use prost::Message as _;

use super::TraceContext;

/// Bytes of spans that are kept for one trace.
const MAX_BYTES: usize = 16 << 20;

/// The spans that arrived for one trace, shared by all its builds.
#[derive(Default)]
pub(crate) struct Collected(Mutex<Spans>);

#[derive(Default)]
struct Spans {
    groups: Vec<ResourceSpans>,
    bytes: usize,
}

/// The traces whose spans somebody wants. Spans of others are dropped.
#[derive(Default)]
pub(crate) struct Traces(Mutex<HashMap<[u8; 16], Weak<Collected>>>);

impl Traces {
    /// Collects the spans of a trace as long as what is returned is held.
    pub(in crate::history) fn collect(&self, context: &TraceContext) -> Arc<Collected> {
        let mut traces = self.0.lock();
        traces.retain(|_, collected| collected.strong_count() > 0);
        if let Some(collected) = traces.get(&context.trace).and_then(Weak::upgrade) {
            return collected;
        }
        let collected = Arc::new(Collected::default());
        traces.insert(context.trace, Arc::downgrade(&collected));
        collected
    }

    /// Takes spans; returns how many there was no room for.
    pub(crate) fn add(&self, groups: Vec<ResourceSpans>) -> usize {
        let mut refused = 0;
        for ResourceSpans { resource, scope_spans, schema_url } in groups {
            for ScopeSpans { scope, spans, schema_url: scope_url } in scope_spans {
                for (trace, spans) in by_trace(spans) {
                    let collected = self.0.lock().get(&trace).and_then(Weak::upgrade);
                    let Some(collected) = collected else { continue };
                    let count = spans.len();
                    let group =
                        ScopeSpans { scope: scope.clone(), spans, schema_url: scope_url.clone() };
                    let fits = collected.add(ResourceSpans {
                        resource: resource.clone(),
                        scope_spans: vec![group],
                        schema_url: schema_url.clone(),
                    });
                    refused += if fits { 0 } else { count };
                }
            }
        }
        refused
    }
}

fn by_trace(spans: Vec<Span>) -> HashMap<[u8; 16], Vec<Span>> {
    let mut traces: HashMap<_, Vec<Span>> = HashMap::new();
    for span in spans {
        if let Ok(trace) = <[u8; 16]>::try_from(&*span.trace_id) {
            traces.entry(trace).or_default().push(span);
        }
    }
    traces
}

impl Collected {
    /// What has arrived.
    pub(in crate::history) fn spans(&self) -> Vec<ResourceSpans> {
        self.0.lock().groups.clone()
    }

    fn add(&self, group: ResourceSpans) -> bool {
        let mut spans = self.0.lock();
        let bytes = spans.bytes + group.encoded_len();
        if bytes > MAX_BYTES {
            return false;
        }
        spans.bytes = bytes;
        spans.groups.push(group);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(trace: &TraceContext, name: &str) -> Vec<ResourceSpans> {
        let span = Span {
            trace_id: trace.trace.to_vec().into(),
            name: name.to_owned(),
            ..Span::default()
        };
        let group = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
        vec![ResourceSpans { scope_spans: vec![group], ..ResourceSpans::default() }]
    }

    #[test]
    fn spans_are_kept_for_the_builds_of_their_trace_only() {
        let traces = Traces::default();
        let (mine, other) = (TraceContext::new("a"), TraceContext::new("b"));
        let (one, two) = (traces.collect(&mine), traces.collect(&mine));
        assert_eq!(traces.add(sent(&mine, "x")), 0);
        assert_eq!(traces.add(sent(&other, "y")), 0);
        for collected in [&one, &two] {
            assert_eq!(collected.spans(), sent(&mine, "x"));
        }
        drop((one, two));
        assert!(traces.collect(&mine).spans().is_empty());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let traces = Traces::default();
        let trace = TraceContext::new("a");
        let collected = traces.collect(&trace);
        assert_eq!(traces.add(sent(&trace, &"x".repeat(MAX_BYTES))), 1);
        assert_eq!(traces.add(sent(&trace, "small")), 0);
        assert_eq!(collected.spans().len(), 1);
    }
}
