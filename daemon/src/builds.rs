//! The builds that are under way, by their clients' names for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::frontend::gateway::GatewayBuild;
use crate::solver::{Build, Progress};

/// How long `Status` of a build waits for the build to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long a finished build's progress can still be read.
const AFTERLIFE: Duration = Duration::from_secs(10);
/// How long there has to be no build before the daemon counts as idle.
const IDLE: Duration = Duration::from_secs(2);

/// A build that clients can refer to.
#[derive(Clone)]
pub(crate) struct ActiveBuild {
    pub(crate) build: Arc<Build>,
    /// Present where the client acts as the frontend.
    pub(crate) gateway: Option<Arc<GatewayBuild>>,
}

enum Entry {
    Active(ActiveBuild),
    Ended(Progress),
}

/// All builds that can be referred to.
#[derive(Default)]
pub(crate) struct Builds {
    entries: Mutex<HashMap<String, Entry>>,
    arrived: Notify,
    /// How many builds have ended.
    ended: AtomicU64,
    rests: Notify,
}

/// A build of that name is already under way.
#[derive(Debug, thiserror::Error)]
#[error("a build with ref {0} is already under way")]
pub(crate) struct Duplicate(String);

/// Keeps a build known; cancels it when dropped.
pub(crate) struct Registration {
    build: Arc<Build>,
    gateway: Option<Arc<GatewayBuild>>,
    builds: Arc<Builds>,
}

impl Builds {
    /// Makes a build known under its id.
    pub(crate) fn register(
        self: &Arc<Self>,
        active: ActiveBuild,
    ) -> Result<Registration, Duplicate> {
        let ActiveBuild { build, gateway } = active.clone();
        let mut entries = self.entries.lock();
        if matches!(entries.get(&build.id), Some(Entry::Active(_))) {
            return Err(Duplicate(build.id.clone()));
        }
        entries.insert(build.id.clone(), Entry::Active(active));
        drop(entries);
        self.arrived.notify_waiters();
        Ok(Registration { build, gateway, builds: self.clone() })
    }

    /// Lets nobody wait for a build of that id, which was refused before it began.
    pub(crate) fn refuse(self: &Arc<Self>, id: &str) {
        if self.entries.lock().contains_key(id) {
            return;
        }
        let progress = Progress::new();
        progress.close();
        self.end(id.to_owned(), progress);
        self.arrived.notify_waiters();
    }

    /// Keeps the progress of an ended build for those who come late.
    fn end(self: &Arc<Self>, id: String, progress: Progress) {
        self.entries.lock().insert(id.clone(), Entry::Ended(progress));
        let builds = Arc::downgrade(self);
        // Ends by itself; at shutdown it is dropped with the runtime.
        tokio::spawn(async move {
            tokio::time::sleep(AFTERLIFE).await;
            let Some(builds) = builds.upgrade() else { return };
            let mut entries = builds.entries.lock();
            if matches!(entries.get(&id), Some(Entry::Ended(_))) {
                entries.remove(&id);
            }
        });
    }

    /// Says that the daemon is idle if there is no other build for a while, and once more when
    /// nobody can read of this one any longer.
    fn rest(self: &Arc<Self>) {
        let ended = 1 + self.ended.fetch_add(1, Ordering::Relaxed);
        let builds = Arc::downgrade(self);
        tokio::spawn(async move {
            for wait in [IDLE, AFTERLIFE] {
                tokio::time::sleep(wait).await;
                let Some(builds) = builds.upgrade() else { return };
                if builds.active() > 0 || builds.ended.load(Ordering::Relaxed) != ended {
                    return;
                }
                builds.rests.notify_one();
            }
        });
    }

    /// Returns when there has been no build for a while, once for each such time.
    pub(crate) async fn idle(&self) {
        self.rests.notified().await;
    }

    /// How many builds run now.
    pub(crate) fn active(&self) -> usize {
        self.entries.lock().values().filter(|entry| matches!(entry, Entry::Active(_))).count()
    }

    /// Whether there is a build of that id, running or just ended.
    pub(crate) fn is_known(&self, id: &str) -> bool {
        self.entries.lock().contains_key(id)
    }

    /// The running build of that id, which may still be on its way.
    pub(crate) async fn get(&self, id: &str) -> Option<ActiveBuild> {
        let active = |entry: &Entry| match entry {
            Entry::Active(active) => Some(active.clone()),
            Entry::Ended(_) => None,
        };
        self.wait_for(id, active).await
    }

    /// The progress of the build of that id, running or just ended.
    pub(crate) async fn progress(&self, id: &str) -> Option<Progress> {
        let progress = |entry: &Entry| match entry {
            Entry::Active(active) => Some(active.build.progress.clone()),
            Entry::Ended(progress) => Some(progress.clone()),
        };
        self.wait_for(id, progress).await
    }

    async fn wait_for<T>(&self, id: &str, pick: impl Fn(&Entry) -> Option<T>) -> Option<T> {
        let wait = async {
            loop {
                let arrived = self.arrived.notified();
                if let Some(found) = self.entries.lock().get(id).and_then(&pick) {
                    return found;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(ARRIVAL, wait).await.ok()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.build.cancel();
        self.build.failed_steps.forget();
        if let Some(gateway) = &self.gateway {
            gateway.close();
        }
        self.build.progress.close();
        self.builds.end(self.build.id.clone(), self.build.progress.clone());
        self.builds.rest();
    }
}
