//! Manifests, indexes and configs, as far as a builder has to understand them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use kiln_cache::{Descriptor, DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::Platform;

/// A manifest or config larger than this is refused.
pub(crate) const MAX_SIZE: u64 = 4 << 20;
/// Indexes in indexes deeper than this are refused.
pub(crate) const MAX_DEPTH: usize = 4;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Annotations in an index of manifests that are about others and are no images.
pub(crate) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
pub(crate) const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// The type of manifests of what is attested.
pub(crate) const ATTESTATION: &str = "attestation-manifest";

/// An image manifest (OCI image spec, "Image Manifest"; Docker's schema 2 is alike).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// An index of manifests (OCI image spec, "Image Index").
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    manifests: Vec<IndexEntry>,
}

#[derive(Clone, Debug, Deserialize)]
struct IndexEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<IndexPlatform>,
}

#[derive(Clone, Debug, Deserialize)]
struct IndexPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default, rename = "os.version")]
    os_version: String,
}

/// The parts of an image config that say what its layers are.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<DiffId>,
}

impl Index {
    /// The manifest that suits `platform` best.
    pub(crate) fn choose(&self, platform: &Platform) -> anyhow::Result<&Descriptor> {
        let mut unnamed = None;
        let mut best: Option<(usize, &Descriptor)> = None;
        let mut offered = Vec::new();
        for entry in &self.manifests {
            if entry.descriptor.annotations.contains_key(REFERENCE_TYPE) {
                continue; // an attestation, no image
            }
            let Some(named) = &entry.platform else {
                unnamed = unnamed.or(Some(&entry.descriptor));
                continue;
            };
            let offer = Platform {
                os_version: named.os_version.clone(),
                ..Platform::new(&named.os, &named.architecture, &named.variant)
            };
            if let Some(rank) = platform.rank(&offer)
                && best.is_none_or(|(least, _)| rank < least)
            {
                best = Some((rank, &entry.descriptor));
            }
            offered.push(offer.to_string());
        }
        if let Some(found) = best.map(|(_, descriptor)| descriptor).or(unnamed) {
            return Ok(found);
        }
        bail!("no match for platform {platform} in manifest: it has {}", offered.join(", "))
    }

    /// The manifest of what is attested of the image `manifest`.
    pub(crate) fn attestation_of(&self, manifest: &Digest) -> Option<&Descriptor> {
        let is = |entry: &&IndexEntry| {
            let annotation = |name: &str| entry.descriptor.annotations.get(name);
            annotation(REFERENCE_TYPE).is_some_and(|it| it == ATTESTATION)
                && annotation(REFERENCE_DIGEST).is_some_and(|it| *it == manifest.to_string())
        };
        Some(&self.manifests.iter().find(is)?.descriptor)
    }
}

/// Whether the media type is an index's.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Reads JSON that a registry or a client sent.
pub(crate) fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> anyhow::Result<T> {
    serde_json::from_slice(bytes).with_context(|| format!("invalid {what}"))
}

/// The diffIDs of a config, and its platform.
pub(crate) fn read_config(bytes: &[u8]) -> anyhow::Result<(Vec<DiffId>, Platform)> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        os: String,
        #[serde(default)]
        variant: String,
        #[serde(default)]
        rootfs: RootFs,
    }
    let config: Config = parse("image config", bytes)?;
    let platform = Platform::new(&config.os, &config.architecture, &config.variant);
    Ok((config.rootfs.diff_ids, platform))
}

/// Writes an image manifest.
pub(crate) fn write_manifest(
    media_type: &str,
    config: &Descriptor,
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> anyhow::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Written<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: &'a Descriptor,
        layers: &'a [Descriptor],
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    let written = Written { schema_version: 2, media_type, config, layers, annotations };
    Ok(serde_json::to_vec_pretty(&written)?)
}
