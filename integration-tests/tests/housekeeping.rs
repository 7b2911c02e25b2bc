//! `kiln du`, `kiln prune`, `kiln info`.

use kiln_integration_tests::{Context, State, World};

#[test]
fn du_lists_what_is_kept_and_prune_all_empties_it() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY file /\nRUN --mount=type=cache,target=/c echo x > /c/x")
        .file("file", vec![9; 3 << 20]);
    world.build(&context).succeeds();
    let before = world.kiln().arg("du").succeeds().text();
    assert!(before.contains("Total:"), "{before}");

    let pruned = world.kiln().args(["prune", "--all", "--force"]).succeeds().text();
    assert!(pruned.contains("Total:"), "{pruned}");
    let after = world.kiln().arg("du").succeeds().text();
    assert!(after.contains("Total:") && after.contains("0B"), "{after}");

    let build = world.build(&context).succeeds();
    build.step_is("COPY file /", &State::Done);
}

#[test]
fn prune_takes_filters() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN echo step\nRUN --mount=type=cache,target=/c echo x > /c/x");
    world.build(&context).succeeds();
    world.kiln().args(["prune", "--force", "--filter", "type=exec.cachemount"]).succeeds();
    context.write_dockerfile(
        "FROM busybox\nRUN echo step\nRUN --mount=type=cache,target=/c ls -A /c; echo listed",
    );
    let build = world.build(&context).succeeds();
    build.step_is("RUN echo step", &State::Cached);
    assert_eq!(
        build.step("RUN --mount=type=cache,target=/c ls -A /c; echo listed").log,
        ["listed"]
    );
}

#[test]
fn prune_asks_before_it_removes_anything() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo step");
    world.build(&context).succeeds();
    world.kiln().args(["prune", "--all"]).stdin("n\n").run();
    world.build(&context).succeeds().step_is("RUN echo step", &State::Cached);
}

#[test]
fn info_tells_what_the_daemon_is() {
    let world = World::start();
    let info = world.kiln().arg("info").succeeds().text();
    assert!(info.contains("linux/"), "{info}");
}
