//! What command lines ask the daemon to do.

use super::*;
use crate::args::{Cli, Command};
use clap::Parser;

/// The plan of `kiln build ARGUMENTS URL`, which needs no files.
async fn plan(arguments: &[&str]) -> Result<Plan> {
    let words = ["kiln", "build"].iter().chain(arguments).chain(&["https://h/r.git"]);
    let cli = Cli::try_parse_from(words)?;
    let Command::Build(flags) = cli.command else { bail!("not a build") };
    Plan::prepare(&flags, flags.quiet).await
}

#[tokio::test]
async fn flags_are_attributes_of_the_frontend() {
    for (arguments, key, value) in [
        (&["--target", "t"][..], "target", "t"),
        (&["--build-arg", "A=b=c"], "build-arg:A", "b=c"),
        (&["--build-arg", "A=-x"], "build-arg:A", "-x"),
        (&["--label", "a"], "label:a", ""),
        (&["--no-cache"], "no-cache", ""),
        (&["--no-cache-filter=a", "--no-cache-filter", "b"], "no-cache", "a,b"),
        (&["--pull"], "image-resolve-mode", "pull"),
        (&["--pull=true"], "image-resolve-mode", "pull"),
        (&["--platform", "linux/arm64/v8,amd64"], "platform", "linux/arm64,linux/amd64"),
        (&["--network=none"], "force-network-mode", "none"),
        (&["--add-host", "a:1.2.3.4"], "add-hosts", "a=1.2.3.4"),
        (&["--ulimit", "nofile=1:2"], "ulimit", "nofile=1:2"),
        (&["--shm-size=64m"], "shm-size", "67108864"),
        (&["--cgroup-parent", "/x"], "cgroup-parent", "/x"),
        (&["-m", "1g"], "memory", "1073741824"),
        (&["--resource", "cpu-quota=7"], "cpuquota", "7"),
        (&["--provenance=mode=max"], "attest:provenance", "type=provenance,mode=max"),
        (&["--sbom", "true"], "attest:sbom", "type=sbom"),
        (&["-f", "x/y.Dockerfile"], "filename", "x/y.Dockerfile"),
        (&[], "context", "https://h/r.git"),
        (&[], "filename", "Dockerfile"),
        (&["--build-context", "a=docker-image://b"], "context:a", "docker-image://b"),
        (
            &["--cache-from", "r/a", "--cache-from=type=registry,ref=r/b"],
            "cache-imports",
            r#"[{"Attrs":{"ref":"r/a"},"Type":"registry"},{"Attrs":{"ref":"r/b"},"Type":"registry"}]"#,
        ),
    ] {
        let plan = plan(arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"));
        let attributes = &plan.request.frontend_attrs;
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{arguments:?}");
        assert_eq!(plan.request.frontend, "dockerfile.v0");
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_said() {
    let plan = plan(&["--pull=false", "--network=default", "--provenance=false"]).await.unwrap();
    let keys: Vec<_> = plan.request.frontend_attrs.keys().map(String::as_str).collect();
    assert_eq!(keys, ["context", "filename"]);
    assert_eq!(plan.request.exporters, []);
    assert_eq!(plan.request.entitlements, [""; 0]);
}

#[tokio::test]
async fn names_and_pushes_are_exports() {
    for (arguments, expected) in [
        (&["-t", "a"][..], vec!["image name=a"]),
        (&["-q"], vec!["image"]),
        (&["-t", "a", "-t", "b:1"], vec!["image name=a,b:1"]),
        (&["-t", "a", "--push"], vec!["image name=a push=true unpack=false"]),
        (&["-t", "a", "-o", "type=oci,dest=f"], vec!["oci name=a"]),
        (&["-t", "a", "-o", "type=cacheonly"], vec![]),
        (
            &["-t", "a", "-o", "type=tar,dest=f", "--push"],
            vec!["tar", "image name=a push=true unpack=false"],
        ),
        (&["-o", "type=image,name=x", "--annotation", "k=v"], vec!["image annotation.k=v name=x"]),
    ] {
        let plan = plan(arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"));
        let exports: Vec<String> = plan
            .request
            .exporters
            .iter()
            .map(|exporter| {
                exporter.attrs.iter().fold(exporter.r#type.clone(), |text, (key, value)| {
                    format!("{text} {key}={value}")
                })
            })
            .collect();
        assert_eq!(exports, expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_network_of_the_host_is_an_entitlement() {
    let plan = plan(&["--network=host", "--allow", "security.insecure"]).await.unwrap();
    assert_eq!(plan.request.entitlements, ["security.insecure", "network.host"]);
}

#[tokio::test]
async fn a_frontend_can_be_an_image() {
    let plan = plan(&["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1 x"]).await.unwrap();
    assert_eq!(plan.request.frontend, "gateway.v0");
    assert_eq!(plan.request.frontend_attrs["source"], "docker/dockerfile:1");
}

#[tokio::test]
async fn the_flag_that_is_wrong_is_named() {
    for (arguments, expected) in [
        (&["--push"][..], "--push: an image needs a name to be pushed (--tag)"),
        (&["-t", "Bad"], r#"--tag: "Bad" is not an image name (it must be lowercase)"#),
        (&["--network", "bridge"], r#"--network: "bridge" is not default, none or host"#),
        (&["--output", "type=local"], "--output type=local: dest is missing (type=local)"),
        (&["--secret", "src=x"], "--secret src=x: id is missing (a secret)"),
        (&["--cache-to", "type=x,y"], r#"--cache-to type=x,y: "y" is not of the form key=value"#),
        (
            &["--platform", "x/y/z/w"],
            r#"--platform: "x/y/z/w" is not a platform (such as linux/arm64)"#,
        ),
        (
            &["--no-cache", "--no-cache-filter=x"],
            "--no-cache and --no-cache-filter cannot be used together",
        ),
        (&["--squash"], "--squash is not supported: use a multi-stage Dockerfile"),
        (
            &["--builder", "x"],
            "--builder is not supported: choose a daemon with --host or KILN_HOST",
        ),
        (&["--allow", "everything"], r#"--allow: "everything" is not an entitlement"#),
        (&["--call", "a,b"], "--call: only one question can be asked at a time"),
        (&["--add-host", "a"], r#"--add-host: "a" is not of the form HOST=IP or HOST:IP"#),
        (&["-o", "-", "-o", "type=oci"], "--output: only one export can go to standard output"),
        (
            &["--iidfile", "f", "-o", "out"],
            "--iidfile: what goes to a directory or a tar file of files is no image",
        ),
        (
            &["--cache-to", "type=local,dest=d,reset=yes"],
            r#"--cache-to type=local: reset: "yes" is not a boolean (true or false)"#,
        ),
    ] {
        let error = plan(arguments).await.map(drop).unwrap_err();
        assert_eq!(format!("{error:#}"), expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_misspelt_flag_is_named_with_what_it_may_mean() {
    let error = plan(&["--biuld-arg", "a"]).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("--biuld-arg") && error.contains("'--build-arg'"), "{error}");
}
