//! From records to a cache config.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use super::config::{
    CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, LayerAnnotations,
};
use crate::{
    descriptor::Descriptor,
    digest::Digest,
    index::Record,
    key::{CacheKey, Link, OutputDigest},
};

/// The records that an export holds: those of some results, and all that they are linked to.
///
/// Collect it first; have blobs made for the results that are to be exported (all of them for
/// `mode=max`, those that were asked for with `mode=min`); then [export](ExportGraph::export) it
/// with the blobs. The same records and blobs always make the same config.
#[derive(Clone, Debug)]
pub struct ExportGraph {
    /// Inputs come before what they are linked from, as far as there are no circles.
    records: Vec<ExportRecord>,
}

/// A record as far as others are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRecord {
    /// The primary key.
    pub(super) key: CacheKey,
    /// The op and its output.
    pub(super) digest: OutputDigest,
    /// For each input, the links under which it is known.
    pub(super) inputs: Vec<Vec<Link>>,
    /// When its result was made, if it has one.
    pub(super) created_at: SystemTime,
}

impl From<Record> for ExportRecord {
    fn from(record: Record) -> Self {
        Self {
            key: record.key,
            digest: OutputDigest::new(&record.op, i64::from(record.output)),
            inputs: record.inputs,
            created_at: record.created_at,
        }
    }
}

/// A config, and the blobs that it refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// The config.
    pub config: CacheConfig,
    /// Each blob once, in the order of the config.
    pub blobs: Vec<Descriptor>,
}

impl ExportGraph {
    /// Follows the links of the records under `keys`.
    ///
    /// # Errors
    /// The first error of `find`.
    pub fn collect<E>(
        keys: &[CacheKey],
        mut find: impl FnMut(&CacheKey) -> Result<Option<ExportRecord>, E>,
    ) -> Result<Self, E> {
        enum Visit {
            Enter(CacheKey),
            Leave(Box<ExportRecord>),
        }
        // The order of the keys must not show.
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        let mut entered = HashSet::new();
        let mut records = Vec::new();
        let mut visits: Vec<_> = keys.into_iter().rev().map(Visit::Enter).collect();
        while let Some(visit) = visits.pop() {
            match visit {
                Visit::Leave(record) => records.push(*record),
                Visit::Enter(key) => {
                    let Some(record) = find(&key)? else { continue };
                    if !entered.insert(record.key) {
                        continue;
                    }
                    let record = Box::new(record);
                    let links: Vec<_> =
                        record.inputs.iter().flatten().map(|link| link.key).collect();
                    visits.push(Visit::Leave(record));
                    visits.extend(links.into_iter().rev().map(Visit::Enter));
                }
            }
        }
        Ok(Self { records })
    }

    /// Makes the config. `chains` holds, by the primary key of a record, the blobs of its result,
    /// bottom first, for those records whose results are to be exported.
    pub fn export(&self, chains: &HashMap<CacheKey, Vec<Descriptor>>) -> Exported {
        let mut export = Export::default();
        for record in &self.records {
            export.add(record, chains.get(&record.key).map_or(&[], Vec::as_slice));
        }
        Exported { config: export.config, blobs: export.blobs }
    }
}

impl Exported {
    /// Gives the config what a manifest would say of its layers, for backends without manifests.
    pub fn annotate(&mut self) {
        let blobs: HashMap<_, _> = self.blobs.iter().map(|blob| (blob.digest, blob)).collect();
        for layer in &mut self.config.layers {
            let Some(blob) = blobs.get(&layer.blob) else { continue };
            layer.annotations = Some(LayerAnnotations {
                media_type: blob.media_type.clone(),
                diff_id: blob.diff_id().map(|diff_id| *diff_id.digest()),
                size: i64::try_from(blob.size).unwrap_or(i64::MAX),
                created_at: blob.created_at().unwrap_or(time::OffsetDateTime::UNIX_EPOCH),
            });
        }
    }
}

#[derive(Default)]
struct Export {
    config: CacheConfig,
    blobs: Vec<Descriptor>,
    known_blobs: HashSet<Digest>,
    /// Positions of layers by their blob and the position of what is below.
    layers: HashMap<(Digest, i64), i64>,
    /// Positions of records whose inputs are in the config, by primary key.
    records: HashMap<CacheKey, i64>,
    /// Positions of records that are only a key.
    bare: HashMap<CacheKey, i64>,
}

impl Export {
    /// Adds a record as what it was made of, never as its key: whoever imports it computes the key
    /// anew, and gets the usual one where this one was changed to keep a step from being found.
    fn add(&mut self, record: &ExportRecord, blobs: &[Descriptor]) {
        let results = self.result(blobs, record.created_at).into_iter().collect();
        let inputs = record
            .inputs
            .iter()
            .map(|links| links.iter().map(|link| self.link(link)).collect())
            .collect();
        let position = self.config.records.len() as i64;
        let digest = record.digest.0;
        self.config.records.push(CacheRecord { results, chains: Vec::new(), digest, inputs });
        self.records.insert(record.key, position);
    }

    /// A link to what its key leads to. A key that is not the primary one of a record before, be it
    /// content or not, is linked to as itself, so that the importer computes the same key.
    fn link(&mut self, link: &Link) -> CacheInput {
        let known = self.records.get(&link.key).copied();
        let link_index = known.unwrap_or_else(|| self.bare(link.key));
        CacheInput { selector: link.selector.as_str().to_owned(), link_index }
    }

    fn bare(&mut self, key: CacheKey) -> i64 {
        let records = &mut self.config.records;
        *self.bare.entry(key).or_insert_with(|| {
            records.push(CacheRecord {
                results: Vec::new(),
                chains: Vec::new(),
                digest: *key.digest(),
                inputs: Vec::new(),
            });
            records.len() as i64 - 1
        })
    }

    fn result(&mut self, blobs: &[Descriptor], created_at: SystemTime) -> Option<CacheResult> {
        let mut position = -1;
        for blob in blobs {
            let layers = &mut self.config.layers;
            position = *self.layers.entry((blob.digest, position)).or_insert_with(|| {
                let layer =
                    CacheLayer { blob: blob.digest, parent_index: position, annotations: None };
                layers.push(layer);
                layers.len() as i64 - 1
            });
            if self.known_blobs.insert(blob.digest) {
                self.blobs.push(blob.clone());
            }
        }
        (position >= 0)
            .then(|| CacheResult { layer_index: position, created_at: created_at.into() })
    }
}
