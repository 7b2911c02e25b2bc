//! The client's ssh agents, to which steps get connected.

use anyhow::Context as _;
use futures::Stream;
use kiln_proto::session::methods;
use kiln_proto::ssh::ssh_client::SshClient;
use kiln_proto::ssh::{BytesMessage, CheckAgentRequest};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Streaming};

use super::Session;

/// Which agent a connection is for.
const AGENT_ID: &str = "buildkit.ssh.id";

impl Session {
    /// Whether the client lets steps use an agent of that id.
    pub(crate) async fn has_agent(&self, id: &str) -> anyhow::Result<bool> {
        let Ok(channel) = self.channel_for(methods::CHECK_AGENT) else { return Ok(false) };
        let request = CheckAgentRequest { id: id.to_owned() };
        match SshClient::new(channel).check_agent(request).await {
            Ok(_) => Ok(true),
            // BuildKit's clients do not say in a code that there is none.
            Err(status)
                if matches!(status.code(), Code::NotFound | Code::Unimplemented)
                    || status.message().starts_with("unset ssh forward key") =>
            {
                Ok(false)
            }
            Err(status) => Err(status).with_context(|| format!("cannot ask for ssh agent {id}")),
        }
    }

    /// One connection to an agent: what the step says goes out, what the agent says comes back.
    pub(crate) async fn connect_agent(
        &self,
        id: &str,
        outgoing: impl Stream<Item = BytesMessage> + Send + 'static,
    ) -> anyhow::Result<Streaming<BytesMessage>> {
        let channel = self.channel_for(methods::FORWARD_AGENT)?;
        let mut request = Request::new(outgoing);
        let id = MetadataValue::try_from(id).with_context(|| format!("ssh agent id {id:?}"))?;
        request.metadata_mut().insert(AGENT_ID, id);
        Ok(SshClient::new(channel).forward_agent(request).await?.into_inner())
    }
}
