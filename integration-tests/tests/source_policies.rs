//! Policies about sources, from the file that `EXPERIMENTAL_BUILDKIT_SOURCE_POLICY` names.

use kiln_integration_tests::{Context, Invocation, World};

const BUSYBOX: &str = "docker-image://docker.io/library/busybox:latest";

fn build(world: &World, context: &Context, rules: &str) -> Invocation {
    context.write("policy.json", format!("{{\"rules\": [{rules}]}}"));
    let path = context.at("policy.json");
    world.build(context).env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", path.display().to_string())
}

#[test]
fn a_denied_image_fails_the_build_and_is_named() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN true\n");
    let rule = format!(r#"{{"action": "DENY", "selector": {{"identifier": "{BUSYBOX}"}}}}"#);
    build(&world, &context, &rule)
        .fails()
        .says(&format!("source {BUSYBOX:?}: source denied by policy"));
    let allow = r#"{"action": "ALLOW", "selector": {"identifier": "docker-image://*/busybox:*"}}"#;
    build(&world, &context, &format!("{rule}, {allow}")).succeeds();
}

#[test]
fn a_source_that_no_metadata_is_asked_of_is_denied_all_the_same() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM scratch\nCOPY a /\n").file("a", "a");
    let rule = r#"{"action": "DENY", "selector": {"identifier": "local://context"}}"#;
    build(&world, &context, rule).fails().says("source \"local://context\": source denied");
}

#[test]
fn a_converted_image_takes_the_place_of_the_one_in_the_dockerfile() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM nowhere.invalid/missing:1\nRUN echo 1 > /a\n");
    let rule = format!(
        r#"{{"action": "CONVERT",
            "selector": {{"identifier": "docker-image://nowhere.invalid/*:1"}},
            "updates": {{"identifier": "{BUSYBOX}"}}}}"#
    );
    build(&world, &context, &rule)
        .args(["--push", "-t", &world.registry.reference("converted")])
        .succeeds();
    assert_eq!(world.registry.image("converted").file("a").text(), "1\n");
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_before_anything_is_built() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM scratch\n");
    let rule = r#"{"action": "FORBID", "selector": {"identifier": "*"}}"#;
    build(&world, &context, rule).fails().says("source policy: rule 0 has the unknown action");
}

#[test]
fn a_policy_holds_for_the_dockerfile_itself_and_for_what_scans_the_result() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\n");
    let deny = |identifier: &str| {
        format!(r#"{{"action": "DENY", "selector": {{"identifier": "{identifier}"}}}}"#)
    };
    build(&world, &context, &deny("local://dockerfile")).fails().says("source denied by policy");
    let scanner = "docker-image://docker.io/my/scanner:1";
    build(&world, &context, &deny(scanner))
        .arg("--sbom=generator=my/scanner:1")
        .fails()
        .says(&format!("source {scanner:?}: source denied by policy"));
}
