use super::*;
use crate::control::BytesMessage;
use crate::control::control_client::ControlClient;
use crate::secrets::secrets_client::SecretsClient;
use crate::secrets::secrets_server::{Secrets, SecretsServer};
use crate::secrets::{GetSecretRequest, GetSecretResponse};
use futures::{Stream, StreamExt};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::StreamingService;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Two tunnels, each of which reads what the other writes.
fn pair() -> (Tunnel, Tunnel) {
    let (to_left, from_right) = oneshot::channel::<Outgoing>();
    let late = futures::stream::once(async move { from_right.await.ok() })
        .filter_map(std::future::ready)
        .flatten()
        .map(Ok);
    let (left, left_out, _) = Tunnel::new(late);
    let (right, right_out, _) = Tunnel::new(left_out.map(Ok));
    assert!(to_left.send(right_out).is_ok());
    (left, right)
}

#[tokio::test]
async fn bytes_arrive_in_order_and_whole() {
    let (mut left, mut right) = pair();
    let sent: Vec<u8> = (0..5_000_000_u32).map(|i| (i * 31 / 7) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        for part in sent.chunks(77_777) {
            left.write_all(part).await.unwrap();
        }
        left.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    right.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == expected);
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_reader() {
    let (mut left, right) = pair();
    let data = vec![0; 1 << 16];
    let endless = async {
        loop {
            left.write_all(&data).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_millis(100), endless).await.is_err());
    drop(right);
}

#[tokio::test]
async fn dropping_one_end_ends_the_other() {
    let (left, mut right) = pair();
    drop(left);
    let mut received = Vec::new();
    assert_eq!(right.read_to_end(&mut received).await.unwrap(), 0);
    right.write_all(b"x").await.unwrap();
    assert!(right.flush().await.is_err());
}

proptest! {
    #[test]
    fn any_writes_read_as_their_concatenation(
        writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let received = runtime.block_on(async {
            let (mut left, mut right) = pair();
            for (index, data) in writes.iter().enumerate() {
                left.write_all(data).await.unwrap();
                if index % 3 == 0 {
                    left.flush().await.unwrap();
                }
            }
            left.shutdown().await.unwrap();
            let mut received = Vec::new();
            right.read_to_end(&mut received).await.unwrap();
            received
        });
        prop_assert_eq!(received, writes.concat());
    }
}

type Taken = oneshot::Sender<(SessionInfo, Channel)>;

/// A daemon that knows nothing but `Session`, and hands on what it accepted.
#[derive(Clone)]
struct OnlySession(Arc<Mutex<Option<Taken>>>);

type Answer = futures::stream::Map<Outgoing, fn(BytesMessage) -> Result<BytesMessage, Status>>;

impl StreamingService<BytesMessage> for OnlySession {
    type Response = BytesMessage;
    type ResponseStream = Answer;
    type Future = futures::future::BoxFuture<'static, Result<Response<Answer>, Status>>;

    fn call(&mut self, request: Request<tonic::Streaming<BytesMessage>>) -> Self::Future {
        let taken = self.0.lock().unwrap().take();
        Box::pin(async move {
            let accepted = accept(request)
                .await
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let taken = taken.ok_or_else(|| Status::already_exists("one session only"))?;
            let _ = taken.send((accepted.info, accepted.channel));
            let answer: fn(BytesMessage) -> Result<BytesMessage, Status> = Ok;
            Ok(Response::new(accepted.outgoing.map(answer)))
        })
    }
}

/// A transport that is a daemon in this process.
#[derive(Clone)]
struct InProcess(OnlySession);

impl tower::Service<http::Request<Body>> for InProcess {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let daemon = self.0.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).streaming(daemon, request).await)
        })
    }
}

fn control(daemon: OnlySession) -> ControlClient<InProcess> {
    ControlClient::new(InProcess(daemon))
}

struct Echo;

#[tonic::async_trait]
impl Secrets for Echo {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let data = match id.strip_prefix("large:").and_then(|size| size.parse().ok()) {
            Some(size) => vec![7; size].into(),
            None => id.into(),
        };
        Ok(Response::new(GetSecretResponse { data }))
    }
}

fn info() -> SessionInfo {
    SessionInfo {
        id: "one".to_owned(),
        methods: vec![methods::SECRET.to_owned()],
        ..SessionInfo::default()
    }
}

#[tokio::test]
async fn the_daemon_calls_what_the_client_serves() {
    let (accepted, session) = oneshot::channel();
    let mut control = control(OnlySession(Arc::new(Mutex::new(Some(accepted)))));
    let (stop, stopped) = oneshot::channel::<()>();
    let (opened, is_open) = oneshot::channel();
    let client = tokio::spawn(async move {
        let routes = Routes::new(SecretsServer::new(Echo));
        let stop = async {
            let _ = stopped.await;
        };
        serve(&mut control, &info(), routes, opened, stop).await
    });
    is_open.await.unwrap();
    let (info, channel) = session.await.unwrap();
    assert!(info.supports(methods::SECRET));
    assert!(!info.supports(methods::FILE_SYNC));

    let mut secrets = SecretsClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    for (id, size) in [("a", 1), ("large:12000000", 12_000_000)] {
        let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        let secret = secrets.get_secret(request).await.unwrap().into_inner();
        assert_eq!(secret.data.len(), size);
    }

    stop.send(()).unwrap();
    client.await.unwrap().unwrap();
    let after = timeout(Duration::from_secs(10), secrets.get_secret(GetSecretRequest::default()));
    assert!(after.await.unwrap().is_err());
}

#[tokio::test]
async fn a_session_ends_when_the_daemon_lets_go_of_it() {
    let (accepted, session) = oneshot::channel();
    let mut control = control(OnlySession(Arc::new(Mutex::new(Some(accepted)))));
    let (opened, _is_open) = oneshot::channel();
    let client = tokio::spawn(async move {
        let routes = Routes::new(SecretsServer::new(Echo));
        serve(&mut control, &info(), routes, opened, std::future::pending()).await
    });
    drop(session.await.unwrap());
    timeout(Duration::from_secs(10), client).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_refusal_reaches_the_client() {
    let mut control = control(OnlySession(Arc::new(Mutex::new(None))));
    let (opened, _is_open) = oneshot::channel();
    let routes = Routes::new(SecretsServer::new(Echo));
    let error =
        serve(&mut control, &info(), routes, opened, std::future::pending()).await.unwrap_err();
    assert_eq!(error.to_string(), "the daemon refused the session: one session only");
}

#[tokio::test]
async fn the_token_tells_when_a_tunnel_is_gone() {
    let (_sender, receiver) = mpsc::channel::<Result<BytesMessage, Status>>(1);
    let incoming: std::pin::Pin<Box<dyn Stream<Item = _> + Send>> =
        Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let (tunnel, _, closed) = Tunnel::new(incoming);
    assert!(!closed.is_cancelled());
    drop(tunnel);
    assert!(closed.is_cancelled());
}
