//! `DiskUsage` and `Prune`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_cache::RecordType;
use kiln_cache::filter::InvalidFilter;
use kiln_cache::gc::{Filter, Limits, Policy, Space, Usage, UsageId};
use kiln_proto::control::{DiskUsageRequest, PruneRequest, UsageRecord};
use tonic::Status;

use crate::daemon::Daemon;
use crate::upkeep;

fn filters(sent: &[String]) -> Result<Vec<Filter>, Status> {
    let invalid = |error: InvalidFilter| Status::invalid_argument(error.to_string());
    sent.iter().map(|filter| filter.parse().map_err(invalid)).collect()
}

fn internal(error: &anyhow::Error) -> Status {
    Status::internal(format!("{error:#}"))
}

/// Runs blocking work on the daemon's state.
async fn blocking<T: Send + 'static>(
    daemon: &Arc<Daemon>,
    work: impl FnOnce(&Daemon) -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let daemon = daemon.clone();
    let done = tokio::task::spawn_blocking(move || work(&daemon)).await;
    done.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| internal(&error))
}

pub(super) async fn disk_usage(
    daemon: &Arc<Daemon>,
    request: &DiskUsageRequest,
) -> Result<Vec<UsageRecord>, Status> {
    let filters = filters(&request.filter)?;
    let mut rows = blocking(daemon, upkeep::usage).await?;
    for row in &mut rows {
        if matches!(row.id, UsageId::Content | UsageId::Index) {
            // Clients take it for what a build holds now. The daemon's own data never goes, but
            // nobody will give it back either.
            row.in_use = false;
        } else {
            // Whoever made it used it.
            row.last_used_at = row.last_used_at.or(Some(row.created_at));
        }
    }
    // The empty index has a size, too, but clients take an empty list for an empty cache.
    if rows.iter().all(|row| row.record_type == RecordType::Internal) {
        return Ok(Vec::new());
    }
    let age = Duration::from_nanos(u64::try_from(request.age_limit).unwrap_or(0));
    let last = SystemTime::now().checked_sub(age).filter(|_| !age.is_zero());
    let is_old = |row: &Usage| row.last_used_at.is_none_or(|used| last.is_none_or(|at| used <= at));
    let is_selected = |row: &Usage| filters.is_empty() || filters.iter().any(|f| f.matches(row));
    let wanted = |row: &&Usage| is_selected(row) && is_old(row);
    Ok(rows.iter().filter(wanted).map(record).collect())
}

pub(super) async fn prune(
    daemon: &Arc<Daemon>,
    request: &PruneRequest,
) -> Result<Vec<UsageRecord>, Status> {
    let space = |bytes: i64| Space::Bytes(u64::try_from(bytes).unwrap_or(0));
    let policy = Policy {
        all: request.all,
        filters: filters(&request.filter)?,
        keep_duration: Duration::from_nanos(u64::try_from(request.keep_duration).unwrap_or(0)),
        limits: Limits {
            reserved_space: space(request.reserved_space),
            max_used_space: space(request.max_used_space),
            min_free_space: space(request.min_free_space),
        },
    };
    // What was built right before is to be among it.
    daemon.history.settled(None).await;
    let removed = blocking(daemon, move |daemon| {
        upkeep::measure_dirs(daemon)?;
        upkeep::prune(daemon, &[policy])
    });
    Ok(removed.await?.rows.iter().map(record).collect())
}

fn record(row: &Usage) -> UsageRecord {
    #[expect(deprecated, reason = "older clients read the field that newer ones do not")]
    UsageRecord {
        id: row.id.to_string(),
        mutable: row.mutable,
        in_use: row.in_use,
        size: i64::try_from(row.size).unwrap_or(i64::MAX),
        parent: row.parents.first().map(ToString::to_string).unwrap_or_default(),
        created_at: Some(row.created_at.into()),
        last_used_at: row.last_used_at.map(Into::into),
        usage_count: i64::try_from(row.usage_count).unwrap_or(i64::MAX),
        description: row.description.clone(),
        record_type: row.record_type.to_string(),
        shared: row.shared,
        parents: row.parents.iter().map(ToString::to_string).collect(),
    }
}
