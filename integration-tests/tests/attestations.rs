//! What is attested of results: where they come from, and what is in them.

use std::fs;

use kiln_integration_tests::{
    Context, World, busybox_layer, digest, docker_archive, oci_archive, unpack_archive,
};
use serde_json::{Value, json};

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";

fn project() -> Context {
    Context::new()
        .dockerfile(
            "
            FROM busybox AS build
            ARG WHO
            RUN echo hello $WHO > /greeting
            FROM scratch
            COPY --from=build /greeting /
            ",
        )
        .file("unused", "")
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The statements about the first image of an index, by their predicates' types.
#[track_caller]
fn statements(index: &Value, read: &dyn Fn(&str) -> Vec<u8>) -> Vec<(String, Value)> {
    let manifests = index["manifests"].as_array().expect("an index");
    let image = &manifests[0]["digest"];
    let is_about_image = |entry: &&Value| {
        entry["annotations"]["vnd.docker.reference.digest"] == *image
            && entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
    };
    let attestation = manifests.iter().find(is_about_image).expect("attestations of the image");
    assert_eq!(attestation["platform"], json!({ "os": "unknown", "architecture": "unknown" }));
    let manifest = parsed(&read(attestation["digest"].as_str().expect("digest")));
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers
        .map(|layer| {
            assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
            let statement = parsed(&read(layer["digest"].as_str().expect("digest")));
            assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
            let kind = layer["annotations"]["in-toto.io/predicate-type"].as_str().expect("a type");
            assert_eq!(statement["predicateType"], kind);
            (kind.to_owned(), statement)
        })
        .collect()
}

/// The statements about an image of the registry.
#[track_caller]
fn pushed(world: &World, repository: &str) -> Vec<(String, Value)> {
    let index = parsed(&world.registry.manifest(&format!("{repository}:latest")));
    statements(&index, &|wanted| world.registry.content(repository, wanted))
}

fn subjects(statement: &Value) -> Vec<(String, String)> {
    let subjects = statement["subject"].as_array().expect("subjects").iter();
    subjects
        .map(|subject| {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            (text(&subject["name"]), text(&subject["digest"]["sha256"]))
        })
        .collect()
}

#[test]
fn an_image_that_is_pushed_says_where_it_comes_from() {
    let world = World::start();
    let context = project();
    let name = world.registry.reference("app:latest");
    let build = world.build(&context).args(["--build-arg", "WHO=nobody-else"]);
    build.args(["--push", "-t", &name]).succeeds();
    let image = world.registry.image("app:latest");
    let found = pushed(&world, "app");
    let [(kind, statement)] = found.as_slice() else { panic!("one statement: {found:#?}") };
    assert_eq!(kind, PROVENANCE);
    let subject = &subjects(statement)[0];
    assert!(subject.0.starts_with("pkg:docker/127.0.0.1%3A"), "{subject:?}");
    assert!(subject.0.contains("/app@latest?platform=linux%2F"), "{subject:?}");
    assert_eq!(format!("sha256:{}", subject.1), image.digest);

    let definition = &statement["predicate"]["buildDefinition"];
    let base = &definition["resolvedDependencies"][0];
    assert!(base["uri"].as_str().expect("uri").starts_with("pkg:docker/busybox@latest?"));
    let busybox = digest(&world.registry.manifest("library/busybox:latest"));
    assert_eq!(format!("sha256:{}", base["digest"]["sha256"].as_str().expect("digest")), busybox);
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["frontend"], "dockerfile.v0");
    assert_eq!(request["locals"], json!([{ "name": "context" }, { "name": "dockerfile" }]));
    // Nothing that might be private is told unless it is asked for.
    assert!(!statement.to_string().contains("nobody-else"), "{statement:#}");
}

#[test]
fn without_provenance_an_image_is_a_single_manifest() {
    let world = World::start();
    let context = project();
    let name = world.registry.reference("app:latest");
    world.build(&context).args(["--provenance=false", "--push", "-t", &name]).succeeds();
    let manifest = parsed(&world.registry.manifest("app:latest"));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");

    let by_environment = world.build(&context).env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
    by_environment.args(["--push", "-t", &name]).succeeds();
    assert_eq!(parsed(&world.registry.manifest("app:latest")), manifest);
}

