//! `kilnd.toml`: the keys of `buildkitd.toml` that have a meaning here, and some harmless ones.
//! Any other is refused by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kiln_cache::gc::{Filter, Limits, Policy};
use kiln_registry::{HostConfig, ImageRef};
use serde::Deserialize;

use super::units::{DiskSpace, Duration};
use crate::devices::Devices;
use crate::history::Expiry;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) debug: bool,
    pub(super) trace: bool,
    pub(super) root: Option<PathBuf>,
    #[serde(rename = "insecure-entitlements")]
    pub(super) insecure_entitlements: Vec<String>,
    pub(super) log: Log,
    pub(super) grpc: Grpc,
    pub(super) worker: Workers,
    pub(super) registry: BTreeMap<String, HostConfig>,
    pub(super) dns: Dns,
    pub(super) system: System,
    pub(super) frontend: Frontends,
    /// A directory of JSON files whose members provenance has besides its own.
    #[serde(rename = "provenanceEnvDir")]
    pub(super) provenance_env_dir: Option<PathBuf>,
    pub(super) history: History,
    otel: Otel,
    pub(super) cdi: Cdi,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: LogFormat,
    pub(super) level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `[grpc]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Grpc {
    pub(super) address: Vec<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// `[worker]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Workers {
    pub(super) oci: Worker,
    pub(super) containerd: OtherWorker,
}

/// `[worker.oci]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Worker {
    pub(super) enabled: Option<bool>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) platforms: Vec<String>,
    pub(super) snapshotter: Option<String>,
    #[serde(rename = "networkMode")]
    pub(super) network_mode: Option<String>,
    #[serde(rename = "cniConfigPath")]
    pub(super) cni_config_path: Option<PathBuf>,
    #[serde(rename = "cniBinaryPath")]
    pub(super) cni_binary_path: Option<PathBuf>,
    #[serde(rename = "cniPoolSize")]
    pub(super) cni_pool_size: Option<usize>,
    #[serde(rename = "bridgeName")]
    pub(super) bridge_name: Option<String>,
    #[serde(rename = "bridgeSubnet")]
    pub(super) bridge_subnet: Option<String>,
    pub(super) gc: Option<bool>,
    pub(super) gckeepstorage: Option<DiskSpace>,
    #[serde(rename = "reservedSpace")]
    pub(super) reserved_space: Option<DiskSpace>,
    #[serde(rename = "maxUsedSpace")]
    pub(super) max_used_space: Option<DiskSpace>,
    #[serde(rename = "minFreeSpace")]
    pub(super) min_free_space: Option<DiskSpace>,
    pub(super) gcpolicy: Vec<GcPolicy>,
    #[serde(rename = "max-parallelism")]
    pub(super) max_parallelism: Option<usize>,
    /// Processes and threads that a step may have at a time; 0 is any number.
    #[serde(rename = "pidsLimit")]
    pub(super) pids_limit: Option<u64>,
    /// Steps are confined by this profile of AppArmor as well.
    #[serde(rename = "apparmor-profile")]
    pub(super) apparmor_profile: Option<String>,
    /// Confined steps have a user namespace.
    #[serde(rename = "userNamespaces")]
    pub(super) user_namespaces: Option<bool>,
    /// The host's ids in it: a name of `/etc/subuid` and `/etc/subgid`, or a range (`first:count`).
    #[serde(rename = "userNamespaceIds")]
    pub(super) user_namespace_ids: Option<String>,
    /// Must be what is so: it follows from who runs the daemon.
    pub(super) rootless: Option<bool>,
    /// Steps and their files have the labels that the host's SELinux policy has for containers.
    pub(super) selinux: Option<bool>,
    #[serde(rename = "defaultCgroupParent")]
    pub(super) default_cgroup_parent: Option<String>,
}

/// `[worker.containerd]`: only to say that it is off.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct OtherWorker {
    pub(super) enabled: bool,
}

/// `[[worker.oci.gcpolicy]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GcPolicy {
    all: bool,
    filters: Vec<PolicyFilter>,
    #[serde(rename = "keepDuration")]
    keep_duration: Duration,
    #[serde(rename = "keepBytes", alias = "reservedSpace")]
    reserved_space: DiskSpace,
    #[serde(rename = "maxUsedSpace")]
    max_used_space: DiskSpace,
    #[serde(rename = "minFreeSpace")]
    min_free_space: DiskSpace,
}

