//! One build: its client, its progress, and the evaluation of its vertices.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};
use kiln_cache::remote::ExportRecord;
use kiln_cache::{CacheKey, Digest, Hit, LayerId, Pin, Record, Remote};
use kiln_proto::session::methods;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::mpsc;

use super::memo::{Answer, Memo};
use super::probe::{self, Content, Enough, Probe};
use super::{
    FailedSteps, LeftBehind, OpFailure, Outputs, Progress, Snapshot, SolveError, Stack,
    VertexProgress,
};
use crate::daemon::Daemon;
use crate::damage;
use crate::devices::DeviceGrants;
use crate::exporter::{BlobOptions, LayerBlob};
use crate::graph::{Edge, Vertex, VertexDigest};
use crate::image::Origin;
use crate::ops;
use crate::ops::source::{git, http};
use crate::policy::SourcePolicy;
use crate::provenance::Pins;
use crate::remote::{ImportedCache, Imports, ObjectCache, Wanted};
use crate::session::{Session, SessionAuthenticator};

/// One build. Ends by [`Build::cancel`], for the tasks that work for it hold it.
pub(crate) struct Build {
    /// The client's name for it.
    pub(crate) id: String,
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) progress: Progress,
    /// The registry client with the credentials of whoever asked.
    pub(crate) registry: kiln_registry::Client,
    session: Option<Arc<Session>>,
    /// What the client allows its steps to do beyond the usual, as far as it may.
    entitlements: BTreeSet<String>,
    /// Which sources may be used.
    policy: SourcePolicy,
    /// Vertices of graphs that the policy admits.
    admitted: Mutex<HashSet<VertexDigest>>,
    /// Caches that the client named, asked after the daemon's own.
    imports: Vec<Arc<ImportedCache>>,
    /// What tells its project from others: steps are compared with those of earlier builds of it.
    pub(super) project: String,
    /// What the inputs of vertices are by content, by their positions.
    pub(super) contents: Memo<(VertexDigest, usize), Content>,
    guesses: Memo<VertexDigest, Probe>,
    probes: Memo<VertexDigest, Probe>,
    results: Memo<VertexDigest, Outputs>,
    /// All outputs of vertices of which a cache had some, but not the ones that it took.
    completed: Memo<VertexDigest, Outputs>,
    /// Layers that were packed into blobs, by how those are to be.
    pub(crate) blobs: Memo<(LayerId, BlobOptions), LayerBlob>,
    /// Hears of results, as soon as there is one.
    watcher: OnceLock<mpsc::UnboundedSender<Stack>>,
    /// Files of web servers, by their addresses: what is asked twice is answered alike.
    pub(crate) http: Memo<CacheKey, http::Resolved>,
    /// Branches and tags of repositories, by address and name.
    pub(crate) git: Memo<String, git::Resolved>,
    /// What sources turned out to be.
    pub(crate) source_pins: Pins,
    pub(crate) started_at: SystemTime,
    finished_at: OnceLock<SystemTime>,
    /// What progress says of a layer's transfer is said of the vertex that brought the layer in.
    transfers: Mutex<HashMap<LayerId, VertexProgress>>,
    /// Cache mounts that were cleared for steps without cache.
    cleared_caches: Mutex<HashSet<String>>,
    /// Content stores that the client is known to serve.
    stores: Mutex<HashSet<String>>,
    /// Places that did not have a layer that they should have.
    lost_places: Mutex<HashSet<String>>,
    /// Layers whose files this build can have: found out once, for each step has all those below.
    obtainable: Mutex<FxHashSet<LayerId>>,
    /// Held until the build ends.
    pins: Mutex<Vec<Pin>>,
    /// What the processes of steps used that ran in this build.
    usage: Mutex<HashMap<VertexDigest, StepUsage>>,
    /// For the frontend to look at.
    pub(crate) failed_steps: FailedSteps,
}

/// What a build is made from, besides its graph.
pub(crate) struct BuildRequest {
    pub(crate) id: String,
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) entitlements: BTreeSet<String>,
    pub(crate) policy: SourcePolicy,
    /// What tells this build's project from others.
    pub(crate) project: String,
}

/// What the process of a step used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepUsage {
    pub(crate) used: kiln_executor::Usage,
    pub(crate) ended_at: SystemTime,
}

/// A step needs a right that was not granted.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not allowed")]
pub(crate) struct NotEntitled(String);

