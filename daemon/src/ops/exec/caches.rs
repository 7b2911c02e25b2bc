//! The cache mounts of a step, taken before anything else of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_proto::pb;

use super::mounts::input;
use crate::caches::{CacheLease, WantedCache};
use crate::solver::{Build, Snapshot};

/// For each mount of a step, the directory if it is a cache mount. Mounts of the same cache share
/// it, whatever their sharing mode: that is about other steps.
pub(super) type Caches = Vec<Option<Arc<CacheLease>>>;

/// Takes all cache mounts of a step; empty, if it `is_fresh` and the first such step of its build.
/// `waiting` hears of locks that have to be waited for.
pub(super) async fn take(
    build: &Arc<Build>,
    is_fresh: bool,
    exec: &pb::ExecOp,
    inputs: &[Snapshot],
    waiting: impl Fn(&str),
) -> anyhow::Result<Caches> {
    let mut caches = vec![None; exec.mounts.len()];
    let mut by_name: BTreeMap<String, (WantedCache<'_>, Vec<usize>)> = BTreeMap::new();
    for (position, mount) in exec.mounts.iter().enumerate() {
        if mount.mount_type() == pb::MountType::Cache {
            let options = mount.cache_opt.as_ref().context("cache mount without options")?;
            let seed = input(mount, inputs)?;
            let wanted = WantedCache::new(build, options, seed, &mount.selector, is_fresh).await?;
            let name = wanted.name.clone();
            by_name.entry(name).or_insert((wanted, Vec::new())).1.push(position);
        }
    }
    // In the order of their names, which is the same for all steps: so no two of them each hold
    // what the other waits for.
    for (wanted, positions) in by_name.into_values() {
        let lease = build.daemon.caches.lease(build, &wanted, &waiting).await;
        let lease = lease.with_context(|| format!("cannot prepare cache mount {}", wanted.name))?;
        let lease = Arc::new(lease);
        for position in positions {
            caches[position] = Some(lease.clone());
        }
    }
    Ok(caches)
}
