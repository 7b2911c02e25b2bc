//! Caches outside the daemon: imported to be looked up, exported after a build.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_cache::{CacheKey, Hit, Record};
use kiln_proto::control::CacheOptionsEntry;

use crate::frontend::Refs;
use crate::solver::{Build, SolveError};

/// Caches that a client named, in its order.
pub(crate) struct Imports {
    caches: Vec<Arc<ImportedCache>>,
}

/// One imported cache; empty until it was loaded.
pub(crate) struct ImportedCache {}

impl Imports {
    pub(crate) fn parse(
        entries: &[CacheOptionsEntry],
        _frontend: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(entries.is_empty(), "cache imports are not supported yet");
        Ok(Self { caches: Vec::new() })
    }

    pub(crate) fn caches(&self) -> Vec<Arc<ImportedCache>> {
        self.caches.clone()
    }

    pub(crate) async fn load(&self, _build: &Arc<Build>) {}
}

impl ImportedCache {
    pub(crate) fn lookup(&self, _: &Build, _: CacheKey) -> anyhow::Result<Option<Hit<Record>>> {
        Ok(None)
    }
}

pub(crate) async fn export(
    _build: &Arc<Build>,
    _entries: &[CacheOptionsEntry],
    _refs: &Refs,
) -> Result<HashMap<String, String>, SolveError> {
    Ok(HashMap::new())
}
