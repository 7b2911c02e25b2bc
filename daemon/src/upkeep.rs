//! Keeps the state directory in order: after a crash, against a loss of power, within its limits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kiln_cache::gc::{DiskStat, Policy, Space, Usage};
use kiln_cache::{DirId, DirKind, LayerId, OnDisk, Removed, fault};
use kiln_proto::types;
use kiln_snapshotter::{Snapshotter as _, usage};
use rustix::fs::{OFlags, syncfs};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::collector;
use crate::daemon::Daemon;
use crate::kept_dirs::KeptDirs;
use crate::layers::shared_files;
use crate::reserve::Reserve;
use crate::state::State;
use crate::sys::memory;

/// How often new data is made safe against a loss of power.
const DURABLE_EVERY: Duration = Duration::from_secs(5);
/// How often old records of builds are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(120);

/// Brings index and disk into agreement. Called once, before anything is built.
pub(crate) fn reconcile(state: &State) -> anyhow::Result<()> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("cannot read the boot id")?;
    let garbage = state.index.reconcile(&on_disk(state)?, boot_id.trim())?;
    if garbage.dropped != kiln_cache::Dropped::default() {
        tracing::warn!(dropped = ?garbage.dropped, "dropped what was lost in a crash");
    }
    for layer in garbage.layers {
        fault::may_die();
        state.layers.overlay().remove(kiln_snapshotter::LayerId(layer.0))?;
    }
    for dir in garbage.dirs {
        fault::may_die();
        remove_dir(state.kept_dirs(), dir)?;
    }
    for blob in garbage.blobs {
        fault::may_die();
        state.content.remove(&blob)?;
    }
    Ok(())
}

/// What is on the disk, with or without rows.
pub(crate) fn on_disk(state: &State) -> anyhow::Result<OnDisk> {
    let layers = state.layers.overlay().list()?;
    let mut dirs = Vec::new();
    for kept in state.kept_dirs() {
        dirs.extend(kept.list()?);
    }
    Ok(OnDisk {
        layers: layers.iter().map(|id| LayerId(id.0)).collect(),
        dirs,
        blobs: state.content.list()?,
    })
}

/// Removes a directory of whatever kind: no two have one id.
fn remove_dir(kinds: [&KeptDirs; 3], id: DirId) -> anyhow::Result<()> {
    kinds.iter().try_for_each(|kept| kept.remove(id))
}

/// Runs until `stop`: makes data durable, collects garbage and gives memory back, none waiting for
/// another.
pub(crate) async fn run(daemon: Arc<Daemon>, stop: CancellationToken) {
    let collect = async {
        if daemon.config.gc {
            collector::run(&daemon, &stop).await;
        }
    };
    let resting = async {
        loop {
            daemon.builds.idle().await;
            let daemon = daemon.clone();
            // It takes some milliseconds.
            let _ = tokio::task::spawn_blocking(move || rest(&daemon)).await;
        }
    };
    tokio::join!(
        stop.run_until_cancelled(resting),
        repeat(&daemon, &stop, DURABLE_EVERY, make_durable),
        repeat(&daemon, &stop, EXPIRE_EVERY, |daemon| daemon.history.expire()),
        collect
    );
    attempt(&daemon, make_durable).await;
}

/// Does `work` at once and then every `period`, until `stop`.
async fn repeat(daemon: &Arc<Daemon>, stop: &CancellationToken, period: Duration, work: Work) {
    let mut ticks = tokio::time::interval(period);
    // What took longer than its period is not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        attempt(daemon, work).await;
    }
}

pub(crate) type Work = fn(&Daemon) -> anyhow::Result<()>;

pub(crate) async fn attempt(daemon: &Arc<Daemon>, work: Work) {
    let daemon = daemon.clone();
    let done = tokio::task::spawn_blocking(move || work(&daemon)).await;
    if let Err(error) = done.map_err(anyhow::Error::from).and_then(|done| done) {
        tracing::warn!("upkeep: {error:#}");
    }
}

/// Lets go of what is only kept for builds that follow at once.
fn rest(daemon: &Daemon) {
    daemon.layers.forget_digests();
    daemon.index.rest();
    memory::give_back();
}

