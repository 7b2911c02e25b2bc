//! Finds the cache keys of a vertex, and a record under one of them.
//!
//! A *definition key* is made of the op and its inputs' keys. Where only some files of an input
//! matter there is a *content key* too, for which the digest of those files stands in for the
//! input's key. The content key of a step needs its inputs' files, which may have to be made, so
//! there are two looks at a vertex:
//!
//! - a [`guess`] never runs a step. It looks under the definition key, made of what was guessed of
//!   the inputs. Where that hits, nothing else of the vertex or of what it depends on is touched.
//! - a [`probe`](run) is for a vertex whose files are needed and whose guess was a miss. It looks
//!   under the content key too, and meanwhile lets all inputs come about that this or a run will
//!   take: that is how independent stages run at once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::try_join_all;
use kiln_cache::{CacheKey, Digest, FileList, Hit, Link, Record, RecordType, content_key, key_of};

use super::key::{CacheMap, Dep, Selector};
use super::{
    Build, LeftBehind, Outputs, Snapshot, SolveError, Stack, Subject, VertexProgress, miss,
};
use crate::graph::{Edge, Vertex};
use crate::ops;
use crate::ops::source::Loaded;
use crate::remote::Wanted;

/// What is known of a vertex without running it.
pub(crate) struct Probe {
    /// One key an output, from which those of its dependants are made; none where the vertex is
    /// known by the content of its files only.
    pub(super) keys: Option<Vec<CacheKey>>,
    /// The outputs, if there is nothing to do: a source, or a record was found.
    pub(super) outputs: Option<Arc<Outputs>>,
    /// How to record what a run makes; none where there is nothing to run, or for the guess of what
    /// has inputs.
    recipe: Option<Recipe>,
}

/// How much of a vertex has to be in a cache for a hit. Who wants another output than those that are
/// there has all of them made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Enough {
    Some,
    All,
}

/// What a record of a vertex holds besides its outputs.
pub(super) struct Recipe {
    pub(super) map: CacheMap,
    /// For each input, the links under which it is known.
    pub(super) inputs: Vec<Vec<Link>>,
    /// For each input, the files that its content key stands for, if it has one.
    pub(super) files: Vec<Option<FileList>>,
    /// The keys, of whatever kind, under which a run may be recorded; one list an output.
    known: Vec<Vec<CacheKey>>,
}

/// What an input of a vertex is by content.
pub(super) struct Content {
    key: CacheKey,
    /// The files, if they are few enough to be remembered.
    files: Option<FileList>,
}

impl Probe {
    /// Whether looking further would find nothing more.
    pub(super) fn is_final(&self) -> bool {
        self.outputs.is_some() || self.recipe.is_some()
    }

    /// Whether there is nothing to do for an output.
    fn has(&self, output: usize) -> bool {
        self.outputs.as_ref().is_some_and(|outputs| outputs.snapshot(output).is_some())
    }

    fn hit(outputs: Outputs, progress: &VertexProgress) -> Self {
        progress.cached();
        Self { keys: outputs.keys.clone(), outputs: Some(Arc::new(outputs)), recipe: None }
    }

    /// Looks once more, right before the vertex would run.
    pub(super) fn look_again(
        &self,
        build: &Build,
        vertex: &Vertex,
    ) -> Result<Option<Outputs>, SolveError> {
        if vertex.meta().ignore_cache {
            return Ok(None);
        }
        for keys in self.recipe.iter().flat_map(|recipe| &recipe.known) {
            let mut hits = Vec::with_capacity(keys.len());
            for key in keys {
                hits.extend(local(build, *key).map_err(|cause| SolveError::at(vertex, cause))?);
            }
            if hits.len() == keys.len() {
                return Ok(Some(outputs(hits)));
            }
        }
        Ok(None)
    }

