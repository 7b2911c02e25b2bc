//! The services as a daemon uses them.

use super::*;
use crate::args::secret::Source;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use hyper_util::rt::TokioIo;
use kiln_proto::auth::CredentialsRequest;
use kiln_proto::auth::auth_client::AuthClient;
use kiln_proto::content::content_client::ContentClient;
use kiln_proto::content::{InfoRequest, ReadContentRequest, WriteAction, WriteContentRequest};
use kiln_proto::file_send::file_send_client::FileSendClient;
use kiln_proto::filesync::BytesMessage as FileChunk;
use kiln_proto::filesync::file_sync_client::FileSyncClient;
use kiln_proto::fsutil::{DirectoryRequest, Packet, PacketType, Selection, Stat};
use kiln_proto::header;
use kiln_proto::secrets::GetSecretRequest;
use kiln_proto::secrets::secrets_client::SecretsClient;
use kiln_proto::upload::BytesMessage;
use kiln_proto::upload::upload_client::UploadClient;
use prost::Message;
use sha2::{Digest, Sha256};
use std::io::Cursor;
use std::sync::Mutex;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request};
use tower::service_fn;

/// A daemon's connection to services.
async fn connect(services: Services) -> Channel {
    let (here, there) = tokio::io::duplex(1 << 20);
    let (routes, _) = services.into_routes();
    let incoming = stream::iter([Ok::<_, std::io::Error>(there)]).chain(stream::pending());
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
    let here = Mutex::new(Some(here));
    let take = move |_: Uri| {
        let here = here.lock().unwrap().take().ok_or(std::io::ErrorKind::NotConnected);
        std::future::ready(here.map(TokioIo::new).map_err(std::io::Error::from))
    };
    Endpoint::from_static("http://session").connect_with_connector(service_fn(take)).await.unwrap()
}

fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

fn in_store<T>(message: T, store: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-attachable-store-id", store.parse().unwrap());
    request
}

#[test]
fn a_daemon_is_told_of_nothing_that_is_not_given() {
    let (_, methods) = Services::default().into_routes();
    assert_eq!(methods, ["/grpc.health.v1.Health/Check", "/moby.filesync.v1.Auth/Credentials"]);
}