/// Makes everything that was recorded so far survive a loss of power.
fn make_durable(daemon: &Daemon) -> anyhow::Result<()> {
    // There may be space again, and it is not this daemon that has made it.
    Reserve::of(&daemon.config.root).restore();
    daemon.index.flush_touches()?;
    let group = daemon.index.begin_durable()?;
    if group.is_empty() {
        return Ok(());
    }
    for layer in group.layers() {
        fault::may_die();
        // A finished layer is never mounted for writing again. What overlayfs needed for that goes
        // here, and again after a crash, as the mark is still there.
        if let Err(error) = daemon.layers.overlay().remove_work(kiln_snapshotter::LayerId(layer.0))
        {
            tracing::warn!("upkeep: {error:#}");
        }
    }
    let root = rustix::fs::open(
        &daemon.config.root,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    fault::may_die();
    syncfs(&root)?;
    fault::may_die();
    daemon.index.mark_durable(group)?;
    Ok(())
}

/// The disk that holds the state directory.
pub(crate) fn disk(daemon: &Daemon) -> anyhow::Result<DiskStat> {
    let root = &daemon.config.root;
    DiskStat::of(root).with_context(|| root.display().to_string())
}

/// Removes what `policies` say, from the index and from the disk.
///
/// # Errors
/// The first of them; everything else is removed all the same, for its rows are gone.
pub(crate) fn prune(daemon: &Daemon, policies: &[Policy]) -> anyhow::Result<Removed> {
    let reserve = Reserve::of(&daemon.config.root);
    reserve.release_if_needed();
    let removed = daemon.index.prune(policies, disk(daemon)?)?;
    fault::may_die();
    let layers = removed
        .layers
        .iter()
        .map(|layer| Ok(daemon.layers.overlay().remove(kiln_snapshotter::LayerId(layer.0))?));
    let dirs = removed.dirs.iter().map(|&dir| remove_dir(daemon.kept_dirs(), dir));
    let blobs =
        std::iter::once_with(|| Ok(daemon.index.collect_blobs(&daemon.content).map(drop)?));
    let done = first_error(layers.chain(dirs).chain(blobs));
    reserve.restore();
    done?;
    Ok(removed)
}

/// Goes through all of `results`; the first error is returned, the others are logged.
fn first_error(results: impl IntoIterator<Item = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut first = Ok(());
    for error in results.into_iter().filter_map(Result::err) {
        if first.is_ok() {
            first = Err(error);
        } else {
            tracing::warn!("upkeep: {error:#}");
        }
    }
    first
}

/// Everything on the disk, with sizes as they are now.
pub(crate) fn usage(daemon: &Daemon) -> anyhow::Result<Vec<Usage>> {
    measure_dirs(daemon)?;
    Ok(daemon.index.usage()?)
}

/// Measures the directories that were written in place since they were measured last.
pub(crate) fn measure_dirs(daemon: &Daemon) -> anyhow::Result<()> {
    for dir in daemon.index.unmeasured_dirs()? {
        let path = match dir.kind {
            DirKind::CacheMount => daemon.caches.dirs.path(dir.id),
            DirKind::LocalSource => daemon.trees.dirs.path(dir.id),
            DirKind::GitRepository => daemon.repositories.dirs.path(dir.id),
        };
        // A directory that a step changes meanwhile is measured again next time.
        if let Ok(usage) = usage::of_directory(&path) {
            daemon.index.set_dir_size(dir.id, usage.bytes, &shared_files(&usage))?;
        }
    }
    Ok(())
}

/// A policy as `ListWorkers` shows it.
pub(crate) fn to_wire(policy: &Policy, disk: DiskStat) -> types::GcPolicy {
    let bytes = |space: Space| i64::try_from(space.bytes(disk)).unwrap_or(i64::MAX);
    types::GcPolicy {
        all: policy.all,
        keep_duration: i64::try_from(policy.keep_duration.as_nanos()).unwrap_or(i64::MAX),
        filters: policy.filters.iter().map(ToString::to_string).collect(),
        reserved_space: bytes(policy.limits.reserved_space),
        max_used_space: bytes(policy.limits.max_used_space),
        min_free_space: bytes(policy.limits.min_free_space),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_does_not_keep_the_rest_from_being_done() {
        let mut done = 0;
        let results = [Ok(()), Err("one"), Ok(()), Err("two")]
            .map(|result| result.map_err(anyhow::Error::msg));
        let all = results.into_iter().inspect(|_| done += 1);
        assert_eq!(first_error(all).unwrap_err().to_string(), "one");
        assert_eq!(done, 4);
    }
}