#[test]
fn the_usual_provenance_is_in_pushed_images_only() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    world.build(&context).arg("-o").arg(out.at("files")).succeeds();
    let names: Vec<_> = fs::read_dir(out.at("files")).expect("files").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let archive = out.at("image.tar");
    world
        .build(&context)
        .arg("--output")
        .arg(format!("type=oci,dest={}", archive.display()))
        .succeeds();
    let files = unpack_archive(&fs::read(archive).expect("archive"));
    let index = parsed(&files["index.json"]);
    let kind = &index["manifests"][0]["mediaType"];
    assert_eq!(*kind, "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn a_build_from_the_cache_has_the_provenance_of_the_one_that_filled_it() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    let provenance = |name: &str| {
        let dest = out.at(name);
        let output = format!("type=oci,dest={}", dest.display());
        let build = world.build(&context).args(["--provenance=mode=max", "--output", &output]);
        let outcome = build.succeeds();
        let files = unpack_archive(&fs::read(&dest).expect("archive"));
        let read = |wanted: &str| files[&format!("blobs/{}", wanted.replace(':', "/"))].clone();
        let index = parsed(&files["index.json"]);
        let index = parsed(&read(index["manifests"][0]["digest"].as_str().expect("digest")));
        let mut statement = statements(&index, &read).remove(0).1;
        let metadata = &mut statement["predicate"]["runDetails"]["metadata"];
        for of_one_build in ["invocationId", "startedOn", "finishedOn"] {
            assert!(metadata[of_one_build].take().is_string(), "{of_one_build}");
        }
        // The Dockerfile came from a session, which is another one in each build.
        let source = &mut metadata["buildkit_metadata"]["source"]["infos"][0];
        assert!(source["digestMapping"].take().is_object());
        (outcome, statement)
    };
    let (_, first) = provenance("first.tar");
    let (cached, second) = provenance("second.tar");
    assert_eq!(cached.ran(), Vec::<String>::new());
    assert_eq!(first, second);
    let layers = &first["predicate"]["runDetails"]["metadata"]["buildkit_metadata"]["layers"];
    assert_eq!(layers["step0:0"][0].as_array().map(Vec::len), Some(1), "{layers:#}");
}

#[test]
fn full_provenance_has_each_step_with_its_lines() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    let build = world.build(&context).args(["--build-arg", "WHO=world"]);
    build.args(["--provenance=mode=max", "-o"]).arg(out.at("x")).succeeds();
    let statement = parsed(out.read("x/provenance.json").as_bytes());
    let definition = &statement["predicate"]["buildDefinition"];
    let args = &definition["externalParameters"]["request"]["args"];
    assert_eq!(args["build-arg:WHO"], "world");
    let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].clone();
    let steps = steps.as_array().expect("steps");
    assert_eq!(steps.len(), 4, "{steps:#?}");
    let command = &steps[1]["op"]["Op"]["exec"]["meta"]["args"];
    assert_eq!(*command, json!(["/bin/sh", "-c", "echo hello $WHO > /greeting"]));
    assert_eq!(steps[1]["inputs"], json!(["step0:0"]));

    let source = &statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"]["source"];
    assert_eq!(source["infos"][0]["filename"], "Dockerfile");
    let line = &source["locations"]["step1"]["locations"][0]["ranges"][0]["start"]["line"];
    assert_eq!(*line, 3);
}

#[test]
fn provenance_says_what_steps_used_if_it_is_asked_to() {
    let world = World::start();
    let out = Context::new();
    let context = project();
    let usage = |to: &str, options: &str| {
        let build = world.build(&context).arg("--no-cache").arg("--provenance").arg(options);
        build.arg("-o").arg(out.at(to)).succeeds();
        let statement = parsed(out.read(&format!("{to}/provenance.json")).as_bytes());
        let config =
            &statement["predicate"]["buildDefinition"]["internalParameters"]["buildConfig"];
        let steps = config["llbDefinition"].as_array().expect("steps");
        steps.iter().map(|step| step["resourceUsage"].clone()).collect::<Vec<_>>()
    };
    let told = usage("asked", "mode=max,capture-usage=true");
    let sample = &told[1]["samples"][0];
    assert!(sample["timestamp"].is_string(), "{told:#?}");
    assert!(sample["cpuStat"]["usageNanos"].as_u64() > Some(0), "{told:#?}");
    assert!(told[0].is_null() && told[2].is_null(), "only processes are counted: {told:#?}");
    assert!(usage("usual", "mode=max").iter().all(Value::is_null));
}

