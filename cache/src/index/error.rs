//! What can go wrong with the index.

use std::{io, path::PathBuf};

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
    /// The database's files are not what was written to them, or some are missing.
    #[error("the index {} is damaged", path.display())]
    DatabaseDamaged {
        /// The index's directory.
        path: PathBuf,
        /// What shows it, if it was not found out by an earlier process.
        source: Option<rocksdb::Error>,
    },
    /// A damaged index could not be set aside.
    #[error("cannot set aside the damaged index {}", path.display())]
    SetAside {
        /// The index's directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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

impl IndexError {
    /// Whether the index cannot be used any more, and is to be [set aside](super::Index::set_aside).
    pub fn is_damage(&self) -> bool {
        match self {
            Self::DatabaseDamaged { .. } | Self::Damaged { .. } => true,
            Self::Database(source) => is_damage(source),
            _ => false,
        }
    }
}

/// Whether the database failed because its files are not what was written to them.
pub(super) fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => true,
        // There is no finer kind. A disk that gives nothing back has lost what it was given.
        rocksdb::ErrorKind::IOError => ["No such file or directory", "Input/output error"]
            .iter()
            .any(|reason| error.as_ref().contains(reason)),
        _ => false,
    }
}

/// The result of most of the index's methods.
pub(crate) type Result<T, E = IndexError> = std::result::Result<T, E>;
