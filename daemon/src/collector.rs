//! When garbage is collected: after builds, at once when the disk is full, and now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_cache::gc::{DiskStat, Limits, Policy, Space, is_within};
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::sys::memory;
use crate::upkeep;

/// The longest time from one look at the limits to the next.
const EVERY: Duration = Duration::from_mins(1);
/// How long there is none after another, however many builds end.
const PAUSE: Duration = Duration::from_secs(5);
/// A collection may take one part in so many of the time.
const SHARE: u32 = 20;
/// With less than this, and less than a hundredth, the disk counts as full.
const FULL: u64 = 16 << 20;
/// What is freed of a full disk, in hundredths, although no limit asks for it.
const RELIEF: u64 = 5;

/// Tells when garbage is to be collected.
#[derive(Default)]
pub(crate) struct Collector {
    wanted: Notify,
    urgent: Notify,
    is_disk_full: AtomicBool,
    last: Mutex<Option<Pass>>,
}

/// What the last collection left.
struct Pass {
    /// The state of the index.
    state: u64,
    /// What the cache took up.
    used: u64,
}

impl Collector {
    /// A build has ended, and left something.
    pub(crate) fn build_ended(&self) {
        self.wanted.notify_one();
    }

    /// Something could not be written.
    pub(crate) fn disk_is_full(&self) {
        self.is_disk_full.store(true, Ordering::Relaxed);
        self.urgent.notify_one();
    }
}

/// Whether something failed because the disk is full.
pub(crate) fn is_out_of_space(error: &anyhow::Error) -> bool {
    let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            is_full(error)
        } else if let Some(&errno) = cause.downcast_ref::<Errno>() {
            is_full(&errno.into())
        } else {
            // The index's database has nothing but words for it.
            cause.source().is_none() && cause.to_string().contains("No space left on device")
        }
    })
}

/// Whether next to nothing can be written to the disk of the cache.
pub(crate) fn is_disk_full(daemon: &Daemon) -> bool {
    upkeep::disk(daemon).is_ok_and(is_full)
}

fn is_full(disk: DiskStat) -> bool {
    disk.free < FULL.min(disk.total / 100)
}

/// Collects until `stop`.
pub(crate) async fn run(daemon: &Arc<Daemon>, stop: &CancellationToken) {
    let collector = &daemon.collector;
    let collect = async {
        loop {
            let began = Instant::now();
            upkeep::attempt(daemon, collect).await;
            let pause = PAUSE.max(began.elapsed().saturating_mul(SHARE));
            let rest = async {
                tokio::time::sleep(pause).await;
                // Nobody may want one: time alone makes things old, and others fill the disk.
                let _ = tokio::time::timeout(EVERY, collector.wanted.notified()).await;
            };
            tokio::select! {
                () = rest => {}
                () = collector.urgent.notified() => {}
            }
        }
    };
    stop.run_until_cancelled(collect).await;
}

/// One collection. Where nothing has changed since the last, and its limits hold, it costs nothing.
fn collect(daemon: &Daemon) -> anyhow::Result<()> {
    let collector = &daemon.collector;
    let mut policies = daemon.config.gc_policies.clone();
    if collector.is_disk_full.swap(false, Ordering::Relaxed) {
        tracing::warn!(root = %daemon.config.root.display(), "the disk is full: collecting garbage");
        let limits = Limits { min_free_space: Space::Percent(RELIEF), ..Limits::default() };
        policies.push(Policy { limits, ..Policy::default() });
    }
    upkeep::measure_dirs(daemon)?;
    let disk = upkeep::disk(daemon)?;
    let is_unchanged = |last: &Pass| last.state == daemon.index.state();
    let last_used =
        collector.last.lock().as_ref().filter(|last| is_unchanged(last)).map(|l| l.used);
    if !last_used.is_some_and(|used| is_within(&policies, used, disk)) {
        // What layers have in common is freed with the last of them, and only counts then.
        let used = loop {
            let removed = upkeep::prune(daemon, &policies)?;
            if removed.is_empty() {
                break removed.left;
            }
        };
        *collector.last.lock() = Some(Pass { state: daemon.index.state(), used });
        memory::give_back();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_the_cause_of_a_failure() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(is_out_of_space(&anyhow::Error::from(full()).context("layer 7").context("COPY")));
        assert!(is_out_of_space(&anyhow::Error::from(Errno::NOSPC)));
        let database =
            anyhow::anyhow!("IO error: No space left on device: While appending to file");
        assert!(is_out_of_space(&database.context("the index's database")));
        assert!(!is_out_of_space(&anyhow::Error::from(Errno::PERM).context("COPY")));
    }
}
