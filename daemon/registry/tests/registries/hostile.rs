//! Registries that lie.

use futures::TryStreamExt;
use kiln_registry::{Descriptor, Error, MAX_MANIFEST_SIZE, Malformed, MediaType, sha256};

use crate::support::{Reply, Scripted, client, layer, manifest};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

async fn resolve_error(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Error {
    let server = Scripted::start(move |_, _| reply()).await;
    client().resolve(&server.image("x")).await.unwrap_err()
}

#[tokio::test]
async fn a_manifest_too_large_is_refused_whether_announced_or_not() {
    let announced = || Reply::ok("{").length(MAX_MANIFEST_SIZE + 1).header("Content-Type", OCI);
    let error = resolve_error(announced).await;
    assert!(matches!(error, Error::TooLarge { limit: MAX_MANIFEST_SIZE, .. }), "{error}");

    let endless = vec![b' '; MAX_MANIFEST_SIZE as usize + 1];
    let error = resolve_error(move || Reply::ok(endless.clone()).unannounced()).await;
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");

    let server = Scripted::start(|_, _| Reply::ok("")).await;
    let giant = Descriptor::new(MediaType::ImageManifest, u64::MAX, sha256(b""));
    let error = client().manifest(&server.image("x"), &giant).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_manifest_is_what_its_digest_says() {
    let lie = sha256(b"other").to_string();
    let error = resolve_error(move || {
        Reply::ok("{}").header("Content-Type", OCI).header("Docker-Content-Digest", lie.as_str())
    })
    .await;
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");

    let error =
        resolve_error(|| Reply::ok("{}").header("Docker-Content-Digest", "sha256:nonsense")).await;
    let problem = Malformed::DigestHeader;
    assert!(matches!(&error, Error::Malformed { problem: p, .. } if *p == problem), "{error}");

    let server = Scripted::start(|_, _| Reply::ok("{}").header("Content-Type", OCI)).await;
    let pinned = server.image("x").with_digest(sha256(b"other"));
    let error = client().resolve(&pinned).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let error = client().manifest(&server.image("x"), &manifest(b"[]")).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_to_head_that_tells_little_is_followed_by_get() {
    let content = format!("{{\"mediaType\":\"{OCI}\"}}");
    let served = content.clone();
    let server = Scripted::start(move |request, _| match request.method.as_str() {
        "HEAD" => Reply::new(405),
        _ => Reply::ok(served.as_str()).header("Content-Type", "text/plain; charset=utf-8"),
    })
    .await;
    let found = client().resolve_descriptor(&server.image("x")).await.unwrap();
    assert_eq!(found, manifest(content.as_bytes()));
}

#[tokio::test]
async fn images_of_the_first_schema_are_refused_with_a_reason() {
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let error = resolve_error(move || Reply::ok("{}").header("Content-Type", old)).await;
    assert!(error.to_string().contains("is no longer supported"), "{error}");
}

#[tokio::test]
async fn a_blob_of_another_size_is_an_error() {
    let blob = layer(b"content");
    for length in [0, 6, 8, u64::MAX / 2] {
        let server = Scripted::start(move |_, _| Reply::ok("content").length(length)).await;
        let error = client().blob(&server.image("x"), &blob, 0).await.err().unwrap();
        assert!(matches!(error, Error::SizeMismatch { .. }), "{length}: {error}");
    }
    let server = Scripted::start(|_, _| Reply::ok("content and more").unannounced()).await;
    let stream = client().blob(&server.image("x"), &blob, 0).await.unwrap();
    let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_blob_of_another_content_is_an_error_at_its_end() {
    let server = Scripted::start(|_, _| Reply::ok("CONTENT")).await;
    let stream = client().blob(&server.image("x"), &layer(b"content"), 0).await.unwrap();
    let mut stream = stream.verified().unwrap();
    assert_eq!(stream.try_next().await.unwrap().unwrap(), "CONTENT");
    let error = stream.try_next().await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(stream.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn another_range_than_asked_for_is_an_error() {
    let blob = layer(b"content");
    for range in ["bytes 0-6/7", "bytes 4-6/7", "nonsense", ""] {
        let server = Scripted::start(move |_, _| {
            Reply::new(206).body("tent").header("Content-Range", range)
        })
        .await;
        let error = client().blob(&server.image("x"), &blob, 3).await.err().unwrap();
        assert!(
            matches!(&error, Error::Malformed { problem: Malformed::Range, .. }),
            "{range}: {error}"
        );
    }
    let beyond = client().blob(&crate::support::image("x"), &blob, 8).await;
    assert!(matches!(beyond, Err(Error::SizeMismatch { .. })));
}

#[tokio::test]
async fn redirects_end() {
    let server =
        Scripted::start(|_, _| Reply::new(302).body("").header("Location", "/again?token=secret"))
            .await;
    let error = client().resolve(&server.image("x")).await.unwrap_err();
    let expected =
        format!("http://{}/v2/x/manifests/latest: more than 10 redirects", server.host());
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.requests().len(), 11);

    for location in ["", "file:///etc/passwd", "http://", "javascript:x"] {
        let error =
            resolve_error(move || Reply::new(302).body("").header("Location", location)).await;
        // An empty location is the same address again.
        let is_told = matches!(error, Error::Malformed { .. });
        assert!(is_told, "{location}: {error}");
    }
}

#[tokio::test]
async fn an_upload_without_a_place_is_an_error() {
    let server = Scripted::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        _ => Reply::new(202).body(""),
    })
    .await;
    let source = || async { Ok(&b"content"[..]) };
    let error = client().push_blob(&server.image("x"), &layer(b"content"), source).await;
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::Malformed { problem: Malformed::Location, .. }), "{error}");
}

#[tokio::test]
async fn messages_keep_the_secrets_of_redirects() {
    let storage = Scripted::start(|_, _| Reply::new(418).body("<html>")).await;
    let target = format!("http://user:pass@{}/blob?signature=secret", storage.host());
    let server =
        Scripted::start(move |_, _| Reply::new(307).body("").header("Location", target.as_str()))
            .await;
    let error = client().blob(&server.image("x"), &layer(b"content"), 0).await.err().unwrap();
    let expected = format!(
        "unexpected status from GET request to http://{}/blob: 418 I'm a teapot",
        storage.host()
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn an_error_body_without_end_is_cut() {
    let error = resolve_error(|| Reply::new(400).body(vec![b'['; 1 << 20])).await;
    assert!(error.to_string().ends_with("400 Bad Request"), "{error}");
}

#[tokio::test]
async fn noise_instead_of_http_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("{}/x", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"\x15\x03\x01\0\x02").await;
        }
    });
    let error = client().resolve(&image).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    server.abort();
}
