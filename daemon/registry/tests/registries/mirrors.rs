//! Mirrors before registries.

use std::collections::BTreeMap;

use kiln_registry::{Client, Error, HostConfig, RegistryConfig};

use crate::support::{Reply, Scripted, layer};

fn mirrored(host: &str, mirrors: &[&str]) -> Client {
    let mirrors = mirrors.iter().map(|&mirror| mirror.to_owned()).collect();
    let table = HostConfig { mirrors, ..HostConfig::default() };
    let hosts = BTreeMap::from([(host.to_owned(), table)]);
    Client::new(RegistryConfig { hosts, ..RegistryConfig::default() })
}

fn manifest() -> Reply {
    Reply::ok("{}").header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_told_for_whom() {
    let lacking = Scripted::start(|_, _| Reply::new(404).body("")).await;
    let having = Scripted::start(|_, _| manifest()).await;
    let mirrors = [lacking.host(), &format!("http://{}/proxy/hub", having.host())];
    let client = mirrored("docker.io", &mirrors);
    client.resolve(&"busybox".parse().unwrap()).await.unwrap();
    assert_eq!(lacking.log(), ["GET /v2/library/busybox/manifests/latest?ns=docker.io"]);
    assert_eq!(having.log(), ["GET /v2/proxy/hub/library/busybox/manifests/latest?ns=docker.io"]);
}

#[tokio::test]
async fn the_registry_is_asked_where_no_mirror_helps() {
    let broken = Scripted::start(|_, _| Reply::new(500).body("")).await;
    let registry = Scripted::start(|_, _| Reply::ok("content")).await;
    let client = mirrored(registry.host(), &["127.0.0.1:1", broken.host()]);
    client.blob(&registry.image("x"), &layer(b"content"), 0).await.unwrap();
    // A mirror is not waited for.
    assert_eq!(broken.requests().len(), 1);
    assert_eq!(registry.log().len(), 1);
}

#[tokio::test]
async fn pushes_go_to_the_registry() {
    let mirror = Scripted::start(|_, _| Reply::new(500).body("")).await;
    let registry = Scripted::start(|_, _| Reply::new(200)).await;
    let client = mirrored(registry.host(), &[mirror.host()]);
    let source = || async { Ok(&b"content"[..]) };
    client.push_blob(&registry.image("x"), &layer(b"content"), source).await.unwrap();
    assert!(mirror.requests().is_empty());
}

#[tokio::test]
async fn the_error_that_says_most_is_told() {
    let refusing = Scripted::start(|_, _| Reply::new(403).body("")).await;
    let registry = Scripted::start(|_, _| Reply::new(404).body("")).await;
    let image = registry.image("x");
    let error = mirrored(registry.host(), &[refusing.host()]).resolve(&image).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    let error = mirrored(registry.host(), &["127.0.0.1:1"]).resolve(&image).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_mirror_that_is_no_host_is_told() {
    let client = mirrored("docker.io", &["ftp://mirror"]);
    let error = client.resolve(&"busybox".parse().unwrap()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "registry docker.io: mirror \"ftp://mirror\" is not of the form host[:port][/path]"
    );
}
