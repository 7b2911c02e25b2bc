//! The image config as it is exported: the frontend's, with the layers and their history.
//!
//! Times are those of the layers, so that a cached build gives the same image again.

use anyhow::{Context as _, bail};
use kiln_cache::remote::INLINE_CACHE;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::blobs::LayerBlob;
use crate::image::Platform;

/// The config of an image of `layers`, which holds the image's `cache` if it has one.
pub(super) fn complete(
    config: Option<&[u8]>,
    platform: &Platform,
    layers: &[LayerBlob],
    epoch: Option<i64>,
    cache: Option<String>,
) -> anyhow::Result<Vec<u8>> {
    let mut config: Map<String, Value> = match config {
        Some(json) => serde_json::from_slice(json).context("invalid image config")?,
        None => default_config(platform),
    };
    for key in ["os", "architecture"] {
        if config.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
            bail!("image config has no {key}");
        }
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    // A base image's is not this one's.
    config.remove(INLINE_CACHE);
    if let Some(cache) = cache {
        config.insert(INLINE_CACHE.into(), cache.into());
    }
    let mut history = match config.remove("history") {
        Some(Value::Array(history)) => history,
        _ => Vec::new(),
    };
    complete_history(&mut history, layers)?;
    let epoch = epoch.map(OffsetDateTime::from_unix_timestamp).transpose()?;
    if let Some(epoch) = epoch {
        let known = layers.iter().filter(|layer| layer.row.chain.is_some()).count();
        clamp_history(&mut history, known, epoch)?;
        clamp(&mut config, epoch)?;
    }
    if config.get("created").is_none_or(Value::is_null) {
        let last = history.iter().rev().find_map(|item| item.get("created").cloned());
        config.insert("created".into(), last.unwrap_or(Value::Null));
    }
    config.insert("history".into(), Value::Array(history));
    Ok(serde_json::to_vec(&config)?)
}

fn default_config(platform: &Platform) -> Map<String, Value> {
    let platform = platform.clone();
    let mut config = Map::new();
    config.insert("architecture".into(), platform.architecture.into());
    config.insert("os".into(), platform.os.into());
    if !platform.variant.is_empty() {
        config.insert("variant".into(), platform.variant.into());
    }
    config.insert(
        "config".into(),
        json!({ "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] }),
    );
    config
}

fn is_empty_layer(item: &Value) -> bool {
    item.get("empty_layer").and_then(Value::as_bool).unwrap_or(false)
}

fn created(layer: &LayerBlob) -> anyhow::Result<String> {
    Ok(OffsetDateTime::from(layer.row.created_at).format(&Rfc3339)?)
}

/// Makes the history have one item for each layer, each with a time.
fn complete_history(history: &mut Vec<Value>, layers: &[LayerBlob]) -> anyhow::Result<()> {
    let mut left = layers.len();
    for item in history.iter_mut() {
        let Some(item) = item.as_object_mut() else { bail!("invalid history in image config") };
        if is_empty_layer(&Value::Object(item.clone())) {
            continue;
        }
        match left.checked_sub(1) {
            Some(rest) => left = rest,
            None => drop(item.insert("empty_layer".into(), true.into())),
        }
    }
    for layer in &layers[layers.len() - left..] {
        history.push(json!({
            "created": created(layer)?,
            "created_by": layer.row.description,
            "comment": "buildkit.exporter.image.v0",
        }));
    }
    let has_time = |item: &Value| item.get("created").is_some_and(|created| !created.is_null());
    let mut layer = layers.iter();
    for item in history.iter_mut().filter(|item| !is_empty_layer(item)) {
        let layer = layer.next().context("history without its layer")?;
        if !has_time(item) {
            item["created"] = created(layer)?.into();
        }
    }
    // What made no layer gets the time of the layer before it, or of the first new one.
    let first_gap = history.iter().position(|item| !has_time(item));
    let first_new = first_gap
        .and_then(|gap| history[gap..].iter().find(|item| has_time(item)))
        .or_else(|| history.iter().rev().find(|item| has_time(item)))
        .map(|item| item["created"].clone());
    let Some(mut time) = first_new else { return Ok(()) };
    for item in history.iter_mut().skip(first_gap.unwrap_or(usize::MAX)) {
        if has_time(item) {
            time = item["created"].clone();
        } else {
            item["created"] = time.clone();
        }
    }
    Ok(())
}

/// Clamps the times of what this build made: the base image's history stays as it was.
fn clamp_history(
    history: &mut [Value],
    base_layers: usize,
    epoch: OffsetDateTime,
) -> anyhow::Result<()> {
    let mut layers = 0;
    for item in history {
        if !is_empty_layer(item) {
            layers += 1;
        }
        if layers > base_layers
            && let Some(item) = item.as_object_mut()
        {
            clamp(item, epoch)?;
        }
    }
    Ok(())
}

fn clamp(item: &mut Map<String, Value>, epoch: OffsetDateTime) -> anyhow::Result<()> {
    let Some(created) = item.get("created").and_then(Value::as_str) else { return Ok(()) };
    let time = OffsetDateTime::parse(created, &Rfc3339)
        .with_context(|| format!("invalid time {created:?} in image config"))?;
    if time > epoch {
        item.insert("created".into(), epoch.format(&Rfc3339)?.into());
    }
    Ok(())
}