#[test]
fn files_of_a_folder_are_the_subjects_of_what_is_attested() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    let output = format!("type=local,dest={},attestation-prefix=app.", out.at("x").display());
    world.build(&context).args(["--provenance=version=v0.2", "--output", &output]).succeeds();
    let statement = parsed(out.read("x/app.provenance.json").as_bytes());
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    let greeting = digest(out.read("x/greeting").as_bytes());
    let greeting = greeting.trim_start_matches("sha256:").to_owned();
    assert_eq!(subjects(&statement), [("greeting".to_owned(), greeting)]);

    let tar = world.build(&context).args(["--provenance=mode=min", "-o", "-"]).succeeds();
    let files = unpack_archive(&tar.stdout);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["greeting", "provenance.json"]);
    assert_eq!(parsed(&files["provenance.json"])["predicateType"], PROVENANCE);
}

#[test]
fn an_attestation_does_not_replace_a_file_of_the_result() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM scratch\nCOPY provenance.json /")
        .file("provenance.json", "mine");
    let out = Context::new();
    world
        .build(&context)
        .args(["--provenance=true", "-o"])
        .arg(out.at("x"))
        .fails()
        .says("the result has a file provenance.json of its own");
}

#[test]
fn several_platforms_fit_into_one_folder_if_their_files_differ() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM scratch
        ARG TARGETARCH
        COPY <<EOF /sub/$TARGETARCH
        x
        EOF
        ",
    );
    let out = Context::new();
    let build = |context: &Context, dest: &str| {
        let output = format!("type=local,dest={},platform-split=false", out.at(dest).display());
        let build = world.build(context).args(["--platform", "linux/amd64,linux/arm64"]);
        build.args(["--provenance=mode=min", "--output", &output])
    };
    build(&context, "x").succeeds();
    for architecture in ["amd64", "arm64"] {
        assert_eq!(out.read(&format!("x/sub/{architecture}")), "x\n");
        let statement = out.read(&format!("x/provenance.linux_{architecture}.json"));
        let name = format!("sub/{architecture}");
        assert_eq!(subjects(&parsed(statement.as_bytes()))[0].0, name);
    }
    let same = Context::new().dockerfile("FROM scratch\nCOPY <<EOF /same\nx\nEOF");
    build(&same, "y")
        .fails()
        .says("cannot overwrite same from linux/amd64 with linux/arm64 when split option");
}

#[test]
fn secrets_are_named_but_not_told() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            RUN --mount=type=secret,id=token,required --mount=type=secret,id=other true
            ",
        )
        .file("token", "swordfish");
    let out = Context::new();
    let secret = format!("id=token,src={}", context.at("token").display());
    let build = world.build(&context).args(["--secret", &secret, "--provenance=mode=max", "-o"]);
    build.arg(out.at("x")).succeeds();
    let text = out.read("x/provenance.json");
    let request =
        &parsed(text.as_bytes())["predicate"]["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["secrets"], json!([{ "id": "other", "optional": true }, { "id": "token" }]));
    assert!(!text.contains("swordfish"));
}

#[test]
fn materials_that_must_be_complete_cannot_be_directories() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    let dest = out.at("x");
    let build = world.build(&context).arg("--provenance=complete-materials=true");
    let failed = build.arg("-o").arg(&dest).fails();
    failed.says("provenance materials are incomplete").says("local_source");
}

#[test]
fn an_archive_for_docker_load_may_have_provenance() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    let dest = out.at("image.tar");
    let output = format!("type=docker,dest={}", dest.display());
    world.build(&context).args(["--provenance=true", "-t", "app", "--output", &output]).succeeds();
    let archive = fs::read(dest).expect("archive");
    assert_eq!(docker_archive(&archive).file("greeting").text(), "hello\n");
    let image = oci_archive(&archive);
    assert_eq!(image.file("greeting").text(), "hello\n");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_built() {
    let world = World::start();
    let context = project();
    for (flag, message) in [
        ("--provenance=mode=huge", "invalid mode \"huge\""),
        ("--provenance=version=9", "invalid provenance SLSA version: 9"),
        ("--attest=type=other", "unknown attestation type \"other\""),
        ("--sbom=generator=", "sbom generator cannot be empty"),
    ] {
        let failed = world.build(&context).arg(flag).fails();
        failed.says(message);
        assert_eq!(failed.ran(), Vec::<String>::new(), "{flag}");
    }
}

/// Puts a scanner into the registry that runs `script`, and says how to name it.
fn scanner(world: &World, script: &str) -> String {
    let config = json!({
        "os": "linux",
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "config": { "Entrypoint": ["/bin/sh", "-euc"], "Cmd": [script], "Env": ["PATH=/bin"] },
    });
    world.registry.push("scanner:latest", &[busybox_layer()], &config);
    format!("generator={}", world.registry.reference("scanner:latest"))
}

