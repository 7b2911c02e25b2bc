//! What can go wrong with the index.

use std::path::PathBuf;

use crate::{content::ContentError, digest::Digest, key::CacheKey, layer::LayerId};

/// What can go wrong with the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database could not be opened.
    #[error("cannot open the index {}", path.display())]
    Open {
        /// The index's directory.
        path: PathBuf,
        /// Why.
        source: rocksdb::Error,
    },
    /// A read or write failed.
    #[error("the index's database")]
    Database(#[from] rocksdb::Error),
    /// A newer Kiln wrote this index.
    #[error("the index {} has schema {found}, this version knows up to {known}", path.display())]
    NewerSchema {
        /// The index's directory.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this program reads.
        known: u32,
    },
    /// A row does not decode.
    #[error("a damaged row in {family} under {key}")]
    Damaged {
        /// The column family.
        family: &'static str,
        /// The row's key in hex.
        key: String,
    },
    /// A result names a layer that the index does not have (any more).
    #[error("{0:?} is not in the index")]
    NoLayer(LayerId),
    /// There is no record under a key.
    #[error("no cache record {0}")]
    NoRecord(CacheKey),
    /// A layer builds on one with a higher number.
    #[error("{layer:?} cannot build on {parent:?}, which is newer")]
    NewerParent {
        /// The layer.
        layer: LayerId,
        /// What it claims to build on.
        parent: LayerId,
    },
    /// A row refers to a blob that the index does not have.
    #[error("blob {0} is not in the index")]
    NoBlob(Digest),
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// The result of most of the index's methods.
pub(crate) type Result<T, E = IndexError> = std::result::Result<T, E>;
