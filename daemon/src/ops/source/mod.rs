//! Sources: what brings files in from outside.

mod image;
mod local;
mod oci_layout;
mod upload;

use std::sync::Arc;

use anyhow::bail;
use kiln_proto::pb::op::Op;

use crate::graph::Vertex;
use crate::solver::{Build, Outputs, VertexProgress};

/// Loads a source as far as its key needs: images are resolved, but their layers not fetched.
pub(crate) async fn load(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    progress: &VertexProgress,
) -> anyhow::Result<Outputs> {
    let Op::Source(source) = vertex.op() else { bail!("{} is no source", vertex.name()) };
    let Some((scheme, rest)) = source.identifier.split_once("://") else {
        bail!("invalid source identifier {:?}", source.identifier);
    };
    match scheme {
        "docker-image" => image::load(build, vertex, source, rest, progress).await,
        "oci-layout" => oci_layout::load(build, vertex, source, rest, progress).await,
        "local" => local::load(build, source, rest, progress).await,
        "http" | "https" if upload::stream_name(rest).is_some() => {
            upload::load(build, source, upload::stream_name(rest).unwrap_or_default(), progress)
                .await
        }
        other => bail!("{other} sources are not supported by this daemon yet: {rest:?}"),
    }
}