/// A scanner that tells the files that it sees.
const LIST: &str = r#"
    tell() {
        files=$(cd "$2" && find . -type f | sort | sed 's/.*/{"fileName":"&"}/' | tr '\n' , )
        printf '{"_type":"https://in-toto.io/Statement/v1","predicateType":"%s","predicate":%s}' \
            https://spdx.dev/Document \
            "{\"spdxVersion\":\"SPDX-2.3\",\"name\":\"$1\",\"files\":[${files%,}]}" \
            > "$BUILDKIT_SCAN_DESTINATION/$1.spdx.json"
    }
    tell sbom "$BUILDKIT_SCAN_SOURCE"
    for dir in ${BUILDKIT_SCAN_SOURCE_EXTRAS:+"$BUILDKIT_SCAN_SOURCE_EXTRAS"/*}; do
        tell "$(basename "$dir")" "$dir"
    done
"#;

#[test]
fn a_scanner_says_what_is_in_an_image_and_in_which_layer() {
    let world = World::start();
    let context = project();
    let generator = scanner(&world, LIST);
    let name = world.registry.reference("app:latest");
    let build = world.build(&context).arg(format!("--sbom={generator}"));
    build.args(["--provenance=false", "--push", "-t", &name]).succeeds();
    let image = world.registry.image("app:latest");
    let found = pushed(&world, "app");
    let [(kind, statement)] = found.as_slice() else { panic!("one statement: {found:#?}") };
    assert_eq!(kind, SPDX);
    assert_eq!(format!("sha256:{}", subjects(statement)[0].1), image.digest);
    let layer = image.manifest["layers"][0]["digest"].as_str().expect("digest");
    let expected = json!([{ "fileName": "./greeting", "comment": format!("layerID: {layer}") }]);
    assert_eq!(statement["predicate"]["files"], expected);
}

#[test]
fn stages_and_the_context_are_scanned_if_the_dockerfile_says_so() {
    let world = World::start();
    let generator = scanner(&world, LIST);
    let context = Context::new()
        .dockerfile(
            "
            ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
            FROM scratch AS tools
            ARG BUILDKIT_SBOM_SCAN_STAGE=true
            COPY tool /tool
            FROM scratch AS quiet
            COPY tool /quiet
            FROM scratch
            COPY --from=tools /tool /
            COPY --from=quiet /quiet /
            ",
        )
        .file("tool", "");
    let out = Context::new();
    let build = world.build(&context).arg(format!("--sbom={generator}"));
    build.arg("-o").arg(out.at("x")).succeeds();
    let mut names: Vec<String> = fs::read_dir(out.at("x"))
        .expect("files")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let boms = ["sbom-context.spdx.json", "sbom-tools.spdx.json", "sbom.spdx.json"];
    assert_eq!(names, [&["quiet"], &boms[..], &["tool"]].concat());
    let files = |name: &str| {
        let bom = parsed(out.read(&format!("x/{name}")).as_bytes());
        bom["predicate"]["files"].clone()
    };
    assert_eq!(files("sbom-tools.spdx.json"), json!([{ "fileName": "./tool" }]));
    assert_eq!(files("sbom-context.spdx.json"), json!([{ "fileName": "./tool" }]));
}

#[test]
fn a_scan_of_the_same_files_comes_from_the_cache() {
    let world = World::start();
    let context = project();
    let generator = format!("--sbom={}", scanner(&world, LIST));
    let out = Context::new();
    let build = |dest: &str| world.build(&context).arg(&generator).arg("-o").arg(out.at(dest));
    build("x").succeeds();
    let again = build("y").succeeds();
    assert_eq!(again.ran(), Vec::<String>::new());
    assert_eq!(out.read("x/sbom.spdx.json"), out.read("y/sbom.spdx.json"));
}

#[test]
fn a_scanner_that_writes_something_else_is_told_so() {
    let world = World::start();
    let context = project();
    let generator = scanner(&world, "echo hello > $BUILDKIT_SCAN_DESTINATION/sbom.json");
    let out = Context::new();
    let build = world.build(&context).arg(format!("--sbom={generator}"));
    build.arg("-o").arg(out.at("x")).fails().says("sbom.json is not an in-toto statement");
}

#[test]
fn a_scanner_that_cannot_be_had_is_named() {
    let world = World::start();
    let context = project();
    let out = Context::new();
    world
        .build(&context)
        .args(["--sbom=true", "-o"])
        .arg(out.at("x"))
        .fails()
        .says("cannot load the SBOM generator docker.io/docker/buildkit-syft-scanner:stable-1")
        .says("another one can be named by generator=IMAGE");
}