#[tokio::test]
async fn a_blob_that_is_written_can_be_read() {
    let root = tempfile::tempdir().unwrap();
    let stores = Stores::from([("local:c".to_owned(), Layout::new(root.path()))]);
    let channel = connect(Services { stores, ..Services::default() }).await;
    let mut client = ContentClient::new(channel);
    let content = b"some content";
    let digest = digest(content);

    let message = |action: WriteAction, offset: usize, data: &[u8]| WriteContentRequest {
        action: action.into(),
        r#ref: "upload".to_owned(),
        total: content.len() as i64,
        expected: digest.clone(),
        offset: offset as i64,
        data: Bytes::copy_from_slice(data),
        ..WriteContentRequest::default()
    };
    let messages = vec![
        message(WriteAction::Stat, 0, b""),
        message(WriteAction::Write, 0, &content[..4]),
        message(WriteAction::Commit, 4, &content[4..]),
    ];
    let request = in_store(stream::iter(messages.clone()), "local:c");
    let answers: Vec<_> = client.write(request).await.unwrap().into_inner().collect().await;
    let offsets: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, [0, 4, content.len() as i64]);

    let info = InfoRequest { digest: digest.clone() };
    let info = client.info(in_store(info, "local:c")).await.unwrap().into_inner().info.unwrap();
    assert_eq!(info.size, content.len() as i64);

    let read = ReadContentRequest { digest: digest.clone(), offset: 5, size: 3 };
    let answers: Vec<_> =
        client.read(in_store(read, "local:c")).await.unwrap().into_inner().collect().await;
    assert_eq!(answers[0].as_ref().unwrap().data, &content[5..8]);
    assert_eq!(answers.len(), 1);

    let again = in_store(stream::iter(messages), "local:c");
    let answers: Vec<_> = client.write(again).await.unwrap().into_inner().collect().await;
    assert_eq!(answers[0].as_ref().unwrap_err().code(), Code::AlreadyExists);
    let elsewhere = InfoRequest { digest };
    let error = client.info(in_store(elsewhere, "local:other")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn a_blob_that_is_not_what_it_should_be_is_not_kept() {
    let root = tempfile::tempdir().unwrap();
    let stores = Stores::from([("c".to_owned(), Layout::new(root.path()))]);
    let mut client = ContentClient::new(connect(Services { stores, ..Services::default() }).await);
    let message = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: "upload".to_owned(),
        expected: digest(b"other"),
        data: "content".into(),
        ..WriteContentRequest::default()
    };
    let request = in_store(stream::iter([message]), "c");
    let answers: Vec<_> = client.write(request).await.unwrap().into_inner().collect().await;
    assert_eq!(answers.last().unwrap().as_ref().unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(std::fs::read_dir(root.path().join("blobs/sha256")).unwrap().count(), 0);
}

/// Messages for one exporter.
fn export<S>(messages: S, exporter: &str) -> Request<S> {
    let mut request = Request::new(messages);
    request.metadata_mut().insert(header::EXPORTER_ID, exporter.parse().unwrap());
    request
}

#[tokio::test]
async fn an_export_goes_where_its_exporter_says() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new/out.tar");
    let tree = directory.path().join("tree");
    let targets = BTreeMap::from([
        (0, Target::File(file.clone())),
        (1, Target::Directory { path: tree.clone(), mirror: false }),
    ]);
    let mut client =
        FileSendClient::new(connect(Services { targets, ..Services::default() }).await);

    let chunks = ["one ", "two"].map(|data| FileChunk { data: data.into() }.encode_to_vec().into());
    let answers: Vec<_> = client
        .diff_copy(export(stream::iter(chunks), "0"))
        .await
        .unwrap()
        .into_inner()
        .collect()
        .await;
    assert_eq!(answers.len(), 0);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "one two");

    let stat = Stat { path: "f".to_owned(), mode: 0o644, size: 1, ..Stat::default() };
    let walk = [Packet::stat(Some(stat)), Packet::stat(None)];
    let content = [Packet::data(0, "x".into()), Packet::data(0, Bytes::new()), Packet::fin()];
    let (asked, is_asked) = oneshot::channel::<()>();
    let content = is_asked.into_stream().flat_map(move |_| stream::iter(content.clone()));
    let packets =
        stream::iter(walk).chain(content).map(|packet| Bytes::from(packet.encode_to_vec()));
    let mut answers = client.diff_copy(export(packets, "1")).await.unwrap().into_inner();
    for (kind, asked) in [(PacketType::PacketReq, Some(asked)), (PacketType::PacketFin, None)] {
        let answer = Packet::decode(answers.next().await.unwrap().unwrap()).unwrap();
        assert_eq!(answer.r#type(), kind);
        asked.into_iter().for_each(|asked| asked.send(()).unwrap());
    }
    assert!(answers.next().await.is_none());
    assert_eq!(std::fs::read_to_string(tree.join("f")).unwrap(), "x");

    let error = client.diff_copy(export(stream::empty(), "7")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn only_the_directories_that_were_given_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("kept"), "x").unwrap();
    std::fs::write(directory.path().join("ignored"), "x").unwrap();
    let directories = BTreeMap::from([("context".to_owned(), directory.path().to_owned())]);
    let mut client =
        FileSyncClient::new(connect(Services { directories, ..Services::default() }).await);
    let request = |name: &str| {
        let selection =
            Selection { exclude_patterns: vec!["ignored".to_owned()], ..Selection::default() };
        let wanted = DirectoryRequest { name: name.to_owned(), selection };
        let mut request = Request::new(stream::iter([Packet::fin()]));
        wanted.write_metadata(request.metadata_mut()).unwrap();
        request
    };
    let packets: Vec<_> =
        client.diff_copy(request("context")).await.unwrap().into_inner().collect().await;
    let stats: Vec<_> = packets.into_iter().filter_map(|packet| packet.unwrap().stat).collect();
    assert_eq!(stats.len(), 1);
    assert_eq!((stats[0].path.as_str(), stats[0].uid), ("kept", 0));

    let error = client.diff_copy(request("home")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn secrets_are_read_when_they_are_asked_for() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let secret = |id: &str, source| Secret { id: id.to_owned(), source };
    let secrets = vec![secret("file", Source::File(file.path().to_owned()))];
    let channel = connect(Services { secrets, ..Services::default() }).await;
    let mut client = SecretsClient::new(channel);
    std::fs::write(file.path(), "later").unwrap();
    let request = |id: &str| GetSecretRequest { id: id.to_owned(), ..Default::default() };
    let answer = client.get_secret(request("file")).await.unwrap().into_inner();
    assert_eq!(answer.data, "later");
    assert_eq!(client.get_secret(request("none")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_upload_can_be_fetched_once() {
    let upload = Some(("id".to_owned(), Body::new(Cursor::new(vec![7; 600 << 10]))));
    let mut client = UploadClient::new(connect(Services { upload, ..Services::default() }).await);
    let request = || {
        let mut request = Request::new(stream::empty::<BytesMessage>());
        request.metadata_mut().insert("urlpath", "/id".parse().unwrap());
        request
    };
    let chunks: Vec<_> = client.pull(request()).await.unwrap().into_inner().collect().await;
    let length: usize = chunks.into_iter().map(|chunk| chunk.unwrap().data.len()).sum();
    assert_eq!(length, 600 << 10);
    assert_eq!(client.pull(request()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_user_is_told_once_that_a_login_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let config = r#"{"auths": {"r.example": {"username": "u", "password": "p"}}}"#;
    std::fs::write(directory.path().join("config.json"), config).unwrap();
    let (notices, mut noticed) = mpsc::channel(4);
    let credentials = Credentials::of_directory(directory.path());
    let services = Services { credentials, notices: Some(notices), ..Services::default() };
    let mut client = AuthClient::new(connect(services).await);
    for host in ["r.example", "other.example", "r.example"] {
        let request = CredentialsRequest { host: host.to_owned() };
        client.credentials(request).await.unwrap();
    }
    let notice = noticed.try_recv().unwrap();
    assert_eq!(notice.vertexes[0].name, "[auth] sharing credentials for r.example");
    assert!(noticed.try_recv().is_err());
}
