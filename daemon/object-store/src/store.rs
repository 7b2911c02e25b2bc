//! What all stores do.

use std::path::Path;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::azure::Azure;
use crate::error::Error;
use crate::github::Github;
use crate::s3::S3;

/// An index larger than this is refused.
pub const MAX_INDEX: u64 = 256 << 20;

/// A blob on its way here.
pub type BlobReader = Box<dyn AsyncRead + Send + Unpin>;

/// A blob by its name in a store.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// Its digest, as it is written: `sha256:…`.
    pub digest: &'a str,
    /// Its size in bytes.
    pub size: u64,
}

/// A cache in an object store.
#[derive(Debug)]
pub enum Store {
    /// In a bucket.
    S3(S3),
    /// In a container of a storage account.
    Azure(Azure),
    /// In the cache of a repository's workflows.
    Github(Github),
}

impl Store {
    /// Where its blobs are, without any credential. Stores with the same place have the same blobs.
    pub fn place(&self) -> String {
        match self {
            Self::S3(store) => store.place(),
            Self::Azure(store) => store.place(),
            Self::Github(store) => store.place(),
        }
    }

    /// Where its index is, for users to read.
    pub fn title(&self) -> String {
        match self {
            Self::S3(store) => store.title(),
            Self::Azure(store) => store.title(),
            Self::Github(store) => store.title(),
        }
    }

    /// How it is called in front of users.
    pub fn service(&self) -> &'static str {
        match self {
            Self::S3(_) => "Amazon S3",
            Self::Azure(_) => "Azure Blob Storage",
            Self::Github(_) => "GitHub Actions Cache",
        }
    }

    /// The indexes that are there, none if nothing was ever stored.
    ///
    /// # Errors
    /// Among others [`Error::TooLarge`] above [`MAX_INDEX`].
    pub async fn indexes(&self) -> Result<Vec<Bytes>, Error> {
        match self {
            Self::S3(store) => Ok(store.index().await?.into_iter().collect()),
            Self::Azure(store) => store.indexes().await,
            Self::Github(store) => store.indexes().await,
        }
    }

    /// Stores an index in place of those that are there.
    pub async fn save_index(&self, json: Bytes) -> Result<(), Error> {
        match self {
            Self::S3(store) => store.save_index(json).await,
            Self::Azure(store) => store.save_index(json).await,
            Self::Github(store) => store.save_index(json).await,
        }
    }

    /// Whether a blob is there. One that was stored long ago is kept from expiring.
    pub async fn has_blob(&self, blob: Blob<'_>) -> Result<bool, Error> {
        match self {
            Self::S3(store) => store.has_blob(blob).await,
            Self::Azure(store) => store.has_blob(blob).await,
            Self::Github(store) => store.has_blob(blob).await,
        }
    }

    /// A blob's bytes, exactly as many as it should have. Their digest is not checked.
    pub async fn blob(&self, blob: Blob<'_>) -> Result<BlobReader, Error> {
        match self {
            Self::S3(store) => store.blob(blob).await,
            Self::Azure(store) => store.blob(blob).await,
            Self::Github(store) => store.blob(blob).await,
        }
    }

    /// Stores a blob, whose content is in the file at `path`.
    pub async fn save_blob(&self, blob: Blob<'_>, path: &Path) -> Result<(), Error> {
        match self {
            Self::S3(store) => store.save_blob(blob, path).await,
            Self::Azure(store) => store.save_blob(blob, path).await,
            Self::Github(store) => store.save_blob(blob, path).await,
        }
    }
}
