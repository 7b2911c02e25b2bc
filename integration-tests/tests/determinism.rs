//! The same input gives the same image.

use kiln_integration_tests::{Context, Daemon, World};

#[test]
fn a_cached_build_gives_the_same_image_again() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM busybox\nRUN date +%N > /now\nCMD [\"cat\", \"/now\"]");
    let first = world.image(&context);
    let second = world.image(&context);
    assert_eq!(first.digest, second.digest);
}

#[test]
fn copied_files_give_the_same_layer_on_every_daemon() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM scratch\nCOPY tree /tree\nCOPY --chown=5:6 --chmod=700 tree/sub/two /")
        .file("tree/one", vec![1; 100_000])
        .file("tree/sub/two", "2")
        .symlink("tree/link", "sub/two")
        .dir("tree/empty");
    let first = world.image(&context);
    let other = Daemon::start(&world.registry);
    other.build(&context).args(["--push", "-t", &world.registry.reference("other")]).succeeds();
    let second = world.registry.image("other");
    assert_eq!(first.layers, second.layers);
}

#[test]
fn an_unpacked_and_repacked_layer_is_the_layer_that_was_pulled() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nCOPY Dockerfile /");
    let image = world.image(&context);
    let base = world.registry.image("library/busybox:latest");
    assert_eq!(image.layers[0].digest, base.layers[0].digest);
}
