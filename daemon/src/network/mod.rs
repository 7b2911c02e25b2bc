//! The network that steps get unless they ask for another, and how they find names in it.

mod relay;
mod resolv_conf;

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use kiln_executor::{Executor, ExecutorError, Network};
use kiln_proto::pb;
use tokio::sync::OnceCell;

use crate::config::{Config, NetworkMode};
use relay::Relay;
use resolv_conf::ResolvConf;

/// What may stand for the host's address among extra hosts.
pub(crate) const HOST_GATEWAY: &str = "host-gateway";

const HOW_TO_DO_WITHOUT: &str = "steps cannot have a network of their own on this host: \
    set networkMode = \"host\" in [worker.oci] of the daemon's configuration to let them use the \
    host's, or build with --network=none";

/// The network of a daemon's steps.
#[derive(Debug)]
pub(crate) struct StepNetwork {
    mode: NetworkMode,
    /// Answers steps that cannot reach the host's name server, since the first of them.
    relay: OnceCell<Option<Relay>>,
}

impl StepNetwork {
    pub(crate) fn new(mode: NetworkMode) -> Self {
        Self { mode, relay: OnceCell::new() }
    }

    /// What a step that asks for `mode` gets.
    pub(crate) fn of(&self, mode: pb::NetMode) -> Network {
        match (mode, self.mode) {
            (pb::NetMode::None, _) => Network::None,
            (pb::NetMode::Host, _) | (pb::NetMode::Unset, NetworkMode::Host) => Network::Host,
            (pb::NetMode::Unset, NetworkMode::Bridge | NetworkMode::Cni) => Network::Sandbox,
        }
    }

    /// The text of a step's `/etc/resolv.conf`.
    pub(crate) async fn resolv_conf(
        &self,
        config: &Config,
        executor: &Executor,
        network: Network,
    ) -> anyhow::Result<String> {
        let text = config.resolv_conf();
        if network != Network::Sandbox {
            return Ok(text);
        }
        let host = ResolvConf::parse(&text);
        if !host.is_out_of_reach() {
            return Ok(host.within_reach().to_string());
        }
        match executor.gateway().await.context(HOW_TO_DO_WITHOUT)? {
            Some(address) => {
                let (address, servers) = (IpAddr::V4(address), host.servers());
                let start = || Relay::start(executor, address, servers);
                let relay = self.relay.get_or_try_init(start).await;
                relay.with_context(|| {
                    format!("cannot pass the name server's answers on to steps, at {address}")
                })?;
                Ok(host.asking(address).to_string())
            }
            None => Ok(ResolvConf::parse(&resolv_conf::of_systemd()).within_reach().to_string()),
        }
    }

    /// The host's address as a step sees it, if it has one there.
    pub(crate) async fn host_address(
        &self,
        executor: &Executor,
        network: Network,
    ) -> anyhow::Result<Option<IpAddr>> {
        match network {
            Network::Host => Ok(Some(IpAddr::from([127, 0, 0, 1]))),
            Network::None => Ok(None),
            Network::Sandbox => {
                let address = executor.host_address().await.context(HOW_TO_DO_WITHOUT)?;
                Ok(address.map(IpAddr::V4))
            }
        }
    }
}

/// Says what to do about a step that could not start, if it was for its network.
pub(crate) fn explain(error: ExecutorError) -> anyhow::Error {
    let is_network = matches!(error, ExecutorError::Network { .. });
    let error = anyhow::Error::new(error);
    if is_network { error.context(HOW_TO_DO_WITHOUT) } else { error }
}

/// Where name servers listen.
fn dns(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 53)
}
