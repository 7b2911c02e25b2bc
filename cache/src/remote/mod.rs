//! Caches on other machines, as data: BuildKit's cache manifest, written and read.
//!
//! A cache is a **config** (`application/vnd.buildkit.cacheconfig.v0`), which holds records and how
//! they are linked, and a **manifest**, which holds the descriptors of the layer blobs and of the
//! config. Neither is fetched or pushed here.
//!
//! A record of the config has a digest, which stands for an op and an output, and links to records
//! that are its inputs; a record without links is a key in itself. Keys are therefore not in the
//! config: they are computed from it, by the same function that the solver uses. Of several links of
//! one input, which are alternatives, the first is the one that keys of dependants are made from.
//! BuildKit attaches no meaning to that order.
//!
//! The cache of an image may also be in the image's own config, as records alone.

mod config;
mod export;
mod import;
mod inline;
mod manifest;

#[cfg(test)]
mod tests;

pub use config::{
    CONFIG_MEDIA_TYPE, CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult,
    ChainedResult, LayerAnnotations,
};
pub use export::{ExportGraph, ExportRecord, Exported};
pub use import::{ImportError, ImportedCache, ImportedHit};
pub use inline::INLINE_CACHE;
pub use manifest::{CacheManifest, ManifestFormat};
