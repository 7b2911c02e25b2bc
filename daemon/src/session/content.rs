//! Blobs of content stores that a client serves: OCI layouts and local caches.

use futures::TryStreamExt as _;
use kiln_cache::Digest;
use kiln_proto::content::ReadContentRequest;
use kiln_proto::content::content_client::ContentClient;
use kiln_proto::session::methods;
use tokio_util::io::StreamReader;
use tonic::Request;

use super::Session;
use crate::image::BlobReader;

/// Names the content store that a call is for.
pub(crate) const STORE_ID: &str = "buildkit-attachable-store-id";

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
        let chunks = stream.map_ok(|chunk| chunk.data).map_err(std::io::Error::other);
        Ok(Box::new(StreamReader::new(chunks)))
    }
}
