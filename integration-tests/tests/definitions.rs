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

/// An output of a step: the step's digest, and which one.
type Edge = (String, i64);

/// A graph that grows by a step at a time.
#[derive(Default)]
struct Graph(pb::Definition);

impl Graph {
    fn add(&mut self, op: Option<pb::op::Op>, inputs: &[&Edge]) -> Edge {
        let input = |edge: &&Edge| pb::Input { digest: edge.0.clone(), index: edge.1 };
        let inputs = inputs.iter().map(input).collect();
        let op = pb::Op { op, inputs, ..Default::default() }.encode_to_vec();
        let name = digest(&op);
        self.0.def.push(op.into());
        (name, 0)
    }

    fn busybox(&mut self) -> Edge {
        self.add(Some(image_op("docker.io/library/busybox:latest")), &[])
    }

    /// A step on the files of `on`, with a directory, new or of another step, for what it makes beside
    /// them: its first output is these files with what was changed, its second one the directory.
    fn step(&mut self, on: &Edge, made: Option<&Edge>, command: &str) -> [Edge; 2] {
        let mount = |dest: &str, input: i64, output: i64| pb::Mount {
            dest: dest.to_owned(),
            input,
            output,
            ..Default::default()
        };
        let meta = pb::Meta {
            args: ["sh", "-ec", command].map(str::to_owned).into(),
            cwd: "/".to_owned(),
            ..Default::default()
        };
        let mounts = vec![mount("/", 0, 0), mount("/made", if made.is_some() { 1 } else { -1 }, 1)];
        let step = pb::ExecOp { meta: Some(meta), mounts, ..Default::default() };
        let inputs: Vec<_> = [on].into_iter().chain(made).collect();
        let (step, _) = self.add(Some(pb::op::Op::Exec(step)), &inputs);
        [0, 1].map(|output| (step.clone(), output))
    }

    /// The files of `on` with what a step has changed.
    fn run(&mut self, on: &Edge, command: &str) -> Edge {
        let [changed, _] = self.step(on, None, command);
        changed
    }

    fn merge(&mut self, layers: &[&Edge]) -> Edge {
        let inputs = (0..).zip(layers).map(|(input, _)| pb::MergeInput { input }).collect();
        self.add(Some(pb::op::Op::Merge(pb::MergeOp { inputs })), layers)
    }

    /// The difference of `upper`, or of nothing, to `lower`.
    fn diff(&mut self, lower: &Edge, upper: Option<&Edge>) -> Edge {
        let diff = pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: 0 }),
            upper: Some(pb::UpperDiffInput { input: if upper.is_some() { 1 } else { -1 } }),
        };
        let inputs: Vec<_> = [lower].into_iter().chain(upper).collect();
        self.add(Some(pb::op::Op::Diff(diff)), &inputs)
    }

    /// The definition whose result is `edge`.
    fn result(mut self, edge: &Edge) -> pb::Definition {
        self.add(None, &[edge]);
        self.0
    }
}

/// One output of a step on an image.
fn output_of_step(command: &str, output: usize) -> pb::Definition {
    let mut graph = Graph::default();
    let image = graph.busybox();
    let outputs = graph.step(&image, None, command);
    graph.result(&outputs[output])
}

/// The files in /d, with what they say: as a step sees them that a graph's result is made the root
/// file system of, which are those of the image that is made of it.
async fn files(world: &World, mut graph: Graph, result: &Edge) -> Vec<String> {
    let result = graph.run(result, "find d -type f -exec grep -H . {} + | sort > /seen");
    let name = world.registry.reference("files:1");
    let request = SolveRequest {
        r#ref: "files".to_owned(),
        definition: Some(graph.result(&result)),
        exporters: image_exporter(&name),
        ..Default::default()
    };
    solve(&world.daemon, request).await.expect("a build");
    let image = world.registry.image("files:1");
    let seen = image.file("seen").text();
    let exported = image.contents().into_iter().filter(|(path, _)| path.starts_with("d/"));
    let exported: Vec<_> =
        exported.map(|(path, content)| format!("{path}:{}", content.trim())).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), exported, "in a step, and in the image");
    exported
}

