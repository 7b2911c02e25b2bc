//! What instructions leave in an image's configuration and history.

use kiln_integration_tests::{Context, World};
use serde_json::{Value, json};

#[test]
fn every_instruction_leaves_its_mark() {
    let world = World::start();
    let context = Context::new().dockerfile(
        r#"
        FROM busybox
        LABEL org.example.one="1" two=2
        ENV GREETING="hello world" PATH=/usr/bin:$PATH
        WORKDIR /srv
        WORKDIR app
        EXPOSE 80 443/udp
        USER user:user
        STOPSIGNAL SIGQUIT
        HEALTHCHECK --interval=5s --retries=3 CMD true
        SHELL ["/bin/sh", "-ec"]
        ENTRYPOINT ["/bin/echo"]
        CMD echo hello
        ONBUILD RUN true
        "#,
    );
    let config = world.image(&context).config["config"].clone();
    assert_eq!(config["Labels"], json!({"org.example.one": "1", "two": "2"}));
    assert_eq!(config["Env"], json!(["PATH=/usr/bin:/bin", "GREETING=hello world"]));
    assert_eq!(config["WorkingDir"], "/srv/app");
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "443/udp": {}}));
    assert_eq!(config["User"], "user:user");
    assert_eq!(config["StopSignal"], "SIGQUIT");
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_u64);
    assert_eq!(config["Healthcheck"]["Retries"], 3);
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD-SHELL", "true"]));
    assert_eq!(config["Shell"], json!(["/bin/sh", "-ec"]));
    assert_eq!(config["Entrypoint"], json!(["/bin/echo"]));
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-ec", "echo hello"]));
    assert_eq!(config["OnBuild"], json!(["RUN true"]));
}

#[test]
fn volumes_are_listed() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nVOLUME /data /logs\nVOLUME [\"/more\"]");
    let volumes = world.image(&context).config["config"]["Volumes"].clone();
    assert_eq!(volumes, json!({"/data": {}, "/logs": {}, "/more": {}}));
}

#[test]
fn history_has_one_line_an_instruction_and_marks_those_without_a_layer() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nENV A=1\nCOPY file /\nRUN true\nCMD [\"/bin/sh\"]")
        .file("file", "");
    let image = world.image(&context);
    let history = image.config["history"].as_array().expect("history").clone();
    let lines: Vec<_> = history
        .iter()
        .map(|item| {
            let line = item["created_by"].as_str().expect("created_by");
            (line, item["empty_layer"] == Value::Bool(true))
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("busybox", false),
            ("ENV A=1", true),
            ("COPY file / # buildkit", false),
            ("RUN /bin/sh -c true # buildkit", false),
            ("CMD [\"/bin/sh\"]", true),
        ]
    );
    assert_eq!(image.layers.len(), 3);
    image.diff_ids();
}

#[test]
fn labels_of_the_command_line_are_added() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nLABEL who=file kept=yes");
    let build = world.build(&context).args(["--label", "who=command", "--label", "extra=1"]);
    let (_, image) = world.pushed("labels", build);
    assert_eq!(
        image.config["config"]["Labels"],
        json!({"who": "command", "kept": "yes", "extra": "1"})
    );
}

#[test]
fn an_image_for_another_platform_says_so() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM scratch\nCOPY Dockerfile /");
    let build = world.build(&context).args(["--platform", "linux/arm64"]);
    let (_, image) = world.pushed("arm", build);
    assert_eq!(image.config["architecture"], "arm64");
    assert_eq!(image.config["os"], "linux");
}

#[test]
fn several_platforms_make_an_index_in_the_order_they_were_asked_for() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
            FROM --platform=$BUILDPLATFORM busybox AS build
            ARG TARGETPLATFORM
            RUN echo for $TARGETPLATFORM on $(uname -m) > /made
            FROM scratch
            COPY --from=build /made /
            ",
    );
    let name = world.registry.reference("several:1");
    let platforms = "windows(10.0.1)/amd64,linux/s390x,linux/arm/v6";
    let args = ["--platform", platforms, "--push", "-t", &name];
    world.build(&context).args(args).succeeds();

    let index: serde_json::Value =
        serde_json::from_slice(&world.registry.manifest("several:1")).unwrap();
    let machine = std::env::consts::ARCH;
    let expected = [
        (
            json!({"os": "windows", "os.version": "10.0.1", "architecture": "amd64"}),
            "windows(10.0.1)/amd64",
        ),
        (json!({"os": "linux", "architecture": "s390x"}), "linux/s390x"),
        (json!({"os": "linux", "architecture": "arm", "variant": "v6"}), "linux/arm/v6"),
    ];
    let entries = index["manifests"].as_array().unwrap();
    // What is attested of the images comes after all of them.
    assert_eq!(entries.len(), 2 * expected.len());
    let (entries, attestations) = entries.split_at(expected.len());
    for (entry, attestation) in entries.iter().zip(attestations) {
        let about = &attestation["annotations"]["vnd.docker.reference.digest"];
        assert_eq!(*about, entry["digest"]);
    }
    for (entry, (platform, text)) in entries.iter().zip(expected) {
        assert_eq!(entry["platform"], platform);
        let image = world.registry.image(&format!("several@{}", entry["digest"].as_str().unwrap()));
        assert_eq!(image.file("made").text(), format!("for {text} on {machine}\n"));
        assert_eq!(image.config["architecture"], platform["architecture"]);
    }
}

#[test]
fn a_step_for_a_platform_that_this_host_cannot_run_says_so() {
    let world = World::start();
    // The head of a program for another machine, and no more.
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
    program.resize(64, 0);
    let context = Context::new()
        .file("program", program)
        .mode("program", 0o755)
        .dockerfile("FROM scratch\nCOPY program /\nRUN [\"/program\"]");
    world
        .build(&context)
        .args(["--platform", "linux/riscv64"])
        .fails()
        .says("this step is for linux/riscv64")
        .says("binfmt_misc")
        .says("exec /program");
}

#[test]
fn the_working_directory_is_written_as_the_dockerfile_says_it() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "FROM busybox AS a\nWORKDIR /a/b/../c/\nRUN pwd > /pwd\nFROM busybox\nWORKDIR x/../y",
    );
    let config = |target: &[&str]| {
        let (_, image) = world.pushed("workdir", world.build(&context).args(target));
        image.config["config"]["WorkingDir"].clone()
    };
    assert_eq!(config(&["--target", "a"]), "/a/b/../c/");
    assert_eq!(config(&[]), "/y");
}
