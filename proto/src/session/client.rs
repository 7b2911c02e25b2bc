//! The client's end: serving on the session.

use super::info::{BadInfo, SessionInfo};
use super::tunnel::Tunnel;
use super::{CONNECTION_WINDOW, MAX_FRAME, MAX_METADATA, STREAM_WINDOW};
use crate::control::control_client::ControlClient;
use bytes::Bytes;
use futures::StreamExt;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error;
use std::future::Future;
use std::pin::pin;
use thiserror::Error;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::service::Routes;
use tonic::{Request, Status};
use tower::ServiceExt;

/// Streams that a daemon may have open at once; a large build opens a few.
const MAX_STREAMS: u32 = 1024;

/// What a stream may hold back for a slow reader before its service waits.
const SEND_BUFFER: usize = 1 << 20;

/// Why a session could not be served, or ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The session cannot be introduced.
    #[error(transparent)]
    Info(#[from] BadInfo),
    /// The daemon refused the session.
    #[error("the daemon refused the session: {}", .0.message())]
    Refused(#[source] Box<Status>),
    /// The connection broke.
    #[error("the session's connection broke")]
    Broken(#[source] hyper::Error),
}

/// Opens a session and serves on it until `stop` completes or the daemon ends it.
///
/// `opened` is told when the daemon has taken the session; a build that names it may start before.
///
/// # Errors
/// A daemon that closes the session in order is no error.
pub async fn serve<T>(
    control: &mut ControlClient<T>,
    info: &SessionInfo,
    services: Routes,
    opened: oneshot::Sender<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    T: GrpcService<Body>,
    T::Error: Into<Box<dyn Error + Send + Sync>>,
    T::ResponseBody: hyper::body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as hyper::body::Body>::Error: Into<Box<dyn Error + Send + Sync>> + Send,
{
    // The tunnel needs the answer's stream, and the answer may need the first bytes of the tunnel.
    let (answer, incoming) = oneshot::channel();
    let incoming = futures::stream::once(async move { incoming.await.ok() })
        .filter_map(std::future::ready)
        .flatten();
    let (tunnel, outgoing, _) = Tunnel::new(incoming);

    let mut request = Request::new(outgoing);
    info.write_metadata(request.metadata_mut())?;

    let serving = serve_connection(tunnel, services, stop);
    let opening = async {
        let response = control
            .session(request)
            .await
            .map_err(|status| ServeError::Refused(Box::new(status)))?;
        // Both fail only when nobody wants to know any more.
        let _ = answer.send(response.into_inner());
        let _ = opened.send(());
        Ok::<(), ServeError>(())
    };

    let mut serving = pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        opened = opening => opened?,
    }
    serving.await
}

async fn serve_connection(
    tunnel: Tunnel,
    services: Routes,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let services = service_fn(move |request| services.clone().oneshot(request));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_METADATA)
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            .serve_connection(TokioIo::new(tunnel), services)
    );
    tokio::select! {
        served = &mut connection => served.map_err(ServeError::Broken),
        () = stop => Ok(()),
    }
}
