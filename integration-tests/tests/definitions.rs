//! Graphs that clients define themselves, with what no Dockerfile says.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_integration_tests::{Daemon, World, digest, image_op};
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest};
use kiln_proto::pb;
use prost::Message as _;
use tonic::Status;
use tonic::transport::Endpoint;

const LIMIT: Duration = Duration::from_mins(1);

/// Builds without a session, and without a frontend.
async fn solve(daemon: &Daemon, request: SolveRequest) -> Result<(), Status> {
    let address = format!("unix:{}", daemon.socket().display());
    let endpoint = Endpoint::from_shared(address).expect("the address of the daemon");
    let channel = endpoint.connect().await.expect("a connection to the daemon");
    let mut control = ControlClient::new(channel);
    tokio::time::timeout(LIMIT, control.solve(request)).await.expect("an answer").map(drop)
}

fn image_exporter(name: &str) -> Vec<Exporter> {
    let attrs = [("name", name), ("push", "true")];
    let attrs = attrs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    vec![Exporter { r#type: "image".to_owned(), attrs: attrs.into() }]
}

fn registry_cache(name: &str) -> CacheOptionsEntry {
    let attrs = BTreeMap::from([("ref".to_owned(), name.to_owned())]);
    CacheOptionsEntry { r#type: "registry".to_owned(), attrs }
}

/// A step on the files of an image, with a directory for what it makes beside them: its first output
/// is the image with what was changed, its second one the directory. The one of these is the result.
fn output_of_mount(command: &str, output: i64) -> pb::Definition {
    let mut graph = pb::Definition::default();
    let mut add = |op: Option<pb::op::Op>, input: Option<(String, i64)>| {
        let inputs = input.into_iter().map(|(digest, index)| pb::Input { digest, index });
        let op = pb::Op { op, inputs: inputs.collect(), ..Default::default() }.encode_to_vec();
        let name = digest(&op);
        graph.def.push(op.into());
        name
    };
    let image = add(Some(image_op("docker.io/library/busybox:latest")), None);
    let mount = |dest: &str, input: i64, output: i64| pb::Mount {
        dest: dest.to_owned(),
        input,
        output,
        ..Default::default()
    };
    let meta = pb::Meta {
        args: ["sh", "-c", command].map(str::to_owned).into(),
        cwd: "/".to_owned(),
        ..Default::default()
    };
    let mounts = vec![mount("/", 0, 0), mount("/made", -1, 1)];
    let step = pb::ExecOp { meta: Some(meta), mounts, ..Default::default() };
    let step = add(Some(pb::op::Op::Exec(step)), Some((image, 0)));
    add(None, Some((step, output)));
    graph
}

#[tokio::test]
async fn a_definition_without_steps_is_an_image_without_files() {
    let world = World::start();
    let name = world.registry.reference("nothing:1");
    let request = SolveRequest {
        r#ref: "nothing".to_owned(),
        definition: Some(pb::Definition::default()),
        exporters: image_exporter(&name),
        ..Default::default()
    };
    solve(&world.daemon, request).await.expect("a build");
    assert_eq!(world.registry.image("nothing:1").layers.len(), 0);
}

#[tokio::test]
async fn a_definition_beside_a_frontend_is_refused() {
    let world = World::start();
    let request = SolveRequest {
        r#ref: "both".to_owned(),
        definition: Some(output_of_mount("true", 0)),
        frontend: "dockerfile.v0".to_owned(),
        ..Default::default()
    };
    let refused = solve(&world.daemon, request).await.expect_err("which of the two?");
    assert!(refused.message().contains("both"), "{refused}");
}

#[tokio::test]
async fn one_output_of_a_step_is_found_in_a_cache_that_has_no_other_and_others_are_made() {
    let world = World::start();
    let caches = ["cache:1", "cache:2"].map(|name| world.registry.reference(name));
    let name = world.registry.reference("made:1");
    let uuid = "cat /proc/sys/kernel/random/uuid";
    let command = format!("{uuid} > /made/unique && {uuid} > /unique");
    let request = |output: i64, from: &[&String], to: &[&String]| SolveRequest {
        r#ref: format!("output {output} {from:?}"),
        definition: Some(output_of_mount(&command, output)),
        exporters: image_exporter(&name),
        // The result alone is exported, unless more is asked for.
        cache: Some(CacheOptions {
            exports: to.iter().map(|name| registry_cache(name)).collect(),
            imports: from.iter().map(|name| registry_cache(name)).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = async |daemon: &Daemon, request: SolveRequest| {
        solve(daemon, request).await.expect("a build");
        world.registry.image("made:1").file("unique").text()
    };
    let first = made(&world.daemon, request(1, &[], &[&caches[0]])).await;
    let second = Daemon::start(&world.registry);
    assert_eq!(made(&second, request(1, &[&caches[0]], &[])).await, first);
    // The other output is made, and can be exported like any.
    let other = made(&second, request(0, &[&caches[0]], &[&caches[1]])).await;
    let third = Daemon::start(&world.registry);
    assert_eq!(made(&third, request(0, &[&caches[1]], &[])).await, other);
}
