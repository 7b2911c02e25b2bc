//! The client's directories (`FileSync`).

use futures::Stream;
use kiln_proto::filesync::file_sync_client::FileSyncClient;
use kiln_proto::fsutil::{DirectoryRequest, Packet};
use kiln_proto::session::{MAX_MESSAGE, methods};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::Session;

/// Packets on their way to the client; requests for files are small.
const QUEUE: usize = 256;

impl Session {
    /// Starts to receive one of the client's directories: packets from it, and to it.
    pub(crate) async fn sync_files(
        &self,
        wanted: &DirectoryRequest,
    ) -> anyhow::Result<(impl Stream<Item = Result<Packet, Status>> + Unpin, mpsc::Sender<Packet>)>
    {
        let channel = self.channel_for(methods::FILE_SYNC)?;
        let mut client = FileSyncClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (outgoing, packets) = mpsc::channel(QUEUE);
        let mut request = Request::new(ReceiverStream::new(packets));
        wanted.write_metadata(request.metadata_mut())?;
        let incoming = client.diff_copy(request).await?.into_inner();
        Ok((incoming, outgoing))
    }
}
