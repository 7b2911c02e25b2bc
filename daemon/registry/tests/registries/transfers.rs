//! Transfers over connections that break.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use kiln_registry::{BlobPush, BlobStream, Client, Error, RegistryConfig};
use tokio::io::AsyncReadExt;

use crate::support::{Reply, Scripted, client, layer, noise};

async fn read(stream: BlobStream) -> Result<Vec<u8>, Error> {
    let chunks: Vec<_> = stream.verified()?.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_broke() {
    let content = noise(300_000);
    let served = content.clone();
    let server = Scripted::start(move |request, _| {
        let from = request.offset();
        let left = &served[from..];
        let sent = left[..left.len().min(100_000)].to_vec();
        let status = if from == 0 { 200 } else { 206 };
        let range = format!("bytes {from}-{}/{}", served.len() - 1, served.len());
        Reply::new(status).body(sent).length(left.len() as u64).header("Content-Range", range)
    })
    .await;
    let blob = layer(&content);
    let stream = client().blob(&server.image("x"), &blob, 0).await.unwrap();
    assert!(read(stream).await.unwrap() == content);
    let offsets: Vec<usize> =
        server.requests().iter().map(crate::support::Request::offset).collect();
    assert_eq!(offsets, [0, 100_000, 200_000]);
}

#[tokio::test]
async fn a_server_without_ranges_is_read_again_from_the_beginning() {
    let content = noise(300_000);
    let served = content.clone();
    let server = Scripted::start(move |_, count| {
        let sent = if count == 0 { 1000 } else { served.len() };
        Reply::ok(&served[..sent]).length(served.len() as u64)
    })
    .await;
    let blob = layer(&content);
    let mut found = Vec::new();
    let mut stream = client().blob(&server.image("x"), &blob, 0).await.unwrap().into_reader();
    stream.read_to_end(&mut found).await.unwrap();
    assert!(found == content);
}

#[tokio::test]
async fn a_server_that_always_cuts_is_given_up() {
    let server = Scripted::start(|request, _| {
        let from = request.offset();
        let range = format!("bytes {from}-999/1000");
        Reply::new(206).body("x").length(1000 - from as u64).header("Content-Range", range)
    })
    .await;
    let blob = layer(&[b'x'; 1000]);
    let stream = client().blob(&server.image("x"), &blob, 0).await.unwrap();
    let error = read(stream).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn busy_servers_are_asked_again() {
    for status in [429, 500, 502, 503, 504] {
        let server = Scripted::start(move |_, count| match count {
            0 => Reply::new(status).body("").header("Retry-After", "0"),
            _ => Reply::ok("content"),
        })
        .await;
        let stream = client().blob(&server.image("x"), &layer(b"content"), 0).await.unwrap();
        assert_eq!(read(stream).await.unwrap(), b"content");
    }
}

#[tokio::test]
async fn a_server_that_stays_busy_is_named() {
    let server = Scripted::start(|_, _| {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        Reply::new(429).body(body).header("Retry-After", "0")
    })
    .await;
    let error = client().resolve(&server.image("x")).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(
        error.to_string(),
        format!(
            "unexpected status from GET request to http://{}/v2/x/manifests/latest: 429 Too Many \
             Requests: toomanyrequests: slow down",
            server.host()
        )
    );
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn an_upload_that_failed_begins_anew() {
    let server = Scripted::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).body("").header("Location", "/upload"),
        _ => Reply::new(201).body(""),
    });
    let failing = AtomicUsize::new(1);
    let server_that_fails_once = Scripted::start(move |request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).body("").header("Location", "/upload"),
        _ if failing.swap(0, Ordering::Relaxed) == 1 => Reply::new(502).body(""),
        _ => Reply::new(201).body(""),
    });
    let blob = layer(b"content");
    for (server, opened) in [(server.await, 1), (server_that_fails_once.await, 2)] {
        let count = AtomicUsize::new(0);
        let source = || {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok(&b"content"[..]) }
        };
        let outcome = client().push_blob(&server.image("x"), &blob, source).await.unwrap();
        assert_eq!(outcome, BlobPush::Uploaded);
        assert_eq!(count.load(Ordering::Relaxed), opened);
    }
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_blamed() {
    let server = Scripted::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).body("").header("Location", "/upload"),
        _ => Reply::new(201).body(""),
    })
    .await;
    let image = server.image("x");
    let blob = layer(b"content");
    let pushed = client().push_blob(&image, &blob, || async { Ok(&b"cont"[..]) }).await;
    let error = pushed.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    assert!(error.to_string().contains("3 bytes shorter than its descriptor says"), "{error}");
    let unopened = || async { Err::<&[u8], _>(std::io::ErrorKind::PermissionDenied.into()) };
    let error = client().push_blob(&image, &blob, unopened).await.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
}

#[tokio::test]
async fn transfers_wait_for_their_turn() {
    let server = Scripted::start(|_, _| Reply::ok("content")).await;
    let max_concurrency = NonZeroUsize::MIN;
    let client = Client::new(RegistryConfig { max_concurrency, ..RegistryConfig::default() });
    let (image, blob) = (server.image("x"), layer(b"content"));
    let first = client.blob(&image, &blob, 0).await.unwrap();
    let mut second = {
        let client = client.clone();
        // Spawned, because what users do with a client must be possible on any thread.
        tokio::spawn(async move { read(client.blob(&image, &blob, 0).await?).await })
    };
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut second).await;
    assert!(early.is_err());
    drop(first);
    assert_eq!(second.await.unwrap().unwrap(), b"content");
}

#[tokio::test]
async fn a_push_may_have_a_pull_from_the_same_registry_as_its_source() {
    let server = Scripted::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "GET" => Reply::ok("content"),
        "POST" => Reply::new(202).body("").header("Location", "/upload"),
        _ => Reply::new(201).body(""),
    })
    .await;
    let max_concurrency = NonZeroUsize::MIN;
    let client = Client::new(RegistryConfig { max_concurrency, ..RegistryConfig::default() });
    let (from, to, blob) = (server.image("from"), server.image("to"), layer(b"content"));
    let source = || async {
        let stream = client.blob(&from, &blob, 0).await.map_err(std::io::Error::other)?;
        Ok(stream.into_reader())
    };
    client.push_blob(&to, &blob, source).await.unwrap();
}
