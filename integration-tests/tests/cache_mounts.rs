//! `RUN --mount=type=cache`.

use kiln_integration_tests::{Context, State, World};

#[test]
fn what_a_step_leaves_in_a_cache_mount_is_there_for_the_next_build() {
    let world = World::start();
    let context = |line: &str| {
        Context::new().dockerfile(&format!(
            "FROM busybox\n\
             RUN --mount=type=cache,target=/root/.cache echo {line} >> /root/.cache/log; cat /root/.cache/log"
        ))
    };
    world.build(&context("one")).succeeds();
    let (second, image) = world.pushed("cached", world.build(&context("two")));
    second.says(" one\n").says(" two\n");
    assert!(!image.has("root/.cache/log"), "the cache is not part of the image");
}

#[test]
fn a_cache_mount_keeps_what_a_failed_step_has_put_there() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c echo kept > /c/file && false");
    world.build(&context).fails();
    context.write_dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c cat /c/file");
    world.build(&context).succeeds().says(" kept\n");
}

#[test]
fn a_step_without_cache_does_not_see_what_earlier_builds_left() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        ARG NAME
        RUN --mount=type=cache,target=/c touch /c/$NAME && ls /c
        ",
    );
    let listed = |name: &str, flags: &[&str]| {
        let argument = format!("NAME={name}");
        let build = world.build(&context).args(["--build-arg", &argument]).args(flags).succeeds();
        build.step(&format!("RUN --mount=type=cache,target=/c touch /c/{name} && ls /c")).log
    };
    assert_eq!(listed("one", &[]), ["one"]);
    assert_eq!(listed("two", &["--no-cache"]), ["two"]);
    assert_eq!(listed("three", &[]), ["three", "two"]);
}

#[test]
fn the_content_of_a_cache_mount_is_no_part_of_the_key() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN --mount=type=cache,target=/c cat /c/file || true
        ",
    );
    world.build(&context).succeeds();
    let writer = Context::new()
        .dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c echo new > /c/file");
    world.build(&writer).succeeds();
    let again = world.build(&context).succeeds();
    again.step_is("RUN --mount=type=cache,target=/c cat /c/file || true", &State::Cached);
}

#[test]
fn the_id_names_the_cache_and_the_target_is_the_default_id() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN --mount=type=cache,id=shared,target=/a echo shared > /a/file
        RUN --mount=type=cache,id=shared,target=/b cat /b/file
        RUN --mount=type=cache,target=/a ls -A /a
        ",
    );
    let build = world.build(&context).succeeds();
    assert_eq!(
        build.step("RUN --mount=type=cache,id=shared,target=/b cat /b/file").log,
        ["shared"]
    );
    assert_eq!(build.step("RUN --mount=type=cache,target=/a ls -A /a").log, <[&str; 0]>::default());
}

#[test]
fn a_locked_cache_is_used_by_one_step_at_a_time() {
    let world = World::start();
    // A step that finds the mark of the other fails.
    let step = "RUN --mount=type=cache,target=/c,sharing=locked \
                mkdir /c/busy && sleep 0.5 && rmdir /c/busy && touch";
    let context = Context::new().dockerfile(&format!(
        "
        FROM busybox AS one
        {step} /one
        FROM busybox AS two
        {step} /two
        FROM scratch
        COPY --from=one /one /
        COPY --from=two /two /
        "
    ));
    world.build(&context).succeeds();
}

#[test]
fn one_cache_at_two_targets_of_a_step_is_the_same_there_in_every_mode() {
    let world = World::start();
    for sharing in ["shared", "private", "locked"] {
        let mount =
            |target: &str| format!("--mount=type=cache,id=c,target={target},sharing={sharing}");
        let context = Context::new().dockerfile(&format!(
            "FROM busybox\nRUN {} {} echo {sharing} > /a/file && test \"$(cat /b/file)\" = {sharing}",
            mount("/a"),
            mount("/b"),
        ));
        world.build(&context).succeeds();
    }
}

#[test]
fn steps_that_lock_the_same_caches_in_another_order_do_not_wait_for_ever() {
    let world = World::start();
    let locked = |id: &str, target: &str| {
        format!("--mount=type=cache,id={id},target={target},sharing=locked")
    };
    let step = |first: &str, second: &str, file: &str| {
        format!("RUN {} {} touch {file}", locked(first, "/a"), locked(second, "/b"))
    };
    let mut dockerfile = String::new();
    let mut last = String::from("FROM scratch\n");
    for number in 0..10 {
        let ids = if number % 2 == 0 { ("x", "y") } else { ("y", "x") };
        dockerfile +=
            &format!("FROM busybox AS s{number}\n{}\n", step(ids.0, ids.1, &format!("/{number}")));
        last += &format!("COPY --from=s{number} /{number} /\n");
    }
    world.build(&Context::new().dockerfile(&(dockerfile + &last))).succeeds();
}

#[test]
fn private_caches_are_not_shared_by_steps_that_run_at_once() {
    let world = World::start();
    let step = "RUN --mount=type=cache,target=/c,sharing=private \
                test ! -e /c/busy && touch /c/busy && sleep 0.5 && rm /c/busy && touch";
    let context = Context::new().dockerfile(&format!(
        "
        FROM busybox AS one
        {step} /one
        FROM busybox AS two
        {step} /two
        FROM scratch
        COPY --from=one /one /
        COPY --from=two /two /
        "
    ));
    world.build(&context).succeeds();
}

#[test]
fn a_cache_starts_with_the_files_owner_and_mode_that_are_asked_for() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM scratch AS seed
            COPY seed /from/seed
            FROM busybox
            RUN --mount=type=cache,target=/s,from=seed,source=/from cat /s/seed
            RUN --mount=type=cache,target=/o,uid=1000,gid=1001,mode=0750 stat -c '%u %g %a' /o
            ",
        )
        .file("seed", "seeded\n");
    world.build(&context).succeeds().says(" seeded\n").says(" 1000 1001 750\n");
}

#[test]
fn what_is_written_to_a_seeded_cache_does_not_change_the_seed() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS seed
        RUN mkdir /from && echo seeded > /from/file
        FROM busybox AS writer
        RUN --mount=type=cache,target=/c,from=seed,source=/from echo changed >> /c/file && echo 1 > /done
        FROM seed
        COPY --from=writer /done /
        RUN cat /from/file
        ",
    );
    let build = world.build(&context).succeeds();
    assert_eq!(build.step("RUN cat /from/file").log, ["seeded"]);
}

#[test]
fn a_read_only_cache_cannot_be_written() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,ro touch /c/file");
    world.build(&context).fails().says("Read-only file system");
}

#[test]
fn a_cache_that_two_steps_want_at_once_is_there_for_both() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS a
        RUN --mount=type=cache,target=/c touch /c/a
        FROM busybox AS b
        RUN --mount=type=cache,target=/c touch /c/b
        FROM scratch
        COPY --from=a /etc/passwd /a
        COPY --from=b /etc/passwd /b
        ",
    );
    // Each round begins without it.
    for _ in 0..8 {
        world.build(&context).arg("--no-cache").succeeds();
    }
}
