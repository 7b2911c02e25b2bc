//! The command line of `kiln build`.

use std::fs;

use kiln_integration_tests::{Context, Daemon, LayerTar, State, World};

#[test]
fn a_dockerfile_comes_from_standard_input() {
    let world = World::start();
    let build = world
        .kiln()
        .args(["build", "--progress=plain", "-"])
        .stdin("FROM busybox\nRUN echo from stdin\n")
        .succeeds();
    assert_eq!(build.step("RUN echo from stdin").log, ["from stdin"]);

    let context = Context::new().file("file", "in the folder\n");
    let build = world
        .build(&context)
        .args(["-f", "-"])
        .stdin("FROM busybox\nCOPY file /\nRUN cat /file\n")
        .succeeds();
    assert_eq!(build.step("RUN cat /file").log, ["in the folder"]);
}

#[test]
fn a_whole_context_comes_from_standard_input_as_a_tar() {
    let world = World::start();
    let tar = LayerTar::new()
        .file("Dockerfile", 0o644, b"FROM busybox\nCOPY dir /dir\nRUN cat /dir/file\n")
        .dir("dir", 0o755)
        .file("dir/file", 0o644, b"packed\n")
        .finish();
    let build = world.kiln().args(["build", "--progress=plain", "-"]).stdin(tar).succeeds();
    assert_eq!(build.step("RUN cat /dir/file").log, ["packed"]);
}

#[test]
fn the_dockerfile_may_have_any_name_and_place() {
    let world = World::start();
    let context = Context::new()
        .file("docker/app.Dockerfile", "FROM busybox\nCOPY file /\nRUN cat /file\n")
        .file("file", "content\n");
    let inside =
        world.build(&context).arg("-f").arg(context.at("docker/app.Dockerfile")).succeeds();
    assert_eq!(inside.step("RUN cat /file").log, ["content"]);

    let elsewhere = Context::new().file("other", "FROM busybox\nCOPY file /\nRUN wc -c /file\n");
    let outside = world.build(&context).arg("--file").arg(elsewhere.at("other")).succeeds();
    assert_eq!(outside.step("RUN wc -c /file").log, ["8 /file"]);

    world.build(&context).fails().says("Dockerfile");
}

#[test]
fn quiet_prints_the_image_id_and_nothing_else() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN true");
    let iid = context.at("iid");
    let build =
        world.kiln().args(["build", "-q", "--iidfile"]).arg(&iid).arg(context.path()).succeeds();
    assert_eq!(build.stderr, "");
    assert_eq!(build.text().trim(), fs::read_to_string(iid).expect("iidfile").trim());
    assert!(build.text().starts_with("sha256:"));
}

#[test]
fn rawjson_is_one_json_object_a_line() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo raw");
    let build = world.kiln().args(["build", "--progress=rawjson"]).arg(context.path()).succeeds();
    let mut names = Vec::new();
    for line in build.stderr.lines().filter(|line| !line.is_empty()) {
        let update: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for vertex in update["vertexes"].as_array().into_iter().flatten() {
            names.push(vertex["name"].to_string());
        }
    }
    assert!(names.contains(&"\"[2/2] RUN echo raw\"".to_owned()), "{names:?}");
}

#[test]
fn hosts_are_added_for_the_steps() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN grep build.example /etc/hosts");
    let build = world.build(&context).args(["--add-host", "build.example:10.1.2.3"]).succeeds();
    let log = build.step("RUN grep build.example /etc/hosts").log;
    assert_eq!(log[0].split_whitespace().collect::<Vec<_>>(), ["10.1.2.3", "build.example"]);
}

#[test]
fn an_unknown_flag_is_an_error_that_names_it() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox");
    world.build(&context).arg("--no-such-flag").fails().says("--no-such-flag");
    world.build(&context).arg("--squash").fails().says("squash");
}

#[test]
fn a_context_that_is_not_there_is_an_error_that_names_it() {
    let world = World::start();
    world.kiln().args(["build", "/no/such/folder"]).fails().says("/no/such/folder");
}

#[test]
fn a_daemon_that_is_not_there_is_an_error_that_names_its_address() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox");
    world
        .build(&context)
        .env("KILN_HOST", "unix:///no/such/kilnd.sock")
        .fails()
        .says("/no/such/kilnd.sock");
}

#[test]
fn pull_looks_for_a_newer_base() {
    let world = World::start();
    let base = |text: &[u8]| LayerTar::new().file("version", 0o644, text).finish();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {}});
    world.registry.push("library/base:latest", &[base(b"1")], &config);
    let context = Context::new().dockerfile("FROM base\nCOPY Dockerfile /");
    assert_eq!(world.image(&context).file("version").text(), "1");

    world.registry.push("library/base:latest", &[base(b"2")], &config);
    let (_, image) = world.pushed("pulled", world.build(&context).arg("--pull"));
    assert_eq!(image.file("version").text(), "2");
}

#[test]
fn an_image_that_was_built_can_be_the_base_of_the_next() {
    let world = World::start();
    let parent = Context::new().dockerfile("FROM busybox\nRUN echo parent > /who");
    world.build(&parent).args(["-t", "example.invalid/parent:1"]).succeeds();
    let child = Context::new().dockerfile("FROM example.invalid/parent:1\nRUN cat /who");
    let build = world.build(&child).succeeds();
    assert_eq!(build.step("RUN cat /who").log, ["parent"]);
    build.step_is("RUN cat /who", &State::Done);
}

#[test]
fn of_an_image_that_was_pushed_the_registry_has_the_last_word() {
    let world = World::start();
    let name = world.registry.reference("test/parent:1");
    let parent =
        |who: &str| Context::new().dockerfile(&format!("FROM busybox\nRUN echo {who} > /who"));
    let push = |daemon: &Daemon, who: &str| {
        daemon.build(&parent(who)).args(["--push", "-t", &name]).succeeds();
    };
    push(&world.daemon, "first");
    push(&Daemon::start(&world.registry), "second");

    let child = Context::new().dockerfile(&format!("FROM {name}\nRUN cat /who"));
    let build = world.build(&child).succeeds();
    assert_eq!(build.step("RUN cat /who").log, ["second"]);
}
