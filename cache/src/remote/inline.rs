//! Caches in the configs of images: the records alone, for the image has the layers.

use super::config::{CacheConfig, CacheLayer, CacheRecord, CacheResult, ChainedResult};
use super::export::Exported;
use super::import::{ImportError, ImportedCache};
use crate::{descriptor::Descriptor, digest::Digest};

/// The member of an image's config that holds the image's cache: records as JSON, in base64.
pub const INLINE_CACHE: &str = "moby.buildkit.cache.v0";

impl Exported {
    /// The records for an image of `layers`, bottom first; none if the image has no result of theirs.
    ///
    /// Results refer to layers of the image: a lower part of it by its uppermost layer, any others
    /// one by one.
    pub fn inline(self, layers: &[Digest]) -> Option<Vec<CacheRecord>> {
        let CacheConfig { layers: known, mut records } = self.config;
        let mut has_results = false;
        for record in &mut records {
            let results = std::mem::take(&mut record.results);
            for CacheResult { layer_index, created_at } in results {
                let blobs = chain(&known, layer_index);
                let last = i64::try_from(blobs.len()).ok()? - 1;
                if layers.starts_with(&blobs) && last >= 0 {
                    record.results.push(CacheResult { layer_index: last, created_at });
                } else if let Some(layer_indexes) = positions(&blobs, layers) {
                    record.chains.push(ChainedResult { layer_indexes, created_at });
                }
            }
            has_results |= !record.results.is_empty() || !record.chains.is_empty();
        }
        has_results.then_some(records)
    }
}

/// The blobs of a layer and all below it, bottom first.
fn chain(layers: &[CacheLayer], top: i64) -> Vec<Digest> {
    let at = |position: i64| layers.get(usize::try_from(position).ok()?);
    let chain = std::iter::successors(at(top), |layer| at(layer.parent_index));
    let mut blobs: Vec<_> = chain.map(|layer| layer.blob).collect();
    blobs.reverse();
    blobs
}

fn positions(blobs: &[Digest], layers: &[Digest]) -> Option<Vec<i64>> {
    let position = |blob| layers.iter().position(|layer| layer == blob)?.try_into().ok();
    blobs.iter().map(position).collect()
}

impl ImportedCache {
    /// Reads the records in the config of an image of `layers`, bottom first.
    pub fn parse_inline(records: &[u8], layers: &[Descriptor]) -> Result<Self, ImportError> {
        let records = serde_json::from_slice(records)
            .map_err(|source| ImportError::Json { what: "list of records", source })?;
        let layer = |(position, blob): (i64, &Descriptor)| CacheLayer {
            blob: blob.digest,
            parent_index: position - 1,
            annotations: None,
        };
        let config = CacheConfig { layers: (0..).zip(layers).map(layer).collect(), records };
        Self::new(config, layers)
    }
}