    /// Tells those who watch why the vertex has to run. That is not worth a failure.
    pub(super) async fn explain(
        self: &Arc<Self>,
        build: &Arc<Build>,
        vertex: &Arc<Vertex>,
        progress: &VertexProgress,
    ) {
        if self.recipe.is_none() {
            return;
        }
        let (probe, build, vertex) = (self.clone(), build.clone(), vertex.clone());
        let compare = move || {
            let recipe = probe.recipe.as_ref()?;
            match miss::explain(&build, &vertex, recipe) {
                Ok(miss) => Some(miss),
                Err(error) => {
                    tracing::debug!("cannot tell why a step missed: {error:#}");
                    None
                }
            }
        };
        if let Ok(Some(miss)) = tokio::task::spawn_blocking(compare).await {
            progress.missed(miss);
        }
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
        let parts = miss::parts(build, vertex, recipe);
        for (output, (key, snapshot)) in keys.iter().zip(&snapshots).enumerate() {
            let Snapshot::Layers(stack) = snapshot else {
                anyhow::bail!("step made files that are not in a layer");
            };
            let record = Record {
                key: *key,
                op: recipe.map.op,
                output: output as u32,
                inputs: recipe.inputs.clone(),
                result: stack.ids().to_vec(),
                description: vertex.name(),
                record_type: RecordType::Regular,
                created_at: SystemTime::now(),
                duration: Some(duration),
            };
            let aliases = recipe.known.iter().map(|keys| keys[output]);
            let aliases: Vec<CacheKey> = aliases.filter(|alias| alias != key).collect();
            // The snapshot already holds pins on its layers.
            let _pin = build.daemon.index.save(record, &parts, &aliases, &[])?;
            build.made(stack);
        }
        let snapshots = snapshots.into_iter().map(Some).collect();
        Ok(Outputs { keys: Some(keys.clone()), snapshots })
    }
}

/// Looks under the definition key, without running anything. Every vertex that a build comes by is
/// guessed first, so this is also where it is refused if the build has no right to it.
pub(super) async fn guess(build: &Arc<Build>, vertex: &Arc<Vertex>) -> Result<Probe, SolveError> {
    let at = |cause: anyhow::Error| SolveError::at(vertex, cause);
    let progress = &build.progress.vertex(vertex);
    if ops::is_source(vertex) {
        // Boxed, and so are the questions to imported caches: there are as many guesses at a time as
        // steps, and few of them come here.
        return Box::pin(source(build, vertex, progress)).await;
    }
    ops::require_entitlements(build, vertex).map_err(|refused| at(refused.into()))?;
    let map = ops::cache_map(vertex).map_err(at)?;
    let inputs = try_join_all(vertex.inputs().iter().map(|edge| build.guess(&edge.vertex))).await?;
    let links = definition_links(build, vertex, &map, &inputs).await?;
    let mut keys = output_keys(&map, &links);
    if vertex.meta().ignore_cache {
        keys = salted(build, &keys);
    } else if let Some(outputs) =
        lookup(build, vertex, progress, &map, &keys, Enough::Some).await.map_err(at)?
    {
        return Ok(Probe::hit(outputs, progress));
    } else if let Some(imported) = Box::pin(build.imported_primaries(&keys)).await {
        // A cache with the results of the last steps alone still knows the keys of those before.
        keys = imported;
    }
    Ok(Probe { keys: Some(keys), outputs: None, recipe: None })
}

/// Loads a source; if all that is known of it then is a key, looks under that. There is no more to
/// be found out.
async fn source(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    progress: &VertexProgress,
) -> Result<Probe, SolveError> {
    let at = |cause: anyhow::Error| SolveError::at(vertex, cause);
    let load = async { ops::source::load(build, vertex, progress).await.map_err(at) };
    let map = match progress.run(load).await? {
        Loaded::Outputs(outputs) => {
            let keys = outputs.keys.clone();
            return Ok(Probe { keys, outputs: Some(Arc::new(outputs)), recipe: None });
        }
        Loaded::Key(map) => map,
    };
    let keys = output_keys(&map, &[]);
    let found = lookup(build, vertex, progress, &map, &keys, Enough::All).await;
    if let Some(outputs) = found.map_err(at)? {
        return Ok(Probe::hit(outputs, progress));
    }
    let recipe = Recipe { map, inputs: Vec::new(), files: Vec::new(), known: vec![keys.clone()] };
    Ok(Probe { keys: Some(keys), outputs: None, recipe: Some(recipe) })
}

