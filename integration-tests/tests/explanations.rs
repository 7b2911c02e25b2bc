//! Why a step ran: what the daemon says of a miss, for clients to read.

use kiln_integration_tests::{Context, Invocation, Outcome, World};
use serde_json::{Value, json};

fn build(world: &World, context: &Context) -> Invocation {
    world.kiln().args(["build", "--progress=rawjson"]).arg(context.path())
}

/// What is said of the steps that ran, by their names.
struct Misses {
    names: Vec<(String, String)>,
    misses: Vec<Value>,
}

impl Misses {
    fn of(build: &Outcome) -> Self {
        let updates: Vec<Value> = build
            .stderr
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect();
        let all = |key: &str| {
            let lists = updates.iter().filter_map(|update| update[key].as_array());
            lists.flatten().cloned().collect::<Vec<_>>()
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names = all("vertexes");
        let names = names.iter().map(|vertex| (text(&vertex["digest"]), text(&vertex["name"])));
        Self { names: names.collect(), misses: all("misses") }
    }

    fn name(&self, digest: &Value) -> &str {
        let known = self.names.iter().find(|(known, name)| known == digest && !name.is_empty());
        known.map_or("", |(_, name)| name)
    }

    /// What is said of the step whose name ends with `name`.
    #[track_caller]
    fn step(&self, name: &str) -> &Value {
        let found = self.misses.iter().find(|miss| self.name(&miss["vertex"]).ends_with(name));
        found.unwrap_or_else(|| panic!("nothing is said of {name}: {:#?}", self.misses))
    }

    /// The differences of a step, without those of inputs that follow from misses of their own.
    #[track_caller]
    fn causes(&self, name: &str) -> Vec<Value> {
        let differences = self.step(name)["differences"].as_array().cloned().unwrap_or_default();
        let follows = |difference: &&Value| {
            let vertex = &difference["vertex"];
            self.misses.iter().any(|miss| miss["vertex"] == *vertex)
        };
        differences.iter().filter(|difference| !follows(difference)).cloned().collect()
    }
}

#[test]
fn the_files_that_changed_are_named() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY . /src\nRUN cat /src/main")
        .file(".dockerignore", "Dockerfile")
        .file("main", "1")
        .file("old", "")
        .file("run.sh", "")
        .file("kept", "");
    let first = Misses::of(&build(&world, &context).succeeds());
    assert_eq!(first.step("COPY . /src")["reason"], "first");

    context.write("main", "2");
    context.write("new", "");
    context.remove("old");
    let context = context.mode("run.sh", 0o755);
    let second = Misses::of(&build(&world, &context).succeeds());
    let copy = second.step("COPY . /src");
    assert_eq!(copy["reason"], "changed");
    assert!(copy["earlier"]["createdAt"].is_string());
    let causes = second.causes("COPY . /src");
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!(causes[0]["part"], "input");
    assert_eq!(causes[0]["fileCount"], 4);
    assert_eq!(
        causes[0]["files"],
        json!([
            {"path": "main", "change": "content"},
            {"path": "new", "change": "added"},
            {"path": "old", "change": "removed"},
            {"path": "run.sh", "change": "metadata"},
        ])
    );
    // What follows from it says no more than that.
    let run = second.step("RUN cat /src/main");
    assert_eq!(second.name(&run["differences"][0]["vertex"]), "[2/3] COPY . /src");
    assert_eq!(second.causes("RUN cat /src/main"), <[Value; 0]>::default());
}

#[test]
fn an_argument_and_a_command_that_changed_are_named_with_both_values() {
    let world = World::start();
    let text = "FROM busybox\nARG VERSION=1\nRUN echo $VERSION\nRUN echo one\n";
    let context = Context::new().dockerfile(text);
    build(&world, &context).succeeds();

    let argument = build(&world, &context).arg("--build-arg=VERSION=2").succeeds();
    let causes = Misses::of(&argument).causes("RUN echo 2");
    assert_eq!(causes.len(), 1, "{causes:?}");
    let expected = json!({"part": "env VERSION", "before": "1", "now": "2"});
    assert_eq!(causes[0], expected);

    context.write_dockerfile(&text.replace("echo one", "echo two"));
    let misses = Misses::of(&build(&world, &context).succeeds());
    let step = misses.step("RUN echo two");
    assert!(step["earlier"]["name"].as_str().unwrap().ends_with("RUN echo one"), "{step}");
    let expected = json!([
        {"part": "command", "before": "/bin/sh -c echo one", "now": "/bin/sh -c echo two"},
    ]);
    assert_eq!(step["differences"], expected);
}

#[test]
fn a_base_image_that_moved_is_named() {
    let world = World::start();
    let push = |text: &str| {
        let base = Context::new().dockerfile(&format!("FROM busybox\nRUN echo {text} > /base"));
        let name = world.registry.reference("base:latest");
        world.build(&base).args(["--push", "-t", &name]).succeeds();
        name
    };
    let name = push("one");
    let context = Context::new().dockerfile(&format!("FROM {name}\nRUN cat /base\n"));
    build(&world, &context).succeeds();
    push("two");
    let causes = Misses::of(&build(&world, &context).succeeds()).causes("RUN cat /base");
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!(causes[0]["part"], "input");
    let (before, now) = (&causes[0]["before"], &causes[0]["now"]);
    assert_ne!(before, now);
    for name in [before, now] {
        assert!(name.as_str().unwrap().contains("base:latest@sha256:"), "{name}");
    }
}

#[test]
fn a_step_that_is_run_on_purpose_or_for_the_first_time_says_so() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo a");
    build(&world, &context).succeeds();
    let again = Misses::of(&build(&world, &context).succeeds());
    assert!(again.misses.is_empty(), "{:?}", again.misses);
    let anew = Misses::of(&build(&world, &context).arg("--no-cache").succeeds());
    assert_eq!(anew.step("RUN echo a")["reason"], "ignored");
    // Steps of other projects are not what this one is compared with.
    let other = Context::new().dockerfile("FROM busybox\nENV A=1\nRUN echo a");
    let other = Misses::of(&build(&world, &other).succeeds());
    assert_eq!(other.step("RUN echo a")["reason"], "first");
}

#[test]
fn the_recorded_progress_of_a_build_still_explains_its_steps() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo a");
    build(&world, &context).succeeds();
    context.write_dockerfile("FROM busybox\nRUN echo b");
    build(&world, &context).succeeds();
    let misses = world.daemon.recorded_misses();
    assert!(
        misses.iter().any(|miss| miss.differences.iter().any(|part| part.part == "command")),
        "{misses:?}"
    );
}
