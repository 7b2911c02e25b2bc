//! Data that a disk has changed: it is noticed where it leaves the daemon, dropped, and made again.

use std::fs::File;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{ContentError, ContentStore, Digest, Index, LayerId};

/// Something is not on the disk as it was written there. It is no hit any more, so that the build
/// may be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damaged {
    #[error("blob {0} is not as it was written to the disk, and was dropped")]
    Blob(Digest),
    #[error("the copy of {0} is not as git wrote it to the disk, and was dropped")]
    Repository(String),
    #[error("layer {0} is not as it was written to the disk, and is not used any more")]
    Layer(LayerId),
}

/// Opens a blob whose content is what its name says. Any other is dropped.
pub(crate) async fn open_blob(
    index: &Arc<Index>,
    content: &Arc<ContentStore>,
    digest: Digest,
) -> anyhow::Result<File> {
    let (index, content) = (index.clone(), content.clone());
    let open = move || or_drop(&index, &content, &digest, content.open_sound(&digest));
    tokio::task::spawn_blocking(open).await?
}

/// Reads a blob of at most `limit` bytes whose content is what its name says. Any other is dropped.
pub(crate) fn read_blob(
    index: &Index,
    content: &ContentStore,
    digest: &Digest,
    limit: u64,
) -> anyhow::Result<Vec<u8>> {
    or_drop(index, content, digest, content.read(digest, limit))
}

fn or_drop<T>(
    index: &Index,
    content: &ContentStore,
    digest: &Digest,
    got: Result<T, ContentError>,
) -> anyhow::Result<T> {
    let error = match got {
        Ok(got) => return Ok(got),
        Err(error) if error.is_of_blob() => error,
        Err(error) => return Err(error.into()),
    };
    tracing::warn!(%digest, "{error}: dropped");
    index.drop_blob(content, digest)?;
    Err(error).context(Damaged::Blob(*digest))
}
