//! The layers that steps made.

use std::collections::BTreeMap;

use kiln_cache::Descriptor;

use super::build_config::Steps;
use crate::solver::{Build, Snapshot, Stack};

/// The blobs of the outputs of `steps`, as far as there are any: what was made here has none until
/// it is exported.
pub(super) fn of_steps(
    build: &Build,
    steps: &Steps,
) -> anyhow::Result<BTreeMap<String, Vec<Vec<Descriptor>>>> {
    let mut layers = BTreeMap::new();
    for vertex in &steps.vertices {
        let Some(outputs) = build.known_outputs(vertex.digest()) else { continue };
        for (output, snapshot) in outputs.snapshots.iter().enumerate() {
            let Snapshot::Layers(stack) = snapshot else { continue };
            if let Some(blobs) = blobs(build, stack)?
                && let Some(name) = steps.output_name(vertex.digest(), output)
            {
                layers.insert(name, vec![blobs]);
            }
        }
    }
    Ok(layers)
}

/// None if a layer has no blob, or if there is no layer.
fn blobs(build: &Build, stack: &Stack) -> anyhow::Result<Option<Vec<Descriptor>>> {
    let mut blobs = Vec::with_capacity(stack.ids().len());
    for &layer in stack.ids() {
        let row = build.daemon.index.layer(layer)?;
        let Some(blob) = row.and_then(|row| row.blobs.into_iter().next()) else {
            return Ok(None);
        };
        blobs.push(Descriptor::new(blob.media_type, blob.digest, blob.size));
    }
    Ok((!blobs.is_empty()).then_some(blobs))
}
