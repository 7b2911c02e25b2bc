//! `--build-arg`: where it is seen, and what it invalidates.

use kiln_integration_tests::{Context, State, World};

#[test]
fn an_arg_invalidates_from_its_first_use() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN echo before
        ARG VERSION=1
        RUN echo after $VERSION
        ",
    );
    let first = world.build(&context).succeeds();
    assert_eq!(first.step("RUN echo after 1").log, ["after 1"]);

    let second = world.build(&context).arg("--build-arg=VERSION=2").succeeds();
    second.step_is("RUN echo before", &State::Cached);
    assert_eq!(second.step("RUN echo after 2").log, ["after 2"]);

    let again = world.build(&context).arg("--build-arg=VERSION=2").succeeds();
    again.step_is("RUN echo after 2", &State::Cached);
}

#[test]
fn a_value_comes_from_the_environment_when_only_the_name_is_given() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nARG WHO\nRUN echo \"for $WHO\"");
    let build = world.build(&context).args(["--build-arg", "WHO"]).env("WHO", "you").succeeds();
    assert_eq!(build.step("RUN echo \"for you\"").log, ["for you"]);
}

#[test]
fn a_global_arg_chooses_the_base_and_is_unseen_in_the_stage_until_declared() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        ARG BASE=nonexistent
        FROM ${BASE}
        RUN echo \"undeclared:${BASE}\"
        ARG BASE
        RUN echo \"declared:${BASE}\"
        ",
    );
    let build = world.build(&context).arg("--build-arg=BASE=busybox").succeeds();
    assert_eq!(build.step("RUN echo \"undeclared:${BASE}\"").log, ["undeclared:"]);
    assert_eq!(build.step("RUN echo \"declared:busybox\"").log, ["declared:busybox"]);
}

#[test]
fn proxy_settings_reach_the_step_but_not_its_key_or_the_image() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo proxy=$HTTP_PROXY");
    let build = |proxy: &str| world.build(&context).args(["--build-arg", proxy]);
    let first = build("HTTP_PROXY=http://one.invalid").succeeds();
    assert_eq!(first.step("RUN echo proxy=$HTTP_PROXY").log, ["proxy=http://one.invalid"]);

    let (second, image) = world.pushed("proxy", build("HTTP_PROXY=http://two.invalid"));
    second.step_is("RUN echo proxy=$HTTP_PROXY", &State::Cached);
    assert!(!image.config.to_string().contains(".invalid"), "{}", image.config);
}

#[test]
fn values_expand_with_their_modifiers() {
    let world = World::start();
    let context = Context::new().dockerfile(
        r"
        FROM busybox
        ARG NAME=archive.tar.gz
        ENV DEFAULTED=${NONE:-fallback} SET=${NAME:+yes} \
            SHORT=${NAME%.gz} SHORTER=${NAME%%.*} TAIL=${NAME#*.} LAST=${NAME##*.} \
            SWAPPED=${NAME/ar/AR} ALL=${NAME//ar/AR} LITERAL=\$NAME QUOTED='$NAME'
        ",
    );
    let image = world.image(&context);
    let env = image.config["config"]["Env"].to_string();
    for expected in [
        "DEFAULTED=fallback",
        "SET=yes",
        "SHORT=archive.tar",
        "SHORTER=archive",
        "TAIL=tar.gz",
        "LAST=gz",
        "SWAPPED=ARchive.tar.gz",
        "ALL=ARchive.tAR.gz",
        "LITERAL=$NAME",
        "QUOTED=$NAME",
    ] {
        assert!(env.contains(&format!("\"{expected}\"")), "{expected} is not in {env}");
    }
}

#[test]
fn a_required_value_that_is_missing_is_an_error_with_its_message() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nENV A=${B:?give B a value}");
    world.build(&context).fails().says("give B a value");
}
