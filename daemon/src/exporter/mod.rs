//! Exporters: what becomes of a build's result.

mod archive;
mod blobs;
mod config;
mod files;
mod image;
mod options;
mod push;
mod send;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use kiln_proto::control::{Exporter, SolveRequest};

use crate::attributes::Attributes;
use crate::graph::Edge;
use crate::history::{ExportedImage, Outcome};
use crate::image::Platform;
use crate::solver::{Build, Snapshot, SolveError, Stack};

pub(crate) use blobs::{BlobOptions, LayerBlob, blobs_by_layer};
pub(crate) use push::{fetch_blob, push_layer, push_manifest, push_stored};

/// What there is to export.
pub(crate) struct Exports {
    pub(crate) solved: Vec<Solved>,
    /// What the frontend said of them.
    pub(crate) metadata: BTreeMap<String, Bytes>,
}

/// One file system of a result.
pub(crate) struct Solved {
    /// The platform id, if there are several.
    pub(crate) id: Option<String>,
    /// `None` is scratch.
    pub(crate) snapshot: Option<Snapshot>,
    /// The graph that made it, if an image of it is to be a cache, too.
    pub(crate) cached: Option<Edge>,
}

/// One file system of an export.
struct Part {
    /// Its id in the frontend's answer; empty where there is only one.
    id: String,
    platform: Option<Platform>,
    stack: Stack,
    /// The image config that the frontend made.
    config: Option<Bytes>,
    /// The time at which it counts as made, in seconds, if the frontend has one.
    epoch: Option<i64>,
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
/// images that they make are part of the build's outcome.
pub(crate) async fn run(
    build: &Arc<Build>,
    request: &SolveRequest,
    exports: Exports,
    outcome: &mut Outcome,
) -> Result<BTreeMap<String, String>, SolveError> {
    let exporters = exporters(request);
    if request.enable_session_exporter && exporters.is_empty() {
        return Err(anyhow::anyhow!("exporters chosen by the session are not supported").into());
    }
    if exporters.is_empty() {
        return Ok(BTreeMap::new());
    }
    let parts = parts(build, &exports).await?;
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

async fn parts(build: &Arc<Build>, exports: &Exports) -> anyhow::Result<Vec<Part>> {
    let platforms = platforms(exports)?;
    let mut parts = Vec::new();
    for Solved { id, snapshot, cached } in &exports.solved {
        let stack = match snapshot {
            Some(snapshot) => build.daemon.layers.freeze(snapshot).await?,
            None => Stack::default(),
        };
        let find = |key: &str| match id {
            Some(id) => exports.metadata.get(&format!("{key}/{id}")),
            None => exports.metadata.get(key),
        };
        let config = find("containerimage.config").cloned();
        let epoch = find("source.date.epoch").or_else(|| exports.metadata.get("source.date.epoch"));
        let epoch = epoch.map(|text| {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            number.context("invalid SOURCE_DATE_EPOCH from frontend")
        });
        let epoch = epoch.transpose()?;
        let id = id.clone().unwrap_or_default();
        let platform = platforms.iter().find(|(known, _)| *known == id);
        let platform = platform.map(|(_, platform)| platform.clone());
        let cached = cached.clone();
        parts.push(Part { id, platform, stack, config, epoch, cached });
    }
    // As they were asked for, which is what an index has them in.
    parts.sort_by_key(|part| platforms.iter().position(|(id, _)| *id == part.id));
    Ok(parts)
}

/// The platforms and their ids, as the frontend declares them.
fn platforms(exports: &Exports) -> anyhow::Result<Vec<(String, Platform)>> {
    #[derive(serde::Deserialize)]
    struct Declared {
        #[serde(rename = "Platforms", default)]
        platforms: Vec<Named>,
    }
    #[derive(serde::Deserialize)]
    struct Named {
        #[serde(rename = "ID")]
        id: String,
        #[serde(rename = "Platform")]
        platform: Platform,
    }
    let Some(json) = exports.metadata.get("refs.platforms") else {
        if exports.solved.len() > 1 {
            bail!("cannot export several file systems whose platforms are not declared");
        }
        return Ok(Vec::new());
    };
    let declared: Declared =
        serde_json::from_slice(json).context("invalid declaration of platforms")?;
    Ok(declared.platforms.into_iter().map(|named| (named.id, named.platform)).collect())
}
