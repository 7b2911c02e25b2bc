//! What the daemon was told: flags first, then `buildkitd.toml`'s keys, then defaults.

mod file;
mod flags;
mod listen;
mod network;
mod places;
mod units;
mod users;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use kiln_cache::Digest;
use kiln_cache::gc::{DiskStat, Limits, Policy, default_policies};
use kiln_executor::{ExecutorConfig, SubordinateIds, UserNamespaceConfig};
use kiln_registry::{ImageRef, RegistryConfig};
use tracing_subscriber::EnvFilter;

use crate::devices::{DeviceGrants, Devices, InvalidGrant};
use crate::history::Expiry;
use crate::image::Platform;
use crate::provenance::Environment;
use file::ConfigFile;
use places::Places;

pub(crate) use flags::{Command, Flags};
pub(crate) use listen::Listener;
pub(crate) use network::NetworkMode;
pub(crate) use units::parse_duration;

/// Everything that can be configured, checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where all state is.
    pub(crate) root: PathBuf,
    pub(crate) addresses: Vec<String>,
    /// Owner of unix sockets, where given.
    pub(crate) socket_owner: (Option<u32>, Option<u32>),
    /// End after so long without clients.
    pub(crate) idle_timeout: Option<Duration>,
    /// What clients may be granted.
    entitlements: Vec<String>,
    pub(crate) registry: RegistryConfig,
    pub(crate) gc: bool,
    pub(crate) gc_policies: Vec<Policy>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Platforms that steps are said to run for, whether or not they do.
    pub(crate) platforms: Vec<Platform>,
    /// Steps that may run at once.
    pub(crate) max_parallelism: Option<usize>,
    pub(crate) worker_id: String,
    /// What provenance says of this daemon besides.
    pub(crate) provenance_env: Environment,
    /// How much of the build history is kept.
    pub(crate) history: Expiry,
    network: network::NetworkSettings,
    cgroup_parent: Option<String>,
    pids_limit: Option<u64>,
    apparmor_profile: Option<String>,
    /// Whether steps have SELinux's labels.
    pub(crate) selinux: bool,
    /// The host's ids for those of confined steps, where these have a user namespace.
    user_namespace: Option<SubordinateIds>,
    /// What steps can be given of the host's devices.
    pub(crate) devices: Devices,
    frontends: file::Frontends,
    dns: file::Dns,
    log: file::Log,
    without_effect: Vec<&'static str>,
}

/// A client grants its steps what it may not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrantError {
    #[error(
        "granting entitlement {0} is not allowed by build daemon configuration \
         (insecure-entitlements)"
    )]
    NotAllowed(String),
    #[error("unknown entitlement {0}")]
    Unknown(String),
    #[error(transparent)]
    Device(#[from] InvalidGrant),
}

/// A frontend that the configuration keeps from use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrontendError {
    #[error("the frontend {0} is disabled by the configuration")]
    Disabled(&'static str),
    #[error(
        "'{0}' is not an allowed gateway source: \
         frontend.\"gateway.v0\".allowedRepositories in the configuration does not have it"
    )]
    NotAllowed(ImageRef),
}