/// Looks under all keys of a vertex whose guess was a miss.
pub(super) async fn run(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    enough: Enough,
) -> Result<Probe, SolveError> {
    let at = |cause: anyhow::Error| SolveError::at(vertex, cause);
    let progress = &build.progress.vertex(vertex);
    let map = ops::cache_map(vertex).map_err(at)?;
    let edges = vertex.inputs();
    let inputs = edges.iter().zip(&map.deps).map(async |(edge, dep)| {
        let probe = build.probe(&edge.vertex).await?;
        // Of an input that nobody ever had, neither had anybody what is made of it.
        if dep.content.is_some() || !probe.has(edge.output) {
            build.solve(edge).await?;
        }
        Ok::<_, SolveError>(probe)
    });
    let inputs = try_join_all(inputs).await?;

    let definition = definition_links(build, vertex, &map, &inputs).await?;
    let is_by_content = map
        .deps
        .iter()
        .zip(&inputs)
        .any(|(dep, input)| dep.content.is_some() && input.keys.is_some());
    let ignores_cache = vertex.meta().ignore_cache;
    let mut links = vec![definition];
    let mut known = vec![output_keys(&map, &links[0])];
    let look = async |keys: &[CacheKey]| {
        lookup(build, vertex, progress, &map, keys, enough).await.map_err(at)
    };
    if !ignores_cache && let Some(outputs) = look(&known[0]).await? {
        return Ok(Probe::hit(outputs, progress));
    }
    if is_by_content {
        let each = edges.iter().enumerate().zip(&inputs).zip(&map.deps);
        let content =
            each.map(|((edge, input), dep)| content_link(build, vertex, edge, input, dep));
        let content = try_join_all(content).await?;
        let keys = output_keys(&map, &content);
        if !ignores_cache && let Some(outputs) = look(&keys).await? {
            let found = known[0].iter().zip(outputs.keys.iter().flatten()).zip(&outputs.snapshots);
            for ((alias, primary), _) in found.filter(|(_, snapshot)| snapshot.is_some()) {
                build.daemon.index.link(*alias, primary, &links[0])?;
            }
            return Ok(Probe::hit(outputs, progress));
        }
        // What holds for content is first: it holds for more.
        links.insert(0, content);
        known.insert(0, keys);
    }
    let keys = if ignores_cache {
        salted(build, &known[0])
    } else {
        build.imported_primaries(&known[0]).await.unwrap_or_else(|| known[0].clone())
    };
    let mut each_input = vec![Vec::new(); inputs.len()];
    for links in links {
        for (known, link) in each_input.iter_mut().zip(links) {
            if !known.contains(&link) {
                known.push(link);
            }
        }
    }
    let files = (0..edges.len()).map(|position| {
        let content = build.contents.known(&(vertex.digest(), position))?;
        content.files.clone()
    });
    let recipe = Recipe { map, inputs: each_input, files: files.collect(), known };
    Ok(Probe { keys: Some(keys), outputs: None, recipe: Some(recipe) })
}

fn output_keys(map: &CacheMap, links: &[Link]) -> Vec<CacheKey> {
    (0..map.outputs).map(|output| key_of(&map.op, output as u32, links)).collect()
}

/// Keys of one build's own: steps below must not take what an earlier run led to for what this one
/// leads to.
fn salted(build: &Build, keys: &[CacheKey]) -> Vec<CacheKey> {
    keys.iter().map(|key| CacheKey::new(Digest::of(format!("{key} {}", build.id)))).collect()
}

/// The links of the definition key. Inputs that have no keys (a client's files) take part by their
/// content even there.
async fn definition_links(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    map: &CacheMap,
    inputs: &[Arc<Probe>],
) -> Result<Vec<Link>, SolveError> {
    let each = vertex.inputs().iter().enumerate().zip(inputs).zip(&map.deps);
    try_join_all(each.map(async |((edge, input), dep)| match definition_link(edge.1, input, dep) {
        Some(link) => Ok(link),
        None => content_link(build, vertex, edge, input, dep).await,
    }))
    .await
}

/// The link of an input by its own key.
fn definition_link(edge: &Edge, probe: &Probe, dep: &Dep) -> Option<Link> {
    let key = *probe.keys.as_ref()?.get(edge.output)?;
    Some(Link { key, selector: link_selector(dep) })
}

fn link_selector(dep: &Dep) -> kiln_cache::Selector {
    let selector = dep.selector.map(|selector| kiln_cache::Selector::new(selector.to_string()));
    selector.unwrap_or_default()
}

