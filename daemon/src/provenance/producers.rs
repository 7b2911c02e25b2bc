//! Which request made a graph that one is handed as an input.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::request::RequestProvenance;
use super::sources::Sources;
use crate::frontend::{Assignment, Ref};
use crate::graph::{Edge, VertexDigest};

/// Requests whose answers clients were told of, by the answers' vertices. A client that hands such
/// an answer to another frontend, maybe in another build, sends a graph that does not say where it
/// is from. An answer is known as long as the build that it was given in.
#[derive(Debug, Default)]
pub(crate) struct Producers(Mutex<HashMap<VertexDigest, Vec<Weak<Assignment>>>>);

impl Producers {
    /// Notes an answer that a client is told of.
    pub(crate) fn note(&self, answer: &Ref) {
        if answer.work.request().is_none() {
            return;
        }
        let mut producers = self.0.lock();
        producers.retain(|_, known| {
            known.retain(|known| known.strong_count() > 0);
            !known.is_empty()
        });
        let producer = Arc::downgrade(&answer.work);
        producers.entry(answer.edge.vertex.digest()).or_default().push(producer);
    }

    /// The request that made `input`; none if that is not known, or if there are different ones.
    pub(super) fn of(&self, input: &Edge) -> Option<RequestProvenance> {
        let known: Vec<Arc<Assignment>> = {
            let producers = self.0.lock();
            let known = producers.get(&input.vertex.digest())?;
            known.iter().filter_map(Weak::upgrade).collect()
        };
        let mut requests = known.iter().filter_map(|work| {
            // What its context was is told by its own provenance, if it has one.
            Some(RequestProvenance::new(work.request()?, &Sources::default(), self))
        });
        let first = requests.next()?;
        requests.all(|other| other == first).then_some(first)
    }
}
