//! A stream that the daemon fetches from the client as if from a web server.

use super::scoped::Scoped;
use bytes::Bytes;
use kiln_proto::upload::{BytesMessage, upload_server};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::{Request, Response, Status, Streaming};

/// How URLs begin that daemons fetch from the session.
pub(crate) const URL_PREFIX: &str = "http://buildkit-session/";

/// What one message carries.
const CHUNK: usize = 256 << 10;

/// What is uploaded. It can be read once.
pub(crate) struct Body(Box<dyn AsyncRead + Send + Unpin>);

impl Body {
    pub(crate) fn new(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self(Box::new(reader))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Body")
    }
}

/// Serves one body.
#[derive(Debug)]
pub(crate) struct Upload {
    path: String,
    body: Mutex<Option<Body>>,
}

impl Upload {
    pub(crate) fn new(path: String, body: Body) -> Self {
        Self { path, body: Mutex::new(Some(body)) }
    }
}

#[tonic::async_trait]
impl upload_server::Upload for Upload {
    type PullStream = Scoped<BytesMessage>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = request.metadata().get("urlpath").and_then(|path| path.to_str().ok());
        let name = path.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let body = if name == self.path {
            self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
        } else {
            None
        };
        let Some(Body(mut body)) = body else {
            return Err(Status::not_found(format!("no http response from session for {name}")));
        };
        Ok(Response::new(Scoped::run(|outgoing| async move {
            loop {
                let mut data = Vec::with_capacity(CHUNK);
                // Small pieces, as pipes give them, are gathered.
                while data.len() < CHUNK && body.read_buf(&mut data).await? > 0 {}
                if data.is_empty() {
                    return Ok(());
                }
                let message = BytesMessage { data: Bytes::from(data) };
                if outgoing.send(message).await.is_err() {
                    return Ok(());
                }
            }
        })))
    }
}
