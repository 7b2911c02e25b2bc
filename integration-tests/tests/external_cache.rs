//! `--cache-to` and `--cache-from`: a builder with an empty disk starts where another ended.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kiln_integration_tests::{Context, Daemon, Registry, World};

const DOCKERFILE: &str = "
    FROM busybox AS build
    COPY source .
    RUN cp -v source /out
    RUN echo not in the image > /note
    FROM busybox
    COPY --from=build /out /out
    RUN wc -c /out > /size
";

fn project() -> Context {
    Context::new().dockerfile(DOCKERFILE).file("source", "content")
}

#[test]
fn an_empty_daemon_hits_every_step_of_a_cache_in_a_registry() {
    let world = World::start();
    let context = project();
    let reference = format!("type=registry,ref={}", world.registry.reference("app:buildcache"));
    world
        .build(&context)
        .args(["--cache-to", &format!("{reference},mode=max")])
        .succeeds()
        .says("exporting cache to registry");

    let second = Daemon::start(&world.registry);
    let build = second
        .build(&context)
        .args(["--cache-from", &reference])
        .args(["--push", "-t", &world.registry.reference("app:latest")])
        .succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
    let image = world.registry.image("app:latest");
    assert_eq!(image.file("out").text(), "content");
    assert_eq!(image.file("size").text(), "7 /out\n");
}

#[test]
fn layers_reach_the_cache_while_later_steps_run() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN echo early > /early
        RUN echo waiting && sleep 1000
        ",
    );
    let cache = format!("type=registry,ref={},mode=max", world.registry.reference("early:cache"));
    let build = world.build(&context).args(["--cache-to", &cache]).start();
    build.until_output("waiting");
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.registry.blobs_in("early") == 0 {
        assert!(Instant::now() < deadline, "nothing arrived");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!world.registry.has("early:cache"), "a cache without its last layers has no name");
}

#[test]
fn an_image_that_holds_its_cache_is_made_anew_from_it_just_as_it_was() {
    let world = World::start();
    let context = project();
    let name = world.registry.reference("app:inline");
    let with_cache = ["--cache-to", "type=inline", "--push", "-t", &name];
    world.build(&context).args(with_cache).succeeds();
    let image = world.registry.image("app:inline");
    assert!(image.config["moby.buildkit.cache.v0"].is_string());

    let second = Daemon::start(&world.registry);
    let build = second.build(&context).args(with_cache).args(["--cache-from", &name]).succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
    assert_eq!(world.registry.image("app:inline").digest, image.digest);
}

#[test]
fn an_image_on_top_of_one_that_holds_its_cache_does_not_hold_it_too() {
    let world = World::start();
    let base = world.registry.reference("base:1");
    let inline = ["--build-arg", "BUILDKIT_INLINE_CACHE=1", "--push", "-t", &base];
    world.build(&project()).args(inline).succeeds();
    assert!(world.registry.image("base:1").config["moby.buildkit.cache.v0"].is_string());
    let context = Context::new().dockerfile(&format!("FROM {base}\nRUN true\n"));
    let image = world.image(&context);
    assert!(image.config["moby.buildkit.cache.v0"].is_null());
}

#[test]
fn the_step_after_the_cached_ones_runs_on_what_the_cache_holds() {
    let world = World::start();
    let context = project();
    let reference = format!("type=registry,ref={}", world.registry.reference("app:buildcache"));
    world.build(&context).args(["--cache-to", &format!("{reference},mode=max")]).succeeds();

    let second = Daemon::start(&world.registry);
    context.write_dockerfile(&DOCKERFILE.replace("> /size", "> /size && cat /size"));
    let build = second.build(&context).args(["--cache-from", &reference]).succeeds();
    assert_eq!(build.step("RUN cp -v source /out").log, <[&str; 0]>::default());
    assert_eq!(build.step("RUN wc -c /out > /size && cat /size").log, ["7 /out"]);
}

