//! What all builds share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_cache::{CacheKey, ContentStore, Index};
use kiln_executor::Executor;
use tokio::sync::Semaphore;

use crate::builds::Builds;
use crate::caches::CacheMounts;
use crate::collector::Collector;
use crate::config::Config;
use crate::emulation::Emulation;
use crate::history::History;
use crate::image::Platform;
use crate::kept_dirs::KeptDirs;
use crate::layers::{Layers, LocalTrees};
use crate::network::StepNetwork;
use crate::ops::source::git::Repositories;
use crate::ops::source::http::HttpClient;
use crate::provenance::Producers;
use crate::session::Sessions;
use crate::solver::{Flights, Outputs};
use crate::state::State;

/// The daemon's state.
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) index: Arc<Index>,
    pub(crate) content: Arc<ContentStore>,
    pub(crate) layers: Layers,
    pub(crate) caches: CacheMounts,
    pub(crate) trees: LocalTrees,
    pub(crate) repositories: Repositories,
    pub(crate) executor: Executor,
    pub(crate) network: StepNetwork,
    emulation: Emulation,
    pub(crate) registry: kiln_registry::Client,
    pub(crate) http: HttpClient,
    /// Talks with object stores that have caches.
    pub(crate) stores: kiln_object_store::HttpClient,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) builds: Arc<Builds>,
    /// Who made graphs that clients may hand to others.
    pub(crate) producers: Producers,
    pub(crate) history: Arc<History>,
    pub(crate) collector: Collector,
    /// Steps under way, by their first output's key.
    pub(crate) flights: Flights<CacheKey, Arc<Outputs>>,
    /// Limits how many steps run at once.
    pub(crate) exec_turns: Semaphore,
    /// Limits how many layers are packed at once: each keeps several threads busy.
    pub(crate) pack_turns: Semaphore,
    steps: AtomicU64,
}

impl Daemon {
    /// Opens the daemon's state below its root, and puts it in order.
    pub(crate) fn open(config: Config, executor: Executor) -> anyhow::Result<Arc<Self>> {
        let state = State::open(&config.root)?;
        if let Some(labels) = executor.selinux() {
            state.label(labels)?;
        }
        let State { index, content, layers, caches, trees, repositories } = state;
        let registry = kiln_registry::Client::new(config.registry.clone());
        let history = History::new(index.clone(), content.clone(), config.history);
        let network = StepNetwork::new(config.network_mode());
        let exec_turns = Semaphore::new(config.max_parallelism.unwrap_or(Semaphore::MAX_PERMITS));
        Ok(Arc::new(Self {
            config,
            index,
            content,
            layers,
            caches,
            trees,
            repositories,
            executor,
            network,
            emulation: Emulation::default(),
            registry,
            http: HttpClient::default(),
            stores: kiln_object_store::HttpClient::default(),
            sessions: Arc::default(),
            builds: Arc::default(),
            producers: Producers::default(),
            history: Arc::new(history),
            collector: Collector::default(),
            flights: Flights::new(),
            exec_turns,
            pack_turns: Semaphore::new(2),
            steps: AtomicU64::new(0),
        }))
    }

    /// The directories that the index keeps by id.
    pub(crate) fn kept_dirs(&self) -> [&KeptDirs; 3] {
        [&self.caches.dirs, &self.trees.dirs, &self.repositories.dirs]
    }

    /// The platforms that steps can be run for: those that the configuration names, and those that
    /// have turned out to work.
    pub(crate) async fn platforms(&self) -> Vec<Platform> {
        let mut platforms = self.config.platforms.clone();
        let tmp = self.config.root.join("tmp");
        for platform in self.emulation.platforms(&self.executor, &tmp).await {
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        platforms
    }

    /// A name for a step that no other running step of this daemon has.
    pub(crate) fn next_step_id(&self) -> String {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        format!("{}-{step}", std::process::id())
    }
}