impl Build {
    pub(crate) fn new(daemon: Arc<Daemon>, request: BuildRequest) -> Self {
        let BuildRequest { id, session, entitlements, policy, project } = request;
        let registry = match &session {
            Some(session) => {
                daemon.registry.with_auth(Arc::new(SessionAuthenticator(session.clone())))
            }
            None => daemon.registry.clone(),
        };
        Self {
            id,
            daemon,
            progress: Progress::new(),
            registry,
            session,
            entitlements,
            policy,
            admitted: Mutex::default(),
            imports: Vec::new(),
            project,
            contents: Memo::new(),
            guesses: Memo::new(),
            probes: Memo::new(),
            results: Memo::new(),
            completed: Memo::new(),
            blobs: Memo::new(),
            watcher: OnceLock::new(),
            http: Memo::new(),
            git: Memo::new(),
            source_pins: Pins::default(),
            started_at: SystemTime::now(),
            finished_at: OnceLock::new(),
            transfers: Mutex::default(),
            cleared_caches: Mutex::default(),
            stores: Mutex::default(),
            lost_places: Mutex::default(),
            obtainable: Mutex::default(),
            pins: Mutex::default(),
            usage: Mutex::default(),
            failed_steps: FailedSteps::default(),
        }
    }

    /// Lets the build find results in `imports`, asked in order.
    pub(crate) fn with_imports(mut self, imports: &Imports) -> Self {
        self.imports = imports.caches();
        for host in imports.insecure_hosts() {
            self.registry = self.registry.with_insecure(&host);
        }
        self
    }

    /// The session of whoever asked.
    pub(crate) fn session(&self) -> anyhow::Result<&Arc<Session>> {
        self.session.as_ref().context("this build has no session, but needs files of its client")
    }

