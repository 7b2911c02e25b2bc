//! From a reference to a manifest, a config, and layers that are known but not fetched.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_cache::{
    ChainId, DESCRIPTION, Descriptor, DiffId, Digest, LayerRow, Pin, Presence, Remote,
};
use kiln_registry::ImageRef;

use super::manifest::{self, Index, MAX_DEPTH, Manifest};
use super::{Origin, Platform};
use crate::solver::{Build, Stack};

/// How many places a layer that was not fetched yet is known to be at.
const MAX_REMOTES: usize = 8;

/// Which image wins where both the daemon's own store and the registry may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) enum Resolve {
    /// One that was built here under that name and pushed nowhere, else the registry's; if that
    /// cannot be had, one that was built here.
    #[default]
    Default,
    /// The registry's.
    Pull,
    /// The daemon's own, without asking a registry if there is one.
    Local,
}

impl Resolve {
    /// Reads `image.resolvemode` and `image-resolve-mode`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "" | "default" => Ok(Self::Default),
            "pull" => Ok(Self::Pull),
            "local" | "preferlocal" => Ok(Self::Local),
            other => bail!("invalid image resolve mode {other:?}"),
        }
    }
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedImage {
    /// Digest of what the reference names: an index, or the manifest.
    pub(crate) digest: Digest,
    /// The manifest of the platform.
    pub(crate) manifest: Digest,
    /// The image config's JSON.
    pub(crate) config: Vec<u8>,
    layers: Vec<(Descriptor, DiffId)>,
    pub(super) origin: Option<Origin>,
}

/// Resolves a reference of an image from a registry or the daemon's own store.
pub(crate) async fn resolve(
    build: &Arc<Build>,
    image: &ImageRef,
    platform: &Platform,
    mode: Resolve,
) -> anyhow::Result<ResolvedImage> {
    let own = build.daemon.index.image(&image.to_string())?.filter(|_| mode != Resolve::Pull);
    if let Some(own) = own.as_ref().filter(|own| mode == Resolve::Local || !own.is_pushed) {
        return read(build, None, own.target.clone(), platform).await;
    }
    let origin = Origin::Registry(image.clone());
    // What is named by digest and known to be of that repository needs no registry. Others may not
    // be shown what a digest stands for: who builds may have no right to the repository it is in.
    let known = image.digest().and_then(|digest| digest.to_string().parse::<Digest>().ok());
    if let Some(digest) = known
        && mode != Resolve::Pull
        && let Ok(bytes) = build.daemon.content.read(&digest, manifest::MAX_SIZE)
        && let Some(media_type) = media_type_of(&bytes)
    {
        let target = Descriptor::new(media_type, digest, bytes.len() as u64);
        if let Ok(found) = read(build, Some(origin.clone()), target, platform).await
            && (found.is_known_of(build, image)? || is_own(build, image, digest)?)
        {
            return Ok(found);
        }
    }
    let (descriptor, bytes) = match (build.registry.resolve(image).await, own) {
        (Ok(found), _) => found,
        (Err(error), Some(own)) => {
            tracing::debug!(%image, %error, "the image that was pushed from here is used");
            return read(build, None, own.target, platform).await;
        }
        (Err(error), None) => return Err(error.into()),
    };
    let digest = build.store_small(&bytes)?;
    let media_type = descriptor.media_type().to_string();
    let target = Descriptor::new(media_type, digest, bytes.len() as u64);
    read(build, Some(origin), target, platform).await
}

/// Whether an image of that digest was built here under a name of the same repository.
fn is_own(build: &Build, image: &ImageRef, digest: Digest) -> anyhow::Result<bool> {
    let images = build.daemon.index.images()?;
    Ok(images.iter().any(|(name, own)| {
        own.target.digest == digest
            && name.parse().is_ok_and(|own: ImageRef| own.is_of_same_repository(image))
    }))
}

/// Resolves the image that `target` names, of which all blobs come from `origin`, or are here.
pub(crate) async fn read(
    build: &Arc<Build>,
    origin: Option<Origin>,
    target: Descriptor,
    platform: &Platform,
) -> anyhow::Result<ResolvedImage> {
    let digest = target.digest;
    let mut current = target;
    let mut depth = 0;
    while manifest::is_index(&current.media_type) {
        depth += 1;
        if depth > MAX_DEPTH {
            bail!("{digest} nests indexes more than {MAX_DEPTH} deep");
        }
        let bytes = small_blob(build, origin.as_ref(), &current).await?;
        let index: Index = manifest::parse("image index", &bytes)?;
        current = index.choose(platform)?.clone();
    }
    let bytes = small_blob(build, origin.as_ref(), &current).await?;
    let manifest: Manifest = manifest::parse("image manifest", &bytes)?;
    let config = small_blob(build, origin.as_ref(), &manifest.config).await?;
    let (diff_ids, _) = manifest::read_config(&config)?;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        bail!("image {digest} has {layers} layers and {ids} diffIDs");
    }
    let layers = manifest.layers.into_iter().zip(diff_ids).collect();
    Ok(ResolvedImage { digest, manifest: current.digest, config, layers, origin })
}

