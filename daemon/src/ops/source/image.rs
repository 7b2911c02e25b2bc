//! Images from registries and from the daemon's own store.

use std::sync::Arc;

use kiln_cache::{Digest, key_of};
use kiln_proto::pb;
use kiln_registry::ImageRef;

use crate::graph::Vertex;
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
    let resolved = resolve(build, &image, &platform(vertex), Resolve::parse(mode)?).await?;
    drop(status);
    build.source_pins.note(vertex.digest(), &resolved.digest);
    outputs(build, &resolved, &image.to_string(), progress)
}

/// The image's layers, known by its manifest.
pub(super) fn outputs(
    build: &Build,
    resolved: &ResolvedImage,
    name: &str,
    progress: &VertexProgress,
) -> anyhow::Result<Outputs> {
    let stack = resolved.stack(build, &format!("pulled from {name}"))?;
    build.report_transfers(stack.ids(), progress);
    let key = key_of(&Digest::of(format!("image\0{}", resolved.manifest)), 0, &[]);
    Ok(Outputs { keys: Some(vec![key]), snapshots: vec![Snapshot::Layers(stack)] })
}
