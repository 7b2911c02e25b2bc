//! Repositories behind ssh: with the keys of the client's agent, and none of the daemon's host.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_proto::pb;
use tempfile::NamedTempFile;

use super::source::GitSource;
use super::url::Transport;
use crate::ops::agent::AgentSocket;
use crate::solver::Build;

/// The way to a client's agent, for as long as this is held.
pub(super) struct Ssh {
    agent: AgentSocket,
    /// The keys of servers that the client knows.
    known_hosts: Option<NamedTempFile>,
}

impl Ssh {
    /// Opens the way if `source` is behind ssh.
    ///
    /// # Errors
    /// If the client does not forward the agent that the source names.
    pub(super) async fn open(
        build: &Arc<Build>,
        source: &GitSource,
    ) -> anyhow::Result<Option<Self>> {
        if source.transport != Transport::Ssh {
            return Ok(None);
        }
        // Only the daemon itself may use the socket.
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let id = source.agent.clone().unwrap_or_default();
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        let options = pb::SshOpt { id, uid, gid, mode: 0o600, optional: false };
        let agent = AgentSocket::open(build, &options).await?;
        let agent = agent.with_context(|| "the client's ssh agent has gone")?;
        let known_hosts = match &source.known_hosts {
            Some(text) => {
                let mut file = NamedTempFile::new_in(build.daemon.config.root.join("tmp"))?;
                file.write_all(text.as_bytes())?;
                Some(file)
            }
            None => None,
        };
        Ok(Some(Self { agent, known_hosts }))
    }

    /// Where the agent is.
    pub(super) fn socket(&self) -> PathBuf {
        self.agent.path()
    }

    /// The command that git runs in a shell.
    pub(super) fn command(&self) -> String {
        let hosts = match &self.known_hosts {
            Some(file) => {
                let path = file.path().display().to_string().replace('\'', r"'\''");
                format!("-o 'UserKnownHostsFile={path}' -o StrictHostKeyChecking=yes")
            }
            None => "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no".to_owned(),
        };
        let only_agent = "-o IdentityFile=none -o BatchMode=yes -o ConnectTimeout=30";
        format!("ssh -F /dev/null {only_agent} {hosts}")
    }
}
