//! Where a result can go.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use kiln_integration_tests::{Context, World, docker_archive, oci_archive, unpack_archive};
use serde_json::Value;

fn project() -> Context {
    Context::new()
        .dockerfile(
            "
            FROM scratch
            COPY greeting /etc/greeting
            COPY --chmod=0755 tool /bin/
            CMD [\"/bin/tool\"]
            ",
        )
        .file("greeting", "hello\n")
        .file("tool", "#!/bin/sh\n")
}

#[test]
fn an_oci_layout_as_a_file() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    let dest = out.at("image.tar");
    world
        .build(&context)
        .args(["-t", "example.com/app:1", "--output"])
        .arg(format!("type=oci,dest={}", dest.display()))
        .succeeds();
    let image = oci_archive(&fs::read(dest).expect("archive"));
    assert_eq!(image.file("etc/greeting").text(), "hello\n");
    assert_eq!(image.config["config"]["Cmd"][0], "/bin/tool");
    assert_eq!(image.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    image.diff_ids();
}

#[test]
fn an_archive_that_docker_load_takes() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    let dest = out.at("image.tar");
    world
        .build(&context)
        .args(["-t", "example.com/app:1", "--output"])
        .arg(format!("type=docker,dest={}", dest.display()))
        .succeeds();
    let image = docker_archive(&fs::read(dest).expect("archive"));
    assert_eq!(image.file("etc/greeting").text(), "hello\n");
    assert_eq!(image.manifest["RepoTags"][0], "example.com/app:1");
    image.diff_ids();
}

#[test]
fn a_folder_of_files_by_the_short_form() {
    let world = World::start();
    let out = Context::new();
    world.build(&project()).arg("-o").arg(out.at("rootfs")).succeeds();
    assert_eq!(out.read("rootfs/etc/greeting"), "hello\n");
    let mode = fs::metadata(out.at("rootfs/bin/tool")).expect("file").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o755);
}

#[test]
fn a_tar_of_files_on_standard_output() {
    let world = World::start();
    let build = world.build(&project()).args(["-o", "-"]).succeeds();
    let files = unpack_archive(&build.stdout);
    assert_eq!(files["etc/greeting"], b"hello\n");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["bin/tool", "etc/greeting"]);
}

#[test]
fn a_tar_of_files_as_a_file() {
    let world = World::start();
    let out = Context::new();
    let output = format!("type=tar,dest={}", out.at("files.tar").display());
    world.build(&project()).args(["--output", &output]).succeeds();
    let files = unpack_archive(&fs::read(out.at("files.tar")).expect("archive"));
    assert_eq!(files["etc/greeting"], b"hello\n");
}

#[test]
fn an_image_is_pushed_under_each_of_its_names() {
    let world = World::start();
    let names = ["app:1", "app:latest", "team/app:main"];
    let context = project();
    let mut build = world.build(&context).arg("--push");
    for name in names {
        build = build.args(["-t", &world.registry.reference(name)]);
    }
    build.succeeds().says("pushing manifest for");
    let first = world.registry.image(names[0]);
    assert_eq!(first.file("etc/greeting").text(), "hello\n");
    for name in names {
        assert_eq!(world.registry.image(name).digest, first.digest);
    }
}

#[test]
fn the_long_form_of_push_is_an_output_of_type_image() {
    let world = World::start();
    let name = world.registry.reference("app:long");
    let output = format!("type=image,name={name},push=true");
    world.build(&project()).args(["--output", &output]).succeeds();
    assert_eq!(world.registry.image("app:long").file("etc/greeting").text(), "hello\n");
}

#[test]
fn several_outputs_come_from_one_build() {
    let world = World::start();
    let out = Context::new();
    world
        .build(&project())
        .args(["--output", &format!("type=local,dest={}", out.at("files").display())])
        .args(["--output", &format!("type=oci,dest={}", out.at("image.tar").display())])
        .succeeds();
    assert_eq!(out.read("files/etc/greeting"), "hello\n");
    oci_archive(&fs::read(out.at("image.tar")).expect("archive"));
}

#[test]
fn the_iidfile_and_the_metadata_file_say_what_was_built() {
    let world = World::start();
    let out = Context::new();
    let name = world.registry.reference("app:meta");
    world
        .build(&project())
        // With provenance what is pushed is an index, which has no config.
        .args(["--provenance=false", "--push", "-t", &name, "--iidfile"])
        .arg(out.at("iid"))
        .arg("--metadata-file")
        .arg(out.at("meta.json"))
        .succeeds();
    let image = world.registry.image("app:meta");
    let meta: Value = serde_json::from_str(&out.read("meta.json")).expect("metadata");
    let config = image.manifest["config"]["digest"].as_str().expect("digest");
    assert_eq!(meta["containerimage.digest"], image.digest);
    assert_eq!(meta["containerimage.config.digest"], config);
    assert_eq!(meta["containerimage.descriptor"]["digest"], image.digest);
    assert_eq!(meta["image.name"], name);
    // What `docker build --iidfile` means: the image's id, that is its config's digest.
    assert_eq!(out.read("iid"), config);
}

#[test]
fn a_push_to_a_registry_that_is_not_there_is_an_error_that_names_it() {
    let world = World::start();
    world.build(&project()).args(["--push", "-t", "127.0.0.1:1/app"]).fails().says("127.0.0.1:1");
}

#[test]
fn a_folder_gets_links_and_modes_as_the_image_has_them() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS build
        RUN mkdir -p /out/sub && echo x > /out/sub/file && chmod 640 /out/sub/file \
            && ln -s sub/file /out/link && ln /out/sub/file /out/hard && mkdir /out/empty
        FROM scratch
        COPY --from=build /out /
        ",
    );
    let out = Context::new();
    world.build(&context).arg("-o").arg(out.at("x")).succeeds();
    assert_eq!(fs::read_link(out.at("x/link")).expect("link").to_string_lossy(), "sub/file");
    assert_eq!(out.read("x/hard"), "x\n");
    assert!(out.at("x/empty").is_dir());
    let stat = |path: &str| fs::metadata(out.at(path)).expect("file");
    assert_eq!(stat("x/sub/file").mode() & 0o777, 0o640);
    assert_eq!(stat("x/sub/file").ino(), stat("x/hard").ino());
}

#[test]
fn an_image_of_many_layers_is_packed_with_few_open_files() {
    let world = World::start();
    let limit = Command::new("prlimit")
        .args(["--pid", &world.daemon.id().to_string(), "--nofile=400:400"])
        .status()
        .expect("prlimit");
    assert!(limit.success());
    let steps = (0..60).map(|nth| format!("\nRUN : {nth}")).collect::<Vec<_>>().concat();
    let context = Context::new().dockerfile(&format!("FROM busybox{steps}"));
    let (_, image) = world.pushed("app:1", world.build(&context));
    assert!(image.has("bin/busybox"));
}
