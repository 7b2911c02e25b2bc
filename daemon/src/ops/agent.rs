//! Sockets that connect a step, or a git that fetches, to the client's ssh agents.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use kiln_executor::SelinuxLabels;
use kiln_proto::pb;
use kiln_proto::ssh::BytesMessage;
use kiln_snapshotter::label_tree;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;

use crate::session::Session;
use crate::solver::Build;

/// Connections that a socket may have open at once.
const MOST_CONNECTIONS: usize = 64;

/// A socket on the host, such as for one mount of one step. It and its connections end when it is dropped.
pub(in crate::ops) struct AgentSocket {
    dir: TempDir,
    _serving: AbortOnDropHandle<()>,
}

impl AgentSocket {
    /// Listens; `None` if the client has no such agent and need not have one.
    pub(in crate::ops) async fn open(
        build: &Arc<Build>,
        options: &pb::SshOpt,
    ) -> anyhow::Result<Option<Self>> {
        let id = if options.id.is_empty() { "default" } else { &options.id };
        let session = match build.session() {
            Ok(session) if session.has_agent(id).await? => session.clone(),
            _ if options.optional => return Ok(None),
            _ => anyhow::bail!("no SSH key {id:?} forwarded from the client: give it with --ssh"),
        };
        let dir = TempDir::new_in(build.daemon.config.root.join("tmp"))?;
        let labels = build.daemon.executor.selinux();
        let listener = bind(&dir, options, labels);
        let listener = listener.context("cannot make a socket for an ssh agent")?;
        let serving = tokio::spawn(serve(listener, session, id.to_owned()));
        Ok(Some(Self { dir, _serving: AbortOnDropHandle::new(serving) }))
    }

    pub(in crate::ops) fn path(&self) -> PathBuf {
        self.dir.path().join("agent")
    }
}

fn bind(
    dir: &TempDir,
    options: &pb::SshOpt,
    labels: Option<&SelinuxLabels>,
) -> anyhow::Result<UnixListener> {
    let opened = std::fs::File::open(dir.path())?;
    // The daemon's directory may have a longer path than a socket's address can hold.
    let short = format!("/proc/self/fd/{}/agent", opened.as_raw_fd());
    let listener = match labels {
        None => UnixListener::bind(short)?,
        Some(labels) => {
            label_tree(dir.path(), &labels.file)?;
            labels.of_sockets(|| UnixListener::bind(short))?
        }
    };
    let path = dir.path().join("agent");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(options.mode & 0o777))?;
    chown(&path, Some(options.uid), Some(options.gid))?;
    Ok(listener)
}

async fn serve(listener: UnixListener, session: Arc<Session>, id: String) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if connections.len() >= MOST_CONNECTIONS {
                    connections.join_next().await;
                }
                let (session, id) = (session.clone(), id.clone());
                connections.spawn(async move {
                    if let Err(error) = forward(stream, &session, &id).await {
                        tracing::debug!(id, "connection to an ssh agent ended: {error:#}");
                    }
                });
                while connections.try_join_next().is_some() {}
            }
            Err(error) => {
                // Out of descriptors: others give theirs back.
                tracing::debug!(%error, "cannot accept a connection to an ssh agent");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Carries one connection until either end closes it.
async fn forward(stream: UnixStream, session: &Session, id: &str) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let outgoing = ReaderStream::new(read).filter_map(async |chunk| chunk.ok());
    let mut incoming =
        session.connect_agent(id, outgoing.map(|data: Bytes| BytesMessage { data })).await?;
    while let Some(message) = incoming.message().await? {
        write.write_all(&message.data).await?;
    }
    write.shutdown().await?;
    Ok(())
}
