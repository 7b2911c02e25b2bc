//! The daemon's end: calling on the session.

use super::info::{BadInfo, SessionInfo};
use super::tunnel::{Outgoing, Tunnel};
use super::{CONNECTION_WINDOW, MAX_FRAME, MAX_METADATA, STREAM_WINDOW};
use crate::control::BytesMessage;
use futures::Stream;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;

/// A session that the daemon has taken.
pub struct Accepted {
    /// What the client said about it.
    pub info: SessionInfo,
    /// Calls the client's services. Call only what [`SessionInfo::supports`].
    pub channel: Channel,
    /// The answer to the `Session` call.
    pub outgoing: Outgoing,
    /// Cancelled when the session's connection is gone.
    ///
    /// Dropping `outgoing`, and dropping all clones of `channel`, ends the connection.
    pub closed: CancellationToken,
}

/// Why a session was not taken.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// The client did not introduce it.
    #[error(transparent)]
    Info(#[from] BadInfo),
    /// No HTTP/2 connection could be made on it.
    #[error("session {id}: no connection to the client")]
    Connect {
        /// The session.
        id: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// Takes a `Session` call.
pub async fn accept<S>(request: Request<S>) -> Result<Accepted, AcceptError>
where
    S: Stream<Item = Result<BytesMessage, Status>> + Send + 'static,
{
    let (metadata, _, incoming) = request.into_parts();
    let info = SessionInfo::from_metadata(&metadata)?;
    let (tunnel, outgoing, closed) = Tunnel::new(incoming);
    let tunnel = Arc::new(Mutex::new(Some(tunnel)));
    // There is one connection; when it breaks, so does the session.
    let connector =
        service_fn(move |_| {
            let tunnel = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
            std::future::ready(tunnel.map(TokioIo::new).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotConnected, "the session has ended")
            }))
        });
    let channel = Endpoint::from_static("http://session")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_max_header_list_size(MAX_METADATA)
        .connect_with_connector(connector)
        .await
        .map_err(|source| AcceptError::Connect { id: info.id.clone(), source })?;
    Ok(Accepted { info, channel, outgoing, closed })
}
