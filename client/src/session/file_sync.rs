//! Directories that the daemon reads.

use super::scoped::Scoped;
use futures::stream::Empty;
use kiln_proto::filesync::file_sync_server;
use kiln_proto::fsutil::{self, DirectoryRequest, LocalTree, Owner, Packet, SendError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Serves directories by name. Their entries belong to root, so that a context is the same
/// whoever sends it.
#[derive(Debug)]
pub(crate) struct FileSync {
    directories: BTreeMap<String, PathBuf>,
}

impl FileSync {
    pub(crate) fn new(directories: BTreeMap<String, PathBuf>) -> Self {
        Self { directories }
    }
}

#[tonic::async_trait]
impl file_sync_server::FileSync for FileSync {
    type DiffCopyStream = Scoped<Packet>;
    type TarStreamStream = Empty<Result<Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let wanted = DirectoryRequest::from_metadata(request.metadata());
        let name = wanted.name.clone();
        let Some(path) = self.directories.get(&name).cloned() else {
            return Err(Status::not_found(format!("no access allowed to dir {name:?}")));
        };
        let mut incoming = request.into_inner();
        Ok(Response::new(Scoped::run(|outgoing| async move {
            let open =
                move || LocalTree::new(&path, &wanted.selection, Owner::Set { uid: 0, gid: 0 });
            let tree = tokio::task::spawn_blocking(open)
                .await
                .map_err(|_| Status::internal("the client's service failed"))?
                .map_err(|error| Status::unknown(error.to_string()))?;
            match fsutil::send(Arc::new(tree), &mut incoming, outgoing, |_| ()).await {
                Ok(()) => Ok(()),
                Err(SendError::Stream(status)) => Err(*status),
                Err(error) => Err(Status::unknown(error.to_string())),
            }
        })))
    }

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("directories are sent by DiffCopy"))
    }
}
