//! Frontends in images.

use std::path::Path;

use kiln_integration_tests::{Context, LayerTar, State, World, image_config, program_layer};
use serde_json::json;

/// Pushes the test frontend to the world's registry.
fn push_frontend(world: &World, name: &str) {
    let program = Path::new(env!("CARGO_BIN_EXE_kiln-test-frontend"));
    let layer = program_layer(program, "frontend").finish();
    let mut config = image_config();
    config["config"] = json!({
        "Entrypoint": ["/frontend"],
        "Labels": {"moby.buildkit.frontend.caps": "moby.buildkit.frontend.contexts"},
    });
    world.registry.push(name, &[layer], &config);
}

fn context() -> Context {
    Context::new()
        .dockerfile("# syntax=my/frontend:1 -v\nFROM busybox\nRUN echo x > /x\nCOPY a /")
        .file("a", "")
}

#[test]
fn a_file_that_names_a_frontend_is_read_by_it() {
    let world = World::start();
    push_frontend(&world, "my/frontend:1");
    let context = context();
    let (_, image) = world.pushed("made:latest", world.build(&context));
    assert_eq!(image.config["config"]["Labels"]["made.by"], "my/frontend:1 -v");
    assert!(image.has("x") && image.has("a"));
    world.build(&context).succeeds().step_is("[2/3] RUN echo x > /x", &State::Cached);
}

#[test]
fn the_frontend_of_the_build_argument_goes_before_that_of_the_file() {
    let world = World::start();
    push_frontend(&world, "my/other:2");
    let context = context();
    let build = world.build(&context).args(["--build-arg", "BUILDKIT_SYNTAX=my/other:2"]);
    let (_, image) = world.pushed("made:latest", build);
    assert_eq!(image.config["config"]["Labels"]["made.by"], "my/other:2");
}

#[test]
fn a_frontends_container_has_the_clients_files() {
    let world = World::start();
    push_frontend(&world, "my/frontend:1");
    let context = context();
    let build = world.build(&context).args(["--build-arg", "DO=look"]);
    let (_, image) = world.pushed("made:latest", build);
    let dockerfile = std::fs::read_to_string(context.at("Dockerfile")).unwrap();
    assert_eq!(image.config["config"]["Labels"]["looked.at"], dockerfile);
}

#[test]
fn a_named_context_stands_for_a_frontend() {
    let world = World::start();
    push_frontend(&world, "my/other:2");
    let replaced = ["--build-context", "my/frontend:1=docker-image://my/other:2"];
    let context = context();
    world.build(&context).args(replaced).succeeds();
}

#[test]
fn a_frontend_that_fails_is_named_with_its_last_words_and_the_line_that_asks_for_it() {
    let world = World::start();
    push_frontend(&world, "my/frontend:1");
    let context = context();
    let run = |what: &str| world.build(&context).args(["--build-arg", what]).fails();
    run("DO=fail")
        .says("the frontend my/frontend:1 failed: exit code: 3")
        .says("last word")
        .says(">>> # syntax=my/frontend:1");
    run("DO=again").says("the frontend my/frontend:1 is asked by a frontend that was asked by 8");
    run("DO=nothing").says("the frontend my/frontend:1 ended without a result");
    world.registry.push("my/empty:1", &[LayerTar::new().finish()], &image_config());
    let empty = Context::new().dockerfile("# syntax=my/empty:1\nFROM busybox");
    world.build(&empty).fails().says("the frontend my/empty:1 cannot be run").says("/run");
}

#[test]
fn what_fails_in_a_frontends_build_is_shown_as_if_it_were_built_in() {
    let world = World::start();
    push_frontend(&world, "my/frontend:1");
    let context = Context::new().dockerfile("# syntax=my/frontend:1\nFROM busybox\nRUN exit 5\n");
    world.build(&context).fails().says(">>> RUN exit 5").says("exit code: 5");
}

#[test]
fn only_repositories_that_the_configuration_allows_are_frontends() {
    let mut world = World::start();
    push_frontend(&world, "my/frontend:1");
    let allow = "[frontend.\"gateway.v0\"]\nallowedRepositories = [\"my/other\"]\n";
    world.daemon.configure(allow);
    let context = context();
    world
        .build(&context)
        .fails()
        .says("'docker.io/my/frontend:1' is not an allowed gateway source");
}
