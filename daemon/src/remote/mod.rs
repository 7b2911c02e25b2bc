//! Caches outside the daemon: imported to be looked up, exported after a build.
//!
//! What a cache *is* stands in [`kiln_cache::remote`]; here it is fetched from, and brought to, a
//! registry or a directory of the client. Images hold caches, too: in their configs.

mod export;
mod import;
mod inline;

pub(crate) use export::Exports;
pub(crate) use import::{ImportedCache, Imports, Wanted};
pub(crate) use inline::inline_cache;

use anyhow::{Context as _, bail};
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
}

impl Place {
    /// Reads the attributes that say where a cache of type `kind` is. `directory` is the one that
    /// names a directory.
    fn parse(kind: &str, attributes: &mut Attributes, directory: &str) -> anyhow::Result<Self> {
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
                "cache type {other:?} is not supported by this daemon: registry, local and, for exports, \
                 inline are"
            ),
        }
    }
}

/// The id of the content store by which a client serves a directory as a cache.
fn store_id(path: &str) -> String {
    format!("local:{path}")
}
