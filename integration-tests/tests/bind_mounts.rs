//! `RUN --mount=type=bind`.

use kiln_integration_tests::{Context, State, World};

#[test]
fn the_guides_example_shows_the_mount_and_then_the_folder_beneath_it() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox:latest
        WORKDIR /work
        RUN touch foo.txt
        RUN --mount=target=. ls -1
        RUN ls -1
        ",
    );
    let (build, image) = world.pushed("bind", world.build(&context));
    build.says("[stage-0 3/5] RUN touch foo.txt");
    build.says("[stage-0 4/5] RUN --mount=target=. ls -1");
    build.says("[stage-0 5/5] RUN ls -1");
    assert_eq!(build.step("RUN touch foo.txt").log, <[&str; 0]>::default());
    assert_eq!(build.step("RUN --mount=target=. ls -1").log, ["Dockerfile"]);
    assert_eq!(build.step("RUN ls -1").log, ["foo.txt"]);
    assert!(!image.has("work/Dockerfile"), "the mounted files are not part of the image");
    assert!(image.has("work/foo.txt"));
}

#[test]
fn a_bind_mount_cannot_be_written_by_default() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM busybox\nRUN --mount=type=bind,target=/src touch /src/new");
    world.build(&context).fails().says("Read-only file system");
}

#[test]
fn what_is_written_to_a_writable_bind_mount_is_discarded() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            RUN --mount=type=bind,target=/src,rw echo x >> /src/file && cp /src/file /seen
            RUN --mount=type=bind,target=/src cat /src/file
            ",
        )
        .file("file", "original\n");
    let (build, image) = world.pushed("rw", world.build(&context));
    assert_eq!(build.step("RUN --mount=type=bind,target=/src cat /src/file").log, ["original"]);
    assert_eq!(image.file("seen").text(), "original\nx\n");
    assert_eq!(context.read("file"), "original\n");
}

#[test]
fn a_mount_comes_from_a_stage_an_image_or_one_path() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox AS made
            RUN mkdir /out && echo made > /out/file
            FROM busybox
            RUN --mount=from=made,source=/out,target=/mnt cat /mnt/file
            RUN --mount=from=busybox,target=/other ls /other/bin/busybox
            RUN --mount=type=bind,source=only/this,target=/one cat /one
            ",
        )
        .file("only/this", "one\n");
    let build = world.build(&context).succeeds();
    let log = |instruction: &str| build.step(instruction).log;
    assert_eq!(log("RUN --mount=from=made,source=/out,target=/mnt cat /mnt/file"), ["made"]);
    assert_eq!(
        log("RUN --mount=from=busybox,target=/other ls /other/bin/busybox"),
        ["/other/bin/busybox"]
    );
    assert_eq!(log("RUN --mount=type=bind,source=only/this,target=/one cat /one"), ["one"]);
}

#[test]
fn a_changed_file_reruns_the_steps_that_mount_it_and_no_other() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            RUN --mount=source=a,target=/a cat /a
            RUN echo later
            ",
        )
        .file("a", "1\n")
        .file("b", "1\n");
    world.build(&context).succeeds();
    context.write("b", "2\n");
    let second = world.build(&context).succeeds();
    second.step_is("RUN --mount=source=a,target=/a cat /a", &State::Cached);

    context.write("a", "2\n");
    let third = world.build(&context).succeeds();
    assert_eq!(third.step("RUN --mount=source=a,target=/a cat /a").log, ["2"]);
}

#[test]
fn a_mount_of_another_path_is_another_step_whatever_else_is_mounted() {
    let cases = [
        (
            "of the stage that is the root",
            "from=deps,source=/a,target=/m",
            "from=deps,source=/b,target=/m",
        ),
        (
            "below another mount",
            "target=/all --mount=source=conf/a,target=/m",
            "target=/all --mount=source=conf/b,target=/m",
        ),
        (
            "exchanged",
            "source=conf/a,target=/m --mount=source=conf/b,target=/n",
            "source=conf/b,target=/m --mount=source=conf/a,target=/n",
        ),
    ];
    let world = World::start();
    let context = Context::new().file("conf/a", "a\n").file("conf/b", "b\n");
    let stage = "FROM busybox AS deps\nRUN echo a > /a && echo b > /b\nFROM deps\n";
    for (rule, one, other) in cases {
        for (mounts, shown) in [(one, "a"), (other, "b")] {
            let step = format!("RUN --mount={mounts} cat /m # {rule}");
            context.write_dockerfile(&format!("{stage}{step}\n"));
            let build = world.build(&context).succeeds();
            assert_eq!(build.step(&step).log, [shown], "{rule}: {}", build.stderr);
        }
    }
}

#[test]
fn a_tmpfs_is_empty_and_gone_afterwards() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN --mount=type=tmpfs,target=/tmp,size=1m grep ' /tmp tmpfs' /proc/mounts && echo x > /tmp/x
        RUN ls -A /tmp
        ",
    );
    let build = world.build(&context).succeeds();
    assert_eq!(build.step("RUN ls -A /tmp").log, <[&str; 0]>::default());
}
