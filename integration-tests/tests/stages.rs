//! Builds of several stages.

use kiln_integration_tests::{Context, State, World};

#[test]
fn stages_that_the_result_does_not_need_are_not_built() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS unused
        RUN exit 1
        FROM busybox AS used
        RUN echo used > /used
        FROM scratch
        COPY --from=used /used /
        ",
    );
    let build = world.build(&context).succeeds();
    assert!(!build.has_step("RUN exit 1"), "{}", build.stderr);
}

#[test]
fn target_builds_up_to_a_stage() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS base
        RUN echo base > /base
        FROM base AS test
        RUN echo test > /test
        FROM base AS release
        RUN exit 1
        ",
    );
    let (_, image) = world.pushed("target", world.build(&context).args(["--target", "test"]));
    assert!(image.has("base") && image.has("test"));

    world.build(&context).args(["--target", "tset"]).fails().says("tset");
}

#[test]
fn independent_stages_run_at_once() {
    let world = World::start();
    // Each of them waits for a file that the other writes into the shared cache mount.
    let context = Context::new().dockerfile(
        "
        FROM busybox AS one
        RUN --mount=type=cache,target=/c touch /c/one; \
            for i in $(seq 300); do test -e /c/two && exec touch /done; usleep 100000; done; exit 1
        FROM busybox AS two
        RUN --mount=type=cache,target=/c touch /c/two; \
            for i in $(seq 300); do test -e /c/one && exec touch /done; usleep 100000; done; exit 1
        FROM scratch
        COPY --from=one /done /one
        COPY --from=two /done /two
        ",
    );
    world.build(&context).succeeds();
}

#[test]
fn files_come_from_a_stage_by_name_or_number_and_from_an_image() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS first
        RUN echo by name > /file
        FROM scratch
        COPY --from=first /file /name
        COPY --from=0 /file /number
        COPY --from=busybox /etc/passwd /passwd
        ",
    );
    let image = world.image(&context);
    assert_eq!(image.file("name").text(), "by name\n");
    assert_eq!(image.file("number").text(), "by name\n");
    assert!(image.file("passwd").text().starts_with("root:"));
    assert_eq!(image.layers.len(), 3);
}

#[test]
fn a_stage_inherits_from_an_earlier_one_with_its_configuration() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS base
        ENV NAME=base
        WORKDIR /srv
        FROM base
        RUN echo $NAME > here
        ",
    );
    assert_eq!(world.image(&context).file("srv/here").text(), "base\n");
}

#[test]
fn an_onbuild_trigger_runs_in_the_image_that_is_built_from_it() {
    let world = World::start();
    let parent =
        Context::new().dockerfile("FROM busybox\nONBUILD COPY app /app\nONBUILD RUN cat /app");
    let name = world.registry.reference("library/parent:latest");
    world.build(&parent).args(["--push", "-t", &name]).succeeds();

    let child = Context::new().dockerfile("FROM parent\nRUN echo child").file("app", "the app\n");
    let build = world.build(&child).succeeds();
    assert_eq!(build.step("ONBUILD RUN cat /app").log, ["the app"]);
    build.step_is("RUN echo child", &State::Done);
}

#[test]
fn a_cycle_of_stages_is_an_error() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS one
        COPY --from=two / /
        FROM busybox AS two
        COPY --from=one / /
        ",
    );
    world.build(&context).fails().says("circular dependency");
}
