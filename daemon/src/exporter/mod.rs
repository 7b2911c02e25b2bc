//! Exporters: what becomes of a build's result.

mod archive;
mod attestation;
mod blobs;
mod config;
mod files;
mod image;
mod options;
mod push;
mod send;
mod spdx;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use kiln_proto::control::{Exporter, SolveRequest};

use crate::attestation::Attestation;
use crate::attributes::Attributes;
use crate::frontend::{FrontendResult, Refs};
use crate::graph::Edge;
use crate::history::{ExportedImage, Outcome};
use crate::image::Platform;
use crate::solver::{Build, SolveError, Stack};

pub(crate) use blobs::{BlobOptions, LayerBlob, blob, blobs_by_layer};
pub(crate) use push::{push_layer, push_manifest, push_stored};

/// What is exported.
struct Parts {
    /// The file systems, in the order in which their platforms were asked for.
    all: Vec<Part>,
    /// Whether the frontend answered one for each platform, be it a single one.
    is_by_platform: bool,
}

/// One file system of an export.
struct Part {
    /// The platform's id in the frontend's answer.
    id: String,
    platform: Platform,
    stack: Stack,
    /// The image config that the frontend made.
    config: Option<Bytes>,
    /// The time at which it counts as made, in seconds, if the frontend has one.
    epoch: Option<i64>,
    attestations: Vec<Attestation>,
    /// The graph that made it, if an image of it is to be a cache, too.
    cached: Option<Edge>,
}

/// What one exporter did.
#[derive(Default)]
struct Exported {
    /// What the client is to know.
    response: BTreeMap<String, String>,
    image: Option<ExportedImage>,
}

/// The exporters that a request names.
pub(crate) fn exporters(request: &SolveRequest) -> Vec<Exporter> {
    let mut exporters = request.exporters.clone();
    // Clients that know both fields fill in both.
    if exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        exporters.push(Exporter {
            r#type: request.exporter_deprecated.clone(),
            attrs: request.exporter_attrs_deprecated.clone(),
        });
    }
    exporters
}

/// Runs the exporters that the request names, and returns what the client is to know of them. The
/// images that they make are part of the build's outcome, and caches if `is_cache` says so.
pub(crate) async fn run(
    build: &Arc<Build>,
    request: &SolveRequest,
    result: &FrontendResult,
    is_cache: bool,
    outcome: &mut Outcome,
) -> Result<BTreeMap<String, String>, SolveError> {
    let exporters = exporters(request);
    if request.enable_session_exporter && exporters.is_empty() {
        return Err(anyhow::anyhow!("exporters chosen by the session are not supported").into());
    }
    if exporters.is_empty() {
        return Ok(BTreeMap::new());
    }
    let parts = parts(build, result, is_cache).await?;
    let mut response = BTreeMap::new();
    for (index, exporter) in exporters.iter().enumerate() {
        let id = index.to_string();
        let attributes = Attributes::new(format!("{} exporter", exporter.r#type), &exporter.attrs);
        let answer = match exporter.r#type.as_str() {
            "image" => image::export(build, &parts, attributes).await,
            "oci" => archive::export(build, &parts, attributes, &id, archive::Kind::Oci).await,
            "docker" => {
                archive::export(build, &parts, attributes, &id, archive::Kind::Docker).await
            }
            "local" => files::export_local(build, &parts, attributes, &id).await,
            "tar" => files::export_tar(build, &parts, attributes, &id).await,
            other => Err(anyhow::anyhow!(
                "exporter {other:?} could not be found: this daemon has image, oci, docker, local \
                 and tar"
            )),
        };
        let Exported { response: answer, image } = answer?;
        response.extend(answer);
        if let Some(image) = image {
            let pin = build.daemon.index.pin_blobs(&image.blobs);
            outcome.exported(index, &image, pin);
        }
    }
    Ok(response)
}

async fn parts(
    build: &Arc<Build>,
    result: &FrontendResult,
    is_cache: bool,
) -> anyhow::Result<Parts> {
    let is_by_platform = matches!(result.refs, Refs::Many(_));
    let mut all: Vec<Part> = Vec::new();
    for (id, platform) in result.platforms()? {
        // Asked for twice it is still one.
        if all.iter().any(|part| part.id == id) {
            continue;
        }
        if let Refs::Many(refs) = &result.refs
            && !refs.contains_key(&id)
        {
            bail!("failed to find ref for ID {id}");
        }
        if !is_by_platform && !all.is_empty() {
            bail!("cannot export multiple platforms without multi-platform enabled");
        }
        let found = result.refs.of_platform(&id);
        let stack = match found {
            Some(found) => {
                let snapshot = build.solve(&found.edge).await.map_err(SolveError::into_cause)?;
                build.daemon.layers.freeze(&snapshot).await?
            }
            None => Stack::default(),
        };
        let find = |key: &str| {
            let own = result.metadata.get(&format!("{key}/{id}"));
            own.or_else(|| result.metadata.get(key))
        };
        let epoch = find("source.date.epoch").map(|text| {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            number.context("invalid SOURCE_DATE_EPOCH from frontend")
        });
        all.push(Part {
            platform,
            stack,
            config: find("containerimage.config").cloned(),
            epoch: epoch.transpose()?,
            attestations: result.attestations.get(&id).cloned().unwrap_or_default(),
            cached: found.filter(|_| is_cache).map(|found| found.edge.clone()),
            id,
        });
    }
    Ok(Parts { all, is_by_platform })
}
