//! The user's ssh agents, as steps may use them: to list keys and to sign, nothing else.

use super::scoped::Scoped;
use crate::args::ssh::DEFAULT_ID;
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use kiln_proto::ssh::{BytesMessage, CheckAgentRequest, CheckAgentResponse, ssh_server};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

/// Which agent a connection is for.
const AGENT_ID: &str = "buildkit.ssh.id";

/// The largest message that agents take.
const MAX_MESSAGE: usize = 256 << 10;

/// Messages of the agent protocol that change nothing.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// The message that refuses: one byte of length 1, "failure".
const FAILURE: &[u8] = &[0, 0, 0, 1, 5];

/// Connects steps to agents by id.
#[derive(Debug)]
pub(crate) struct Agents {
    sockets: BTreeMap<String, PathBuf>,
}

impl Agents {
    pub(crate) fn new(sockets: BTreeMap<String, PathBuf>) -> Self {
        Self { sockets }
    }

    fn socket(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { DEFAULT_ID } else { id };
        self.sockets
            .get(id)
            .ok_or_else(|| Status::not_found(format!("no ssh agent {id:?} was given (--ssh)")))
    }
}

#[tonic::async_trait]
impl ssh_server::Ssh for Agents {
    type ForwardAgentStream = Scoped<BytesMessage>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get(AGENT_ID).and_then(|id| id.to_str().ok());
        let path = self.socket(id.unwrap_or_default())?;
        let connection = UnixStream::connect(path).await.map_err(|error| {
            Status::unavailable(format!("connecting to the ssh agent {}: {error}", path.display()))
        })?;
        let incoming = request.into_inner();
        Ok(Response::new(Scoped::run(|outgoing| forward(connection, incoming, outgoing))))
    }
}

/// Asks the agent one question after the other, as its protocol has it.
async fn forward(
    mut agent: UnixStream,
    mut incoming: Streaming<BytesMessage>,
    outgoing: tokio::sync::mpsc::Sender<BytesMessage>,
) -> Result<(), Status> {
    let mut buffer = BytesMut::new();
    while let Some(message) = incoming.next().await {
        buffer.extend_from_slice(&message?.data);
        while let Some(question) = take_message(&mut buffer)? {
            let answer = if is_harmless(&question) {
                agent.write_all(&question).await?;
                read_message(&mut agent).await?
            } else {
                Bytes::from_static(FAILURE)
            };
            if outgoing.send(BytesMessage { data: answer }).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Takes a whole message, with its length, from the front of what has come.
fn take_message(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Status> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_MESSAGE {
        return Err(Status::invalid_argument("a message to the ssh agent is too large"));
    }
    Ok((buffer.len() >= 4 + length).then(|| buffer.split_to(4 + length)))
}

fn is_harmless(message: &[u8]) -> bool {
    matches!(message.get(4), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)))
}

async fn read_message(agent: &mut UnixStream) -> Result<Bytes, Status> {
    let mut length = [0; 4];
    agent.read_exact(&mut length).await?;
    let size = (&length[..]).get_u32() as usize;
    if size > MAX_MESSAGE {
        return Err(Status::unknown("the ssh agent's answer is too large"));
    }
    let mut message = vec![0; 4 + size];
    message[..4].copy_from_slice(&length);
    agent.read_exact(&mut message[4..]).await?;
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_that_change_nothing_reach_the_agent() {
        for (kind, expected) in [
            (11, true),
            (13, true),
            (17, false),
            (18, false),
            (19, false),
            (22, false),
            (27, false),
        ] {
            assert_eq!(is_harmless(&[0, 0, 0, 1, kind]), expected, "{kind}");
        }
        assert!(!is_harmless(&[0, 0, 0, 0]));
    }

    #[test]
    fn messages_are_taken_whole() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 1, 11, 0, 0, 0][..]);
        assert_eq!(take_message(&mut buffer).unwrap().unwrap(), [0, 0, 0, 1, 11][..]);
        assert_eq!(take_message(&mut buffer).unwrap(), None);
        buffer.extend_from_slice(&[2, 13]);
        assert_eq!(take_message(&mut buffer).unwrap(), None);
        buffer.extend_from_slice(&[0]);
        assert_eq!(take_message(&mut buffer).unwrap().unwrap(), [0, 0, 0, 2, 13, 0][..]);
        let mut huge = BytesMut::from(&[0xff; 4][..]);
        assert!(take_message(&mut huge).is_err());
    }
}
