//! The whole protocol with a real registry.

use futures::TryStreamExt;
use kiln_registry::{BlobPush, Error, MediaType, sha256};

use crate::support::{Debian, client, layer, noise};

/// A manifest over one layer, which is its config, too.
fn image_of(layer: &kiln_registry::Descriptor) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{manifest}","config":{{"mediaType":"{config}","digest":"{digest}","size":{size}}},"layers":[{{"mediaType":"{media}","digest":"{digest}","size":{size}}}]}}"#,
        manifest = MediaType::ImageManifest,
        config = MediaType::ImageConfig,
        media = layer.media_type(),
        digest = layer.digest(),
        size = layer.size(),
    )
    .into_bytes()
}

#[tokio::test]
async fn what_was_pushed_can_be_pulled() {
    let registry = Debian::start();
    let client = client();
    let image = registry.image("team/app:1");
    let content = noise(3 * 1024 * 1024 + 17);
    let blob = layer(&content);

    assert!(!client.has_blob(&image, &blob).await.unwrap());
    let source = || async { Ok(std::io::Cursor::new(content.clone())) };
    assert_eq!(client.push_blob(&image, &blob, source).await.unwrap(), BlobPush::Uploaded);
    assert!(client.has_blob(&image, &blob).await.unwrap());
    assert_eq!(client.push_blob(&image, &blob, source).await.unwrap(), BlobPush::Existed);

    let manifest = image_of(&blob);
    let pushed = client.push_manifest(&image, &MediaType::ImageManifest, manifest.clone().into());
    let digest = pushed.await.unwrap();
    assert_eq!(digest, sha256(&manifest));

    let (descriptor, resolved) = client.resolve(&image).await.unwrap();
    assert_eq!(resolved, manifest);
    assert_eq!(*descriptor.media_type(), MediaType::ImageManifest);
    assert_eq!(client.resolve_descriptor(&image).await.unwrap(), descriptor);
    assert_eq!(client.manifest(&image, &descriptor).await.unwrap(), manifest);
    let pinned = image.with_digest(digest);
    assert_eq!(client.resolve(&pinned).await.unwrap().0, descriptor);
    assert_eq!(client.resolve_descriptor(&pinned).await.unwrap(), descriptor);

    let stream = client.blob(&image, &blob, 0).await.unwrap();
    assert_eq!((stream.size(), stream.offset()), (blob.size(), 0));
    let chunks: Vec<_> = stream.verified().unwrap().try_collect().await.unwrap();
    assert!(chunks.concat() == content);
    let half = content.len() / 2;
    let rest: Vec<_> =
        client.blob(&image, &blob, half as u64).await.unwrap().try_collect().await.unwrap();
    assert!(rest.concat() == content[half..]);
    let end = client.blob(&image, &blob, blob.size()).await.unwrap();
    assert_eq!(end.try_collect::<Vec<_>>().await.unwrap(), Vec::<bytes::Bytes>::new());
}

#[tokio::test]
async fn a_blob_is_taken_over_from_another_repository() {
    let registry = Debian::start();
    let client = client();
    let (first, second) = (registry.image("first"), registry.image("second"));
    let blob = layer(b"content");
    assert!(!client.mount_blob(&second, &blob, first.repository()).await.unwrap());
    client.push_blob(&first, &blob, || async { Ok(&b"content"[..]) }).await.unwrap();
    assert!(client.mount_blob(&second, &blob, first.repository()).await.unwrap());
    assert!(client.has_blob(&second, &blob).await.unwrap());
}

#[tokio::test]
async fn an_empty_blob_can_be_pushed() {
    let registry = Debian::start();
    let client = client();
    let (image, blob) = (registry.image("x"), layer(b""));
    client.push_blob(&image, &blob, || async { Ok(&b""[..]) }).await.unwrap();
    assert!(client.has_blob(&image, &blob).await.unwrap());
}

#[tokio::test]
async fn a_manifest_without_tag_is_pushed_under_its_digest() {
    let registry = Debian::start();
    let client = client();
    let blob = layer(b"content");
    let image = registry.image("x");
    client.push_blob(&image, &blob, || async { Ok(&b"content"[..]) }).await.unwrap();
    let manifest = image_of(&blob);
    let pinned = image.with_digest(sha256(&manifest));
    let media_type = MediaType::ImageManifest;
    client.push_manifest(&pinned, &media_type, manifest.clone().into()).await.unwrap();
    assert_eq!(client.resolve(&pinned).await.unwrap().1, manifest);
    assert!(client.resolve(&image).await.unwrap_err().is_not_found());

    let error = client.push_manifest(&pinned, &media_type, "{}".into()).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let registry = Debian::start();
    let client = client();
    let image = registry.image("missing:tag");
    let expected = format!("{}/missing:tag: not found", registry.host());
    assert_eq!(client.resolve(&image).await.unwrap_err().to_string(), expected);
    assert_eq!(client.resolve_descriptor(&image).await.unwrap_err().to_string(), expected);
    let blob = layer(b"nothing");
    let error = client.blob(&image, &blob, 0).await.err().unwrap();
    let expected = format!("{}/missing@{}: not found", registry.host(), blob.digest());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn the_words_of_the_registry_reach_the_user() {
    let registry = Debian::start();
    let client = client();
    let image = registry.image("x:1");
    let manifest = image_of(&layer(b"never pushed"));
    let pushed = client.push_manifest(&image, &MediaType::ImageManifest, manifest.into()).await;
    let message = pushed.unwrap_err().to_string();
    let host = registry.host();
    let start = format!(
        "unexpected status from PUT request to http://{host}/v2/x/manifests/1: 400 Bad Request: "
    );
    assert!(message.starts_with(&start), "{message}");
    assert!(message.contains("blob unknown to registry"), "{message}");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_in_plain_words() {
    let registry = Debian::start();
    let image = registry.image("x");
    let host = registry.host().to_owned();
    drop(registry);
    let message = client().resolve(&image).await.unwrap_err().to_string();
    let expected = format!("GET request to http://{host}/v2/x/manifests/latest: ");
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains("Connection refused"), "{message}");
}
