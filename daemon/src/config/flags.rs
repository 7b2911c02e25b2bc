//! The command line: buildkitd's flags, so that a script only changes the program's name.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgAction, Parser, Subcommand};

use super::file::{ConfigFile, LogFormat};
use super::units::DiskSpace;
use crate::check;

/// Builds container images for clients that speak BuildKit's API.
#[derive(Debug, Parser)]
#[command(name = "kilnd", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Read the configuration from this file
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Use a user's default places also as root of a user namespace; as an ordinary user, kilnd makes
    /// one itself
    #[arg(long)]
    pub(super) rootless: bool,
    /// Keep all state in this directory
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Listen on this address: unix://PATH, tcp://HOST:PORT or fd:// (socket activation)
    #[arg(long = "addr", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Log debug messages
    #[arg(long)]
    debug: bool,
    /// Log everything
    #[arg(long)]
    trace: bool,
    /// Format of the log
    #[arg(long, value_name = "text|json", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// Least level of what is logged
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Group that owns the socket, by number
    #[arg(long, value_name = "GID")]
    group: Option<u32>,
    /// End after so many seconds without clients
    #[arg(long, value_name = "SECONDS")]
    pub(super) idle_timeout: Option<u64>,
    /// Allow clients to grant steps network.host or security.insecure
    #[arg(long = "allow-insecure-entitlement", value_name = "NAME")]
    entitlements: Vec<String>,
    /// Must be true or auto: there is no other worker
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    oci_worker: Option<String>,
    /// Must be false or auto: this daemon has no containerd worker
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    containerd_worker: Option<String>,
    /// Label the worker
    #[arg(long, value_name = "KEY=VALUE")]
    oci_worker_labels: Vec<String>,
    /// Platform that steps can run on
    #[arg(long = "oci-worker-platform", value_name = "PLATFORM")]
    oci_worker_platforms: Vec<String>,
    /// Snapshotter: auto or overlayfs
    #[arg(long, value_name = "NAME")]
    oci_worker_snapshotter: Option<String>,
    /// Confine steps by this AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    oci_worker_apparmor_profile: Option<String>,
    /// Label steps as the host's SELinux policy has it for containers
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    oci_worker_selinux: Option<bool>,
    /// Network of steps: auto, bridge, cni or host
    #[arg(long, value_name = "MODE")]
    oci_worker_net: Option<String>,
    /// Configuration of the CNI plugins that make the network of steps
    #[arg(long, value_name = "FILE")]
    oci_cni_config_path: Option<PathBuf>,
    /// Directory of the CNI plugins
    #[arg(long, value_name = "DIR")]
    oci_cni_binary_dir: Option<PathBuf>,
    /// Networks that are kept ready for steps
    #[arg(long, value_name = "COUNT")]
    oci_cni_pool_size: Option<usize>,
    /// Collect garbage
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    oci_worker_gc: Option<bool>,
    /// Space for the cache in MB: RESERVED[,FREE[,MAXIMUM]], or percentages
    #[arg(long, value_name = "MB")]
    oci_worker_gc_keepstorage: Option<String>,
    /// Steps that may run at once
    #[arg(long, value_name = "COUNT")]
    oci_max_parallelism: Option<usize>,
}

/// What is done instead of running a daemon.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the state directory, while no daemon uses it
    ///
    /// Reads every row, every blob, and every file of which anything is known. Says what is wrong,
    /// and ends with 1 if something is.
    Check(check::Options),
}

impl Flags {
    /// Puts what was given on the command line over what the file says.
    pub(super) fn overlay(&self, file: &mut ConfigFile) -> anyhow::Result<()> {
        if let Some(root) = &self.root {
            file.root = Some(root.clone());
        }
        if !self.addresses.is_empty() {
            file.grpc.address.clone_from(&self.addresses);
        }
        file.grpc.gid = self.group.or(file.grpc.gid);
        if let Some(format) = &self.log_format {
            file.log.format = if format == "json" { LogFormat::Json } else { LogFormat::Text };
        }
        let level = match (self.trace || file.trace, self.debug || file.debug) {
            (true, _) => Some("trace".to_owned()),
            (false, true) => Some("debug".to_owned()),
            (false, false) => None,
        };
        file.log.level = self.log_level.clone().or(level).or(file.log.level.take());
        file.insecure_entitlements.extend(self.entitlements.iter().cloned());
        switch("--oci-worker", self.oci_worker.as_deref(), true)?;
        switch("--containerd-worker", self.containerd_worker.as_deref(), false)?;
        let worker = &mut file.worker.oci;
        for label in &self.oci_worker_labels {
            let (key, value) = label
                .split_once('=')
                .with_context(|| format!("--oci-worker-labels: {label:?} has no \"=\""))?;
            worker.labels.insert(key.to_owned(), value.to_owned());
        }
        if !self.oci_worker_platforms.is_empty() {
            worker.platforms.clone_from(&self.oci_worker_platforms);
        }
        worker.snapshotter = self.oci_worker_snapshotter.clone().or(worker.snapshotter.take());
        let profile = self.oci_worker_apparmor_profile.clone();
        worker.apparmor_profile = profile.or(worker.apparmor_profile.take());
        worker.selinux = self.oci_worker_selinux.or(worker.selinux);
        worker.network_mode = self.oci_worker_net.clone().or(worker.network_mode.take());
        let path = |flag: &Option<PathBuf>, file: Option<PathBuf>| flag.clone().or(file);
        worker.cni_config_path = path(&self.oci_cni_config_path, worker.cni_config_path.take());
        worker.cni_binary_path = path(&self.oci_cni_binary_dir, worker.cni_binary_path.take());
        worker.cni_pool_size = self.oci_cni_pool_size.or(worker.cni_pool_size);
        worker.gc = self.oci_worker_gc.or(worker.gc);
        worker.max_parallelism = self.oci_max_parallelism.or(worker.max_parallelism);
        if let Some(text) = &self.oci_worker_gc_keepstorage {
            let mut spaces = text.split(',').map(megabytes);
            worker.reserved_space = spaces.next().transpose()?;
            worker.min_free_space = spaces.next().transpose()?;
            worker.max_used_space = spaces.next().transpose()?;
        }
        file.check()
    }
}

/// Checks a flag of which this daemon has only one position.
fn switch(name: &str, value: Option<&str>, only: bool) -> anyhow::Result<()> {
    match value {
        None | Some("auto") => Ok(()),
        Some(value) if value == only.to_string() => Ok(()),
        Some(value) => bail!("{name}={value}: only {only} is supported"),
    }
}

fn megabytes(text: &str) -> anyhow::Result<DiskSpace> {
    let space = match text.parse::<u64>() {
        Ok(count) => kiln_cache::gc::Space::Bytes(count.saturating_mul(1_000_000)),
        Err(_) => text.parse()?,
    };
    Ok(DiskSpace(space))
}
