//! `containerd.services.content.v1.Content`: the daemon's blobs, to be read.
//!
//! There is one content store. Clients that name a namespace (`buildkit_history`) get it, too.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use kiln_cache::filter::{Field, InvalidFilter, Selection};
use kiln_cache::{BlobRow, Digest, InvalidDigest};
use kiln_proto::content::content_server::Content;
use kiln_proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse,
    WriteContentRequest, WriteContentResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::daemon::Daemon;

/// Size of the pieces in which a blob is sent.
const PIECE: u64 = 1 << 20;
/// Pieces on their way; when they are too many, reading waits.
const QUEUE: usize = 4;
/// Blobs that one message lists.
const PAGE: usize = 100;

/// Serves one daemon's blobs.
pub(crate) struct ContentService(pub(crate) Arc<Daemon>);

/// What a list can be filtered by.
#[derive(Clone, Copy)]
struct DigestField;

impl Field for DigestField {
    const ALL: &'static str = "digest";

    fn named(name: &str) -> Option<Self> {
        (name == Self::ALL).then_some(Self)
    }

    fn name(self) -> &'static str {
        Self::ALL
    }
}

fn internal(error: &dyn std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn read_only<T>() -> Result<Response<T>, Status> {
    Err(Status::permission_denied("clients can only read the content store"))
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error: InvalidDigest| Status::invalid_argument(error.to_string()))
}

fn info(digest: &Digest, row: &BlobRow) -> Info {
    Info {
        digest: digest.to_string(),
        size: i64::try_from(row.size).unwrap_or(i64::MAX),
        created_at: Some(row.created_at.into()),
        updated_at: Some(row.created_at.into()),
        ..Info::default()
    }
}

impl ContentService {
    fn row(&self, digest: &Digest) -> Result<BlobRow, Status> {
        let found = self.0.index.blob(digest).map_err(|error| internal(&error))?;
        let found =
            found.ok_or_else(|| Status::not_found(format!("content {digest}: not found")))?;
        Ok(found.row)
    }
}

/// Sends `size` bytes of a file from `offset` on.
fn send(
    mut file: File,
    mut offset: u64,
    size: u64,
    pieces: &mpsc::Sender<Result<ReadContentResponse, Status>>,
) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let end = offset + size;
    while offset < end {
        let mut data = Vec::new();
        let count = (&mut file).take(PIECE.min(end - offset)).read_to_end(&mut data)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let piece = ReadContentResponse {
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            data: data.into(),
        };
        offset += count as u64;
        if pieces.blocking_send(Ok(piece)).is_err() {
            break; // nobody reads any more
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl Content for ContentService {
    type ListStream = BoxStream<'static, Result<ListContentResponse, Status>>;
    type ReadStream = ReceiverStream<Result<ReadContentResponse, Status>>;
    type WriteStream = BoxStream<'static, Result<WriteContentResponse, Status>>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let digest = digest(&request.get_ref().digest)?;
        let info = Some(info(&digest, &self.row(&digest)?));
        Ok(Response::new(InfoResponse { info }))
    }

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let invalid = |error: InvalidFilter| Status::invalid_argument(error.to_string());
        let filters = request.into_inner().filters;
        let filters: Vec<Selection<DigestField>> = filters
            .iter()
            .map(|filter| filter.parse().map_err(invalid))
            .collect::<Result<_, _>>()?;
        let index = self.0.index.clone();
        let rows = tokio::task::spawn_blocking(move || index.blob_rows()).await;
        let mut rows = rows.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        if !filters.is_empty() {
            rows.retain(|(digest, _)| {
                filters.iter().any(|filter| filter.matches(|_| Some(digest.to_string())))
            });
        }
        let pages: Vec<_> = rows
            .chunks(PAGE)
            .map(|page| page.iter().map(|(digest, row)| info(digest, row)).collect())
            .map(|info| Ok(ListContentResponse { info }))
            .collect();
        Ok(Response::new(futures::stream::iter(pages).boxed()))
    }

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let ReadContentRequest { digest: name, offset, size } = request.into_inner();
        let digest = digest(&name)?;
        let row = self.row(&digest)?;
        let out_of_range = || {
            let message = format!("{digest} has {} bytes, none of them at {offset}", row.size);
            Status::out_of_range(message)
        };
        let offset = u64::try_from(offset).map_err(|_| out_of_range())?;
        let rest = row.size.checked_sub(offset).ok_or_else(out_of_range)?;
        // No size is all that there is.
        let wanted = u64::try_from(size).map_err(|_| out_of_range())?;
        let size = if wanted == 0 { rest } else { wanted };
        if size > rest {
            let message = format!("{digest} has {} bytes, less than asked for", row.size);
            return Err(Status::out_of_range(message));
        }
        let content = self.0.content.clone();
        let (pieces, stream) = mpsc::channel(QUEUE);
        // Ends with the blob, or with the client's interest in it.
        tokio::task::spawn_blocking(move || {
            let sent = match content.open_sound(&digest) {
                Ok(file) => send(file, offset, size, &pieces).map_err(|error| internal(&error)),
                Err(error) => Err(internal(&error)),
            };
            if let Err(status) = sent {
                let _ = pieces.blocking_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        read_only()
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        read_only()
    }

    async fn write(
        &self,
        _: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        read_only()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Err(Status::not_found("nothing is being written to the content store"))
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        read_only()
    }
}
