//! Finds the cache keys of a vertex, and a record under one of them.
//!
//! Keys are tried in this order: the *definition key*, made of the op and its inputs' keys; then,
//! where only some files of an input matter, the *content key*, for which the digest of those
//! files stands in for the input's key. The content key of a step needs its inputs' files, so it
//! is only computed when the definition key missed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::try_join_all;
use kiln_cache::{
    CacheKey, Digest, KeyPart, Link, PartValue, Record, RecordType, content_key, key_of,
};

use super::key::{CacheMap, Dep, Selector};
use super::{Build, Outputs, Snapshot, SolveError, Stack};
use crate::graph::{Edge, Vertex};
use crate::ops;

/// Key parts longer than this are kept as a digest.
const MAX_PART: usize = 200;

/// What is known of a vertex without running it.
pub(crate) struct Probe {
    /// One key an output, from which those of its dependants are made; none where the vertex is
    /// known by the content of its files only.
    pub(super) keys: Option<Vec<CacheKey>>,
    /// The outputs, if there is nothing to do: a source, or a record was found.
    pub(super) outputs: Option<Arc<Outputs>>,
    recipe: Option<Recipe>,
}

/// What a record of a vertex holds besides its outputs.
struct Recipe {
    map: CacheMap,
    /// The links that the primary keys are made from.
    links: Vec<Link>,
    /// Further keys under which the same outputs shall be found; one list an output.
    aliases: Vec<Vec<CacheKey>>,
    /// The keys, of whatever kind, under which an earlier run may have been recorded.
    known: Vec<Vec<CacheKey>>,
}

impl Probe {
    fn hit(outputs: Outputs, build: &Build, vertex: &Vertex) -> Self {
        build.progress.vertex(vertex).cached();
        Self { keys: outputs.keys.clone(), outputs: Some(Arc::new(outputs)), recipe: None }
    }

    /// Looks once more, right before the vertex would run.
    pub(super) fn look_again(
        &self,
        build: &Build,
        vertex: &Vertex,
    ) -> Result<Option<Outputs>, SolveError> {
        for keys in self.recipe.iter().flat_map(|recipe| &recipe.known) {
            if let Some(outputs) = lookup(build, vertex, keys)? {
                return Ok(Some(outputs));
            }
        }
        Ok(None)
    }

    /// Records what a run of the vertex made.
    pub(super) fn record(
        &self,
        build: &Build,
        vertex: &Vertex,
        snapshots: Vec<Snapshot>,
        duration: Duration,
    ) -> anyhow::Result<Outputs> {
        let (Some(keys), Some(recipe)) = (&self.keys, &self.recipe) else {
            anyhow::bail!("step has no cache key");
        };
        if snapshots.len() != keys.len() {
            anyhow::bail!("step made {} outputs, {} were expected", snapshots.len(), keys.len());
        }
        let parts: Vec<KeyPart> = recipe.map.parts.iter().map(part).collect();
        for (output, (key, snapshot)) in keys.iter().zip(&snapshots).enumerate() {
            let Snapshot::Layers(stack) = snapshot else {
                anyhow::bail!("step made files that are not in a layer");
            };
            let record = Record {
                key: *key,
                op: recipe.map.op,
                output: output as u32,
                inputs: recipe.links.iter().map(|link| vec![link.clone()]).collect(),
                result: stack.ids().to_vec(),
                description: vertex.name(),
                record_type: RecordType::Regular,
                created_at: SystemTime::now(),
                duration: Some(duration),
            };
            // The snapshot already holds pins on its layers.
            let _pin = build.daemon.index.save(record, &parts, &recipe.aliases[output], &[])?;
        }
        Ok(Outputs { keys: Some(keys.clone()), snapshots })
    }
}

fn part((name, value): (&String, &String)) -> KeyPart {
    let value = if value.len() > MAX_PART {
        PartValue::Digest(Digest::of(value))
    } else {
        PartValue::Text(value.clone())
    };
    KeyPart { name: name.clone(), value }
}

