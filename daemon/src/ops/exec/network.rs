//! The files by which a step finds hosts.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use kiln_executor::{Mount, Network};
use kiln_proto::pb;

use crate::network::HOST_GATEWAY;
use crate::solver::Build;

/// `/etc/hosts` and `/etc/resolv.conf`.
pub(super) async fn files(
    build: &Build,
    meta: &pb::Meta,
    hostname: &str,
    network: Network,
) -> anyhow::Result<Vec<Mount>> {
    let mut hosts = String::from("127.0.0.1\tlocalhost ");
    hosts.push_str(hostname);
    hosts.push_str("\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for extra in &meta.extra_hosts {
        // Where nothing can be reached, the host cannot either.
        if extra.ip == HOST_GATEWAY && network == Network::None {
            continue;
        }
        let address = address(build, extra, network).await?;
        writeln!(hosts, "{address}\t{}", extra.host).context("cannot format a host line")?;
    }
    let file = |target: &str, content: String| Mount::File {
        content: content.into_bytes(),
        target: PathBuf::from(target),
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let mut files = vec![file("/etc/hosts", hosts)];
    if network != Network::None {
        let daemon = &build.daemon;
        let names = daemon.network.resolv_conf(&daemon.config, &daemon.executor, network).await?;
        files.push(file("/etc/resolv.conf", names));
    }
    Ok(files)
}

async fn address(build: &Build, extra: &pb::HostIp, network: Network) -> anyhow::Result<IpAddr> {
    if extra.ip == HOST_GATEWAY {
        let daemon = &build.daemon;
        let address = daemon.network.host_address(&daemon.executor, network).await?;
        return address.with_context(|| {
            format!(
                "the host has no address for extra host {:?} in this step's network",
                extra.host
            )
        });
    }
    let address = extra.ip.parse().ok().filter(|_| !extra.host.contains(char::is_whitespace));
    address
        .with_context(|| format!("invalid extra host {:?} with address {:?}", extra.host, extra.ip))
}