#[test]
fn mode_min_holds_the_steps_of_the_result_and_mode_max_all_of_them() {
    let world = World::start();
    let context = project();
    for (mode, output) in [("min", &["'source' -> '/out'"][..]), ("max", &[])] {
        let reference = format!("type=registry,ref={}", world.registry.reference(mode));
        let cache = format!("{reference},mode={mode}");
        world.build(&context).args(["--cache-to", &cache]).succeeds();

        let second = Daemon::start(&world.registry);
        // A change at the end of the first stage makes the daemon look for the steps before it.
        context.write_dockerfile(&DOCKERFILE.replace("/note", "/note2"));
        let build =
            second.build(&context).args(["--cache-from", &reference, "--target=build"]).succeeds();
        assert_eq!(build.step("RUN cp -v source /out").log, output, "mode={mode}");
        context.write_dockerfile(DOCKERFILE);
    }
}

#[test]
fn of_several_caches_each_may_help_and_a_missing_one_does_not_hurt() {
    let world = World::start();
    let reference = |name: &str| format!("type=registry,ref={}", world.registry.reference(name));
    for name in ["one", "two"] {
        let part =
            Context::new().dockerfile(&format!("FROM busybox\nRUN echo {name} | tee /{name}"));
        let cache = format!("{},mode=max", reference(name));
        world.build(&part).args(["--cache-to", &cache]).succeeds();
    }
    let both = Context::new().dockerfile(
        "
        FROM busybox AS one
        RUN echo one | tee /one
        FROM busybox AS two
        RUN echo two | tee /two
        FROM scratch
        COPY --from=one /one /
        COPY --from=two /two /
        ",
    );
    let second = Daemon::start(&world.registry);
    let build = second
        .build(&both)
        .args(["--cache-from", &reference("one"), "--cache-from", &reference("two")])
        .args(["--cache-from", &reference("missing")])
        .succeeds();
    // Steps whose content had to be fetched may show that instead of CACHED; what they must not
    // show is output, for they did not run.
    for step in ["RUN echo one | tee /one", "RUN echo two | tee /two"] {
        assert_eq!(build.step(step).log, <[&str; 0]>::default(), "{}", build.stderr);
    }
}

#[test]
fn a_cache_in_a_folder_serves_an_empty_daemon() {
    let world = World::start();
    let context = project();
    let folder = Context::new();
    let cache = folder.at("cache").display().to_string();
    world
        .build(&context)
        .args(["--cache-to", &format!("type=local,dest={cache},mode=max")])
        .succeeds();
    assert!(folder.at("cache/index.json").is_file());

    let second = Daemon::start(&world.registry);
    let build = second
        .build(&context)
        .args(["--cache-from", &format!("type=local,src={cache}")])
        .succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
}

#[test]
fn a_cache_with_half_a_layer_is_exported_again_all_the_same() {
    let world = World::start();
    let context = project();
    let folder = Context::new();
    let to = |name: &str| format!("type=local,dest={},mode=max", folder.at(name).display());
    let from = |name: &str| format!("type=local,src={}", folder.at(name).display());
    let uncompressed = format!("{},compression=uncompressed", to("first"));
    world.build(&context).args(["--cache-to", &uncompressed]).succeeds();
    // Of a step whose files no later step needs.
    let notes: Vec<_> = std::fs::read_dir(folder.at("first/blobs/sha256"))
        .unwrap()
        .map(|blob| blob.unwrap().path())
        .filter(|blob| std::fs::read(blob).unwrap().starts_with(b"note\0"))
        .collect();
    let [note] = notes.as_slice() else { panic!("{notes:?}") };
    std::fs::write(note, "note").unwrap();

    let second = Daemon::start(&world.registry);
    second
        .build(&context)
        .args(["--cache-from", &from("first"), "--cache-to", &to("second")])
        .succeeds();
    let third = Daemon::start(&world.registry);
    let build = third.build(&context).args(["--cache-from", &from("second")]).succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
}

