//! Blobs of content stores that a client serves: OCI layouts and local caches.

use std::future::Future;
use std::io;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use kiln_cache::{Descriptor, Digest};
use kiln_proto::content::content_client::ContentClient;
use kiln_proto::content::{InfoRequest, ReadContentRequest, WriteAction, WriteContentRequest};
use kiln_proto::session::methods;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tonic::{Code, Request};

use super::Session;
use crate::image::BlobReader;

/// Names the content store that a call is for.
const STORE_ID: &str = "buildkit-attachable-store-id";

/// Size of the pieces in which a blob is sent.
const PIECE: usize = 1 << 20;
/// Pieces on their way; when they are too many, reading waits.
const QUEUE: usize = 4;

impl Session {
    /// The bytes of a blob in content store `store`.
    pub(crate) async fn read_blob(
        &self,
        store: &str,
        digest: &Digest,
    ) -> anyhow::Result<BlobReader> {
        let mut client = ContentClient::new(self.channel_for(methods::CONTENT_READ)?);
        let message = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let mut request = Request::new(message);
        request.metadata_mut().insert(STORE_ID, store.parse()?);
        let stream = client.read(request).await?.into_inner();
        let chunks = stream.map_ok(|chunk| chunk.data).map_err(io::Error::other);
        Ok(Box::new(StreamReader::new(chunks)))
    }

    /// Puts a blob into the content store `store` of the client, unless it is there.
    pub(crate) async fn write_blob<R: AsyncRead + Unpin>(
        &self,
        store: &str,
        blob: &Descriptor,
        source: impl Future<Output = anyhow::Result<R>>,
    ) -> anyhow::Result<()> {
        let digest = blob.digest.to_string();
        if self.supports(methods::CONTENT_INFO) {
            let mut client = ContentClient::new(self.channel_for(methods::CONTENT_INFO)?);
            let mut request = Request::new(InfoRequest { digest: digest.clone() });
            request.metadata_mut().insert(STORE_ID, store.parse()?);
            if client.info(request).await.is_ok() {
                return Ok(());
            }
        }
        let mut content = source.await?;
        let mut client = ContentClient::new(self.channel_for(methods::CONTENT_WRITE)?);
        let (outgoing, messages) = mpsc::channel(QUEUE);
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert(STORE_ID, store.parse()?);

        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: format!("kiln-{digest}"),
            total: i64::try_from(blob.size)?,
            expected: digest,
            ..WriteContentRequest::default()
        };
        let send = async move {
            // Gone when all is sent, for the stream to end.
            let outgoing = outgoing;
            let mut offset = 0;
            let mut message = first.clone();
            loop {
                // A client that stops listening says why in its answers.
                if outgoing.send(message).await.is_err() {
                    return anyhow::Ok(());
                }
                let mut data = Vec::with_capacity(PIECE);
                while data.len() < PIECE && content.read_buf(&mut data).await? > 0 {}
                let is_last = data.is_empty();
                let action = if is_last { WriteAction::Commit } else { WriteAction::Write };
                message = WriteContentRequest { action: action.into(), offset, ..first.clone() };
                offset += i64::try_from(data.len())?;
                message.data = data.into();
                if is_last {
                    let _ = outgoing.send(message).await;
                    return Ok(());
                }
            }
        };
        let receive = async {
            let mut answers = client.write(request).await?.into_inner();
            while let Some(answer) = answers.next().await {
                if answer?.action == i32::from(WriteAction::Commit) {
                    break;
                }
            }
            Ok::<_, tonic::Status>(())
        };
        let (sent, received) = tokio::join!(send, receive);
        match received {
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(status).with_context(|| format!("cannot write {}", blob.digest)),
            Ok(()) => sent,
        }
    }
}
