//! SBOMs in SPDX's JSON (spdx/spdx-spec 2.3), as far as exporters have something to add: only they
//! know which blobs an image's layers are.

use std::sync::Arc;

use kiln_snapshotter::{Follow, View};
use serde_json::{Value, json};

use super::blobs::LayerBlob;
use crate::solver::{Build, Snapshot, Stack};

/// The document with the layer that each of its files is in. What is no such document stays as it
/// is.
pub(super) async fn with_layers(
    build: &Arc<Build>,
    mut document: Value,
    stack: &Stack,
    layers: &[LayerBlob],
) -> anyhow::Result<Value> {
    let is_spdx = |version: &Value| version.as_str().is_some_and(|it| it.starts_with("SPDX-2."));
    if !document.get("spdxVersion").is_some_and(is_spdx) {
        return Ok(document);
    }
    let mut views = Vec::new();
    build.daemon.layers.fetch(build, &Snapshot::Layers(stack.clone())).await?;
    for layer in layers {
        let view = build.daemon.layers.view_of(&[layer.id])?;
        views.push((view, layer.descriptor.digest.to_string()));
    }
    let task = tokio::task::spawn_blocking(move || {
        if let Some(Value::Array(files)) = document.get_mut("files") {
            files.iter_mut().for_each(|file| say_layer(file, &views));
        }
        let creator = format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"));
        if document.get("creationInfo").is_none_or(Value::is_null) {
            document["creationInfo"] = json!({});
        }
        match &mut document["creationInfo"]["creators"] {
            Value::Array(creators) => creators.push(creator.into()),
            creators @ Value::Null => *creators = json!([creator]),
            _ => {}
        }
        document
    });
    Ok(task.await?)
}

/// Notes the topmost layer that has a file, unless somebody else has noted something.
fn say_layer(file: &mut Value, layers: &[(View, String)]) {
    let has_comment = file.get("comment").and_then(Value::as_str).is_some_and(|it| !it.is_empty());
    let Some(name) = file.get("fileName").and_then(Value::as_str).filter(|_| !has_comment) else {
        return;
    };
    let has_file = |view: &View| matches!(view.lookup(name, Follow::NoLast), Ok(Some(_)));
    let layer = layers.iter().rev().find(|(view, _)| has_file(view));
    if let Some((_, digest)) = layer
        && let Some(file) = file.as_object_mut()
    {
        file.insert("comment".to_owned(), format!("layerID: {digest}").into());
    }
}
