//! `kiln info`: who the daemon is, and what it can do.

use crate::daemon;
use crate::failure::{Failure, Refused};
use crate::units::{duration, short_bytes};
use kiln_proto::control::{InfoRequest, ListWorkersRequest};
use kiln_proto::pb::Platform;
use kiln_proto::types::{GcPolicy, WorkerRecord};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Shows the daemon.
pub(crate) async fn run(host: Option<&str>) -> Result<(), Failure> {
    let daemon = daemon::connect(host).await?;
    let (mut first, mut second) = (daemon.control(), daemon.control());
    let (info, workers) = tokio::join!(
        first.info(InfoRequest {}),
        second.list_workers(ListWorkersRequest::default())
    );
    let info = info.map_err(Refused::from)?.into_inner();
    let workers = workers.map_err(Refused::from)?.into_inner().record;

    let mut text = String::new();
    line(&mut text, 0, "Client", env!("CARGO_PKG_VERSION"));
    line(&mut text, 0, "Daemon", &daemon.address.to_string());
    if let Some(version) = info.buildkit_version {
        line(&mut text, 0, "Version", &format!("{} {}", version.package, version.version));
        line(&mut text, 0, "Revision", &version.revision);
    }
    for worker in &workers {
        write_worker(&mut text, worker);
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn write_worker(text: &mut String, worker: &WorkerRecord) {
    text.push('\n');
    line(text, 0, "Worker", &worker.id);
    let platforms: Vec<String> = worker.platforms.iter().map(platform).collect();
    line(text, 0, "Platforms", &platforms.join(", "));
    if !worker.labels.is_empty() {
        text.push_str("Labels:\n");
        worker.labels.iter().for_each(|(key, value)| line(text, 1, key, value));
    }
    for (index, policy) in worker.gc_policy.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "GC policy {}:", index + 1);
        write_policy(text, policy);
    }
}

fn write_policy(text: &mut String, policy: &GcPolicy) {
    line(text, 1, "All", if policy.all { "true" } else { "false" });
    line(text, 1, "Filters", &policy.filters.join(", "));
    if policy.keep_duration > 0 {
        line(text, 1, "Keep duration", &duration(policy.keep_duration as f64 / 1e9));
    }
    for (key, size) in [
        ("Reserved space", policy.reserved_space),
        ("Max used space", policy.max_used_space),
        ("Min free space", policy.min_free_space),
    ] {
        if size > 0 {
            line(text, 1, key, &short_bytes(size));
        }
    }
}

/// `KEY: VALUE`, if there is one.
fn line(text: &mut String, level: usize, key: &str, value: &str) {
    if !value.is_empty() {
        let indent = " ".repeat(level);
        let _ = writeln!(text, "{indent}{:16} {value}", format!("{key}:"));
    }
}

fn platform(platform: &Platform) -> String {
    let base = format!("{}/{}", platform.os, platform.architecture);
    if platform.variant.is_empty() { base } else { format!("{base}/{}", platform.variant) }
}
