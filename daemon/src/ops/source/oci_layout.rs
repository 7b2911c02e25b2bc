//! Images from an OCI layout that a client serves.

use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::Digest;
use kiln_proto::pb;

use super::image;
use crate::graph::Vertex;
use crate::image::{Origin, Platform, ResolvedImage, read_by_digest};
use crate::solver::{Build, Outputs, VertexProgress};

pub(super) async fn load(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    source: &pb::SourceOp,
    reference: &str,
    progress: &VertexProgress,
) -> anyhow::Result<Outputs> {
    let platform = image::platform(vertex);
    let resolved = resolve(build, source, reference, &platform).await?;
    build.source_pins.note(vertex.digest(), &resolved.digest);
    image::outputs(build, &resolved, &platform, reference, progress)
}

/// Reads what the layout says of the image.
pub(crate) async fn resolve(
    build: &Arc<Build>,
    source: &pb::SourceOp,
    reference: &str,
    platform: &Platform,
) -> anyhow::Result<ResolvedImage> {
    let (name, digest) = reference
        .rsplit_once('@')
        .with_context(|| format!("OCI layout {reference:?} is not named by a digest"))?;
    let digest: Digest = digest.parse()?;
    let store = source.attrs.get("oci.store").map_or(name, String::as_str);
    let store = format!("oci:{store}");
    build.add_store(&store);
    read_by_digest(build, Origin::Session(store), digest, platform).await
}
