//! Images from registries and from the daemon's own store.

use std::sync::Arc;

use kiln_cache::{Digest, key_of};
use kiln_proto::pb;
use kiln_registry::ImageRef;
use serde::Serialize;

use super::op_digest;
use crate::graph::Vertex;
use crate::graph::go_json::{self, is_empty};
use crate::image::{Platform, Resolve, ResolvedImage, resolve};
use crate::solver::{Build, Outputs, Snapshot, VertexProgress};

/// The platform that a source op is for.
pub(super) fn platform(vertex: &Vertex) -> Platform {
    vertex.platform().map_or_else(Platform::host, Platform::from)
}

pub(super) async fn load(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    source: &pb::SourceOp,
    reference: &str,
    progress: &VertexProgress,
) -> anyhow::Result<Outputs> {
    let image: ImageRef = reference.parse()?;
    let mode = source.attrs.get("image.resolvemode").map_or("", String::as_str);
    let status = progress.status(format!("resolve {image}"));
    let platform = platform(vertex);
    let resolved = resolve(build, &image, &platform, Resolve::parse(mode)?).await?;
    drop(status);
    build.source_pins.note(vertex.digest(), &resolved.digest);
    outputs(build, &resolved, &platform, &image.to_string(), progress)
}

/// What an image without layers is known by.
#[derive(Serialize)]
struct ManifestKey<'a> {
    #[serde(rename = "Digest")]
    digest: String,
    #[serde(rename = "OS")]
    os: &'a str,
    #[serde(rename = "Arch")]
    architecture: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "is_empty")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "is_empty")]
    os_version: &'a str,
}

impl<'a> ManifestKey<'a> {
    fn of(digest: &Digest, platform: &'a Platform) -> Self {
        Self {
            digest: digest.to_string(),
            os: &platform.os,
            architecture: &platform.architecture,
            variant: &platform.variant,
            os_version: &platform.os_version,
        }
    }
}

/// The image's layers, known by what they are: another manifest that has them is the same to those who
/// build on them.
///
/// BuildKit has two keys for an image, by manifest and by layers, and links the steps on it to both.
pub(super) fn outputs(
    build: &Build,
    resolved: &ResolvedImage,
    platform: &Platform,
    name: &str,
    progress: &VertexProgress,
) -> anyhow::Result<Outputs> {
    let stack = resolved.stack(build, &format!("pulled from {name}"))?;
    build.report_transfers(stack.ids(), progress);
    let op = match resolved.chain_id() {
        Some(layers) => op_digest(layers),
        // Without layers, there is only the manifest.
        None => op_digest(go_json::digest(&ManifestKey::of(&resolved.digest, platform))?),
    };
    let key = key_of(&op, 0, &[]);
    Ok(Outputs { keys: Some(vec![key]), snapshots: vec![Snapshot::Layers(stack)] })
}
