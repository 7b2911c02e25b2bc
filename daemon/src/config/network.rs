//! Which network steps have: `networkMode` of `[worker.oci]` and the keys beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kiln_executor::{BridgeConfig, CniConfig, NetworkConfig};

use super::file::Worker;
use super::places::Places;

const DEFAULT_CNI_CONFIG: &str = "/etc/kiln/cni.json";
const DEFAULT_CNI_PLUGINS: &str = "/opt/cni/bin";

/// What the network of steps is by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    /// The host's own.
    Host,
    /// One behind a bridge that the daemon makes.
    Bridge,
    /// One that plugins make.
    Cni,
}

impl NetworkMode {
    /// How clients are told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Bridge => "bridge",
            Self::Cni => "cni",
        }
    }
}

/// The settings, checked as far as they can be without the network.
#[derive(Debug)]
pub(super) struct NetworkSettings {
    pub(super) mode: NetworkMode,
    pub(super) kept: Option<usize>,
    network: NetworkConfig,
}

impl NetworkSettings {
    pub(super) fn new(worker: &Worker, root: &Path, places: &Places) -> anyhow::Result<Self> {
        let path = |given: &Option<PathBuf>, default: &str| given.clone().unwrap_or(default.into());
        let cni = CniConfig {
            config: path(&worker.cni_config_path, DEFAULT_CNI_CONFIG),
            plugins: path(&worker.cni_binary_path, DEFAULT_CNI_PLUGINS),
            state: root.join("cni"),
        };
        let mode = match worker.network_mode.as_deref() {
            // What plugins do takes rights over the host's network.
            None | Some("" | "auto") if !places.is_host() => NetworkMode::Bridge,
            Some("cni") if !places.is_host() => bail!(
                "worker.oci.networkMode is \"cni\", but an ordinary user's daemon has no rights over \
                 the host's network: use \"bridge\", which takes pasta or slirp4netns, or \"host\""
            ),
            // Plugins go first where somebody has set them up.
            None | Some("" | "auto" | "cni") if cni.config.exists() => NetworkMode::Cni,
            None | Some("" | "auto" | "bridge") => NetworkMode::Bridge,
            Some("host") => NetworkMode::Host,
            Some("cni") => bail!(
                "worker.oci.networkMode is \"cni\", and there is no {} (cniConfigPath)",
                cni.config.display()
            ),
            Some(other) => bail!(
                "worker.oci.networkMode: {other:?} is none of \"auto\", \"bridge\", \"cni\", \"host\""
            ),
        };
        let subnet = worker.bridge_subnet.as_deref().map(str::parse).transpose();
        let bridge = BridgeConfig {
            name: worker.bridge_name.clone().map(interface_name).transpose()?,
            subnet: subnet.context("worker.oci.bridgeSubnet")?,
            closed_ports: Vec::new(),
        };
        let network = match mode {
            NetworkMode::Cni => NetworkConfig::Cni(cni),
            NetworkMode::Bridge | NetworkMode::Host => NetworkConfig::Bridge(bridge),
        };
        Ok(Self { mode, kept: worker.cni_pool_size, network })
    }

    /// What the executor makes of it, with ports of the host that steps must not reach.
    pub(super) fn executor(&self, closed_ports: Vec<u16>) -> NetworkConfig {
        match self.network.clone() {
            NetworkConfig::Bridge(bridge) => {
                NetworkConfig::Bridge(BridgeConfig { closed_ports, ..bridge })
            }
            cni @ NetworkConfig::Cni(_) => cni,
        }
    }
}

/// What the kernel takes as the name of an interface.
fn interface_name(name: String) -> anyhow::Result<String> {
    let is_wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name.starts_with('.') || name.contains(is_wrong) {
        bail!("worker.oci.bridgeName: {name:?} cannot be the name of an interface");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut Worker)) -> anyhow::Result<NetworkSettings> {
        let mut worker =
            Worker { cni_config_path: Some("/nonexistent".into()), ..Worker::default() };
        change(&mut worker);
        NetworkSettings::new(&worker, Path::new("/root"), &Places::Host)
    }

    #[test]
    fn steps_have_a_bridge_unless_something_else_is_configured() {
        let mode = |text: Option<&str>, config: &str| {
            let set = |worker: &mut Worker| {
                worker.network_mode = text.map(str::to_owned);
                worker.cni_config_path = Some(config.into());
            };
            settings(set).map(|settings| settings.mode).map_err(|error| error.to_string())
        };
        for text in [None, Some(""), Some("auto"), Some("bridge")] {
            assert_eq!(mode(text, "/nonexistent"), Ok(NetworkMode::Bridge), "{text:?}");
        }
        assert_eq!(mode(None, "/proc/version"), Ok(NetworkMode::Cni));
        assert_eq!(mode(Some("cni"), "/proc/version"), Ok(NetworkMode::Cni));
        assert_eq!(mode(Some("bridge"), "/proc/version"), Ok(NetworkMode::Bridge));
        assert_eq!(mode(Some("host"), "/proc/version"), Ok(NetworkMode::Host));
        assert!(mode(Some("cni"), "/nonexistent").unwrap_err().contains("no /nonexistent"));
        assert!(mode(Some("x"), "/nonexistent").unwrap_err().contains("\"x\" is none of"));
    }

    #[test]
    fn names_and_ranges_that_cannot_be_are_refused() {
        for name in ["", "a/b", "a b", "..", "longer-than-15-bytes"] {
            assert!(settings(|w| w.bridge_name = Some(name.to_owned())).is_err(), "{name}");
        }
        assert!(settings(|w| w.bridge_name = Some("kiln-br0".to_owned())).is_ok());
        assert!(settings(|w| w.bridge_subnet = Some("10.0.0.0".to_owned())).is_err());
        assert!(settings(|w| w.bridge_subnet = Some("10.0.0.0/20".to_owned())).is_ok());
    }
}
