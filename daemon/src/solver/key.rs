//! What a vertex's cache keys are made of.

use std::collections::BTreeMap;

use kiln_cache::Digest;

/// An op's own part of its keys, and how each of its inputs takes part.
#[derive(Debug)]
pub(crate) struct CacheMap {
    /// Digest of the op in canonical form: without what must not count (secrets, proxies, …).
    pub(crate) op: Digest,
    /// One for each input.
    pub(crate) deps: Vec<Dep>,
    /// How many outputs the op has.
    pub(crate) outputs: usize,
    /// The named parts that `op` was made of, for saying later why a step missed.
    pub(crate) parts: BTreeMap<String, String>,
}

impl CacheMap {
    /// Of a source, which has no inputs.
    pub(crate) fn of_source(op: Digest, name: String) -> Self {
        let parts = BTreeMap::from([("source".to_owned(), name)]);
        Self { op, deps: Vec::new(), outputs: 1, parts }
    }
}

/// How one input takes part in the key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dep {
    /// Distinguishes uses of the same input by path.
    pub(crate) selector: Option<Digest>,
    /// The files that matter, if not all of the input does: then their content may stand in for
    /// the input's key.
    pub(crate) content: Option<Vec<Selector>>,
}

/// Some paths of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selector {
    pub(crate) path: String,
    pub(crate) wildcard: bool,
    pub(crate) follow_links: bool,
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// Paths that have to exist.
    pub(crate) required: Vec<String>,
}
