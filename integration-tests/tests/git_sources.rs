//! Git repositories: ADD and contexts.

use kiln_integration_tests::{Context, Repository, State, WebServer, World};

/// A repository with three versions of one file, and a server that has it as `/project.git`.
fn project() -> (Repository, WebServer, [String; 3]) {
    let dockerfile = "FROM scratch\nCOPY version /\n";
    let repository = Repository::new(
        Context::new()
            .file("Dockerfile", dockerfile)
            .file("version", "one\n")
            .file("sub/Dockerfile", dockerfile)
            .file("sub/version", "below\n")
            .file("tool", "#!/bin/sh\n")
            .mode("tool", 0o755),
    );
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "--annotate", "--message=release", "v1"]);
    repository.git(&["branch", "old"]);
    repository.files().write("version", "two\n");
    let second = repository.commit();
    repository.git(&["tag", "v2"]);
    repository.files().write("version", "three\n");
    let third = repository.commit();
    let server = WebServer::start();
    server.folder("/project.git", repository.git_dir(), None);
    (repository, server, [first, second, third])
}

fn add(flags: &str, url: &str) -> Context {
    Context::new().dockerfile(&format!("FROM scratch\nADD {flags}{url} /"))
}

#[test]
fn a_repository_is_named_by_branch_tag_commit_and_directory() {
    let (world, (_repository, server, [first, second, _])) = (World::start(), project());
    let url = server.url("/project.git");
    let out = Context::new();
    let cases = [
        (String::new(), "three\n"),
        ("#old".into(), "one\n"),
        ("#v1".into(), "one\n"),
        ("#refs/tags/v2".into(), "two\n"),
        (format!("#{second}"), "two\n"),
        ("#v2:sub".into(), "below\n"),
        ("?branch=old".into(), "one\n"),
        ("?tag=v2&subdir=sub".into(), "below\n"),
        (format!("?ref=old&commit={first}"), "one\n"),
        (format!("?ref=v2&checksum={}", &second[..7]), "two\n"),
        (format!("?ref=moved&checksum={first}&fetch-by-commit"), "one\n"),
    ];
    for (index, (named, expected)) in cases.iter().enumerate() {
        let dest = format!("out{index}");
        world.build(&add("", &format!("{url}{named}"))).arg("-o").arg(out.at(&dest)).succeeds();
        assert_eq!(out.read(&format!("{dest}/version")), *expected, "{named}");
        assert!(!out.at(&dest).join(".git").exists(), "{named}");
    }
}

#[test]
fn modes_are_those_of_the_repository_and_the_git_directory_is_kept_if_asked_for() {
    let (world, (_repository, server, [_, _, third])) = (World::start(), project());
    let image = world.image(&add("--keep-git-dir --link ", &server.url("/project.git")));
    assert_eq!((image.file("tool").mode, image.file("version").mode), (0o755, 0o644));
    assert_eq!(image.file(".git/HEAD").text().trim(), third);
    let config = image.file(".git/config").text();
    assert!(config.contains(&server.url("/project.git")), "{config}");
}

#[test]
fn only_a_new_commit_is_fetched_again() {
    let (mut world, (repository, server, _)) = (World::start(), project());
    let url = server.url("/project.git");
    let context = add("", &url);
    world.build(&context).succeeds();
    let first = server.asked_below("/project.git/objects");
    world.daemon.stop();
    world.daemon.start_again();
    world.build(&context).succeeds().step_is(&format!("ADD {url} /"), &State::Cached);
    assert_eq!(server.asked_below("/project.git/objects"), first, "nothing was new");

    repository.files().write("version", "four\n");
    repository.commit();
    assert_eq!(world.image(&context).file("version").text(), "four\n");
}

#[test]
fn a_commit_that_is_known_is_not_even_asked_for() {
    let (world, (_repository, server, [_, second, _])) = (World::start(), project());
    let context = add("", &format!("{}#{second}", server.url("/project.git")));
    world.build(&context).succeeds();
    let asked = server.asked_below("/");
    world.build(&context).succeeds();
    assert_eq!(server.asked_below("/"), asked);
}