#[test]
fn a_cache_in_a_folder_can_be_reset_to_what_the_last_build_has_put_there() {
    let world = World::start();
    let context = project();
    let folder = Context::new();
    let to = |name: &str| format!("type=local,dest={},mode=max", folder.at(name).display());
    let blobs = |name: &str| {
        let blobs = std::fs::read_dir(folder.at(&format!("{name}/blobs/sha256"))).unwrap();
        blobs.map(|blob| blob.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    world.build(&context).args(["--cache-to", &to("kept"), "--cache-to", &to("reset")]).succeeds();
    context.write_dockerfile("FROM busybox\nRUN echo other > /other");
    world
        .build(&context)
        .args(["--cache-to", &to("kept"), "--cache-to", &format!("{},reset=true", to("reset"))])
        .args(["--cache-to", &to("new")])
        .succeeds();
    assert_eq!(blobs("reset"), blobs("new"));
    assert!(blobs("kept").is_superset(&blobs("new")) && blobs("kept") != blobs("new"));

    let second = Daemon::start(&world.registry);
    let import = format!("type=local,src={}", folder.at("reset").display());
    let build = second.build(&context).args(["--cache-from", &import]).succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
}

#[test]
fn a_cache_that_is_gone_costs_time_and_not_the_build() {
    let world = World::start();
    let cache = Registry::start();
    let context = project();
    let reference = format!("type=registry,ref={}", cache.reference("app:buildcache"));
    world.build(&context).args(["--cache-to", &format!("{reference},mode=max")]).succeeds();

    // It knows results now whose files it has not fetched, and cannot any more.
    let second = Daemon::start(&world.registry);
    second.build(&context).args(["--cache-from", &reference]).succeeds();
    drop(cache);
    context.write_dockerfile(&DOCKERFILE.replace("> /size", "> /size && cat /size"));
    let build = second.build(&context).succeeds();
    assert_eq!(build.step("RUN wc -c /out > /size && cat /size").log, ["7 /out"]);
}

#[test]
fn a_folder_that_is_not_named_again_is_not_asked_for_what_it_had() {
    let world = World::start();
    let context = project();
    let folder = Context::new();
    let cache = folder.at("cache").display().to_string();
    let export = format!("type=local,dest={cache},mode=max");
    world.build(&context).args(["--cache-to", &export]).succeeds();

    let second = Daemon::start(&world.registry);
    let import = format!("type=local,src={cache}");
    second.build(&context).args(["--cache-from", &import]).succeeds();
    context.write_dockerfile(&DOCKERFILE.replace("> /size", "> /size && cat /size"));
    let build = second.build(&context).succeeds();
    assert_eq!(build.step("RUN wc -c /out > /size && cat /size").log, ["7 /out"]);
}

#[test]
fn a_build_without_cache_still_makes_one_for_others() {
    let world = World::start();
    let context = project();
    let reference = format!("type=registry,ref={}", world.registry.reference("app:buildcache"));
    let export = format!("{reference},mode=max");
    world.build(&context).succeeds();
    world.build(&context).args(["--no-cache", "--cache-to", &export]).succeeds();

    let second = Daemon::start(&world.registry);
    let build = second.build(&context).args(["--cache-from", &reference]).succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
}

#[test]
fn an_unknown_attribute_of_a_cache_is_refused_by_name() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN true");
    let reference = world.registry.reference("app:buildcache");
    for (attribute, says) in [("colour=red", "colour"), ("mode=most", "most")] {
        let cache = format!("type=registry,ref={reference},{attribute}");
        world.build(&context).args(["--cache-to", &cache]).fails().says(says);
    }
}

#[test]
fn a_failed_cache_export_fails_the_build_and_names_the_cache() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN true");
    world
        .build(&context)
        .args(["--cache-to", "type=registry,ref=127.0.0.1:1/no/registry"])
        .fails()
        .says("127.0.0.1:1");
}
