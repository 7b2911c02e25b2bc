//! The gateway of a build whose frontend is this program.
//!
//! The build's request names no frontend then, and stays open while the gateway is asked.

use crate::daemon::Daemon;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::gateway::{self, PingRequest, ReturnRequest};
use kiln_proto::header::BUILD_ID;
use kiln_proto::rpc;
use kiln_proto::session::MAX_MESSAGE;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The gateway opens a little after the build's request has come.
const ATTEMPTS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// The gateway of one build.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    /// The calls; their requests come from [`Self::request`].
    pub(super) client: LlbBridgeClient<Channel>,
    build: String,
}

impl Bridge {
    pub(super) fn new(daemon: &Daemon, build: &str) -> Self {
        let client = LlbBridgeClient::new(daemon.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { client, build: build.to_owned() }
    }

    /// A call for this build.
    pub(super) fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        let build = self.build.parse().map_err(|_| Status::internal("a malformed build ref"))?;
        request.metadata_mut().insert(BUILD_ID, build);
        Ok(request)
    }

    /// Asks a frontend of the daemon's.
    pub(super) async fn solve(
        &mut self,
        question: gateway::SolveRequest,
    ) -> Result<gateway::Result, Status> {
        let request = self.request(question)?;
        Ok(self.client.solve(request).await?.into_inner().result.unwrap_or_default())
    }

    /// Ends the build with a result, or with an error.
    pub(super) async fn finish(
        &mut self,
        answer: Result<gateway::Result, &Status>,
    ) -> Result<(), Status> {
        let (result, error) = match answer {
            Ok(result) => (Some(result), None),
            Err(status) => (None, Some(to_rpc(status))),
        };
        let request = self.request(ReturnRequest { result, error })?;
        self.client.r#return(request).await.map(drop)
    }

    /// Waits until the gateway is open.
    pub(super) async fn wait(&mut self) -> Result<(), Status> {
        let mut attempt = 1;
        loop {
            let request = self.request(PingRequest {})?;
            match self.client.ping(request).await {
                Ok(_) => return Ok(()),
                Err(status) if attempt == ATTEMPTS => return Err(status),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            attempt += 1;
        }
    }
}

/// The error as it came, with its details.
fn to_rpc(status: &Status) -> rpc::Status {
    let details = <rpc::Status as prost::Message>::decode(status.details());
    rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: details.unwrap_or_default().details,
    }
}
