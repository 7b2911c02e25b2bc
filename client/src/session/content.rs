//! Content stores that the daemon reads from and writes to: local caches and image layouts.

use super::layout::Layout;
use super::scoped::Scoped;
use futures::stream::Empty;
use kiln_proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse,
    WriteContentRequest, WriteContentResponse, content_server,
};
use kiln_proto::session::methods;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

mod write;

/// Layouts by the names under which the daemon asks for them.
pub(crate) type Stores = BTreeMap<String, Layout>;

/// The methods that the daemon may call.
pub(crate) const METHODS: [&str; 4] = [
    methods::CONTENT_READ,
    methods::CONTENT_INFO,
    methods::CONTENT_WRITE,
    "/containerd.services.content.v1.Content/Status",
];

/// Which store a call is about.
const STORE_ID: &str = "buildkit-attachable-store-id";

/// What one message carries.
const CHUNK: usize = 512 << 10;

/// Serves stores.
#[derive(Debug)]
pub(crate) struct Content {
    stores: Stores,
    /// Uploads that are under way, by store and reference.
    uploads: Uploads,
}

/// Uploads that are under way: each has one writer.
#[derive(Debug, Clone, Default)]
struct Uploads(Arc<Mutex<BTreeSet<(String, String)>>>);

/// An upload's place among those that are under way.
#[derive(Debug)]
struct Upload {
    uploads: Uploads,
    key: (String, String),
}

impl Uploads {
    fn begin(&self, store: &str, reference: &str) -> Option<Upload> {
        let key = (store.to_owned(), reference.to_owned());
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        is_first.then(|| Upload { uploads: self.clone(), key })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Content {
    pub(crate) fn new(stores: Stores) -> Self {
        Self { stores, uploads: Uploads::default() }
    }

    fn store(&self, metadata: &MetadataMap) -> Result<(&String, &Layout), Status> {
        let id = metadata
            .get(STORE_ID)
            .and_then(|id| id.to_str().ok())
            .ok_or_else(|| Status::invalid_argument(format!("the request lacks {STORE_ID}")))?;
        self.stores
            .get_key_value(id)
            .ok_or_else(|| Status::not_found(format!("unknown store {id}")))
    }
}

fn not_found(digest: &str) -> Status {
    Status::not_found(format!("blob {digest}: not found"))
}

fn failed(path: &Path, error: &io::Error) -> Status {
    Status::unknown(format!("{}: {error}", path.display()))
}

fn immutable<T>() -> Result<Response<T>, Status> {
    Err(Status::failed_precondition("the client's content stores only grow"))
}

#[tonic::async_trait]
impl content_server::Content for Content {
    type ListStream = Empty<Result<ListContentResponse, Status>>;
    type ReadStream = Scoped<ReadContentResponse>;
    type WriteStream = Scoped<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let (_, layout) = self.store(request.metadata())?;
        let digest = &request.get_ref().digest;
        let path = layout.blob(digest).ok_or_else(|| not_found(digest))?;
        let metadata = tokio::fs::metadata(path).await.map_err(|_| not_found(digest))?;
        let modified = metadata.modified().ok().map(prost_types::Timestamp::from);
        let info = Info {
            digest: digest.clone(),
            size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
            created_at: modified,
            updated_at: modified,
            labels: BTreeMap::new(),
        };
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let (_, layout) = self.store(request.metadata())?;
        let ReadContentRequest { digest, offset, size } = request.get_ref().clone();
        let path = layout.blob(&digest).ok_or_else(|| not_found(&digest))?;
        let mut file = tokio::fs::File::open(&path).await.map_err(|_| not_found(&digest))?;
        let length = file.metadata().await.map_err(|error| failed(&path, &error))?.len();
        let start = u64::try_from(offset)
            .ok()
            .filter(|&start| start <= length)
            .ok_or_else(|| Status::out_of_range(format!("blob {digest}: no offset {offset}")))?;
        let rest = length - start;
        let wanted = match u64::try_from(size) {
            Ok(0) => rest,
            Ok(size) if size <= rest => size,
            _ => {
                return Err(Status::out_of_range(format!(
                    "blob {digest}: no {size} bytes at offset {offset}"
                )));
            }
        };
        Ok(Response::new(Scoped::run(move |outgoing| async move {
            file.seek(SeekFrom::Start(start)).await?;
            let mut content = file.take(wanted);
            let mut offset = offset;
            loop {
                let mut data = Vec::with_capacity(CHUNK);
                while data.len() < CHUNK && content.read_buf(&mut data).await? > 0 {}
                let length = data.len();
                // An empty blob has one empty message.
                if length == 0 && wanted > 0 {
                    return Ok(());
                }
                let message = ReadContentResponse { offset, data: data.into() };
                if outgoing.send(message).await.is_err() || length == 0 {
                    return Ok(());
                }
                offset = offset.saturating_add(i64::try_from(length).unwrap_or(i64::MAX));
            }
        })))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let (name, layout) = self.store(request.metadata())?;
        let (name, layout, uploads) = (name.clone(), layout.clone(), self.uploads.clone());
        let incoming = request.into_inner();
        Ok(Response::new(Scoped::run(move |outgoing| {
            write::write(layout, name, uploads, incoming, outgoing)
        })))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        // Uploads are not resumed, so none is there that another call could go on with.
        Err(Status::not_found(format!("upload {:?}: not found", request.get_ref().r#ref)))
    }

    async fn list(
        &self,
        _: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented("the client's content stores are not listed"))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        immutable()
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        immutable()
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}
