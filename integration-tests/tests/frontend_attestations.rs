//! What frontends of clients attest of their results, by the gateway.

use std::collections::BTreeMap;

use kiln_integration_tests::{World, digest};
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::{control, gateway, header, pb};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const ID: &str = "attested";
const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// A client that is its own frontend, in a build that is pushed as `app:latest`.
struct Client {
    bridge: LlbBridgeClient<Channel>,
    building: tokio::task::JoinHandle<Result<(), Status>>,
}

impl Client {
    async fn connect(world: &World) -> Self {
        let address = format!("unix:{}", world.daemon.socket().display());
        let endpoint = Endpoint::from_shared(address).expect("the address of the daemon");
        let channel = endpoint.connect().await.expect("a connection to the daemon");
        let attrs = [("name", world.registry.reference("app:latest")), ("push", "true".to_owned())];
        let exporter = control::Exporter {
            r#type: "image".to_owned(),
            attrs: attrs.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        let build = control::SolveRequest {
            r#ref: ID.to_owned(),
            exporters: vec![exporter],
            ..Default::default()
        };
        let mut control = ControlClient::new(channel.clone());
        let building = tokio::spawn(async move { control.solve(build).await.map(drop) });
        Self { bridge: LlbBridgeClient::new(channel), building }
    }

    /// A result that is a single file.
    async fn file(&mut self, path: &str, content: &str) -> gateway::Ref {
        let question =
            gateway::SolveRequest { definition: Some(file(path, content)), ..Default::default() };
        let answer = self.bridge.solve(of_build(question)).await.expect("a result").into_inner();
        match answer.result.and_then(|result| result.result) {
            Some(gateway::result::Result::Ref(named)) => named,
            other => panic!("a single file is a single result: {other:?}"),
        }
    }

    /// Ends the build with a result of which something is attested.
    async fn finish(
        mut self,
        result: gateway::Ref,
        attestation: gateway::Attestation,
    ) -> Result<(), Status> {
        let attestations = gateway::Attestations { attestation: vec![attestation] };
        let result = gateway::Result {
            result: Some(gateway::result::Result::Ref(result)),
            attestations: BTreeMap::from([(PLATFORM.to_owned(), attestations)]),
            ..Default::default()
        };
        let end = gateway::ReturnRequest { result: Some(result), error: None };
        self.bridge.r#return(of_build(end)).await.expect("the end of the frontend");
        self.building.await.expect("a build")
    }
}

fn of_build<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(header::BUILD_ID, ID.parse().expect("an id of letters"));
    request
}

/// A graph that makes a single file.
fn file(path: &str, content: &str) -> pb::Definition {
    let action = pb::file_action::Action::Mkfile(pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: content.to_owned().into(),
        owner: None,
        timestamp: -1,
    });
    let action = pb::FileAction { input: -1, secondary_input: -1, output: 0, action: Some(action) };
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    let op = pb::Op { op: Some(op), ..Default::default() }.encode_to_vec();
    let result = pb::Input { digest: digest(&op), index: 0 };
    let result = pb::Op { inputs: vec![result], ..Default::default() }.encode_to_vec();
    pb::Definition { def: vec![op.into(), result.into()], ..Default::default() }
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
    let mut client = Client::connect(&world).await;
    let result = client.file("/greeting", "hello\n").await;
    let predicate = client.file("/p.json", r#"{ "tested": true }"#).await;
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
    client.finish(result, attestation).await.expect("a build that ends well");
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
    let mut client = Client::connect(&world).await;
    let result = client.file("/greeting", "hello\n").await;
    let text = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://example.com/tests",
        "subject": [{ "name": "report", "digest": { "sha256": "00aa" } }],
        "predicate": { "tested": true },
    });
    let bundle = client.file("/one.json", &text.to_string()).await;
    let attestation = gateway::Attestation {
        kind: gateway::AttestationKind::Bundle.into(),
        r#ref: Some(bundle),
        ..Default::default()
    };
    client.finish(result, attestation).await.expect("a build that ends well");
    assert_eq!(statement(&world), text);
}

#[tokio::test]
async fn provenance_is_for_the_daemon_to_tell() {
    let world = World::start();
    let mut client = Client::connect(&world).await;
    let result = client.file("/greeting", "hello\n").await;
    let predicate = client.file("/p.json", "{}").await;
    let attestation = gateway::Attestation {
        r#ref: Some(predicate),
        path: "/p.json".to_owned(),
        in_toto_predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
        ..Default::default()
    };
    let refused = client.finish(result, attestation).await.expect_err("a build that fails");
    assert_eq!(refused.message(), "frontend may not set provenance attestations");
}
