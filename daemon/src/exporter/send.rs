//! Delivering exports to the client (`FileSend`).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use futures::TryFutureExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use kiln_proto::file_send::file_send_client::FileSendClient;
use kiln_proto::filesync::BytesMessage;
use kiln_proto::header;
use kiln_proto::session::methods;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::session::Session;

/// Size of the pieces in which a stream is sent.
const PIECE: usize = 1 << 20;
/// Pieces on their way; when they are too many, whoever writes waits.
const QUEUE: usize = 8;

/// What the client says while it receives.
type Answers = BoxStream<'static, Result<Bytes, Status>>;

/// A delivery: messages to the client, and from it. It starts when its answers are asked for, and
/// clients do not answer before they have read: both have to be done at the same time.
pub(super) fn open(
    session: &Session,
    id: &str,
    metadata: &BTreeMap<String, String>,
) -> anyhow::Result<(mpsc::Sender<Bytes>, Answers)> {
    let mut client = FileSendClient::new(session.channel_for(methods::FILE_SEND)?);
    let (outgoing, messages) = mpsc::channel(QUEUE);
    let mut request = Request::new(ReceiverStream::new(messages));
    header::set(request.metadata_mut(), header::EXPORTER_ID, &[id])?;
    for (key, value) in metadata {
        let name = format!("{}{key}", header::EXPORTER_METADATA_PREFIX);
        header::set(request.metadata_mut(), &name, &[value])?;
    }
    let answers = async move { client.diff_copy(request).await.map(tonic::Response::into_inner) };
    Ok((outgoing, answers.try_flatten_stream().boxed()))
}

/// Sends what `write` writes as one stream of bytes.
///
/// A client that has the file already says so; then nothing is sent.
pub(super) async fn stream(
    session: &Arc<Session>,
    id: &str,
    metadata: &BTreeMap<String, String>,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let (outgoing, mut incoming) = open(session, id, metadata)?;
    let writing = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { outgoing, buffer: BytesMut::with_capacity(PIECE) };
        write(&mut pieces)?;
        pieces.flush()?;
        anyhow::Ok(())
    });
    // The client ends its side when it has taken everything, or says why it does not.
    let mut refused = None;
    while let Some(answer) = incoming.next().await {
        if let Err(status) = answer {
            refused = Some(status);
            break;
        }
    }
    let written = writing.await?;
    match refused {
        Some(status) if status.code() == Code::AlreadyExists => Ok(()),
        Some(status) => Err(status).context("cannot send the export to the client"),
        None => written,
    }
}

/// Cuts what is written into messages.
struct Pieces {
    outgoing: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(PIECE)).freeze();
        let message = BytesMessage { data };
        let sent = self.outgoing.blocking_send(message.encode_to_vec().into());
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone"))
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = data.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&data[..count]);
        if self.buffer.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