#[tokio::test]
async fn a_directory_that_was_made_anew_hides_what_it_had_and_nothing_that_it_is_merged_with() {
    let world = World::start();
    let mut graph = Graph::default();
    let image = graph.busybox();
    let old = graph.run(&image, "mkdir -p /d/e; echo old | tee /d/a /d/b /d/e/c");
    let anew = "rm -r /d; mkdir -p /d/e /d/n; echo new | tee /d/b /d/e/d /d/n/x";
    let anew = graph.run(&old, anew);
    let other = graph.run(&image, "mkdir -p /d/e /d/n; echo other | tee /d/a /d/o /d/e/c /d/n/y");
    let change = graph.diff(&old, Some(&anew));
    let merged = graph.merge(&[&other, &change]);
    let expected = ["d/b:new", "d/e/d:new", "d/n/x:new", "d/n/y:other", "d/o:other"];
    assert_eq!(files(&world, graph, &merged).await, expected);
}

#[tokio::test]
async fn trees_that_were_made_apart_have_a_difference() {
    let world = World::start();
    let mut graph = Graph::default();
    let image = graph.busybox();
    let tree = "mkdir -p /d/e; echo same > /d/same; touch -d '2020-01-01 00:00:00' /d/same;";
    let lower = graph.run(&image, &format!("{tree} echo lower | tee /d/a /d/b /d/e/c /d/t"));
    let upper = "echo upper | tee /d/a /d/e/d; mkdir /d/t; echo in | tee /d/t/f";
    let upper = graph.run(&image, &format!("{tree} {upper}"));
    let other = graph.run(&image, "mkdir -p /d/e; echo other | tee /d/a /d/b /d/c /d/e/c");
    let change = graph.diff(&lower, Some(&upper));
    let on_lower = graph.merge(&[&lower, &change]);
    let on_other = graph.merge(&[&other, &change]);
    let same = Graph(graph.0.clone());
    assert_eq!(
        files(&world, same, &on_lower).await,
        ["d/a:upper", "d/e/d:upper", "d/same:same", "d/t/f:in"]
    );
    assert_eq!(
        files(&world, graph, &on_other).await,
        ["d/a:upper", "d/c:other", "d/e/d:upper", "d/t/f:in"]
    );
}

#[tokio::test]
async fn the_difference_to_nothing_removes_what_there_was() {
    let world = World::start();
    let mut graph = Graph::default();
    let image = graph.busybox();
    let [_, few] = graph.step(&image, None, "mkdir /made/d; echo few | tee /made/d/a");
    let change = graph.diff(&few, None);
    let many = graph.run(&image, "mkdir -p /d/e; echo many | tee /d/a /d/e/b");
    let merged = graph.merge(&[&many, &change]);
    let anew = graph.run(&merged, "mkdir /d; echo anew > /d/c");
    assert_eq!(files(&world, graph, &anew).await, ["d/c:anew"]);
}

#[tokio::test]
async fn an_image_made_of_the_cache_in_its_config_is_the_same_image() {
    let world = World::start();
    let name = world.registry.reference("own:1");
    let mut graph = Graph::default();
    let image = graph.busybox();
    let [_, one] = graph.step(&image, None, "echo one > /made/one");
    let [_, two] = graph.step(&image, Some(&one), "cat /proc/sys/kernel/random/uuid > /made/two");
    let definition = graph.result(&two);
    let inline = CacheOptionsEntry { r#type: "inline".to_owned(), ..Default::default() };
    let made = async |daemon: &Daemon| {
        let request = SolveRequest {
            r#ref: "own".to_owned(),
            definition: Some(definition.clone()),
            exporters: image_exporter(&name),
            cache: Some(CacheOptions {
                exports: vec![inline.clone()],
                imports: vec![registry_cache(&name)],
                ..Default::default()
            }),
            ..Default::default()
        };
        solve(daemon, request).await.expect("a build");
        world.registry.image("own:1")
    };
    let first = made(&world.daemon).await;
    let [one, two] = [0, 1].map(|layer| first.config["history"][layer]["created_by"].clone());
    assert_eq!(one, "mount /made from exec sh -ec echo one > /made/one");
    assert_eq!(two, "mount /made from exec sh -ec cat /proc/sys/kernel/random/uuid > /made/two");
    let second = made(&Daemon::start(&world.registry)).await;
    assert_eq!(second.config, first.config);
    assert_eq!(second.digest, first.digest);
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
        definition: Some(output_of_step("true", 0)),
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
    let request = |output: usize, from: &[&String], to: &[&String]| SolveRequest {
        r#ref: format!("output {output} {from:?}"),
        definition: Some(output_of_step(&command, output)),
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
