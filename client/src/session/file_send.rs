//! Exports that the daemon sends.

use super::engine::Engine;
use super::receive::{self, DirectorySink};
use super::scoped::Scoped;
use bytes::Bytes;
use futures::StreamExt;
use kiln_proto::file_send::file_send_server;
use kiln_proto::filesync::BytesMessage;
use kiln_proto::fsutil::{self, Packet, ReceiveError};
use kiln_proto::header;
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tonic::{Request, Response, Status, Streaming};

/// What is written to a file at once.
const WRITE_SIZE: usize = 1 << 20;

/// Where an export goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// One file.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A tree of files; `mirror` removes what is not part of it.
    Directory {
        /// Its root.
        path: PathBuf,
        /// Whether other files are removed.
        mirror: bool,
    },
    /// The docker engine.
    Engine(Engine),
}

/// Takes exports by the position of their exporter.
#[derive(Debug)]
pub(crate) struct FileSend {
    targets: BTreeMap<usize, Target>,
}

impl FileSend {
    pub(crate) fn new(targets: BTreeMap<usize, Target>) -> Self {
        Self { targets }
    }
}

#[tonic::async_trait]
impl file_send_server::FileSend for FileSend {
    type DiffCopyStream = Scoped<Bytes>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        // Daemons of old do not say which exporter it is: they have but one.
        let id = header::get_first(request.metadata(), header::EXPORTER_ID)
            .and_then(|id| id.parse().ok())
            .unwrap_or(0);
        let Some(target) = self.targets.get(&id).cloned() else {
            return Err(Status::not_found(format!("exporter {id} not found")));
        };
        let splits = header::get_first(request.metadata(), header::EXPORTER_MULTI_PLATFORM);
        if matches!(target, Target::Directory { mirror: true, .. })
            && splits.as_deref() != Some("1")
        {
            // Each platform would remove the files of the one before it.
            return Err(Status::failed_precondition(
                "mode=delete needs a daemon that sends all platforms at once",
            ));
        }
        let incoming = request.into_inner();
        Ok(Response::new(match target {
            Target::Directory { path, mirror } => Scoped::run(move |outgoing| async move {
                receive_tree(incoming, outgoing, &path, mirror).await
            }),
            target => Scoped::run(move |_| async move { receive_file(incoming, target).await }),
        }))
    }
}

async fn receive_file(incoming: Streaming<Bytes>, target: Target) -> Result<(), Status> {
    match target {
        Target::Stdout => copy(incoming, tokio::io::stdout(), "standard output").await,
        Target::Engine(engine) => engine.load(incoming.map(into_data)).await,
        Target::File(path) => {
            let name = path.display().to_string();
            copy(incoming, create(&path).await?, &name).await
        }
        // Directories are received packet by packet.
        Target::Directory { .. } => Err(Status::internal("a tree is no file")),
    }
}

async fn create(path: &Path) -> Result<tokio::fs::File, Status> {
    let failed =
        |error: std::io::Error| Status::unknown(format!("creating {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
    }
    tokio::fs::File::create(path).await.map_err(failed)
}

async fn copy(
    mut incoming: Streaming<Bytes>,
    out: impl AsyncWrite + Unpin,
    name: &str,
) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::unknown(format!("writing {name}: {error}"));
    let mut out = BufWriter::with_capacity(WRITE_SIZE, out);
    while let Some(message) = incoming.next().await {
        out.write_all(&into_data(message)?).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)
}

fn into_data(message: Result<Bytes, Status>) -> Result<Bytes, Status> {
    let message = BytesMessage::decode(message?)
        .map_err(|error| Status::invalid_argument(format!("a malformed chunk: {error}")))?;
    Ok(message.data)
}

async fn receive_tree(
    incoming: Streaming<Bytes>,
    outgoing: tokio::sync::mpsc::Sender<Bytes>,
    path: &Path,
    mirror: bool,
) -> Result<(), Status> {
    let mut packets = incoming.map(|message| {
        Packet::decode(message?)
            .map_err(|error| Status::invalid_argument(format!("a malformed packet: {error}")))
    });
    let (answers, mut answered) = tokio::sync::mpsc::channel::<Packet>(1);
    let encode = async {
        while let Some(packet) = answered.recv().await {
            if outgoing.send(packet.encode_to_vec().into()).await.is_err() {
                break;
            }
        }
    };
    let receive = async {
        let mut sink = DirectorySink::create(path, mirror)?;
        let received = fsutil::receive(&mut packets, answers, &mut sink).await;
        received.map_err(|error: ReceiveError<receive::Error>| match error {
            ReceiveError::Stream(status) => *status,
            error => Status::unknown(error.to_string()),
        })
    };
    let (received, ()) = tokio::join!(receive, encode);
    received
}
