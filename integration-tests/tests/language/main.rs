//! The language of Dockerfiles, by example: what each file of `dockerfiles/` becomes, as a graph
//! and as an image's config. The frontend is asked for it by the gateway, as other frontends ask
//! it, with the file as a graph of its own; nothing is built.

mod asked;
mod shown;

use asked::Frontend;
use kiln_integration_tests::World;

/// What is asked for besides the file itself, as the frontend's options name it.
type Options = &'static [(&'static str, &'static str)];

/// The files by name. A name says what its file is about.
const FILES: &[(&str, Options)] = &[
    ("add", &[]),
    ("args", &[("build-arg:VERSION", "9"), ("build-arg:http_proxy", "http://proxy.example")]),
    ("commands", &[]),
    ("config", &[("label:given", "by the client"), ("build-arg:SOURCE_DATE_EPOCH", "1000000000")]),
    ("copy", &[]),
    ("directives", &[]),
    ("entrypoint", &[("target", "own")]),
    ("expansion", &[]),
    ("heredocs", &[]),
    ("limits", &[("shm-size", "65536"), ("ulimit", "nofile=10:20"), ("add-hosts", "db=10.0.0.2")]),
    ("mounts", &[]),
    ("named_contexts", &[("context:base", "input:context"), ("context:tools", "input:context")]),
    ("no_cache", &[("no-cache", "build")]),
    ("onbuild", &[]),
    ("platforms", &[("platform", "linux/s390x,linux/riscv64")]),
    ("run", &[("force-network-mode", "none")]),
    ("stages", &[("target", "RUN")]),
    ("workdir", &[]),
];

#[tokio::test]
async fn a_dockerfile_becomes_the_graph_and_the_config_that_its_words_say() {
    let world = World::start();
    let frontend = Frontend::of(&world);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/language/dockerfiles");
    let mut known = 0;
    for (name, options) in FILES {
        let path = format!("{folder}/{name}.Dockerfile");
        let file = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let result = frontend.convert(&file, options).await;
        let result = result.unwrap_or_else(|status| panic!("{name}: {}", status.message()));
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!(*name, shown::result(&result));
        });
        known += 1;
    }
    let files = std::fs::read_dir(folder).expect("folder of Dockerfiles").count();
    assert_eq!(files, known, "a file in {folder} is not in the table");
}

#[tokio::test]
async fn a_dockerfile_that_means_nothing_is_refused_with_its_line() {
    let world = World::start();
    let frontend = Frontend::of(&world);
    let mut said = String::new();
    for (file, options) in [
        ("FROM scratch\nRNU x\n", &[][..]),
        ("FROM scratch\nRUN --mont=type=cache x\n", &[]),
        ("FROM scratch\nRUN --mount=typ=cache x\n", &[]),
        ("FROM scratch\nRUN --mount=type=cach x\n", &[]),
        ("FROM scratch\nRUN --mount=type=cache,target=/x,sharing=share x\n", &[]),
        ("FROM scratch\nCOPY --chmod=64a a /\n", &[]),
        ("FROM scratch\nCOPY --chmod=10000 a /\n", &[]),
        ("FROM scratch\nCOPY --from=1 a /\n", &[]),
        ("FROM scratch AS a\nCOPY --from=b a /\nFROM scratch AS b\nCOPY --from=a a /\n", &[]),
        ("FROM scratch AS a\nCOPY --from=b a /\nFROM scratch AS b\n", &[("target", "a")]),
        ("FROM scratch AS build\n", &[("target", "bulid")]),
        ("ARG OS=linux\nFROM --platform=$SO scratch\n", &[]),
        ("ARG MY_ARCH=x\nFROM --platform=linux/${MYARCH} scratch\n", &[]),
        ("FROM --platform=nonsense scratch\nFROM scratch\n", &[]),
        ("FROM $BASE\n", &[]),
        ("# syntax=example.com/Other:1\nFROM scratch\n", &[]),
        ("# check=skip=all;eror=true\nFROM scratch\n", &[]),
        ("# check=error=true\nFROM scratch as a\nMAINTAINER me\n", &[]),
        ("FROM scratch\n", &[("build-arg:BUILDKIT_DOCKERFILE_CHECK", "eror=true")]),
        ("FROM scratch\n", &[("build-arg:BUILDKIT_SYNTAX", "example.com/Other:1")]),
        ("FROM scratch\n", &[("frontend.caps", "moby.buildkit.frontend.other")]),
        ("FROM scratch\n", &[("requestid", "frontend.other")]),
    ] {
        let refused = frontend.convert(file, options).await;
        let Err(status) = refused else { panic!("{file:?} is accepted") };
        said += &shown::refusal(file, options, &status);
    }
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("refusals", said);
    });
}