impl Config {
    /// Reads the configuration that `flags` name.
    pub(crate) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let places = Places::of_this_process(flags.rootless)?;
        let (path, required) = match &flags.config {
            Some(path) => (path.clone(), true),
            None => (places.file(), false),
        };
        let mut file = if required || path.exists() {
            ConfigFile::read(&path)?
        } else {
            ConfigFile::default()
        };
        flags.overlay(&mut file)?;
        Self::from_file(file, flags.idle_timeout, &places)
    }

    fn from_file(
        file: ConfigFile,
        idle_timeout: Option<u64>,
        places: &Places,
    ) -> anyhow::Result<Self> {
        let without_effect = file.without_effect();
        let worker = file.worker.oci;
        if worker.enabled == Some(false) {
            bail!("the oci worker is disabled, but this daemon has no other");
        }
        if let Some(rootless) = worker.rootless.filter(|rootless| *rootless == places.is_host()) {
            bail!("worker.oci.rootless is {rootless}, which is for whoever starts kilnd to decide");
        }
        // Steps are started by a process with another working directory.
        let root = std::path::absolute(file.root.unwrap_or_else(|| places.root()))?;
        let limits = Limits {
            reserved_space: worker.reserved_space.or(worker.gckeepstorage).unwrap_or_default().0,
            max_used_space: worker.max_used_space.unwrap_or_default().0,
            min_free_space: worker.min_free_space.unwrap_or_default().0,
        };
        let network = network::NetworkSettings::new(&worker, &root, places)?;
        let user_namespace = users::of_steps(&worker, places)?;
        let gc_policies = if worker.gcpolicy.is_empty() {
            default_policies(limits, disk(&root))
        } else {
            worker.gcpolicy.into_iter().map(file::GcPolicy::into_policy).collect()
        };
        for entitlement in &file.insecure_entitlements {
            if !matches!(entitlement.as_str(), "network.host" | "security.insecure" | "device") {
                bail!("unknown or unsupported entitlement {entitlement:?}");
            }
        }
        let platforms = worker.platforms.iter().map(|text| text.parse());
        let platforms = platforms.collect::<Result<_, _>>()?;
        let addresses = match file.grpc.address {
            addresses if addresses.is_empty() => vec![places.address()],
            addresses => addresses,
        };
        let mut registry = RegistryConfig { hosts: file.registry, ..RegistryConfig::default() };
        if let Some(limit) = file.system.max_registry_concurrency {
            registry.max_concurrency = limit;
        }
        let provenance_dir = file.provenance_env_dir.unwrap_or_else(|| places.provenance());
        Ok(Self {
            provenance_env: Environment::read(&provenance_dir)?,
            worker_id: worker_id(&root),
            root,
            addresses,
            socket_owner: (file.grpc.uid, file.grpc.gid),
            idle_timeout: idle_timeout.map(Duration::from_secs),
            entitlements: file.insecure_entitlements,
            registry,
            history: file.history.expiry(),
            gc: worker.gc.unwrap_or(true),
            gc_policies,
            labels: worker.labels,
            platforms,
            max_parallelism: worker.max_parallelism.filter(|&limit| limit > 0),
            network,
            cgroup_parent: worker.default_cgroup_parent,
            pids_limit: worker.pids_limit,
            apparmor_profile: worker.apparmor_profile.filter(|profile| !profile.is_empty()),
            selinux: worker.selinux == Some(true),
            user_namespace,
            devices: file.cdi.devices(),
            frontends: file.frontend,
            dns: file.dns,
            log: file.log,
            without_effect,
        })
    }

    /// Whether clients may be granted `entitlement`.
    fn allows(&self, entitlement: &str) -> bool {
        self.entitlements.iter().any(|granted| granted == entitlement)
    }

    /// Fails if the built-in frontend may not be used.
    pub(crate) fn check_dockerfile_frontend(&self) -> Result<(), FrontendError> {
        match self.frontends.dockerfile.enabled {
            Some(false) => Err(FrontendError::Disabled("dockerfile.v0")),
            _ => Ok(()),
        }
    }

    /// Fails if the frontend in `image` may not be used.
    pub(crate) fn check_frontend(&self, image: &ImageRef) -> Result<(), FrontendError> {
        let gateway = &self.frontends.gateway;
        let is_named = |allowed: &file::Repository| allowed.0.is_of_same_repository(image);
        if gateway.enabled == Some(false) {
            return Err(FrontendError::Disabled("gateway.v0"));
        }
        let allowed = &gateway.allowed_repositories;
        if allowed.is_empty() || allowed.iter().any(is_named) {
            return Ok(());
        }
        Err(FrontendError::NotAllowed(image.clone()))
    }

    /// Fails if clients may not grant `entitlement` to their steps.
    pub(crate) fn check_grant(&self, entitlement: &str) -> Result<(), GrantError> {
        DeviceGrants::of([entitlement].into_iter())?;
        let name = match entitlement.split_once('=') {
            Some(("device", _)) => "device",
            _ => entitlement,
        };
        match name {
            _ if self.allows(name) => Ok(()),
            "network.host" | "security.insecure" | "device" => {
                Err(GrantError::NotAllowed(name.to_owned()))
            }
            other => Err(GrantError::Unknown(other.to_owned())),
        }
    }

    /// What steps find in `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> String {
        if self.dns == file::Dns::default() {
            return std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        }
        self.dns.resolv_conf()
    }

    /// What the network of steps is by default.
    pub(crate) fn network_mode(&self) -> NetworkMode {
        self.network.mode
    }

    /// How steps are run by a daemon that listens on the TCP ports `own_ports`.
    pub(crate) fn executor(&self, own_ports: Vec<u16>) -> ExecutorConfig {
        let mut config = ExecutorConfig::default();
        // Of its own: another daemon of this host clears away what its predecessor left.
        let parent = self.cgroup_parent.as_deref().unwrap_or(&config.cgroup_parent);
        config.cgroup_parent = format!("{parent}/{}", self.worker_id);
        config.network = self.network.executor(own_ports);
        config.kept_networks = self.network.kept.unwrap_or(config.kept_networks);
        config.apparmor_profile.clone_from(&self.apparmor_profile);
        config.user_namespace = self.user_namespace.clone().map(|ids| UserNamespaceConfig {
            ids,
            directory: self.root.clone(),
            scratch: self.root.join("tmp"),
        });
        if let Some(limit) = self.pids_limit {
            config.pids = Some(limit).filter(|&limit| limit > 0);
        }
        config
    }
}

