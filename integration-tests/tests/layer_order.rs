//! A step is reused exactly when its instruction and what it depends on are unchanged.

use std::fs::File;
use std::time::{Duration, SystemTime};

use kiln_integration_tests::{Context, LayerTar, State, World, busybox_layer};
use serde_json::json;

/// A base with an `npm` that says what it does.
fn world_with_node() -> World {
    let world = World::start();
    let npm =
        LayerTar::new().file("bin/npm", 0o755, b"#!/bin/sh\necho npm $1 in $(pwd)\n").finish();
    world.registry.push(
        "library/node:latest",
        &[busybox_layer(), npm],
        &json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}}),
    );
    world
}

fn project() -> Context {
    Context::new()
        .file("package.json", "{}")
        .file("yarn.lock", "")
        .file("src/index.js", "console.log(1)")
}

#[test]
fn a_changed_source_file_keeps_the_install_layer() {
    let world = world_with_node();
    let context = project().dockerfile(
        "
        FROM node
        WORKDIR /app
        COPY package.json yarn.lock .
        RUN npm install
        COPY . .
        RUN npm build
        ",
    );
    let first = world.build(&context).succeeds();
    assert_eq!(first.step("RUN npm install").log, ["npm install in /app"]);

    context.write("src/index.js", "console.log(2)");
    let second = world.build(&context).succeeds();
    assert_eq!(
        second.cached(),
        ["WORKDIR /app", "COPY package.json yarn.lock .", "RUN npm install"]
    );
    assert_eq!(second.ran(), ["COPY . .", "RUN npm build"]);

    context.write("package.json", "{\"dependencies\": {}}");
    let third = world.build(&context).succeeds();
    assert_eq!(third.cached(), ["WORKDIR /app"]);
}

#[test]
fn copying_everything_first_reruns_the_install() {
    let world = world_with_node();
    let context = project().dockerfile(
        "
        FROM node
        WORKDIR /app
        COPY . .
        RUN npm install
        RUN npm build
        ",
    );
    world.build(&context).succeeds();
    context.write("src/index.js", "console.log(2)");
    let second = world.build(&context).succeeds();
    assert_eq!(second.cached(), ["WORKDIR /app"]);
}

#[test]
fn nothing_changed_means_every_step_is_cached() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            WORKDIR /work
            ENV MODE=fast
            COPY . .
            RUN echo $MODE > mode
            ",
        )
        .file("a", "1");
    world.build(&context).succeeds();
    let second = world.build(&context).succeeds();
    assert_eq!(second.ran(), <[&str; 0]>::default());
    assert_eq!(second.cached(), ["WORKDIR /work", "COPY . .", "RUN echo fast > mode"]);
}

#[test]
fn a_new_mtime_is_no_change_and_a_new_mode_is_one() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM busybox\nCOPY tool /bin/tool").file("tool", "#!/bin/sh\n");
    world.build(&context).succeeds();

    let file = File::open(context.at("tool")).expect("file");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(1)).expect("mtime");
    let touched = world.build(&context).succeeds();
    touched.step_is("COPY tool /bin/tool", &State::Cached);

    let context = context.mode("tool", 0o755);
    let executable = world.build(&context).succeeds();
    executable.step_is("COPY tool /bin/tool", &State::Done);
    assert_eq!(world.image(&context).file("bin/tool").mode, 0o755);
}

#[test]
fn a_copy_of_unchanged_files_is_reused_when_a_sibling_changes() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY lib/a /a\nRUN wc -c /a")
        .file("lib/a", "unchanged")
        .file("lib/b", "1");
    world.build(&context).succeeds();
    context.write("lib/b", "2");
    context.write("lib/c", "new");
    let second = world.build(&context).succeeds();
    assert_eq!(second.cached(), ["COPY lib/a /a", "RUN wc -c /a"]);
}

#[test]
fn a_step_that_reran_to_the_same_files_does_not_invalidate_what_copies_them() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox AS build
            COPY source .
            RUN head -c 1 source > /first
            FROM busybox
            COPY --from=build /first /first
            RUN cat /first
            ",
        )
        .file("source", "abc");
    world.build(&context).succeeds();
    context.write("source", "axx");
    let second = world.build(&context).succeeds();
    assert_eq!(second.ran(), ["COPY source .", "RUN head -c 1 source > /first"]);
    assert_eq!(second.cached(), ["COPY --from=build /first /first", "RUN cat /first"]);
}

#[test]
fn dockerfiles_that_share_steps_share_their_results() {
    let world = World::start();
    let one = Context::new().dockerfile("FROM busybox\nRUN echo shared\nRUN echo one");
    let two = Context::new().dockerfile("FROM busybox AS base\nRUN echo shared\nRUN echo two");
    world.build(&one).succeeds();
    let second = world.build(&two).succeeds();
    second.step_is("RUN echo shared", &State::Cached);
    second.step_is("RUN echo two", &State::Done);
}

#[test]
fn two_builds_at_once_run_the_step_that_they_share_once() {
    let world = World::start();
    // The cache mount counts the runs; each build waits for it, so that they overlap.
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN --mount=type=cache,target=/runs echo run >> /runs/log && sleep 1 && cat /runs/log
        ",
    );
    let one = world.build(&context).start();
    let two = world.build(&context).start();
    let logs = [one.finish(), two.finish()].map(|outcome| {
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stderr
    });
    for log in logs {
        assert!(!log.contains("run\nrun"), "{log}");
        assert_eq!(log.lines().filter(|line| line.ends_with(" run")).count(), 1, "{log}");
    }
}

#[test]
fn no_cache_runs_everything_again_and_no_cache_filter_one_stage() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS one
        RUN echo one > /one
        FROM busybox AS two
        RUN echo two > /two
        FROM busybox
        COPY --from=one /one /
        COPY --from=two /two /
        ",
    );
    world.build(&context).succeeds();

    let all = world.build(&context).arg("--no-cache").succeeds();
    all.step_is("RUN echo one > /one", &State::Done);
    all.step_is("RUN echo two > /two", &State::Done);

    let filtered = world.build(&context).arg("--no-cache-filter=two").succeeds();
    filtered.step_is("RUN echo one > /one", &State::Cached);
    filtered.step_is("RUN echo two > /two", &State::Done);
}

#[test]
fn a_step_runs_on_an_image_that_has_the_same_layer_twice() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            COPY --link file /file
            RUN echo changed > /file
            COPY --link file /file
            RUN cat /file
            ",
        )
        .file("file", "copied\n");
    let build = world.build(&context).succeeds();
    assert_eq!(build.step("RUN cat /file").log, ["copied"]);
}

#[test]
fn a_step_on_more_layers_than_can_be_mounted_says_so() {
    let world = World::start();
    let mut layers = vec![busybox_layer()];
    layers.extend((0..500).map(|n| LayerTar::new().file(&format!("f{n}"), 0o644, b"").finish()));
    world.registry.push(
        "library/tall:latest",
        &layers,
        &json!({"architecture": "amd64", "os": "linux"}),
    );
    let context = Context::new().dockerfile("FROM tall\nRUN true");
    world.build(&context).fails().says("has 502 layers; the kernel joins at most 500");
}