/// The link of an input by content; by its key where all of it matters and it has one.
async fn content_link(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    (position, edge): (usize, &Edge),
    probe: &Probe,
    dep: &Dep,
) -> Result<Link, SolveError> {
    let definition = definition_link(edge, probe, dep);
    if let (None, Some(link)) = (&dep.content, definition) {
        return Ok(link);
    }
    let compute = || {
        let (build, vertex) = (build.clone(), vertex.clone());
        let content = dep.content.clone();
        async move { content_of(&build, &vertex, position, content).await.map(Arc::new) }.boxed()
    };
    let content = build.contents.get_at_once((vertex.digest(), position), compute).await?;
    // Where more was hashed than the files that matter, the selector has to say which those are.
    let selectors = dep.content.is_none().then(|| link_selector(dep));
    Ok(Link { key: content.key, selector: selectors.unwrap_or_default() })
}

/// What of the input at `position` the `selectors` choose; all of it, if there are none.
async fn content_of(
    build: &Arc<Build>,
    vertex: &Vertex,
    position: usize,
    selectors: Option<Vec<Selector>>,
) -> Result<Content, SolveError> {
    let edge = &vertex.inputs()[position];
    let whole = || vec![Selector { path: "/".into(), follow_links: true, ..Selector::default() }];
    let selectors = selectors.filter(|selectors| !selectors.is_empty()).unwrap_or_else(whole);
    let snapshot = build.solve(edge).await?;
    let digest = ops::content::digest(build, &snapshot, &selectors).await;
    let (digest, files) = digest.map_err(|cause| {
        let what = format!("failed to calculate checksum of ref {}", edge.vertex.digest());
        let cause = cause.context(what);
        // The step does not come to run, but this is where it fails.
        build.progress.vertex(vertex).complete(Some(&format!("{cause:#}")));
        let left = build.failed_steps.are_kept().then(|| LeftBehind {
            subject: Subject::CacheKey(position),
            inputs: vec![Some(snapshot.clone())],
            outputs: Vec::new(),
        });
        build.failed(vertex, cause.context("failed to compute cache key"), left)
    })?;
    Ok(Content { key: content_key(&digest), files })
}

/// Finds outputs under their keys, in the daemon's own index or in the caches that the client named;
/// nothing if those are not `enough`.
async fn lookup(
    build: &Arc<Build>,
    vertex: &Vertex,
    progress: &VertexProgress,
    map: &CacheMap,
    keys: &[CacheKey],
    enough: Enough,
) -> anyhow::Result<Option<Outputs>> {
    let mut hits = Vec::with_capacity(keys.len());
    for (output, &key) in keys.iter().enumerate() {
        let hit = match local(build, key)? {
            Some(hit) => Some(hit),
            None => {
                let (op, output) = (map.op, output as u32);
                let (name, description) = (vertex.name(), ops::description(vertex, output));
                let wanted = Wanted { key, op, output, name, description };
                Box::pin(build.imported(progress, &wanted)).await?
            }
        };
        if hit.is_none() && enough == Enough::All {
            return Ok(None);
        }
        hits.push(hit);
    }
    if hits.iter().all(Option::is_none) {
        return Ok(None);
    }
    let (mut all, mut snapshots) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
    for (&key, hit) in keys.iter().zip(hits) {
        let (key, snapshot) = match hit {
            Some(hit) => snapshot_of(hit),
            None => {
                let known = Box::pin(build.imported_primaries(&[key])).await;
                (known.map_or(key, |primaries| primaries[0]), None)
            }
        };
        all.push(key);
        snapshots.push(snapshot);
    }
    Ok(Some(Outputs { keys: Some(all), snapshots }))
}

/// A record of the daemon's own index whose files this build can have.
fn local(build: &Build, key: CacheKey) -> anyhow::Result<Option<Hit<Record>>> {
    let Some(hit) = build.daemon.index.lookup(&[key])? else { return Ok(None) };
    Ok(build.is_obtainable(&hit.row.result)?.then_some(hit))
}

fn outputs(hits: Vec<Hit<Record>>) -> Outputs {
    let (keys, snapshots) = hits.into_iter().map(snapshot_of).unzip();
    Outputs { keys: Some(keys), snapshots }
}

fn snapshot_of(hit: Hit<Record>) -> (CacheKey, Option<Snapshot>) {
    (hit.row.key, Some(Snapshot::Layers(Stack::new(hit.row.result, hit.pin))))
}