/// Starts logging as configured, or with defaults where the configuration is broken.
pub(crate) fn start_log(config: Option<&Config>) {
    let log = config.map(|config| config.log.clone()).unwrap_or_default();
    let level = log.level.unwrap_or_else(|| "info".to_owned());
    // What libraries have to say below a warning is of use to their authors.
    let own = ["kilnd", "kiln_cache", "kiln_executor", "kiln_proto", "kiln_registry"];
    let own = own.map(|name| format!(",{name}={level}")).concat();
    let filter = EnvFilter::builder().parse_lossy(format!("warn{own}"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        file::LogFormat::Json => subscriber.json().init(),
        file::LogFormat::Text => subscriber.init(),
    }
    for key in config.map(|config| &*config.without_effect).unwrap_or_default() {
        tracing::warn!("the configuration's {key} has no effect");
    }
}

/// Whether this process is root, be it of a user namespace.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn disk(root: &Path) -> DiskStat {
    // The root may not exist yet: then its first ancestor that does is on the same disk.
    let existing = root.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    existing.map_or(DiskStat { total: 0, free: 0 }, |stat| DiskStat {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Stays the same for a state directory on a machine.
fn worker_id(root: &Path) -> String {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let device = std::fs::metadata(root).map_or(0, |metadata| metadata.dev());
    let id = Digest::of(format!("{machine}:{device}:{}", root.display())).to_hex();
    id[..25].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Config> {
        Config::from_file(ConfigFile::parse(text)?, None, &Places::Host)
    }

    #[test]
    fn a_buildkitd_toml_works_as_it_is() {
        let config = load(
            r#"
            root = "/tmp/x"
            insecure-entitlements = ["network.host"]
            [grpc]
            address = ["unix:///tmp/x.sock"]
            [worker.oci]
            enabled = true
            gc = true
            max-parallelism = 4
            [worker.oci.labels]
            a = "b"
            [[worker.oci.gcpolicy]]
            filters = ["type==source.local"]
            keepDuration = "48h"
            maxUsedSpace = "512MB"
            [[worker.oci.gcpolicy]]
            all = true
            reservedSpace = 1024000000
            [worker.containerd]
            enabled = false
            [registry."localhost:5000"]
            http = true
            mirrors = ["mirror:5000"]
            "#,
        )
        .unwrap();
        assert_eq!(config.gc_policies.len(), 2);
        assert_eq!(config.gc_policies[0].keep_duration, Duration::from_secs(48 * 3600));
        assert_eq!(config.registry.hosts["localhost:5000"].http, Some(true));
        assert!(config.allows("network.host"));
        assert!(!config.allows("security.insecure"));
        assert_eq!(config.max_parallelism, Some(4));
    }

    #[test]
    fn a_relative_root_is_meant_from_the_working_directory() {
        let config = load("root = \"state\"").unwrap();
        assert_eq!(config.root, std::env::current_dir().unwrap().join("state"));
    }

    #[test]
    fn a_key_that_is_harmless_is_reported() {
        let config = load("[otel]\nsocketPath = \"/x\"").unwrap();
        assert_eq!(config.without_effect, ["otel.socketPath"]);
    }

    #[test]
    fn a_key_that_has_no_meaning_is_refused_by_name() {
        for (text, name) in [
            ("bogus = 1", "bogus"),
            ("[worker.oci]\nrootless = true", "rootless"),
            ("[grpc.tls]\ncert = \"x\"", "tls"),
            ("[worker.containerd]\nenabled = true", "containerd"),
            ("insecure-entitlements = [\"devices\"]", "devices"),
        ] {
            let error = format!("{:#}", load(text).unwrap_err());
            assert!(error.contains(name), "{text}: {error}");
        }
    }
}
