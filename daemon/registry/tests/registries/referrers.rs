//! What a registry has about a manifest.

use kiln_registry::{Error, sha256};

use crate::support::{Reply, Scripted, client};

const SIGNATURE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn index() -> Reply {
    let digest = sha256(b"signature");
    let entry = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":9,"artifactType":"{SIGNATURE}"}}"#
    );
    Reply::ok(format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#))
        .header("Content-Type", "application/vnd.oci.image.index.v1+json")
}

#[tokio::test]
async fn a_registry_lists_them() {
    let registry = Scripted::start(|_, _| index()).await;
    let digest = sha256(b"manifest");
    let found = client().referrers(&registry.image("x"), &digest).await.unwrap();
    assert_eq!(registry.log(), [format!("GET /v2/x/referrers/{digest}")]);
    let [signature] = found.as_slice() else { panic!("one referrer: {found:?}") };
    assert_eq!(*signature.digest(), sha256(b"signature"));
    assert_eq!(signature.artifact_type().as_ref().unwrap().to_string(), SIGNATURE);
}

#[tokio::test]
async fn a_registry_without_lists_has_them_under_a_tag_or_has_none() {
    let tagged = Scripted::start(|request, _| {
        if request.target.contains("/manifests/sha256-") {
            index()
        } else {
            Reply::new(404).body("")
        }
    });
    let tagged = tagged.await;
    let digest = sha256(b"manifest");
    let found = client().referrers(&tagged.image("x"), &digest).await.unwrap();
    assert_eq!(found.len(), 1);
    let empty = Scripted::start(|_, _| Reply::new(404).body("")).await;
    assert_eq!(client().referrers(&empty.image("x"), &digest).await.unwrap(), []);
    assert_eq!(empty.log().len(), 2);
}

#[tokio::test]
async fn an_answer_that_is_no_index_is_an_error() {
    let registry = Scripted::start(|_, _| Reply::ok("<html>")).await;
    let digest = sha256(b"manifest");
    let error = client().referrers(&registry.image("x"), &digest).await.unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}
