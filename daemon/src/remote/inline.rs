//! Caches in the configs of images.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_cache::remote::{ExportGraph, INLINE_CACHE, ImportedCache as Keys};
use kiln_cache::{CREATED_AT, DESCRIPTION, Descriptor, DiffId, Digest, UNCOMPRESSED};
use serde::Deserialize;
use serde_json::Value;

use super::export::describe;
use crate::exporter::LayerBlob;
use crate::graph::Edge;
use crate::image::Origin;
use crate::image::manifest::{self, MAX_DEPTH, RootFs};
use crate::solver::{Build, SolveError};

/// Manifests of one image that are looked at. More than any has platforms.
const MAX_MANIFESTS: usize = 256;

/// The cache for the config of an image, whose `layers` are what `edge` leads to; none if it would
/// hold nothing.
pub(crate) async fn inline_cache(
    build: &Arc<Build>,
    edge: &Edge,
    layers: &[LayerBlob],
) -> anyhow::Result<Option<String>> {
    let outputs = build.outputs(edge).await.map_err(SolveError::into_cause)?;
    let key = outputs.keys.as_ref().and_then(|keys| keys.get(edge.output).copied());
    let by_id: HashMap<_, _> = layers.iter().map(|layer| (layer.id, layer)).collect();
    let mut chains = HashMap::new();
    let graph = ExportGraph::collect(key.as_slice(), |key| {
        let Some((record, hit)) = build.exported_record(*key)? else { return Ok(None) };
        if let Some(hit) = hit {
            let blobs = hit.row.result.iter().map(|id| by_id.get(id).map(|layer| describe(layer)));
            if let Some(blobs) = blobs.collect::<Option<Result<Vec<_>, _>>>() {
                chains.insert(hit.row.key, blobs?);
            }
        }
        anyhow::Ok(Some(record))
    })?;
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.descriptor.digest).collect();
    let records = graph.export(&chains).inline(&digests);
    records.map(|records| Ok(STANDARD.encode(serde_json::to_vec(&records)?))).transpose()
}

/// A manifest of an image, or an index of several.
#[derive(Deserialize)]
struct Either {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What a config says of its image's layers and of how they came about.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<Step>,
    #[serde(flatten)]
    rest: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct Step {
    created: Option<String>,
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

/// The caches of an image, whose manifest or index is `json`.
pub(super) async fn read(
    build: &Arc<Build>,
    origin: &Origin,
    json: &[u8],
) -> anyhow::Result<Vec<Keys>> {
    let mut caches = Vec::new();
    let mut left = vec![(manifest::parse::<Either>("manifest", json)?, 0)];
    let mut known = HashSet::new();
    while let Some((either, depth)) = left.pop() {
        for entry in either.manifests.unwrap_or_default() {
            let is_new = known.insert(entry.digest);
            // What is said about images is not an image.
            if !is_new || entry.annotations.contains_key("vnd.docker.reference.type") {
                continue;
            }
            if depth == MAX_DEPTH || known.len() > MAX_MANIFESTS {
                bail!("its index has too many manifests");
            }
            let json = origin.small_blob(build, &entry).await?;
            left.push((manifest::parse("manifest", &json)?, depth + 1));
        }
        if let Some(config) = either.config {
            let json = origin.small_blob(build, &config).await?;
            caches.extend(of_image(&json, either.layers)?);
        }
    }
    if caches.is_empty() {
        bail!("it is an image without a cache");
    }
    Ok(caches)
}

/// The cache in the config of an image of `layers`.
fn of_image(config: &[u8], mut layers: Vec<Descriptor>) -> anyhow::Result<Option<Keys>> {
    let config: Config = manifest::parse("image config", config)?;
    let Some(Value::String(cache)) = config.rest.get(INLINE_CACHE) else { return Ok(None) };
    let records = STANDARD.decode(cache).context("its cache is not base64")?;
    let diff_ids: &[DiffId] = &config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        bail!("its config has {} layers, its manifest {}", diff_ids.len(), layers.len());
    }
    let mut steps = config.history.into_iter().filter(|step| !step.empty_layer);
    for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
        let (time, description) = steps.next().map_or((None, None), |s| (s.created, s.created_by));
        let diff_id = Some(diff_id.to_string());
        for (key, value) in
            [(UNCOMPRESSED, diff_id), (CREATED_AT, time), (DESCRIPTION, description)]
        {
            layer.annotations.extend(value.map(|value| (key.to_owned(), value)));
        }
    }
    Ok(Some(Keys::parse_inline(&records, &layers)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cache_of_an_image_has_the_images_layers() {
        let layer = |name: &str| Descriptor::new("layer", Digest::of(name), 1);
        let digest = |name: &str| Digest::of(name).to_string();
        let records = json!([
            { "digest": digest("base") },
            {
                "digest": digest("step"),
                "inputs": [[{ "link": 0 }]],
                "layers": [{ "layer": 1, "createdAt": "2024-01-02T03:04:05Z" }],
            },
        ]);
        let config = json!({
            "rootfs": { "diff_ids": [digest("a.tar"), digest("b.tar")] },
            "history": [
                { "created": "2024-01-01T00:00:00Z", "created_by": "mkdir" },
                { "created": "2024-01-01T00:00:01Z", "empty_layer": true },
                { "created": "2024-01-01T00:00:02Z" },
            ],
            INLINE_CACHE: STANDARD.encode(records.to_string()),
        });
        let layers = vec![layer("a"), layer("b")];
        let cache = of_image(config.to_string().as_bytes(), layers.clone()).unwrap().unwrap();
        let hits: Vec<_> = cache.keys().filter_map(|key| cache.lookup(&[*key])).collect();
        let [hit] = hits.as_slice() else { panic!("{hits:?}") };
        let times: Vec<_> = hit.blobs.iter().map(|blob| &*blob.annotations[CREATED_AT]).collect();
        assert_eq!(times, ["2024-01-01T00:00:00Z", "2024-01-01T00:00:02Z"]);
        let [first, second] = [0, 1].map(|layer| hit.blobs[layer].annotations.get(DESCRIPTION));
        assert_eq!((first.map(String::as_str), second), (Some("mkdir"), None));
        let diff_ids: Vec<_> = hit.blobs.iter().map(|blob| blob.diff_id().unwrap()).collect();
        assert_eq!(diff_ids, ["a.tar", "b.tar"].map(|name| DiffId::new(Digest::of(name))));
        assert!(of_image(b"{}", layers.clone()).unwrap().is_none());
        assert!(of_image(config.to_string().as_bytes(), layers[..1].to_vec()).is_err());
    }
}
