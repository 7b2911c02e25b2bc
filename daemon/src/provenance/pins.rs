//! What sources turned out to be.

use std::collections::HashMap;
use std::fmt::Display;

use parking_lot::Mutex;

use crate::graph::VertexDigest;

/// The digest or commit that each source had when it was loaded: of all that provenance tells, the
/// only thing that is not in the graph.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<HashMap<VertexDigest, String>>);

impl Pins {
    /// Notes what the source `vertex` is.
    pub(crate) fn note(&self, vertex: VertexDigest, pin: &dyn Display) {
        self.0.lock().insert(vertex, pin.to_string());
    }

    /// What the source `vertex` is; none if it was not loaded.
    pub(crate) fn get(&self, vertex: VertexDigest) -> Option<String> {
        self.0.lock().get(&vertex).cloned()
    }
}
