//! A disk that fills up.

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
