//! `--build-context`.

use kiln_integration_tests::{Context, World};

#[test]
fn a_folder_of_another_name_is_copied_from() {
    let world = World::start();
    let docs = Context::new()
        .file("manual", "read me\n")
        .file(".dockerignore", "draft\n")
        .file("draft", "");
    let context = Context::new().dockerfile(
        "
        FROM busybox
        COPY --from=docs . /docs
        RUN --mount=from=docs,target=/mnt cat /mnt/manual
        ",
    );
    let named = format!("docs={}", docs.path().display());
    let (build, image) =
        world.pushed("named", world.build(&context).args(["--build-context", &named]));
    build.says(" read me\n");
    assert!(image.has("docs/manual"));
}

#[test]
fn an_image_of_another_name_replaces_a_base() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM example.invalid/base\nRUN echo replaced");
    let build = world
        .build(&context)
        .args(["--build-context", "example.invalid/base=docker-image://busybox"])
        .succeeds();
    assert_eq!(build.step("RUN echo replaced").log, ["replaced"]);
}

#[test]
fn an_oci_layout_serves_as_a_base() {
    let world = World::start();
    let layout = Context::new();
    let parent = Context::new().dockerfile("FROM busybox\nRUN echo from a layout > /where");
    world
        .build(&parent)
        .args(["--output", &format!("type=oci,tar=false,dest={}", layout.at("oci").display())])
        .succeeds();
    let context = Context::new().dockerfile("FROM base\nRUN cat /where");
    let named = format!("base=oci-layout://{}", layout.at("oci").display());
    let build = world.build(&context).args(["--build-context", &named]).succeeds();
    assert_eq!(build.step("RUN cat /where").log, ["from a layout"]);
}
