//! Advice on Dockerfiles, and questions about them: `--check`, `--call` and the warnings of builds.

use kiln_integration_tests::{Context, World};

const UNTIDY: &str = "
    # base has the tools
    FROM scratch as base
    COPY a /a
    FROM base AS Final
    ARG TOKEN
    COPY $x /x
    ";

#[test]
fn a_check_tells_what_it_finds_in_all_stages_and_builds_nothing() {
    let world = World::start();
    let context = Context::new().dockerfile(UNTIDY);
    let check = world.build(&context).arg("--check").fails();
    assert_eq!(check.code, Some(1));
    let text = check.text();
    let rules: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("WARNING: ")).collect();
    let page = |rule: &str| format!("https://docs.docker.com/go/dockerfile/rule/{rule}/");
    assert_eq!(
        rules,
        [
            format!("FromAsCasing - {}", page("from-as-casing")),
            format!("StageNameCasing - {}", page("stage-name-casing")),
            format!("SecretsUsedInArgOrEnv - {}", page("secrets-used-in-arg-or-env")),
            format!("UndefinedVar - {}", page("undefined-var")),
        ]
    );
    assert!(text.starts_with("Check complete, 4 warnings have been found!\n\nWARNING: "), "{text}");
    assert!(text.contains("\nUsage of undefined variable '$x'\nDockerfile:6\n"), "{text}");
    assert!(text.contains("   6 | >>> COPY $x /x\n"), "{text}");
    assert!(check.ran().is_empty());
}

#[test]
fn a_check_of_a_tidy_file_succeeds() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM scratch\nCOPY a /a");
    let check = world.build(&context).arg("--check").succeeds();
    assert_eq!(check.text(), "Check complete, no warnings found.\n");
}

#[test]
fn a_check_of_one_target_is_about_the_stages_that_it_needs() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM scratch AS a\nCOPY $x /\nFROM scratch AS b\nCOPY $y /");
    let check = world.build(&context).args(["--check", "--target=b"]).fails();
    assert!(check.text().contains("'$y'") && !check.text().contains("'$x'"), "{}", check.text());
}

#[test]
fn a_check_tells_of_warnings_before_the_error_that_a_build_would_end_with() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM scratch as a\nRNU true");
    for (arguments, text) in [
        (&["--check"][..], "Check complete, 1 warning has been found!\n"),
        (&["--call=check,format=json"], "\"ruleName\": \"FromAsCasing\""),
        (&["--call=check,ignorestatus=true"], "Check complete, 1 warning has been found!\n"),
    ] {
        let check = world.build(&context).args(arguments).fails();
        assert_eq!(check.code, Some(1));
        assert!(check.text().contains(text), "{}", check.text());
        check
            .says("ERROR: dockerfile parse error on line 2: unknown instruction: RNU")
            .says("   2 | >>> RNU true\n");
    }
}

#[test]
fn a_check_names_the_file_as_its_user_does() {
    let world = World::start();
    let context = Context::new().file("docker/App.Dockerfile", "FROM scratch as a\n");
    let path = context.at("docker/App.Dockerfile");
    let check = world.build(&context).arg("--check").arg("-f").arg(&path).fails();
    assert!(check.text().contains(&format!("{}:1\n", path.display())), "{}", check.text());
}

#[test]
fn the_status_of_a_check_can_be_ignored() {
    let world = World::start();
    let context = Context::new().dockerfile(UNTIDY);
    world.build(&context).arg("--call=lint,ignorestatus=true").succeeds();
}

#[test]
fn rules_are_chosen_by_the_file_and_by_a_build_argument() {
    let world = World::start();
    for (head, argument, rules) in [
        ("", "", &["ConsistentInstructionCasing", "FromAsCasing"][..]),
        ("# check=skip=FromAsCasing\n", "", &["ConsistentInstructionCasing"]),
        ("# check=skip=all\n", "", &[]),
        ("# check=skip=all\n", "skip=ConsistentInstructionCasing", &["FromAsCasing"]),
        ("", "skip=all;experimental=all", &[]),
    ] {
        let dockerfile = format!("{head}FROM scratch as a\ncopy x /\n");
        let context = Context::new().file("Dockerfile", dockerfile);
        let mut check = world.build(&context).arg("--check");
        if !argument.is_empty() {
            check = check.arg(format!("--build-arg=BUILDKIT_DOCKERFILE_CHECK={argument}"));
        }
        let text = check.run().text();
        let mut found: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("WARNING: ")?.split(' ').next())
            .collect();
        found.sort_unstable();
        assert_eq!(found, rules, "{head}{argument}");
    }
}

#[test]
fn warnings_end_the_log_of_a_build_and_do_not_stop_it() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM scratch as a\nCOPY a /a\nMAINTAINER me").file("a", "");
    let build = world.build(&context).succeeds();
    let end = build.stderr.split("\n 2 warnings found").nth(1).expect("the warnings");
    assert!(
        end.contains("\n - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n")
    );
    assert!(end.contains("\n - MaintainerDeprecated: "), "{end}");
    // Each build says so, not only the first.
    world.build(&context).succeeds().says(" 2 warnings found");
}

