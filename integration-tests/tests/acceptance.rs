//! Other tools take what Kiln makes.

use std::fs;

use kiln_integration_tests::{Context, World, tool};
use serde_json::Value;

fn project() -> Context {
    Context::new()
        .dockerfile(
            "
            FROM busybox
            RUN mkdir /data && echo gone > /data/gone && echo kept > /data/kept
            RUN rm /data/gone && chown 7:8 /data/kept
            COPY greeting /greeting
            CMD [\"cat\", \"/greeting\", \"/data/kept\"]
            ",
        )
        .file("greeting", "hello\n")
}

#[test]
fn skopeo_reads_and_copies_a_pushed_image() {
    let world = World::start();
    world.pushed("app:1", world.build(&project()));
    let reference = format!("docker://{}", world.registry.reference("app:1"));
    let json = tool("skopeo", &["inspect", "--tls-verify=false", &reference]);
    let found: Value = serde_json::from_str(&json).expect("skopeo's JSON");
    assert_eq!(found["Os"], "linux");
    assert_eq!(found["Layers"].as_array().map(Vec::len), Some(4));

    let out = Context::new();
    let dest = format!("dir:{}", out.at("copy").display());
    tool("skopeo", &["copy", "--src-tls-verify=false", &reference, &dest]);
    let archive = format!("docker-archive:{}:app:1", out.at("docker.tar").display());
    tool("skopeo", &["copy", "--src-tls-verify=false", &reference, &archive]);
}

#[test]
fn skopeo_reads_both_archives() {
    let world = World::start();
    let out = Context::new();
    for (kind, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let file = out.at(kind).display().to_string();
        world
            .build(&project())
            .args(["-t", "example.com/app:1", "--output", &format!("type={kind},dest={file}")])
            .succeeds();
        let config = tool("skopeo", &["inspect", "--config", &format!("{transport}:{file}")]);
        let config: Value = serde_json::from_str(&config).expect("skopeo's JSON");
        assert_eq!(config["config"]["Cmd"][1], "/greeting");
    }
}

#[test]
fn umoci_unpacks_the_image_and_runc_runs_it() {
    let world = World::start();
    let out = Context::new();
    let layout = out.at("oci").display().to_string();
    world
        .build(&project())
        .args(["-t", "app:1", "--output", &format!("type=oci,tar=false,dest={layout}")])
        .succeeds();
    let index: Value = serde_json::from_str(&out.read("oci/index.json")).expect("index");
    let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        .as_str()
        .expect("the tag of the image in its layout")
        .to_owned();

    let bundle = out.at("bundle").display().to_string();
    tool("umoci", &["unpack", "--image", &format!("{layout}:{tag}"), &bundle]);
    assert_eq!(out.read("bundle/rootfs/data/kept"), "kept\n");
    assert!(!out.at("bundle/rootfs/data/gone").exists());
    let owner = fs::metadata(out.at("bundle/rootfs/data/kept")).expect("file");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 7);

    // umoci asks for a terminal, which a test has not.
    let mut config: Value = serde_json::from_str(&out.read("bundle/config.json")).expect("config");
    config["process"]["terminal"] = Value::Bool(false);
    out.write("bundle/config.json", config.to_string());
    let root = out.at("runc").display().to_string();
    let id = format!("kiln-test-{}", std::process::id());
    let said = tool("runc", &["--root", &root, "run", "--bundle", &bundle, &id]);
    assert_eq!(said, "hello\nkept\n");
}
