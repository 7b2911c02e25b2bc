//! What this daemon tells of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_cache::gc::DiskStat;
use kiln_proto::types;
use tonic::Status;

use crate::config::Config;
use crate::daemon::Daemon;
use crate::devices::Device;
use crate::image::Platform;
use crate::upkeep;

/// The version of BuildKit whose API and frontend this daemon matches; clients decide by it what
/// they may ask for.
pub(crate) const BUILDKIT_VERSION: &str = "v0.31.0";
pub(crate) const DOCKERFILE_VERSION: &str = "1.20.0";

/// The generation of behaviors of BuildKit that this daemon matches.
pub(crate) const COMPATIBILITY_VERSION: u32 = 30;

pub(crate) fn version() -> types::BuildkitVersion {
    types::BuildkitVersion {
        package: "github.com/moby/buildkit".into(),
        version: format!("{BUILDKIT_VERSION}+kiln.{}", env!("CARGO_PKG_VERSION")),
        revision: String::new(),
        dockerfile_version: DOCKERFILE_VERSION.into(),
    }
}

/// The one worker of this daemon.
pub(crate) async fn list(
    daemon: &Arc<Daemon>,
    filters: &[String],
) -> Result<Vec<types::WorkerRecord>, Status> {
    if !filters.is_empty() {
        return Err(Status::unimplemented("filters of workers are not supported by this daemon"));
    }
    let disk = upkeep::disk(daemon).map_err(|error| Status::internal(format!("{error:#}")))?;
    Ok(vec![record(daemon, &daemon.platforms().await, disk)])
}

/// What there is to say of the worker, besides what the configuration says.
pub(crate) fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    let selinux = if config.selinux { "true" } else { "false" };
    let own = [
        ("org.mobyproject.buildkit.worker.executor", "oci"),
        ("org.mobyproject.buildkit.worker.snapshotter", "overlayfs"),
        ("org.mobyproject.buildkit.worker.network", config.network_mode().name()),
        ("org.mobyproject.buildkit.worker.oci.process-mode", "sandbox"),
        ("org.mobyproject.buildkit.worker.selinux.enabled", selinux),
    ];
    for (name, value) in own {
        labels.entry(name.into()).or_insert_with(|| value.into());
    }
    labels
}

fn record(daemon: &Arc<Daemon>, platforms: &[Platform], disk: DiskStat) -> types::WorkerRecord {
    types::WorkerRecord {
        id: daemon.config.worker_id.clone(),
        labels: labels(&daemon.config).into_iter().collect(),
        platforms: platforms.iter().map(Platform::to_pb).collect(),
        gc_policy: daemon.config.gc_policies.iter().map(|p| upkeep::to_wire(p, disk)).collect(),
        buildkit_version: Some(version()),
        cdi_devices: daemon.config.devices.list().iter().map(Device::to_wire).collect(),
    }
}
