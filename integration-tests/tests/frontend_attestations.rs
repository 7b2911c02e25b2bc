//! What frontends of clients attest of their results, by the gateway.

use std::collections::BTreeMap;

use kiln_integration_tests::{GatewayBuild, World, file_definition};
use kiln_proto::{control, gateway};
use serde_json::{Value, json};

const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// A build that is pushed as `app:latest`.
async fn pushed(world: &World) -> GatewayBuild {
    let attrs = [("name", world.registry.reference("app:latest")), ("push", "true".to_owned())];
    let exporter = control::Exporter {
        r#type: "image".to_owned(),
        attrs: attrs.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    GatewayBuild::start_with(&world.daemon, "attested", vec![exporter]).await
}

/// A result of which something is attested.
fn attested(result: gateway::Ref, attestation: gateway::Attestation) -> gateway::Result {
    let attestations = gateway::Attestations { attestation: vec![attestation] };
    gateway::Result {
        result: Some(gateway::result::Result::Ref(result)),
        attestations: BTreeMap::from([(PLATFORM.to_owned(), attestations)]),
        ..Default::default()
    }
}

/// The statement about the image that was pushed.
fn statement(world: &World) -> Value {
    let read = |wanted: &Value| -> Value {
        let content = world.registry.content("app", wanted.as_str().expect("a digest"));
        serde_json::from_slice(&content).expect("JSON")
    };
    let index: Value =
        serde_json::from_slice(&world.registry.manifest("app:latest")).expect("an index");
    let manifest = read(&index["manifests"][1]["digest"]);
    read(&manifest["layers"][0]["digest"])
}

#[tokio::test]
async fn a_predicate_is_about_the_image_and_whatever_else_it_names() {
    let world = World::start();
    let mut client = pushed(&world).await;
    let result = client.solve(file_definition("/greeting", "hello\n")).await;
    let predicate = client.solve(file_definition("/p.json", r#"{ "tested": true }"#)).await;
    let attestation = gateway::Attestation {
        kind: gateway::AttestationKind::InToto.into(),
        r#ref: Some(predicate),
        path: "/p.json".to_owned(),
        in_toto_predicate_type: "https://example.com/tests".to_owned(),
        in_toto_subjects: vec![
            gateway::InTotoSubject::default(),
            gateway::InTotoSubject {
                kind: gateway::InTotoSubjectKind::Raw.into(),
                name: "report".to_owned(),
                digest: vec!["sha256:00aa".to_owned()],
            },
        ],
        ..Default::default()
    };
    client.finish(attested(result, attestation)).await.expect("a build that ends well");
    let statement = statement(&world);
    assert_eq!(statement["predicateType"], "https://example.com/tests");
    assert_eq!(statement["predicate"], json!({ "tested": true }));
    let image = world.registry.image("app:latest");
    assert_eq!(image.file("greeting").text(), "hello\n");
    let digest = image.digest.trim_start_matches("sha256:");
    assert_eq!(statement["subject"][0]["digest"], json!({ "sha256": digest }));
    let report = json!({ "name": "report", "digest": { "sha256": "00aa" } });
    assert_eq!(statement["subject"][1], report);
}

#[tokio::test]
async fn a_bundle_is_a_folder_of_statements() {
    let world = World::start();
    let mut client = pushed(&world).await;
    let result = client.solve(file_definition("/greeting", "hello\n")).await;
    let text = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://example.com/tests",
        "subject": [{ "name": "report", "digest": { "sha256": "00aa" } }],
        "predicate": { "tested": true },
    });
    let bundle = client.solve(file_definition("/one.json", &text.to_string())).await;
    let attestation = gateway::Attestation {
        kind: gateway::AttestationKind::Bundle.into(),
        r#ref: Some(bundle),
        ..Default::default()
    };
    client.finish(attested(result, attestation)).await.expect("a build that ends well");
    assert_eq!(statement(&world), text);
}

#[tokio::test]
async fn provenance_is_for_the_daemon_to_tell() {
    let world = World::start();
    let mut client = pushed(&world).await;
    let result = client.solve(file_definition("/greeting", "hello\n")).await;
    let predicate = client.solve(file_definition("/p.json", "{}")).await;
    let attestation = gateway::Attestation {
        r#ref: Some(predicate),
        path: "/p.json".to_owned(),
        in_toto_predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
        ..Default::default()
    };
    let refused =
        client.finish(attested(result, attestation)).await.expect_err("a build that fails");
    assert_eq!(refused.message(), "frontend may not set provenance attestations");
}
