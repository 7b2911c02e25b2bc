//! Caches outside the daemon: imported to be looked up, exported after a build.
//!
//! What a cache *is* stands in [`kiln_cache::remote`]; here it is fetched from, and brought to, a
//! registry, a directory of the client or an object store. Images hold caches, too: in their configs.

mod export;
mod import;
mod inline;
mod object;
mod secrets;
mod upload;

pub(crate) use export::Exports;
pub(crate) use import::{ImportedCache, Imports, Wanted};
pub(crate) use inline::inline_cache;
pub(crate) use object::ObjectCache;
pub(crate) use secrets::hide_secrets;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_object_store::HttpClient;
use kiln_registry::ImageRef;

use crate::attributes::Attributes;

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Registry {
        image: ImageRef,
        /// Certificates are not verified, and plain HTTP is spoken if there is no TLS.
        is_insecure: bool,
    },
    /// A directory of the client, by its path there.
    Directory(String),
    /// An object store.
    Store(Arc<ObjectCache>),
}

impl Place {
    /// Reads the attributes that say where a cache of type `kind` is. `directory` is the one that
    /// names a directory.
    fn parse(
        kind: &str,
        attributes: &mut Attributes,
        directory: &str,
        http: &HttpClient,
    ) -> anyhow::Result<Self> {
        if let Some(cache) = ObjectCache::parse(kind, attributes, http)? {
            return Ok(Self::Store(Arc::new(cache)));
        }
        match kind {
            "registry" => {
                let reference = attributes.take("ref").unwrap_or_default();
                let image = reference
                    .parse::<ImageRef>()
                    .with_context(|| format!("registry cache: ref={reference:?}"))?;
                let is_insecure = attributes.flag("registry.insecure", false)?;
                Ok(Self::Registry { image, is_insecure })
            }
            "local" => {
                let path = attributes.take(directory).filter(|path| !path.is_empty());
                let path = path.with_context(|| format!("local cache: {directory} is missing"))?;
                Ok(Self::Directory(path))
            }
            other => bail!(
                "cache type {other:?} is not supported by this daemon: registry, local, s3, azblob, gha \
                 and, for exports, inline are"
            ),
        }
    }
}

/// The id of the content store by which a client serves a directory as a cache.
fn store_id(path: &str) -> String {
    format!("local:{path}")
}
