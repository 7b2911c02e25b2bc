//! Ctrl-C.

use std::time::Duration;

use kiln_integration_tests::{
    Context, Signal, State, World, ends_within, mounts_below, processes_with,
};

/// What a cancelled step may take to be gone.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn an_interrupted_build_ends_on_the_daemon_too_and_leaves_nothing() {
    let mut world = World::start();
    let context =
        Context::new().dockerfile("FROM busybox\nRUN sleep 7101.5 & echo started; sleep 7101.5");
    let build = world.build(&context).start();
    build.until_output("started");
    let step = processes_with("7101.5");
    assert!(!step.is_empty(), "the step's processes are those of the host");

    build.signal(Signal::INT);
    let outcome = build.finish();
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    for process in step {
        assert!(ends_within(process, SOON), "a process of the cancelled step is still there");
    }

    context.write_dockerfile("FROM busybox\nRUN echo the daemon works");
    world.build(&context).succeeds();
    world.daemon.stop();
    assert_eq!(mounts_below(world.daemon.root()), <[&str; 0]>::default());
}

#[test]
fn a_client_that_is_killed_cancels_its_build() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo started; exec sleep 7102.5");
    let build = world.build(&context).start();
    build.until_output("started");
    let step = processes_with("7102.5");
    build.signal(Signal::KILL);
    build.finish();
    for process in step {
        assert!(ends_within(process, SOON), "the step outlives its client");
    }
}

#[test]
fn a_step_that_another_build_waits_for_is_not_cancelled() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN --mount=type=cache,target=/c \
            echo started; until test -e /c/go; do usleep 50000; done; echo finished
        ",
    );
    let step = "RUN --mount=type=cache,target=/c \
                echo started; until test -e /c/go; do usleep 50000; done; echo finished";
    let one = world.build(&context).start();
    one.until_output("started");
    let two = world.build(&context).start();
    two.until_output("started");
    one.signal(Signal::INT);
    assert_eq!(one.finish().code, Some(130));

    let go =
        Context::new().dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c touch /c/go");
    world.build(&go).succeeds();
    let outcome = two.finish();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.step_is(step, &State::Done);
}
