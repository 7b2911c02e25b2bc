//! Streams that a client sends when a build asks for them: a Dockerfile or an archive that came
//! on its standard input (`Upload`).

use futures::TryStreamExt as _;
use kiln_proto::session::methods;
use kiln_proto::upload::BytesMessage;
use kiln_proto::upload::upload_client::UploadClient;
use tokio_util::io::StreamReader;
use tonic::Request;

use super::Session;
use crate::image::BlobReader;

impl Session {
    /// The stream that the client calls `id`.
    pub(crate) async fn upload(&self, id: &str) -> anyhow::Result<BlobReader> {
        let mut client = UploadClient::new(self.channel_for(methods::UPLOAD)?);
        // The client only sends; the open request stream is what keeps the call alive.
        let outgoing = futures::stream::pending::<BytesMessage>();
        let mut request = Request::new(outgoing);
        request.metadata_mut().insert("urlpath", format!("/{id}").parse()?);
        request.metadata_mut().insert("urlhost", "buildkit-session".parse()?);
        let stream = client.pull(request).await?.into_inner();
        let chunks = stream.map_ok(|message| message.data).map_err(std::io::Error::other);
        Ok(Box::new(StreamReader::new(chunks)))
    }
}