#[derive(Debug)]
struct PolicyFilter(Filter);

impl<'de> Deserialize<'de> for PolicyFilter {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl GcPolicy {
    pub(super) fn into_policy(self) -> Policy {
        Policy {
            all: self.all,
            filters: self.filters.into_iter().map(|filter| filter.0).collect(),
            keep_duration: self.keep_duration.0,
            limits: Limits {
                reserved_space: self.reserved_space.0,
                max_used_space: self.max_used_space.0,
                min_free_space: self.min_free_space.0,
            },
        }
    }
}

/// `[dns]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Dns {
    nameservers: Vec<std::net::IpAddr>,
    options: Vec<String>,
    #[serde(rename = "searchDomains")]
    search_domains: Vec<String>,
}

impl Dns {
    pub(super) fn resolv_conf(&self) -> String {
        let mut text = String::new();
        for server in &self.nameservers {
            let _ = writeln!(text, "nameserver {server}");
        }
        for (word, values) in [("search", &self.search_domains), ("options", &self.options)] {
            if !values.is_empty() {
                let _ = writeln!(text, "{word} {}", values.join(" "));
            }
        }
        text
    }
}

/// `[frontend]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Frontends {
    #[serde(rename = "dockerfile.v0")]
    pub(super) dockerfile: DockerfileFrontend,
    #[serde(rename = "gateway.v0")]
    pub(super) gateway: GatewayFrontend,
}

/// `[frontend."dockerfile.v0"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DockerfileFrontend {
    pub(super) enabled: Option<bool>,
}

/// `[frontend."gateway.v0"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GatewayFrontend {
    pub(super) enabled: Option<bool>,
    /// Repositories of images that may be used as frontends; all if there are none.
    #[serde(rename = "allowedRepositories")]
    pub(super) allowed_repositories: Vec<Repository>,
}

/// The name of a repository, without tag and digest.
#[derive(Clone, Debug)]
pub(super) struct Repository(pub(super) ImageRef);

impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// `[otel]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Otel {
    #[serde(rename = "socketPath")]
    socket_path: Option<PathBuf>,
}

/// `[cdi]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cdi {
    disabled: Option<bool>,
    /// Where devices are described; the usual directories if there are none.
    #[serde(rename = "specDirs")]
    spec_dirs: Vec<PathBuf>,
    /// Devices, or kinds of devices, that steps may have without an entitlement.
    #[serde(rename = "autoAllowed")]
    auto_allowed: Vec<String>,
}

impl Cdi {
    pub(super) fn devices(self) -> Devices {
        if self.disabled == Some(true) {
            return Devices::disabled();
        }
        Devices::new(self.spec_dirs, self.auto_allowed)
    }
}

/// `[system]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct System {
    #[serde(rename = "maxRegistryConcurrency")]
    pub(super) max_registry_concurrency: Option<NonZeroUsize>,
}

/// `[history]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct History {
    #[serde(rename = "maxAge")]
    max_age: Option<Duration>,
    #[serde(rename = "maxEntries")]
    max_entries: Option<usize>,
}

impl History {
    pub(super) fn expiry(&self) -> Expiry {
        let default = Expiry::default();
        Expiry {
            max_age: self.max_age.map_or(default.max_age, |age| age.0),
            max_entries: self.max_entries.unwrap_or(default.max_entries),
        }
    }
}

impl ConfigFile {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Self = toml::from_str(text)?;
        file.check()?;
        Ok(file)
    }

    /// Keys that are set but change nothing here; a build that needs what they are for says so.
    pub(super) fn without_effect(&self) -> Vec<&'static str> {
        let given = [("otel.socketPath", self.otel.socket_path.is_some())];
        given.into_iter().filter_map(|(key, is_set)| is_set.then_some(key)).collect()
    }

    /// Refuses values that name something this daemon does not have.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.worker.containerd.enabled {
            bail!("worker.containerd.enabled: this daemon has no containerd worker");
        }
        match self.worker.oci.snapshotter.as_deref() {
            None | Some("" | "auto" | "overlayfs") => Ok(()),
            Some(other) => {
                bail!("worker.oci.snapshotter: {other:?} is not supported: overlayfs is")
            }
        }
    }
}
