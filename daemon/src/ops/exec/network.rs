//! What network a step has, and the files by which it finds hosts.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_executor::{Mount, Network};
use kiln_proto::pb;

use crate::solver::Build;

/// The network of a step. The daemon has none of its own to offer: the default mode is the
/// host's, as it is with BuildKit where no CNI is configured.
pub(super) fn mode(exec: &pb::ExecOp) -> Network {
    match exec.network() {
        pb::NetMode::Unset | pb::NetMode::Host => Network::Host,
        pb::NetMode::None => Network::None,
    }
}

/// `/etc/hosts` and `/etc/resolv.conf`.
pub(super) fn files(
    build: &Arc<Build>,
    meta: &pb::Meta,
    hostname: &str,
    network: Network,
) -> anyhow::Result<Vec<Mount>> {
    let mut hosts = String::from("127.0.0.1\tlocalhost ");
    hosts.push_str(hostname);
    hosts.push_str("\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in &meta.extra_hosts {
        if host.host.contains(char::is_whitespace) || host.ip.parse::<std::net::IpAddr>().is_err() {
            bail!("invalid extra host {:?} with address {:?}", host.host, host.ip);
        }
        writeln!(hosts, "{}\t{}", host.ip, host.host).context("cannot format a host line")?;
    }
    let file = |target: &str, content: String| Mount::File {
        content: content.into_bytes(),
        target: PathBuf::from(target),
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let mut files = vec![file("/etc/hosts", hosts)];
    if network == Network::Host {
        files.push(file("/etc/resolv.conf", build.daemon.config.resolv_conf()));
    }
    Ok(files)
}
