//! What of a folder becomes the context.

use std::collections::BTreeSet;

use kiln_integration_tests::{Context, State, World};

/// The files that `COPY . /` gets to see, with the ignore file's own rules applied.
fn context_files(world: &World, context: Context) -> BTreeSet<String> {
    let context = context.dockerfile("FROM scratch\nCOPY . /");
    world.image(&context).contents().into_keys().collect()
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

#[test]
fn the_guides_example_keeps_dependencies_and_temporary_files_out() {
    let world = World::start();
    let context = Context::new()
        .file(".dockerignore", "node_modules\ntmp*\n")
        .file("node_modules/left-pad/index.js", "")
        .file("tmp-1", "")
        .file("tmp/cache", "")
        .file("src/node_modules/kept", "")
        .file("src/tmp", "")
        .file("src/app.js", "");
    assert_eq!(
        context_files(&world, context),
        set(&[".dockerignore", "Dockerfile", "src/node_modules/kept", "src/tmp", "src/app.js"])
    );
}

#[test]
fn the_last_rule_that_matches_decides() {
    let world = World::start();
    let context = Context::new()
        .file(
            ".dockerignore",
            "# a comment\n*.md\n!README*.md\nREADME-secret.md\n/docs\n!docs/keep\n",
        )
        .file("README.md", "")
        .file("README-secret.md", "")
        .file("notes.md", "")
        .file("docs/a", "")
        .file("docs/keep", "")
        .file("src/notes.md", "");
    assert_eq!(
        context_files(&world, context),
        set(&[".dockerignore", "Dockerfile", "README.md", "docs/keep", "src/notes.md"])
    );
}

#[test]
fn two_stars_match_any_depth() {
    let world = World::start();
    let context = Context::new()
        .file(".dockerignore", "**/*.o\n!**/keep.o\n**/build/**\n")
        .file("a.o", "")
        .file("a.c", "")
        .file("x/y/b.o", "")
        .file("x/y/keep.o", "")
        .file("x/build/out", "");
    assert_eq!(
        context_files(&world, context),
        set(&[".dockerignore", "Dockerfile", "a.c", "x/y/keep.o"])
    );
}

#[test]
fn a_dockerfile_may_have_an_ignore_file_of_its_own() {
    let world = World::start();
    let context = Context::new()
        .file(".dockerignore", "a\n")
        .file("docker/ci.Dockerfile", "FROM scratch\nCOPY . /\n")
        .file("docker/ci.Dockerfile.dockerignore", "b\ndocker\n.dockerignore\n")
        .file("a", "")
        .file("b", "");
    let build = world.build(&context).arg("-f").arg(context.at("docker/ci.Dockerfile"));
    let (_, image) = world.pushed("own-ignore", build);
    assert_eq!(image.contents().into_keys().collect::<BTreeSet<_>>(), set(&["a"]));
}

#[test]
fn an_ignored_dockerfile_can_still_be_built() {
    let world = World::start();
    let context = Context::new().file(".dockerignore", "*\n!wanted\n").file("wanted", "");
    assert_eq!(context_files(&world, context), set(&["wanted"]));
}

#[test]
fn a_change_of_an_ignored_file_changes_nothing() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY . /src")
        .file(".dockerignore", "*.log\n")
        .file("debug.log", "1");
    world.build(&context).succeeds();
    context.write("debug.log", "2");
    world.build(&context).succeeds().step_is("COPY . /src", &State::Cached);
}

#[test]
fn only_files_that_an_instruction_needs_are_sent() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY needed /")
        .file("needed", "small")
        .file("video", vec![7; 8 << 20]);
    let build = world.build(&context).succeeds();
    let sent = build.step("[internal] load build context").statuses.join("\n");
    assert!(sent.contains("transferring context") && !sent.contains("MB"), "{sent}");
}

#[test]
fn files_that_the_daemon_has_from_the_last_build_are_not_sent_again() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY . /src")
        .file("video", vec![7; 8 << 20])
        .file("text", "1");
    let first = world.build(&context).succeeds();
    let sent = first.step("[internal] load build context").statuses.join("\n");
    assert!(sent.contains("8.39MB"), "{sent}");

    context.write("text", "2 changed");
    let second = world.build(&context).succeeds();
    let sent = second.step("[internal] load build context").statuses.join("\n");
    assert!(!sent.contains("MB"), "{sent}");
    second.step_is("COPY . /src", &State::Done);
}
