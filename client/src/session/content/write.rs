//! Writing one blob: it is there whole, or not at all.

use super::super::layout::Layout;
use super::{Uploads, failed};
use futures::StreamExt;
use kiln_proto::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use std::io::{Seek, Write};
use std::path::Path;
use std::time::SystemTime;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// A blob that is being written.
#[derive(Debug)]
struct Ingest {
    file: NamedTempFile,
    hasher: Sha256,
    offset: i64,
    total: i64,
    expected: String,
    started: Timestamp,
}

/// Serves one upload: each request is answered with how far it has come, and a commit ends it.
pub(super) async fn write(
    layout: Layout,
    store: String,
    uploads: Uploads,
    mut incoming: Streaming<WriteContentRequest>,
    outgoing: mpsc::Sender<WriteContentResponse>,
) -> Result<(), Status> {
    let Some(first) = incoming.next().await else { return Ok(()) };
    let mut request = first?;
    if request.r#ref.is_empty() {
        return Err(Status::invalid_argument("the first message of an upload names it"));
    }
    let Some(_upload) = uploads.begin(&store, &request.r#ref) else {
        return Err(Status::unavailable(format!("upload {:?} is under way", request.r#ref)));
    };
    let mut ingest = Ingest::begin(&layout, &request)?;
    loop {
        let action = WriteAction::try_from(request.action)
            .map_err(|_| Status::invalid_argument("an unknown action"))?;
        let is_commit = action == WriteAction::Commit;
        // Hashing and writing may take long: off the thread that talks to the daemon.
        let stepped = tokio::task::spawn_blocking(move || {
            let response = ingest.step(action, &request);
            (ingest, response)
        });
        let response;
        (ingest, response) =
            stepped.await.map_err(|_| Status::internal("the client's writer failed"))?;
        let response = response?;
        if is_commit {
            let layout = layout.clone();
            tokio::task::spawn_blocking(move || ingest.commit(&layout))
                .await
                .map_err(|_| Status::internal("the client's writer failed"))??;
            let _ = outgoing.send(response).await;
            return Ok(());
        }
        if outgoing.send(response).await.is_err() {
            return Ok(());
        }
        request = match incoming.next().await {
            Some(request) => request?,
            None => return Ok(()),
        };
    }
}

impl Ingest {
    fn begin(layout: &Layout, request: &WriteContentRequest) -> Result<Self, Status> {
        if !request.expected.is_empty() {
            let path = layout.blob(&request.expected).ok_or_else(|| bad(&request.expected))?;
            if path.exists() {
                return Err(Status::already_exists(format!(
                    "blob {}: already exists",
                    request.expected
                )));
            }
        }
        layout.create().map_err(|error| Status::unknown(error.to_string()))?;
        // Beside the blobs, so that it only has to be renamed.
        let directory = layout.blob(&digest_of(&Sha256::new())).ok_or_else(|| bad("sha256"))?;
        let directory = directory.parent().unwrap_or(Path::new(".")).to_owned();
        let file = tempfile::Builder::new()
            .prefix(".upload-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(&directory)
            .map_err(|error| failed(&directory, &error))?;
        Ok(Self {
            file,
            hasher: Sha256::new(),
            offset: 0,
            total: request.total,
            expected: request.expected.clone(),
            started: SystemTime::now().into(),
        })
    }

    /// Does what a request says, all but the commit itself.
    fn step(
        &mut self,
        action: WriteAction,
        request: &WriteContentRequest,
    ) -> Result<WriteContentResponse, Status> {
        if request.total > 0 {
            self.total = request.total;
        }
        if !request.expected.is_empty() {
            self.expected.clone_from(&request.expected);
        }
        if action != WriteAction::Stat {
            self.append(request)?;
        }
        Ok(WriteContentResponse {
            action: request.action,
            started_at: Some(self.started),
            updated_at: Some(SystemTime::now().into()),
            offset: self.offset,
            total: self.total,
            digest: digest_of(&self.hasher),
        })
    }

    fn append(&mut self, request: &WriteContentRequest) -> Result<(), Status> {
        if request.data.is_empty() {
            return Ok(());
        }
        if request.offset == 0 && self.offset > 0 {
            // The daemon starts again.
            self.file.as_file().set_len(0)?;
            self.file.as_file_mut().rewind()?;
            self.hasher = Sha256::new();
            self.offset = 0;
        }
        if request.offset != self.offset {
            return Err(Status::out_of_range(format!(
                "an upload at offset {} cannot go on at {}",
                self.offset, request.offset
            )));
        }
        self.hasher.update(&request.data);
        self.file.write_all(&request.data)?;
        let length = i64::try_from(request.data.len()).unwrap_or(i64::MAX);
        self.offset = self.offset.saturating_add(length);
        Ok(())
    }

    fn commit(self, layout: &Layout) -> Result<(), Status> {
        let digest = digest_of(&self.hasher);
        if !self.expected.is_empty() && self.expected != digest {
            return Err(Status::failed_precondition(format!(
                "an upload of {} turned out to be {digest}",
                self.expected
            )));
        }
        if self.total > 0 && self.total != self.offset {
            return Err(Status::failed_precondition(format!(
                "an upload of {} bytes has {}",
                self.total, self.offset
            )));
        }
        let path = layout.blob(&digest).ok_or_else(|| bad(&digest))?;
        if path.exists() {
            return Err(Status::already_exists(format!("blob {digest}: already exists")));
        }
        self.file.persist(&path).map_err(|error| failed(&path, &error.error))?;
        Ok(())
    }
}

fn digest_of(hasher: &Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.clone().finalize()))
}

fn bad(digest: &str) -> Status {
    Status::invalid_argument(format!("{digest:?} is not a digest"))
}
