//! Restarts and crashes of the daemon.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kiln_integration_tests::{
    Context, State, World, ends_within, mounts_below, processes_with, work_directories,
};

#[test]
fn a_restarted_daemon_still_has_its_cache() {
    let mut world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nWORKDIR /w\nCOPY file .\nRUN cp file copy")
        .file("file", "content");
    let first = world.image(&context);
    world.daemon.stop();
    world.daemon.start_again();
    let (build, second) = world.pushed("again", world.build(&context));
    assert_eq!(build.cached(), ["WORKDIR /w", "COPY file .", "RUN cp file copy"]);
    assert_eq!(first.digest, second.digest);
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_of_a_build_loses_that_step_only() {
    let mut world = World::start();
    let context = Context::new()
        .dockerfile(
            "FROM busybox\nCOPY file /file\nRUN echo one > /one\nRUN echo started; sleep 7201.5",
        )
        .file("file", vec![1; 1 << 20]);
    let build = world.build(&context).start();
    build.until_output("started");
    let step = processes_with("7201.5");
    assert!(!step.is_empty());
    world.daemon.kill();
    assert_ne!(build.finish().code, Some(0));
    for process in step {
        assert!(ends_within(process, Duration::from_secs(10)), "the step outlives the daemon");
    }

    world.daemon.start_again();
    context.write_dockerfile("FROM busybox\nCOPY file /file\nRUN echo one > /one\nRUN cat /one");
    let build = world.build(&context).succeeds();
    assert_eq!(build.cached(), ["COPY file /file", "RUN echo one > /one"]);
    build.step_is("RUN cat /one", &State::Done);
    assert_eq!(world.image(&context).file("one").text(), "one\n");

    world.daemon.stop();
    assert_eq!(mounts_below(world.daemon.root()), <[&str; 0]>::default());
}

#[test]
fn no_moment_of_a_build_is_a_bad_one_to_be_killed_at() {
    let mut world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox AS tools
            RUN mkdir /t && for i in $(seq 200); do echo $i > /t/$i; done
            FROM busybox
            COPY --from=tools /t /t
            COPY data /data
            RUN cat /t/* | wc -l > /lines
            ",
        )
        .file("data", vec![3; 4 << 20]);
    for moment in [
        "load build definition",
        "[internal] load build context",
        "RUN mkdir /t",
        "COPY data /data",
        "exporting layers",
        "pushing layers",
    ] {
        let name = world.registry.reference("killed");
        let build = world.build(&context).args(["--push", "-t", &name]).start();
        build.until(moment);
        world.daemon.kill();
        build.finish();
        world.daemon.start_again();
        // Something new in every round, so that each moment happens in each of them.
        context.write("data", format!("{moment}{}", "x".repeat(4 << 20)));
    }
    assert_eq!(world.image(&context).file("lines").text(), "200\n");

    world.daemon.forget_builds();
    world.kiln().args(["prune", "--all", "--force"]).succeeds();
    world.daemon.stop();
    for kind in ["snapshots", "blobs/sha256", "tmp"] {
        let folder = world.daemon.root().join(kind);
        let left: Vec<_> = fs::read_dir(&folder).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{} has {left:?} after everything was pruned", folder.display());
    }
    assert_eq!(mounts_below(world.daemon.root()), <[&str; 0]>::default());
}

#[test]
fn what_only_writing_a_layer_needed_is_gone_after_a_stop_even_if_a_kill_came_before() {
    let mut world = World::start();
    let context = Context::new();
    let mut left = Vec::new();
    // The daemon may just have done it by itself.
    for round in 0..10 {
        context.write_dockerfile(&format!("FROM busybox\nRUN rm /bin/ls; echo {round} > /one"));
        world.build(&context).succeeds();
        world.daemon.kill();
        left = work_directories(world.daemon.root());
        world.daemon.start_again();
        if !left.is_empty() {
            break;
        }
    }
    assert!(!left.is_empty(), "there is always time to remove it before a kill");
    world.daemon.stop();
    assert_eq!(work_directories(world.daemon.root()), <[&Path; 0]>::default());

    world.daemon.start_again();
    let (build, image) = world.pushed("again", world.build(&context));
    assert_eq!(build.cached().len(), 1, "{}", build.stderr);
    assert_eq!(image.file("one").text().len(), 2);
}

#[test]
fn a_root_has_one_daemon() {
    let mut world = World::start();
    let other = kiln_integration_tests::Process::spawn(
        std::process::Command::new(kiln_integration_tests::kilnd())
            .arg("--root")
            .arg(world.daemon.root())
            .args(["--addr", "unix:///tmp/kiln-second-daemon.sock"])
            .stderr(std::process::Stdio::null()),
    )
    .wait_within(Duration::from_secs(20));
    assert!(other.is_some_and(|status| !status.success()), "{other:?}");
    assert!(world.daemon.is_alive());
    world.daemon.stop();
}

#[test]
fn rows_without_their_data_are_dropped_and_rebuilt() {
    let mut world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY file /file\nRUN wc -c /file")
        .file("file", "content");
    world.image(&context);
    world.daemon.stop();
    for kind in ["snapshots", "blobs"] {
        fs::remove_dir_all(world.daemon.root().join(kind)).expect("data of the daemon");
    }
    world.daemon.start_again();
    assert_eq!(world.image(&context).file("file").text(), "content");
}
