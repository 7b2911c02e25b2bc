//! Pushing an image: layers at once, then configs, then manifests.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use futures::future::try_join_all;
use kiln_cache::Descriptor;
use kiln_registry::{Client, ImageRef, MediaType};
use parking_lot::Mutex;

use super::blobs::LayerBlob;
use super::image::Assembled;
use crate::image::{Origin, manifest, to_oci};
use crate::solver::{Build, VertexProgress};

pub(super) async fn push(
    build: &Arc<Build>,
    image: &ImageRef,
    assembled: &Assembled,
    by_digest: bool,
    insecure: bool,
    vertex: &VertexProgress,
) -> anyhow::Result<()> {
    let registry =
        if insecure { build.registry.with_insecure(image.host()) } else { build.registry.clone() };
    let status = vertex.status("pushing layers");
    for one in &assembled.images {
        let layers = one.layers.iter().map(async |layer| {
            let Descriptor { digest, size, .. } = layer.descriptor;
            let status = vertex.status(format!("pushing layer {digest}"));
            status.total(size);
            push_layer(build, &registry, image, layer).await?;
            status.add(size);
            anyhow::Ok(())
        });
        try_join_all(layers).await?;
        for blob in one.small_blobs() {
            push_stored(build, &registry, image, blob).await?;
        }
    }
    drop(status);
    let _status =
        vertex.status(format!("pushing manifest for {image}@{}", assembled.target.digest));
    let target = &assembled.target;
    for manifest in assembled.inner_manifests() {
        push_manifest(build, &registry, &digest_of(image, manifest)?, manifest).await?;
    }
    let name = if by_digest { digest_of(image, target)? } else { image.clone() };
    push_manifest(build, &registry, &name, target).await
}

fn digest_of(image: &ImageRef, descriptor: &Descriptor) -> anyhow::Result<ImageRef> {
    Ok(image.with_digest(descriptor.digest.to_string().parse()?))
}

pub(crate) async fn push_manifest(
    build: &Build,
    registry: &Client,
    name: &ImageRef,
    descriptor: &Descriptor,
) -> anyhow::Result<()> {
    let bytes = build.read_blob(&descriptor.digest, manifest::MAX_SIZE)?;
    let media_type = MediaType::from(descriptor.media_type.as_str());
    registry
        .push_manifest(name, &media_type, bytes.into())
        .await
        .with_context(|| format!("failed to push {name}"))?;
    Ok(())
}

pub(crate) async fn push_stored(
    build: &Build,
    registry: &Client,
    image: &ImageRef,
    descriptor: &Descriptor,
) -> anyhow::Result<()> {
    // Read only if the registry does not have it. What is wrong with it then is not for the registry's
    // errors to say.
    let damage = Mutex::default();
    let source = async || match build.open_blob(descriptor.digest).await {
        Ok(file) => Ok(file),
        Err(error) => {
            *damage.lock() = Some(error);
            Err(io::ErrorKind::InvalidData.into())
        }
    };
    let pushed = registry.push_blob(image, &to_oci(descriptor)?, source).await;
    match (pushed, damage.into_inner()) {
        (Err(_), Some(damage)) => Err(damage),
        (pushed, _) => pushed.map(drop).with_context(|| format!("failed to push {image}")),
    }
}

/// Pushes a layer from the content store, or lets the registry link it from where it has it.
pub(crate) async fn push_layer(
    build: &Arc<Build>,
    registry: &Client,
    image: &ImageRef,
    layer: &LayerBlob,
) -> anyhow::Result<()> {
    let descriptor = &layer.descriptor;
    if build.daemon.index.blob(&descriptor.digest)?.is_none() {
        for remote in &layer.row.presence.remotes {
            let Origin::Registry(source) = remote.origin.parse()? else { continue };
            if remote.blob == descriptor.digest
                && source.host() == image.host()
                && registry.mount_blob(image, &to_oci(descriptor)?, source.repository()).await?
            {
                return Ok(());
            }
        }
        build.daemon.layers.fetch_blob(build, &layer.row, descriptor).await?;
    }
    push_stored(build, registry, image, descriptor).await
}
