//! The layers that steps made.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use kiln_cache::{Descriptor, LayerId};

use super::build_config::Steps;
use crate::solver::{Build, Snapshot, Stack};

/// The blobs of the outputs of `steps`, as far as there are any: what was made here has none until
/// it is exported. No more than `most` in all: what is left out is of the first steps.
pub(super) fn of_steps(
    build: &Build,
    steps: &Steps,
    most: usize,
) -> anyhow::Result<BTreeMap<String, Vec<Vec<Descriptor>>>> {
    let (mut layers, mut blobs, mut left) = (BTreeMap::new(), Blobs::default(), most);
    for vertex in steps.vertices.iter().rev() {
        let Some(outputs) = build.known_outputs(vertex.digest()) else { continue };
        for (output, snapshot) in outputs.snapshots.iter().enumerate() {
            let Some(Snapshot::Layers(stack)) = snapshot else { continue };
            let Some(remaining) = left.checked_sub(stack.ids().len()) else { return Ok(layers) };
            if let Some(blobs) = blobs.of_stack(build, stack)?
                && let Some(name) = steps.output_name(vertex.digest(), output)
            {
                layers.insert(name, vec![blobs]);
                left = remaining;
            }
        }
    }
    Ok(layers)
}

/// The blobs of layers that were asked about: each step has the layers of those before it, too.
#[derive(Default)]
struct Blobs(HashMap<LayerId, Option<Descriptor>>);

impl Blobs {
    /// None if a layer has no blob, or if there is no layer.
    fn of_stack(
        &mut self,
        build: &Build,
        stack: &Stack,
    ) -> anyhow::Result<Option<Vec<Descriptor>>> {
        let mut blobs = Vec::with_capacity(stack.ids().len());
        for &layer in stack.ids() {
            let Some(blob) = self.of_layer(build, layer)? else { return Ok(None) };
            blobs.push(blob.clone());
        }
        Ok((!blobs.is_empty()).then_some(blobs))
    }

    fn of_layer(&mut self, build: &Build, layer: LayerId) -> anyhow::Result<Option<&Descriptor>> {
        let blob = match self.0.entry(layer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let row = build.daemon.index.layer(layer)?;
                let blob = row.and_then(|row| row.blobs.into_iter().next());
                unknown.insert(
                    blob.map(|blob| Descriptor::new(blob.media_type, blob.digest, blob.size)),
                )
            }
        };
        Ok(blob.as_ref())
    }
}
