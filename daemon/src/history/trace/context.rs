//! Which trace a call belongs to (W3C Trace Context, "traceparent").

use std::time::SystemTime;

use bytes::Bytes;
use kiln_cache::Digest;
use tonic::metadata::MetadataMap;

/// The trace of a call, and the client's span that it is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(super) trace: [u8; 16],
    pub(super) parent: Option<[u8; 8]>,
}

impl TraceContext {
    /// A trace of its own for a call that belongs to none.
    pub(crate) fn new(call: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = Digest::of(format!("trace\0{call}\0{}", now.as_nanos()));
        Self { trace: first(&id), parent: None }
    }

    /// The trace that the metadata of a call names, or a new one.
    pub(crate) fn of(metadata: &MetadataMap, call: &str) -> Self {
        let named = metadata.get("traceparent").and_then(|value| Self::parse(value.to_str().ok()?));
        named.unwrap_or_else(|| Self::new(call))
    }

    /// Reads `00-<trace>-<span>-<flags>`. Ids of zeros name nothing.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = parts.next()?;
        let (trace, parent) = (parts.next()?, parts.next()?);
        parts.next().filter(|_| version.len() == 2 && version != "ff")?;
        let (mut context, mut span) = (Self { trace: [0; 16], parent: None }, [0; 8]);
        hex::decode_to_slice(trace, &mut context.trace).ok()?;
        hex::decode_to_slice(parent, &mut span).ok()?;
        context.parent = Some(span);
        (context.trace != [0; 16] && span != [0; 8]).then_some(context)
    }

    /// The id of a span of the daemon's within the trace, by a name that it alone has.
    pub(super) fn span_id(&self, name: &str) -> Bytes {
        let id = Digest::of([&self.trace[..], name.as_bytes()].concat());
        first::<8>(&id).to_vec().into()
    }
}

fn first<const N: usize>(digest: &Digest) -> [u8; N] {
    std::array::from_fn(|at| digest.as_bytes()[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_which_trace_it_belongs_to() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let context = TraceContext::parse(&format!("00-{id}-b7ad6b7169203331-01")).unwrap();
        assert_eq!(hex::encode(context.trace), id);
        assert_eq!(context.parent.map(hex::encode).as_deref(), Some("b7ad6b7169203331"));
        for text in [
            "",
            "00",
            "00-0-0-0",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