    /// Whether the client serves any of its directories.
    pub(crate) fn has_files(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.supports(methods::FILE_SYNC))
    }

    pub(crate) fn session_id(&self) -> Option<&str> {
        self.session.as_deref().map(Session::id)
    }

    /// The value of a secret; `None` if it is missing and may be.
    pub(crate) async fn secret(&self, id: &str, optional: bool) -> anyhow::Result<Option<Vec<u8>>> {
        let found = match &self.session {
            Some(session) => session.secret(id).await?,
            None => None,
        };
        if found.is_none() && !optional {
            anyhow::bail!("secret {id}: not found");
        }
        Ok(found)
    }

    /// Fails unless the client grants `entitlement`, which it can only if the daemon lets it.
    pub(crate) fn require_entitlement(&self, entitlement: &str) -> Result<(), NotEntitled> {
        if self.entitlements.contains(entitlement) {
            return Ok(());
        }
        Err(NotEntitled(entitlement.to_owned()))
    }

    /// Which devices the client grants its steps. What is no grant has been refused when the build
    /// was asked for.
    pub(crate) fn device_grants(&self) -> DeviceGrants {
        DeviceGrants::of(self.entitlements.iter().map(String::as_str)).unwrap_or_default()
    }

    /// Which sources this build may use.
    pub(crate) fn policy(&self) -> &SourcePolicy {
        &self.policy
    }

    /// The graph to be built in the place of the one that leads to `edge`, as the build's source
    /// policy has it.
    pub(crate) async fn admit(self: &Arc<Self>, edge: &Edge) -> Result<Edge, SolveError> {
        if self.policy.is_empty() || self.admitted.lock().contains(&edge.vertex.digest()) {
            return Ok(edge.clone());
        }
        self.admit_by(&self.policy, edge).await
    }

    /// The same by another policy than the build's own, which has a say in it already.
    pub(crate) async fn admit_by(
        self: &Arc<Self>,
        policy: &SourcePolicy,
        edge: &Edge,
    ) -> Result<Edge, SolveError> {
        let edge = policy.admit(self, edge).await?;
        let vertices = edge.vertex.with_inputs();
        self.admitted.lock().extend(vertices.iter().map(|vertex| vertex.digest()));
        Ok(edge)
    }

    /// Keeps something from being collected until the build ends.
    pub(crate) fn hold(&self, pin: Pin) {
        self.pins.lock().push(pin);
    }

    /// Stores a manifest, a config or the like for as long as the build needs it.
    pub(crate) fn store_small(&self, bytes: &[u8]) -> anyhow::Result<Digest> {
        let mut ingest = self.daemon.content.ingest()?;
        std::io::Write::write_all(&mut ingest, bytes)?;
        let stored = self.daemon.index.commit_blob(ingest, None)?;
        self.hold(stored.pin);
        Ok(stored.row.digest)
    }

    /// Opens a blob from the content store whose content is what its name says.
    pub(crate) async fn open_blob(&self, digest: Digest) -> anyhow::Result<tokio::fs::File> {
        let file = damage::open_blob(&self.daemon.index, &self.daemon.content, digest).await?;
        Ok(tokio::fs::File::from_std(file))
    }

    /// Reads a blob of at most `limit` bytes from there, likewise.
    pub(crate) fn read_blob(&self, digest: &Digest, limit: u64) -> anyhow::Result<Vec<u8>> {
        damage::read_blob(&self.daemon.index, &self.daemon.content, digest, limit)
    }

    /// Whether a step without cache is the first of this build that uses the cache mount of that
    /// name: it does not see what others left there, those after it see what it leaves.
    pub(crate) fn clears_cache(&self, name: &str) -> bool {
        self.cleared_caches.lock().insert(name.to_owned())
    }

    /// Reports transfers of `layers` at `vertex` from now on.
    pub(crate) fn report_transfers(&self, layers: &[LayerId], vertex: &VertexProgress) {
        let mut transfers = self.transfers.lock();
        for layer in layers {
            transfers.entry(*layer).or_insert_with(|| vertex.clone());
        }
    }

    /// Where to report the transfer of `layer`.
    pub(crate) fn transfer_progress(&self, layer: LayerId) -> Option<VertexProgress> {
        self.transfers.lock().get(&layer).cloned()
    }

    /// A record that one of the imported caches has, made one of the daemon's own.
    pub(super) async fn imported(
        self: &Arc<Self>,
        vertex: &VertexProgress,
        wanted: &Wanted,
    ) -> anyhow::Result<Option<Hit<Record>>> {
        for import in &self.imports {
            if let Some(hit) = import.lookup(self, wanted).await? {
                self.report_transfers(&hit.row.result, vertex);
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }

    /// The keys by which dependants of `keys` are known in an imported cache that knows all of
    /// them, whether or not it has results for them.
    pub(super) async fn imported_primaries(
        self: &Arc<Self>,
        keys: &[CacheKey],
    ) -> Option<Vec<CacheKey>> {
        for import in &self.imports {
            if let Some(primaries) = import.primaries(self, keys).await {
                return Some(primaries);
            }
        }
        None
    }

    /// What is known of the step that has one of its keys in `key`, for a cache that is exported: by
    /// a record, which is returned, or by an imported cache alone.
    pub(crate) fn exported_record(
        &self,
        key: CacheKey,
    ) -> anyhow::Result<Option<(ExportRecord, Option<Hit<Record>>)>> {
        if let Some(hit) = self.daemon.index.lookup(&[key])? {
            return Ok(Some((hit.row.clone().into(), Some(hit))));
        }
        let known = self.imports.iter().find_map(|import| import.record(&key));
        Ok(known.map(|record| (record, None)))
    }

    /// Notes that the client serves a content store of that name to this build.
    pub(crate) fn add_store(&self, store: &str) {
        self.stores.lock().insert(store.to_owned());
    }

    /// Notes that a place (an [`Origin`] as text) has not what it should have: results that are only
    /// there are no hits for this build any more.
    pub(crate) fn lose_place(&self, place: &str) {
        self.lost_places.lock().insert(place.to_owned());
        self.obtainable.lock().clear();
    }

    /// Whether a place has not what it should have.
    pub(crate) fn has_lost(&self, place: &str) -> bool {
        self.lost_places.lock().contains(place)
    }

    /// The cache in the object store at `place`, if it is one of this build's.
    pub(crate) fn store(&self, place: &str) -> Option<&ObjectCache> {
        self.imports.iter().find_map(|import| import.store_at(place))
    }

    /// Whether this build can have the files of `layers`, which are held: from here, from a registry,
    /// from a content store that its own client serves, or from an object store that it has the
    /// credentials of.
    pub(crate) fn is_obtainable(&self, layers: &[LayerId]) -> anyhow::Result<bool> {
        let mut known = self.obtainable.lock();
        for &layer in layers {
            if !known.contains(&layer) {
                if !self.has_source(layer)? {
                    return Ok(false);
                }
                known.insert(layer);
            }
        }
        Ok(true)
    }

    fn has_source(&self, layer: LayerId) -> anyhow::Result<bool> {
        let index = &self.daemon.index;
        let is_served = |remote: &Remote| match remote.origin.parse() {
            _ if self.has_lost(&remote.origin) => false,
            Ok(Origin::Registry(_)) => true,
            Ok(Origin::Session(store)) => {
                self.stores.lock().contains(&store)
                    || self.imports.iter().any(|import| import.is_store(&store))
            }
            Ok(Origin::Store(place)) => self.store(&place).is_some(),
            Err(_) => false,
        };
        let Some(row) = index.layer(layer)? else { return Ok(false) };
        if row.presence.is_local || row.presence.remotes.iter().any(is_served) {
            return Ok(true);
        }
        for blob in &row.blobs {
            if index.blob(&blob.digest)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The snapshot that an edge stands for, made if need be. Its layers may still be remote.
    pub(crate) async fn solve(self: &Arc<Self>, edge: &Edge) -> Result<Snapshot, SolveError> {
        let edge = self.admit(edge).await?;
        let outputs = self.outputs(&edge).await?;
        outputs.snapshot(edge.output).cloned().ok_or_else(|| {
            let cause = anyhow::anyhow!("step has no output {}", edge.output);
            SolveError::at(&edge.vertex, cause)
        })
    }

    /// Outputs of a vertex, the one of an edge among them, made if need be.
    pub(crate) async fn outputs(self: &Arc<Self>, edge: &Edge) -> Result<Arc<Outputs>, SolveError> {
        let outputs = self.result(&edge.vertex).await?;
        match outputs.snapshots.get(edge.output) {
            Some(None) => self.complete(&edge.vertex).await,
            _ => Ok(outputs),
        }
    }

    /// What can be said of a vertex without running anything.
    pub(super) fn guess(self: &Arc<Self>, vertex: &Arc<Vertex>) -> Answer<Probe> {
        let work = |vertex: Arc<Vertex>| {
            let build = self.clone();
            async move { probe::guess(&build, &vertex).await.map(Arc::new) }.boxed()
        };
        let is_new = |vertex: &Vertex| !self.guesses.is_asked(&vertex.digest());
        if is_new(vertex) {
            let new = vertex.with_inputs_of(is_new);
            // Sources have much to do, each for itself.
            let (sources, steps): (Vec<_>, _) = new.into_iter().partition(|it| ops::is_source(it));
            for source in sources {
                drop(self.guesses.get(source.digest(), || work(source)));
            }
            self.guesses.start_all(steps.into_iter().map(|step| (step.digest(), work(step))));
        }
        self.guesses.get(vertex.digest(), || work(vertex.clone()))
    }

    /// The keys of a vertex and whether it is cached; its inputs are made if it takes them to tell.
    pub(super) fn probe(self: &Arc<Self>, vertex: &Arc<Vertex>) -> Answer<Probe> {
        let (build, task_vertex) = (self.clone(), vertex.clone());
        let compute = || {
            async move {
                let guess = build.guess(&task_vertex).await?;
                if guess.is_final() {
                    return Ok(guess);
                }
                probe::run(&build, &task_vertex, Enough::Some).await.map(Arc::new)
            }
            .boxed()
        };
        self.probes.get(vertex.digest(), compute)
    }

    /// The outputs of a vertex, made if need be; if a cache has one of them, those that it has.
    fn result(self: &Arc<Self>, vertex: &Arc<Vertex>) -> Answer<Outputs> {
        let (build, task_vertex) = (self.clone(), vertex.clone());
        let compute = || {
            async move {
                let probe = build.probe(&task_vertex).await?;
                build.make(&task_vertex, &probe).await
            }
            .boxed()
        };
        self.results.get(vertex.digest(), compute)
    }

    /// All outputs of a vertex, made if need be.
    fn complete(self: &Arc<Self>, vertex: &Arc<Vertex>) -> Answer<Outputs> {
        let (build, task_vertex) = (self.clone(), vertex.clone());
        let compute = || {
            async move {
                let probe = probe::run(&build, &task_vertex, Enough::All).await?;
                build.make(&task_vertex, &Arc::new(probe)).await
            }
            .boxed()
        };
        self.completed.get(vertex.digest(), compute)
    }

    /// The outputs of a vertex, if they are known already.
    pub(crate) fn known_outputs(&self, vertex: VertexDigest) -> Option<Arc<Outputs>> {
        let made = [&self.completed, &self.results];
        let made = made.into_iter().find_map(|made| made.known(&vertex));
        let probes = [&self.probes, &self.guesses];
        made.or_else(|| {
            probes.into_iter().find_map(|probes| probes.known(&vertex)?.outputs.clone())
        })
    }

    /// Notes what the process of a step used, whose end is now.
    pub(crate) fn note_usage(&self, vertex: VertexDigest, used: kiln_executor::Usage) {
        self.usage.lock().insert(vertex, StepUsage { used, ended_at: SystemTime::now() });
    }

    /// What a step used, if it was run for this build.
    pub(crate) fn usage(&self, vertex: VertexDigest) -> Option<StepUsage> {
        self.usage.lock().get(&vertex).copied()
    }

    /// When everything was made that was to be exported: the time of the first call.
    pub(crate) fn finished_at(&self) -> SystemTime {
        *self.finished_at.get_or_init(SystemTime::now)
    }

    /// The results that are made from now on. There is one who watches, and there are no more of them
    /// than there are steps.
    pub(crate) fn watch(&self) -> mpsc::UnboundedReceiver<Stack> {
        let (sender, results) = mpsc::unbounded_channel();
        // Who comes second hears nothing.
        let _ = self.watcher.set(sender);
        results
    }

    /// A step has made `stack`.
    pub(super) fn made(&self, stack: &Stack) {
        if let Some(watcher) = self.watcher.get() {
            let _ = watcher.send(stack.clone());
        }
    }

    /// Ends the build: aborts everything that runs for it alone, and starts nothing any more,
    /// whoever still asks for it.
    pub(crate) fn cancel(&self) {
        self.contents.close();
        self.guesses.close();
        self.probes.close();
        self.results.close();
        self.completed.close();
        self.blobs.close();
        self.http.close();
        self.git.close();
    }

    /// Forgets what is known of vertices, so that the build can be tried once more.
    pub(crate) fn forget(&self) {
        self.obtainable.lock().clear();
        self.contents.clear();
        self.guesses.clear();
        self.probes.clear();
        self.results.clear();
        self.completed.clear();
        self.blobs.clear();
        self.http.clear();
        self.git.clear();
    }

    /// What was found by `probe`, or what a run makes.
    async fn make(
        self: &Arc<Self>,
        vertex: &Arc<Vertex>,
        probe: &Arc<Probe>,
    ) -> Result<Arc<Outputs>, SolveError> {
        if let Some(outputs) = &probe.outputs {
            return Ok(outputs.clone());
        }
        let Some(keys) = &probe.keys else {
            return Err(SolveError::at(vertex, anyhow::anyhow!("step has no cache key")));
        };
        let inputs = try_join_all(vertex.inputs().iter().map(|edge| self.solve(edge))).await?;
        let progress = self.progress.vertex(vertex);
        let inputs: Arc<[Snapshot]> = inputs.into();
        let start = |progress: VertexProgress| -> BoxFuture<'static, _> {
            let (build, vertex) = (self.clone(), vertex.clone());
            let (probe, inputs) = (probe.clone(), inputs.clone());
            async move { build.execute(&vertex, &probe, &inputs, &progress).await }.boxed()
        };
        // Who wants to look at what a failed command leaves has to run it where nobody kept that.
        let shares = |error: &SolveError| {
            error.is_inherent() && (!self.failed_steps.are_kept() || error.left().is_some())
        };
        let made = self.daemon.flights.join(keys[0], &progress, start, shares).await;
        if let Some(left) = made.as_ref().err().and_then(SolveError::left) {
            self.failed_steps.add(vertex.digest(), left);
        }
        made
    }

    /// The failure of a vertex, of which is kept what it `left`.
    pub(super) fn failed(
        &self,
        vertex: &Vertex,
        cause: anyhow::Error,
        left: Option<LeftBehind>,
    ) -> SolveError {
        let Some(left) = left.map(Arc::new) else { return SolveError::at(vertex, cause) };
        self.failed_steps.add(vertex.digest(), left.clone());
        SolveError::leaving(vertex, cause, Arc::downgrade(&left))
    }

    /// Runs a vertex that nobody else runs now, and records what it made.
    async fn execute(
        self: &Arc<Self>,
        vertex: &Arc<Vertex>,
        probe: &Arc<Probe>,
        inputs: &[Snapshot],
        progress: &VertexProgress,
    ) -> Result<Arc<Outputs>, SolveError> {
        // Another build may have finished the same work between our probe and now.
        if let Some(outputs) = probe.look_again(self, vertex)? {
            progress.cached();
            return Ok(Arc::new(outputs));
        }
        let work = async {
            let start = Instant::now();
            let execute = ops::execute(self, vertex, inputs, progress);
            let (made, ()) = tokio::join!(execute, probe.explain(self, vertex, progress));
            if made.is_err() {
                self.daemon.layers.cleaned_up().await;
            }
            let made =
                made.map_err(|OpFailure { cause, left }| self.failed(vertex, cause, left))?;
            let recorded = probe.record(self, vertex, made, start.elapsed());
            recorded.map_err(|cause| SolveError::at(vertex, cause))
        };
        Ok(Arc::new(progress.run(work).await?))
    }
}
