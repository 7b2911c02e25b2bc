//! A disk that answers with I/O errors, and one on which single writes fail.

use kiln_integration_tests::{Context, Daemon, FailingDisk, Registry, World};

fn context() -> Context {
    Context::new()
        .dockerfile(
            "FROM busybox\nCOPY data /data\nRUN cat /data /data > /twice\nRUN md5sum /twice",
        )
        .file("data", "data\n".repeat(10_000))
}

#[test]
fn a_write_that_fails_is_told_and_the_next_build_is_right() {
    let mut world = World::start();
    let context = context();
    let expected = world.image(&context).contents();
    world.daemon.stop();
    let mut failures = 0;
    for point in [1, 2, 4, 7, 12, 20, 30, 45, 70] {
        for error in ["EIO", "ENOSPC"] {
            // One write, or this one and all that come soon after it.
            let last = if error == "EIO" { point } else { point + 40 };
            if !world.daemon.starts_with_fault(&format!("{error}:{point}-{last}")) {
                continue;
            }
            context.write("data", format!("{error} {point}\n"));
            let name = world.registry.reference("faults:1");
            let build = world.build(&context).args(["--push", "-t", &name]).run();
            if build.code != Some(0) {
                failures += 1;
                let why = if error == "EIO" { "Input/output error" } else { "No space left" };
                assert!(build.stderr.contains(why), "{error} at {point}: {}", build.stderr);
            }
            assert!(world.daemon.is_alive(), "{error} at {point}");
            context.write("data", "data\n".repeat(10_000));
            // What failed is behind it, or fails once more; then it is.
            let fine = (0..60).any(|_| {
                let name = world.registry.reference("faults:2");
                world.build(&context).args(["--push", "-t", &name]).run().code == Some(0)
            });
            assert!(fine, "{error} at {point} never ends");
            assert_eq!(world.registry.image("faults:2").contents(), expected);
            world.daemon.stop();
            world.daemon.check(&[]).is_clean();
        }
    }
    assert!(failures > 3, "only {failures} builds met a failure");
    world.daemon.start_again();
}

#[test]
fn a_disk_that_loses_a_part_of_itself_does_not_stop_the_daemon_for_good() {
    let registry = Registry::start();
    let disk = FailingDisk::mount(160);
    let mut daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let context = context();
    let build = |daemon: &Daemon, name: &str| {
        let target = registry.reference(name);
        daemon.build(&context).args(["--push", "-t", &target]).run()
    };
    assert_eq!(build(&daemon, "disk:first").code, Some(0));
    let expected = registry.image("disk:first").contents();
    for (round, megabytes) in [120, 60, 24, 10].into_iter().enumerate() {
        context.write("data", format!("{round}\n").repeat(200_000));
        disk.fail_after(megabytes);
        // It may or may not need what is lost; what it makes is right.
        let name = format!("disk:{round}");
        let outcome = build(&daemon, &name);
        if outcome.code == Some(0) {
            let image = registry.image(&name);
            assert_eq!(image.file("data").contents.len(), 400_000);
        }
        daemon.kill();
        disk.mend();
        daemon.start_again();
        context.write("data", "data\n".repeat(10_000));
        // What was lost of layers nobody can tell, unless by a check.
        daemon.stop();
        let checked = daemon.check(&["--repair"]);
        assert_eq!(checked.code, Some(0), "{}\n{}", checked.text, checked.log);
        daemon.check(&[]).is_clean();
        daemon.start_again();
        let outcome = build(&daemon, "disk:again");
        assert_eq!(outcome.code, Some(0), "{}\n{}", outcome.stderr, daemon.log());
        assert_eq!(registry.image("disk:again").contents(), expected);
    }
    daemon.stop();
}