/// Resolves the image that a digest names in `origin`.
pub(crate) async fn read_by_digest(
    build: &Arc<Build>,
    origin: Origin,
    digest: Digest,
    platform: &Platform,
) -> anyhow::Result<ResolvedImage> {
    let bytes = origin.small_blob(build, &Descriptor::new("", digest, 0)).await?;
    let media_type = media_type_of(&bytes).with_context(|| format!("{digest} is no manifest"))?;
    let target = Descriptor::new(media_type, digest, bytes.len() as u64);
    read(build, Some(origin), target, platform).await
}

pub(super) async fn small_blob(
    build: &Arc<Build>,
    origin: Option<&Origin>,
    descriptor: &Descriptor,
) -> anyhow::Result<Vec<u8>> {
    match origin {
        Some(origin) => origin.small_blob(build, descriptor).await,
        None => build.read_blob(&descriptor.digest, manifest::MAX_SIZE),
    }
}

/// What kind of manifest some JSON is.
fn media_type_of(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let typed: Typed = serde_json::from_slice(bytes).ok()?;
    let fallback =
        if typed.manifests.is_some() { manifest::OCI_INDEX } else { manifest::OCI_MANIFEST };
    Some(typed.media_type.unwrap_or_else(|| fallback.to_owned()))
}

impl ResolvedImage {
    /// The image's layers as rows of the index, made where they are new. Nothing is fetched.
    pub(crate) fn stack(&self, build: &Build, description: &str) -> anyhow::Result<Stack> {
        unfetched(build, &self.layers, self.origin.as_ref(), description)
    }

    /// Whether its layers are known to be in the repository of `image`.
    fn is_known_of(&self, build: &Build, image: &ImageRef) -> anyhow::Result<bool> {
        let Some(chain) = self.chain_id() else { return Ok(false) };
        let Some(top) = build.daemon.index.layer_by_chain(&chain)? else { return Ok(false) };
        Ok(top.row.presence.remotes.iter().any(|remote| match remote.origin.parse() {
            Ok(Origin::Registry(known)) => known.is_of_same_repository(image),
            _ => false,
        }))
    }

    /// What its layers are together; `None` if there are none.
    pub(crate) fn chain_id(&self) -> Option<ChainId> {
        let diff_ids: Vec<DiffId> = self.layers.iter().map(|(_, diff_id)| *diff_id).collect();
        ChainId::of(&diff_ids)
    }
}

/// A chain of layers, bottom first, as rows of the index, made where they are new. Nothing is
/// fetched before it is needed; then it comes from `origin`. `description` is of those that do not
/// come with one.
pub(crate) fn unfetched(
    build: &Build,
    layers: &[(Descriptor, DiffId)],
    origin: Option<&Origin>,
    description: &str,
) -> anyhow::Result<Stack> {
    let index = &build.daemon.index;
    let origin = origin.map(ToString::to_string);
    let mut stack = Stack::default();
    let mut chain: Option<ChainId> = None;
    for (descriptor, diff_id) in layers {
        let next = match &chain {
            Some(chain) => chain.push(diff_id),
            None => ChainId::of(&[*diff_id]).context("no chain")?,
        };
        chain = Some(next);
        let mut descriptor = descriptor.clone();
        let own_description = descriptor.annotations.remove(DESCRIPTION);
        let remote = origin.clone().map(|origin| Remote { origin, blob: descriptor.digest });
        if let Some(hit) = index.layer_by_chain(&next)? {
            let id = hit.row.id;
            if let Some(remote) = &remote
                && !(hit.row.presence.is_local && hit.row.presence.remotes.contains(remote))
            {
                index.update_layer(id, |row| {
                    // The newest first: what was known before may be gone.
                    row.presence.remotes.retain(|known| known != remote);
                    row.presence.remotes.insert(0, remote.clone());
                    row.presence.remotes.truncate(MAX_REMOTES);
                    if !row.blobs.iter().any(|blob| blob.digest == descriptor.digest) {
                        row.blobs.push(descriptor.clone());
                    }
                })?;
            }
            stack = stack.with(id, hit.pin);
            continue;
        }
        let parents: Vec<_> = stack.ids().last().copied().into_iter().collect();
        let id = index.alloc_layer()?;
        let mut row = LayerRow::new(id, parents);
        row.chain = Some(next);
        row.diff_id = Some(*diff_id);
        row.description = own_description.unwrap_or_else(|| description.to_owned());
        if let Some(time) = descriptor.created_at() {
            row.created_at = time.into();
        }
        row.blobs = vec![descriptor];
        row.presence = Presence::lazy(remote);
        let pin: Pin = index.save_layers(&[row])?;
        stack = stack.with(id, pin);
    }
    Ok(stack)
}
