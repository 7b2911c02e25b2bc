//! A disk that fills up.

use std::fs;
use std::path::Path;

use kiln_integration_tests::{Context, Daemon, LayerTar, Registry, SmallDisk, busybox_layer};
use serde_json::json;

#[test]
fn a_step_that_fills_the_disk_fails_clearly_and_the_daemon_goes_on() {
    let registry = Registry::start();
    let disk = SmallDisk::mount(96);
    let daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN echo small > /small
        RUN dd if=/dev/zero of=/large bs=1M count=200
        ",
    );
    daemon.build(&context).fails().says("No space left on device");

    context.write_dockerfile("FROM busybox\nRUN echo small > /small\nRUN cat /small");
    let build = daemon.build(&context).succeeds();
    assert_eq!(build.step("RUN cat /small").log, ["small"]);
}

#[test]
fn an_image_that_does_not_fit_fails_clearly_and_the_daemon_goes_on() {
    let registry = Registry::start();
    let large = LayerTar::new().file("large", 0o644, &vec![0; 150 << 20]).finish();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}});
    registry.push("library/large:latest", &[busybox_layer(), large], &config);
    let disk = SmallDisk::mount(96);
    let daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let context = Context::new().dockerfile("FROM large\nRUN true");
    let build = daemon.build(&context).fails();
    assert!(build.stderr.to_lowercase().contains("no space left on device"), "{}", build.stderr);

    context.write_dockerfile("FROM busybox\nRUN echo fine");
    daemon.build(&context).succeeds();
}

#[test]
fn a_context_that_does_not_fit_fails_clearly_and_the_daemon_goes_on() {
    let registry = Registry::start();
    let disk = SmallDisk::mount(96);
    let daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let context =
        Context::new().dockerfile("FROM busybox\nCOPY large /").file("large", vec![5; 150 << 20]);
    let build = daemon.build(&context).fails();
    assert!(build.stderr.to_lowercase().contains("no space left on device"), "{}", build.stderr);

    context.write("large", "small");
    daemon.build(&context).succeeds();
}

#[test]
fn a_disk_that_is_full_at_any_moment_does_no_lasting_harm() {
    let registry = Registry::start();
    let disk = SmallDisk::mount(64);
    let mut daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let context = Context::new().dockerfile(
        "
        FROM busybox
        COPY data /data
        RUN cat /data /data > /twice
        RUN wc -c < /twice > /size
        ",
    );
    let ballast = disk.path().join("ballast");
    let mut failures = 0;
    // From a disk on which nothing can be written to one on which almost everything fits.
    for free in [0, 20, 100, 500, 1000, 2000, 3500, 5000, 7000, 9000] {
        context.write("data", vec![free as u8; 2 << 20]);
        fill(&ballast, free << 10);
        let build = daemon.build(&context).run();
        if build.code != Some(0) {
            failures += 1;
            let said = build.stderr.to_lowercase();
            assert!(said.contains("no space left on device"), "{free} KB free: {}", build.stderr);
        }
        assert!(daemon.is_alive(), "{free} KB free");
        fs::remove_file(&ballast).expect("ballast");
        // Now there is space: the same daemon builds.
        let build = daemon.build(&context).succeeds();
        assert!(!build.stderr.to_lowercase().contains("no space"), "{free}: {}", build.stderr);
        daemon.kiln().args(["prune", "--all", "--force"]).succeeds();
    }
    assert!(failures > 3, "the disk was full only {failures} times");
    daemon.stop();
    daemon.check(&[]).is_clean();
}

#[test]
fn a_full_disk_keeps_no_daemon_from_starting_and_from_making_space() {
    let registry = Registry::start();
    let disk = SmallDisk::mount(64);
    let mut daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let context = Context::new().dockerfile("FROM busybox\nCOPY data /").file("data", "x");
    for (number, end) in [Daemon::kill as fn(&mut Daemon), Daemon::stop].iter().enumerate() {
        context.write("data", vec![number as u8; 8 << 20]);
        daemon.build(&context).succeeds();
        // It takes care of what it keeps aside every few seconds, and whenever it makes space.
        daemon.kiln().args(["prune", "--force", "--filter", "id=none"]).succeeds();
        let ballast = disk.path().join("ballast");
        end(&mut daemon);
        fill(&ballast, 0);
        daemon.start_again();
        daemon.kiln().args(["prune", "--all", "--force"]).succeeds();
        context.write("data", "small");
        daemon.build(&context).succeeds();
        fs::remove_file(&ballast).expect("ballast");
    }
    daemon.stop();
    daemon.check(&[]).is_clean();
}

/// Writes a file until the disk has no more than `left` bytes.
fn fill(ballast: &Path, left: u64) {
    use std::io::Write as _;
    let mut file = fs::File::create(ballast).expect("ballast");
    let piece = vec![1; 64 << 10];
    while file.write(&piece).is_ok_and(|written| written > 0) {}
    let size = file.metadata().expect("ballast").len();
    file.set_len(size.saturating_sub(left)).expect("ballast");
}
