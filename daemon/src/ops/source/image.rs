//! Images from registries and from the daemon's own store.

use std::sync::Arc;

use kiln_cache::key_of;
use kiln_proto::pb;
use kiln_registry::ImageRef;
use serde::Serialize;

use super::op_digest;
use crate::graph::Vertex;
use crate::graph::go_json::{self, OnPlatform};
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
    #[serde(flatten)]
    platform: OnPlatform<'a>,
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
        None => op_digest(go_json::digest(&ManifestKey {
            digest: resolved.digest.to_string(),
            platform: platform.into(),
        })?),
    };
    let key = key_of(&op, 0, &[]);
    Ok(Outputs::single(Some(key), Snapshot::Layers(stack)))
}