pub(super) async fn run(build: &Arc<Build>, vertex: &Arc<Vertex>) -> Result<Probe, SolveError> {
    let at = |cause: anyhow::Error| SolveError::at(vertex, cause);
    if ops::is_source(vertex) {
        let progress = build.progress.vertex(vertex);
        let load = async { ops::source::load(build, vertex, &progress).await.map_err(at) };
        let outputs = progress.run(load).await?;
        let keys = outputs.keys.clone();
        return Ok(Probe { keys, outputs: Some(Arc::new(outputs)), recipe: None });
    }
    build.progress.vertex(vertex);
    let map = ops::cache_map(vertex).map_err(at)?;
    let inputs = vertex.inputs();
    let probes = try_join_all(inputs.iter().map(|edge| build.probe(&edge.vertex))).await?;

    let definition: Option<Vec<Link>> = inputs
        .iter()
        .zip(&probes)
        .zip(&map.deps)
        .map(|((edge, probe), dep)| definition_link(edge, probe, dep))
        .collect();
    let by_definition = definition.as_ref().map(|links| output_keys(&map, links));
    if let Some(keys) = &by_definition
        && let Some(outputs) = lookup(build, vertex, keys)?
    {
        return Ok(Probe::hit(outputs, build, vertex));
    }

    let mut by_content = None;
    let mut links = definition.clone();
    if definition.is_none() || map.deps.iter().any(|dep| dep.content.is_some()) {
        let each = inputs.iter().zip(&probes).zip(&map.deps);
        let content =
            each.map(|((edge, probe), dep)| content_link(build, vertex, edge, probe, dep));
        let content = try_join_all(content).await?;
        let keys = output_keys(&map, &content);
        if let Some(outputs) = lookup(build, vertex, &keys)? {
            if let (Some(aliases), Some(links)) = (&by_definition, &definition) {
                link(build, aliases, &outputs, links).map_err(at)?;
            }
            return Ok(Probe::hit(outputs, build, vertex));
        }
        by_content = Some(keys);
        links = Some(content);
    }
    let known: Vec<_> = by_content.into_iter().chain(by_definition).collect();
    let (Some(mut keys), Some(links)) = (known.first().cloned(), links) else {
        return Err(at(anyhow::anyhow!("step has no cache key")));
    };
    if vertex.meta().ignore_cache {
        // Steps below must not take what an earlier run led to for what this one leads to.
        let salted = |key: &CacheKey| CacheKey::new(Digest::of(format!("{key} {}", build.id)));
        keys = keys.iter().map(salted).collect();
    }
    let others = |output: usize| {
        let others = known.iter().map(|known| known[output]);
        others.filter(|other| *other != keys[output]).collect()
    };
    let aliases = (0..map.outputs).map(others).collect();
    let recipe = Recipe { map, links, aliases, known };
    Ok(Probe { keys: Some(keys), outputs: None, recipe: Some(recipe) })
}

fn output_keys(map: &CacheMap, links: &[Link]) -> Vec<CacheKey> {
    (0..map.outputs).map(|output| key_of(&map.op, output as u32, links)).collect()
}

/// The link of an input by its own key.
fn definition_link(edge: &Edge, probe: &Probe, dep: &Dep) -> Option<Link> {
    let key = *probe.keys.as_ref()?.get(edge.output)?;
    let selector = dep.selector.map(|selector| kiln_cache::Selector::new(selector.to_string()));
    Some(Link { key, selector: selector.unwrap_or_default() })
}

/// The link of an input by content; by its key where all of it matters and it has one.
async fn content_link(
    build: &Arc<Build>,
    vertex: &Vertex,
    edge: &Edge,
    probe: &Probe,
    dep: &Dep,
) -> Result<Link, SolveError> {
    let whole = [Selector { path: "/".into(), follow_links: true, ..Selector::default() }];
    let selectors = match (&dep.content, definition_link(edge, probe, dep)) {
        (None, Some(link)) => return Ok(link),
        (Some(selectors), _) if !selectors.is_empty() => selectors.as_slice(),
        _ => &whole,
    };
    let snapshot = build.solve(edge).await?;
    let digest = ops::content::digest(build, &snapshot, selectors).await;
    let digest = digest.map_err(|cause| SolveError::at(vertex, cause))?;
    Ok(Link::whole(content_key(&digest)))
}

/// Finds all outputs under their keys, in the daemon's own index or in the caches that the
/// client named; nothing if one is missing.
fn lookup(
    build: &Build,
    vertex: &Vertex,
    keys: &[CacheKey],
) -> Result<Option<Outputs>, SolveError> {
    if vertex.meta().ignore_cache {
        return Ok(None);
    }
    let progress = build.progress.vertex(vertex);
    let mut primaries = Vec::with_capacity(keys.len());
    let mut snapshots = Vec::with_capacity(keys.len());
    for key in keys {
        let hit = match build.daemon.index.lookup(&[*key])? {
            Some(hit) => Some(hit),
            None => {
                build.imported(&progress, *key).map_err(|cause| SolveError::at(vertex, cause))?
            }
        };
        let Some(hit) = hit else { return Ok(None) };
        primaries.push(hit.row.key);
        snapshots.push(Snapshot::Layers(Stack::new(hit.row.result, hit.pin)));
    }
    Ok(Some(Outputs { keys: Some(primaries), snapshots }))
}

/// Lets records be found under further keys from now on.
fn link(
    build: &Build,
    aliases: &[CacheKey],
    outputs: &Outputs,
    links: &[Link],
) -> anyhow::Result<()> {
    for (alias, primary) in aliases.iter().zip(outputs.keys.iter().flatten()) {
        build.daemon.index.link(*alias, primary, links)?;
    }
    Ok(())
}
