//! Where an image's blobs come from: a registry, a content store that a client serves, or an object
//! store with a cache.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_cache::{Descriptor, Digest, LayerId, Remote};
use kiln_registry::ImageRef;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::manifest::MAX_SIZE;
use crate::solver::Build;

/// A blob on its way here.
pub(crate) type BlobReader = Box<dyn AsyncRead + Send + Unpin>;

/// A place that has blobs. Its text form is kept with layers that were not fetched yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A repository of a registry.
    Registry(ImageRef),
    /// A content store of the client's session, by the store's id.
    Session(String),
    /// An object store, by its place. A build can use those that its caches are in, for it has their
    /// credentials.
    Store(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(image) => write!(f, "registry:{image}"),
            Self::Session(store) => write!(f, "session:{store}"),
            Self::Store(place) => write!(f, "store:{place}"),
        }
    }
}

impl std::str::FromStr for Origin {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once(':') {
            Some(("registry", image)) => Ok(Self::Registry(image.parse()?)),
            Some(("session", store)) => Ok(Self::Session(store.to_owned())),
            Some(("store", place)) => Ok(Self::Store(place.to_owned())),
            _ => bail!("unknown origin {text:?}"),
        }
    }
}

/// The registry client's form of a descriptor.
pub(crate) fn to_oci(descriptor: &Descriptor) -> anyhow::Result<kiln_registry::Descriptor> {
    let digest = descriptor.digest.to_string().parse::<kiln_registry::Digest>()?;
    Ok(kiln_registry::Descriptor::new(
        descriptor.media_type.as_str().into(),
        descriptor.size,
        digest,
    ))
}

impl Origin {
    /// The bytes of a blob. Its digest is not checked yet.
    pub(crate) async fn blob(
        &self,
        build: &Arc<Build>,
        descriptor: &Descriptor,
    ) -> anyhow::Result<BlobReader> {
        match self {
            Self::Registry(image) => {
                let stream = build.registry.blob(image, &to_oci(descriptor)?, 0).await?;
                Ok(Box::new(stream.into_reader()))
            }
            Self::Session(store) => build.session()?.read_blob(store, &descriptor.digest).await,
            Self::Store(place) => {
                let cache = build.store(place).context("this build does not name its cache")?;
                let digest = descriptor.digest.to_string();
                let blob = kiln_object_store::Blob { digest: &digest, size: descriptor.size };
                Ok(cache.store()?.blob(blob).await?)
            }
        }
    }

    /// A manifest or config, verified, from here or from the daemon's own content store.
    pub(crate) async fn small_blob(
        &self,
        build: &Arc<Build>,
        descriptor: &Descriptor,
    ) -> anyhow::Result<Vec<u8>> {
        let content = &build.daemon.content;
        if content.stat(&descriptor.digest)?.is_some()
            && let Ok(bytes) = content.read(&descriptor.digest, MAX_SIZE)
        {
            return Ok(bytes);
        }
        if descriptor.size > MAX_SIZE {
            bail!("{} has {} bytes, too many for its type", descriptor.digest, descriptor.size);
        }
        let bytes = match self {
            Self::Registry(image) if is_manifest(&descriptor.media_type) => {
                build.registry.manifest(image, &to_oci(descriptor)?).await?.to_vec()
            }
            _ => {
                let mut bytes = Vec::new();
                let reader = self.blob(build, descriptor).await?;
                reader.take(MAX_SIZE + 1).read_to_end(&mut bytes).await?;
                bytes
            }
        };
        let actual = Digest::of(&bytes);
        if actual != descriptor.digest {
            bail!("content of {} has digest {actual}", descriptor.digest);
        }
        build.store_small(&bytes).context("cannot store a manifest")?;
        Ok(bytes)
    }
}

/// A layer that was to be had when it was found, and is not any more.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch layer {0}")]
pub(crate) struct LostLayer(pub(crate) Digest);

/// The bytes of one of a layer's blobs, from one place. Their digest is not checked yet.
pub(crate) async fn open_at(
    build: &Arc<Build>,
    layer: LayerId,
    remote: &Remote,
    blob: &Descriptor,
) -> anyhow::Result<BlobReader> {
    let error = match remote.origin.parse::<Origin>()?.blob(build, blob).await {
        Ok(reader) => return Ok(reader),
        Err(error) => error,
    };
    lose(build, layer, remote, is_not_found(&error))?;
    Err(error).context(LostLayer(blob.digest))
}

/// Notes that a place did not have a layer that it should have. For this build, what is only there
/// is nowhere; for all builds, this layer is not there if that `is_final`.
pub(crate) fn lose(
    build: &Build,
    layer: LayerId,
    remote: &Remote,
    is_final: bool,
) -> anyhow::Result<()> {
    tracing::debug!(%layer, remote.origin, is_final, "a place has lost a layer");
    build.lose_place(&remote.origin);
    if is_final {
        let index = &build.daemon.index;
        index.update_layer(layer, |row| row.presence.remotes.retain(|known| known != remote))?;
    }
    Ok(())
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let of_registry = error.downcast_ref::<kiln_registry::Error>();
    let of_session = error.downcast_ref::<tonic::Status>();
    let of_store = error.downcast_ref::<kiln_object_store::Error>();
    of_store.is_some_and(kiln_object_store::Error::is_not_found)
        || of_registry.is_some_and(kiln_registry::Error::is_not_found)
        || of_session.is_some_and(|status| status.code() == tonic::Code::NotFound)
}

fn is_manifest(media_type: &str) -> bool {
    use super::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    [DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST].contains(&media_type)
}
