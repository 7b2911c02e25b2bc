//! Caches that were exported elsewhere.

use kiln_cache::remote::ImportedCache;
use kiln_cache::{Descriptor, Digest};

/// The config of an exported cache; its manifest has two layers.
pub fn cache_config(data: &[u8]) {
    let blobs = ["a", "b"].map(|content| Descriptor::new("layer", Digest::of(content), 1));
    match ImportedCache::parse(data, &blobs) {
        Ok(cache) => {
            for key in cache.keys().copied().collect::<Vec<_>>() {
                let _ = (cache.lookup(&[key]), cache.primary(&key));
            }
        }
        Err(error) => drop(error.to_string()),
    }
}
