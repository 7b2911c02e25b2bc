//! What a user reads when a build fails.

use kiln_integration_tests::{Context, State, World};

#[test]
fn a_failed_command_is_shown_with_its_place_its_output_and_its_exit_code() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN echo fine
        RUN echo to stderr >&2; exit 7
        RUN echo never
        ",
    );
    let build = world.build(&context).fails();
    assert_eq!(build.code, Some(1));
    let step = build.step("RUN echo to stderr >&2; exit 7");
    assert_eq!(step.log, ["to stderr"]);
    assert!(matches!(step.state, State::Failed(_)), "{step:?}");
    build
        .says("exit code: 7")
        .says("Dockerfile:3")
        .says("   3 | >>> RUN echo to stderr >&2; exit 7\n")
        .says("   2 |     RUN echo fine\n")
        .says(" > [3/4] RUN echo to stderr >&2; exit 7:\n");
    assert_eq!(build.ran(), ["RUN echo fine"]);
}

#[test]
fn a_failure_in_a_long_dockerfile_is_told_like_any_other() {
    let world = World::start();
    let filler = "# It goes on and on.\n".repeat(5000);
    let context = Context::new().dockerfile(&format!("FROM busybox\n{filler}RUN exit 7\n"));
    world.build(&context).fails().says("exit code: 7").says(">>> RUN exit 7");
}

#[test]
fn a_dockerfile_that_cannot_be_read_is_an_error_with_its_line() {
    let world = World::start();
    for (dockerfile, message, excerpt) in [
        ("FROM busybox\nRNU true\n", "unknown instruction: RNU", ">>> RNU true"),
        ("RUN true\n", "no build stage in current context", ">>> RUN true"),
        ("FROM busybox\nCOPY one\n", "COPY requires at least two arguments", ">>> COPY one"),
        ("FROM busybox\nENV\n", "ENV requires at least one argument", ">>> ENV"),
        ("FROM busybox\nCOPY --form=x a b\n", "unknown flag: --form", ">>> COPY --form=x a b"),
    ] {
        let context = Context::new().dockerfile(dockerfile);
        world.build(&context).fails().says(message).says(excerpt);
    }
}

#[test]
fn an_empty_dockerfile_is_an_error() {
    let world = World::start();
    world.build(&Context::new().file("Dockerfile", "")).fails().says("empty");
}

#[test]
fn a_base_that_does_not_exist_is_an_error_that_names_it() {
    let world = World::start();
    let name = world.registry.reference("no/such/image:1");
    let context = Context::new().dockerfile(&format!("FROM {name}\nRUN true"));
    world.build(&context).fails().says("no/such/image:1").says("not found").says("Dockerfile:1");
}

#[test]
fn an_image_that_is_here_is_not_had_by_the_name_of_a_repository_that_does_not_have_it() {
    let World { daemon, registry } = World::start();
    let digest = registry.image("library/busybox:latest").digest;
    let file = |repository: &str| format!("FROM {repository}@{digest}\nRUN true");
    let context = Context::new().dockerfile(&file("busybox")).file("other", file("my/secret"));
    let build = || daemon.build(&context).arg("--no-cache");
    build().succeeds();
    let other = build().arg("--file").arg(context.at("other")).fails();
    other.says(&format!("docker.io/my/secret@{digest}: not found"));
    // Where it came from needs not be asked again.
    drop(registry);
    build().succeeds();
}

#[test]
fn a_program_that_does_not_exist_is_an_error_that_names_it() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN [\"/no/such/program\"]");
    world.build(&context).fails().says("/no/such/program");
}

#[test]
fn a_step_that_a_signal_ends_says_so() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?");
    world.build(&context).fails().says("exit code: 137");
}

#[test]
fn the_failure_of_one_stage_ends_the_others() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS slow
        RUN sleep 600
        FROM busybox AS broken
        RUN exit 3
        FROM scratch
        COPY --from=slow / /
        COPY --from=broken / /
        ",
    );
    let build = world.build(&context).fails();
    build.says("exit code: 3");
    build.step_is("RUN sleep 600", &State::Canceled);
}

#[test]
fn a_failed_build_leaves_the_daemon_ready_for_the_next() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo kept\nRUN exit 1");
    world.build(&context).fails();
    context.write_dockerfile("FROM busybox\nRUN echo kept\nRUN true");
    world.build(&context).succeeds().step_is("RUN echo kept", &State::Cached);
}
