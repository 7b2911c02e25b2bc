//! Image metadata for frontends: one resolution for each image of a build, shown as one step.

use std::sync::Arc;

use kiln_registry::ImageRef;

use crate::image::{Platform, Resolve, ResolvedImage, resolve};
use crate::solver::{Build, SolveError};

/// Resolves `image`; the step is called `log_name`, or by BuildKit's name if that is empty.
pub(crate) async fn load(
    build: &Arc<Build>,
    image: &ImageRef,
    platform: &Platform,
    mode: Resolve,
    log_name: &str,
) -> Result<ResolvedImage, SolveError> {
    let name = if log_name.is_empty() {
        format!("[internal] load metadata for {image}")
    } else {
        log_name.to_owned()
    };
    let vertex = build.progress.internal(&format!("metadata:{image}:{platform}"), &name);
    let work = async { resolve(build, image, platform, mode).await };
    Ok(vertex.run(work).await?)
}