#[test]
fn warnings_are_errors_where_the_file_says_so_after_all_of_them_were_told() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("# check=error=true\nFROM scratch as a\nCOPY a /a\nMAINTAINER me")
        .file("a", "");
    let build = world.build(&context).fails();
    build
        .says("lint violation found for rules: FromAsCasing, MaintainerDeprecated")
        .says(" 2 warnings found");
    assert!(build.ran().is_empty());
}

#[test]
fn warnings_go_to_the_metadata_file_of_who_asks_for_them() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM scratch as a\nCOPY a /a").file("a", "");
    let out = Context::new();
    let metadata = |wanted: &str| -> serde_json::Value {
        let file = format!("--metadata-file={}", out.at("metadata.json").display());
        world.build(&context).arg(file).env("BUILDX_METADATA_WARNINGS", wanted).succeeds();
        serde_json::from_str(&out.read("metadata.json")).expect("JSON")
    };
    assert!(metadata("0")["buildx.build.warnings"].is_null());
    let warning = &metadata("true")["buildx.build.warnings"][0];
    assert_eq!(warning["url"], "https://docs.docker.com/go/dockerfile/rule/from-as-casing/");
    assert_eq!(warning["range"][0]["start"]["line"], 1);
    assert_eq!(warning["sourceInfo"]["filename"], "Dockerfile");
}

#[test]
fn an_outline_lists_what_a_target_can_be_given() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        # VERSION is the tag to use
        ARG VERSION=1
        ARG UNUSED=2
        FROM scratch AS tools
        RUN --mount=type=secret,id=token,required --mount=type=ssh make
        FROM scratch AS other
        ARG OTHER

        # app serves it
        FROM scratch AS app
        ARG VERSION
        ARG NAME=app-$VERSION
        COPY --from=tools /a /a
        RUN --mount=type=secret,id=key make
        ",
    );
    let outline = |arguments: &[&str]| world.build(&context).args(arguments).succeeds().text();
    assert_eq!(
        outline(&["--call=outline"]),
        "\
TARGET:      app
DESCRIPTION: serves it

BUILD ARG   VALUE   DESCRIPTION
VERSION     1       is the tag to use
NAME        app-1   

SECRET   REQUIRED
token    true
key      

SSH       REQUIRED
default   

"
    );
    let given = outline(&["--call=outline", "--build-arg=VERSION=7"]);
    assert!(given.contains("\nNAME        app-7   \n"), "{given}");
    assert_eq!(
        outline(&["--call=outline", "--target=other"]),
        "TARGET: other\n\nBUILD ARG   VALUE   DESCRIPTION\nOTHER               \n\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&outline(&["--call=outline,format=json"])).expect("JSON");
    assert_eq!(json["args"][1]["name"], "NAME");
    assert_eq!(json["args"][1]["location"]["ranges"][0]["start"]["line"], 12);
    assert_eq!(json["secrets"][0]["required"], true);
}

#[test]
fn targets_are_listed_with_their_descriptions() {
    let world = World::start();
    let context = Context::new().dockerfile(UNTIDY);
    let targets = |call: &str| world.build(&context).arg(call).succeeds().text();
    assert_eq!(
        targets("--call=targets"),
        "TARGET          DESCRIPTION\nbase            has the tools\nfinal (default) \n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&targets("--call=targets,format=json")).expect("JSON");
    assert_eq!(json["targets"][0]["base"], "scratch");
    assert_eq!(json["targets"][1]["default"], true);
}

#[test]
fn questions_that_the_frontend_does_not_know_are_refused_by_name() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM scratch\nCOPY a /a");
    let known = world.build(&context).arg("--call=subrequests.describe").succeeds().text();
    assert!(known.starts_with("NAME                 VERSION DESCRIPTION\noutline "), "{known}");
    world
        .build(&context)
        .arg("--call=nonsense")
        .fails()
        .says("unsupported request frontend.nonsense");
}

#[test]
fn the_official_frontends_are_built_in() {
    let world = World::start();
    let context = |syntax: &str| {
        let dockerfile = format!("# syntax={syntax}\nFROM scratch\nCOPY a /a\n");
        Context::new().file("Dockerfile", dockerfile).file("a", "")
    };
    for official in ["docker/dockerfile:1", "docker/dockerfile-upstream:master-labs"] {
        world.build(&context(official)).succeeds();
    }
    let foreign = context("my/other:1");
    for arguments in [&[][..], &["--check"]] {
        world
            .build(&foreign)
            .args(arguments)
            .fails()
            .says("failed to resolve source metadata for docker.io/my/other:1")
            .says("   1 | >>> # syntax=my/other:1\n");
    }
    world
        .build(&context("docker/dockerfile:1"))
        .arg("--build-arg=BUILDKIT_SYNTAX=my/other:1")
        .fails()
        .says("failed to resolve source metadata for docker.io/my/other:1");
}
