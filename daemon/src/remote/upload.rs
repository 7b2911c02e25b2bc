//! Bringing layers and manifests to where a cache is exported to.

use std::sync::Arc;

use futures::FutureExt as _;
use kiln_cache::{Descriptor, Digest};
use kiln_object_store::Blob;
use kiln_registry::{Client, ImageRef};
use tokio::sync::Semaphore;

use super::{Place, store_id};
use crate::exporter::{LayerBlob, push_layer, push_manifest, push_stored};
use crate::solver::{Build, Memo, SolveError};

/// How many layers are brought to one place at once. How much of each is on its way is bounded by the
/// place.
const UPLOADS: usize = 8;

/// What is on its way to one place.
pub(super) struct Uploads {
    place: Place,
    /// Each blob goes there once.
    sent: Memo<Digest, ()>,
    turns: Semaphore,
}

impl Uploads {
    pub(super) fn new(place: Place) -> Self {
        Self { place, sent: Memo::new(), turns: Semaphore::new(UPLOADS) }
    }

    /// Gives up what is on its way.
    pub(super) fn close(&self) {
        self.sent.close();
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Brings a layer there, unless it is there already or on its way. What failed before is tried
    /// once more.
    pub(super) async fn send(
        self: &Arc<Self>,
        build: &Arc<Build>,
        layer: &LayerBlob,
    ) -> anyhow::Result<()> {
        let begin = || {
            let (uploads, build, layer) = (self.clone(), build.clone(), layer.clone());
            async move { Ok(Arc::new(uploads.bring(&build, &layer).await?)) }.boxed()
        };
        let digest = layer.descriptor.digest;
        let was_asked = self.sent.is_asked(&digest);
        match self.sent.get(digest, begin).await {
            Ok(_) => Ok(()),
            Err(error) if was_asked && !error.is_canceled() => self.bring(build, layer).await,
            Err(error) => Err(SolveError::into_cause(error)),
        }
    }

    async fn bring(&self, build: &Arc<Build>, layer: &LayerBlob) -> anyhow::Result<()> {
        let _turn = self.turns.acquire().await;
        let Descriptor { digest, size, .. } = layer.descriptor;
        let is_here = || anyhow::Ok(build.daemon.index.blob(&digest)?.is_some());
        let fetch = || build.daemon.layers.fetch_blob(build, &layer.row, &layer.descriptor);
        match &self.place {
            Place::Registry { image, is_insecure } => {
                push_layer(build, &registry(build, image, *is_insecure), image, layer).await
            }
            Place::Store(cache) => {
                let (store, name) = (cache.store()?, digest.to_string());
                let blob = Blob { digest: &name, size };
                if !store.has_blob(blob).await? {
                    if !is_here()? {
                        fetch().await?;
                    }
                    build.open_blob(digest).await?;
                    store.save_blob(blob, &build.daemon.content.path(&digest)).await?;
                }
                Ok(())
            }
            Place::Directory(_) => {
                if !is_here()? {
                    fetch().await?;
                }
                self.send_small(build, &layer.descriptor).await
            }
        }
    }

    /// Brings a blob that is here to a place that has manifests.
    pub(super) async fn send_small(&self, build: &Build, blob: &Descriptor) -> anyhow::Result<()> {
        match &self.place {
            Place::Registry { image, is_insecure } => {
                push_stored(build, &registry(build, image, *is_insecure), image, blob).await
            }
            Place::Directory(path) => {
                let source = build.open_blob(blob.digest);
                build.session()?.write_blob(&store_id(path), blob, source).await
            }
            Place::Store(_) => anyhow::bail!("an object store has no manifests"),
        }
    }

    /// The same for the manifest, which gets its name.
    pub(super) async fn send_manifest(
        &self,
        build: &Build,
        manifest: &Descriptor,
    ) -> anyhow::Result<()> {
        match &self.place {
            Place::Registry { image, is_insecure } => {
                push_manifest(build, &registry(build, image, *is_insecure), image, manifest).await
            }
            _ => self.send_small(build, manifest).await,
        }
    }
}

fn registry(build: &Build, image: &ImageRef, is_insecure: bool) -> Client {
    if is_insecure { build.registry.with_insecure(image.host()) } else { build.registry.clone() }
}