#[test]
fn a_context_can_be_a_repository() {
    let (world, (_repository, server, _)) = (World::start(), project());
    let url = server.url("/project.git");
    let out = Context::new();
    for (index, (context, expected)) in [
        (url.clone(), "three\n"),
        (format!("{url}#v1:sub"), "below\n"),
        (format!("{url}?branch=old"), "one\n"),
    ]
    .iter()
    .enumerate()
    {
        let dest = format!("out{index}");
        world.kiln().args(["build", context, "-o"]).arg(out.at(&dest)).succeeds();
        assert_eq!(out.read(&format!("{dest}/version")), *expected, "{context}");
    }
    let dockerfile = Context::new().dockerfile("FROM scratch\nCOPY .git/HEAD /\n");
    let build = world.kiln().args(["build", &url, "-f"]).arg(dockerfile.at("Dockerfile"));
    build
        .args(["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "-o"])
        .arg(out.at("kept"))
        .succeeds();
    assert_eq!(out.read("kept/HEAD").trim().len(), 40);
    let copying = Context::new().dockerfile("FROM scratch\nCOPY --from=src version /\n");
    let named = format!("src={url}#v2");
    world.build(&copying).args(["--build-context", &named, "-o"]).arg(out.at("named")).succeeds();
    assert_eq!(out.read("named/version"), "two\n");
}

#[test]
fn the_time_of_a_build_can_be_that_of_the_commit() {
    let (world, (_repository, server, _)) = (World::start(), project());
    world
        .kiln()
        .args(["build", &server.url("/project.git"), "--push", "-t"])
        .arg(world.registry.reference("dated"))
        .args(["--build-arg", "SOURCE_DATE_EPOCH=context"])
        .succeeds();
    let image = world.registry.image("dated");
    assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(image.file("version").mtime, 1_700_000_000);
}

#[test]
fn submodules_come_along_unless_they_are_left_out() {
    let (world, (repository, server, _)) = (World::start(), project());
    let part = Repository::new(Context::new().file("part", "of the whole\n"));
    server.folder("/part.git", part.git_dir(), None);
    repository.git(&["submodule", "--quiet", "add", &server.url("/part.git"), "module"]);
    repository.commit();
    let url = server.url("/project.git");
    let image = world.image(&add("", &url));
    assert_eq!(image.file("module/part").text(), "of the whole\n");
    assert!(!image.has("module/.git"), "it would say where the daemon has its copy");
    let image = world.image(&add("", &format!("{url}?submodules=false")));
    assert!(!image.has("module/part"));
}

#[test]
fn a_submodule_cannot_be_a_repository_of_the_daemons_host() {
    let (world, (repository, server, _)) = (World::start(), project());
    let secret = Repository::new(Context::new().file("secret", ""));
    let allow = "protocol.file.allow=always";
    let path = secret.files().path().display().to_string();
    repository.git(&["-c", allow, "submodule", "--quiet", "add", &path, "module"]);
    repository.commit();
    let failure = world.build(&add("", &server.url("/project.git"))).fails();
    failure.says("transport 'file' not allowed");
}

#[test]
fn what_goes_wrong_is_said_with_the_repository() {
    let (world, (_repository, server, [first, second, _])) = (World::start(), project());
    let url = server.url("/project.git");
    for (named, message) in [
        (format!("{url}#nothing"), "repository does not contain ref nothing".to_owned()),
        (
            format!("{url}?ref=v2&checksum={first}"),
            format!("expected checksum to match {first}, got {second}"),
        ),
        (format!("{url}?invalid=x"), "unexpected query \"invalid\"".to_owned()),
        (format!("{url}#:none"), "invalid subdir none: it is not there".to_owned()),
        (format!("{url}#:version"), "invalid subdir version: it is no directory".to_owned()),
        (format!("{url}#--upload-pack=x"), "invalid git ref".to_owned()),
        (server.url("/none.git"), "not found".to_owned()),
    ] {
        world.build(&add("", &named)).fails().says(&message);
    }
    let ssh = "git@127.0.0.1:project.git";
    world.build(&add("", ssh)).fails().says("no SSH key \"default\" forwarded from the client");
    let keep = format!("{url}?keep-git-dir=false");
    world.build(&add("--keep-git-dir ", &keep)).fails().says("inconsistent keep-git-dir");
    let copy = Context::new().dockerfile(&format!("FROM scratch\nCOPY {url} /"));
    world.build(&copy).fails().says("source can't be a git ref for COPY");
}

#[test]
fn a_link_in_a_repository_leads_nowhere_outside() {
    let (world, (repository, server, _)) = (World::start(), project());
    std::os::unix::fs::symlink("/etc", repository.files().at("etc")).expect("link");
    repository.commit();
    let failure = world.build(&add("", &format!("{}#:etc", server.url("/project.git")))).fails();
    failure.says("invalid subdir etc: it is no directory");
}

#[test]
fn a_secret_opens_a_repository_and_is_not_shown() {
    let (world, (repository, server, _)) = (World::start(), project());
    // `x-access-token:sesame`, as GitHub takes tokens.
    let header = "basic eC1hY2Nlc3MtdG9rZW46c2VzYW1l";
    server.folder("/private.git", repository.git_dir(), Some(header));
    let context = add("", &server.url("/private.git"));
    world.build(&context).fails();
    let secret = ["--secret", "id=GIT_AUTH_TOKEN"];
    let build = world.build(&context).args(secret).env("GIT_AUTH_TOKEN", "sesame").succeeds();
    assert!(!build.stderr.contains("sesame") && !build.stderr.contains("eC1hY2"));
}

#[test]
fn a_password_in_the_address_of_a_context_is_not_shown() {
    let (world, (_repository, server, _)) = (World::start(), project());
    let url = server.url("/project.git").replace("http://", "http://me:sesame@");
    let build = world.kiln().args(["build", "--progress", "plain", &url]).succeeds();
    build.says("xxxxx:xxxxx@");
    assert!(!build.stderr.contains("sesame"), "{}", build.stderr);
}

#[test]
fn a_repository_with_sha256_ids_is_like_any_other() {
    let world = World::start();
    let files = Context::new().file("version", "one\n");
    let repository = Repository::with_format(files, "sha256");
    let server = WebServer::start();
    server.folder("/project.git", repository.git_dir(), None);
    let commit = repository.git(&["rev-parse", "HEAD"]);
    assert_eq!(commit.len(), 64);
    let context = add("", &format!("{}#{commit}", server.url("/project.git")));
    assert_eq!(world.image(&context).file("version").text(), "one\n");
}

#[test]
fn a_repository_behind_ssh_is_reached_with_the_clients_agent() {
    let (mut world, (repository, _server, _)) = (World::start(), project());
    // Stands for ssh: it checks that there is an agent, and runs what the server would, where the
    // repository is that of whoever logs in.
    let git_dir = repository.git_dir().display().to_string();
    let ssh = format!(
        "#!/bin/sh\ntest -S \"$SSH_AUTH_SOCK\" || exit 9\n\
         case \"$*\" in *IdentityFile=none*git-upload-pack*) \
         exec git -c safe.directory='*' upload-pack {git_dir};; esac\n"
    );
    let programs = Context::new().file("ssh", ssh).mode("ssh", 0o755);
    world.daemon.stop();
    let others = std::env::var("PATH").expect("PATH");
    world.daemon.start_again_with_path(format!("{}:{others}", programs.path().display()));
    let socket = programs.at("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).expect("the agent's socket");
    let out = Context::new();
    let forwarded = format!("default={}", socket.display());
    world
        .build(&add("", "git@127.0.0.1:project.git#old"))
        .args(["--ssh", &forwarded, "-o"])
        .arg(out.at("out"))
        .succeeds();
    assert_eq!(out.read("out/version"), "one\n");
}

#[test]
fn a_host_without_git_is_told_to_get_it() {
    let (mut world, (_repository, server, _)) = (World::start(), project());
    let nothing = Context::new();
    world.daemon.stop();
    world.daemon.start_again_with_path(nothing.path());
    world
        .build(&add("", &server.url("/project.git")))
        .fails()
        .says("building from git repositories needs the program git on the daemon's host");
}
