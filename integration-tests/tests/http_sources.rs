//! Files from web servers: ADD, contexts, and the times that they have.

use std::io::Write as _;

use kiln_integration_tests::{Context, LayerTar, Page, State, WebServer, World, digest};

const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

fn add(url: &str) -> Context {
    Context::new().dockerfile(&format!("FROM scratch\nADD {url} /"))
}

#[test]
fn an_unchanged_url_is_not_downloaded_again_even_by_a_new_daemon() {
    let (mut world, server) = (World::start(), WebServer::start());
    let page = |body: &str, etag: &str| Page::new(body).header("ETag", etag);
    server.page("/file", page("one", "\"1\""));
    let context = add(&server.url("/file"));
    world.build(&context).succeeds();
    assert_eq!(server.asked("/file"), ["GET"]);
    world.daemon.stop();
    world.daemon.start_again();
    let step = format!("ADD {} /", server.url("/file"));
    world.build(&context).succeeds().step_is(&step, &State::Cached);
    assert_eq!(server.asked("/file"), ["GET", "HEAD"]);

    server.page("/file", page("two", "\"2\""));
    assert_eq!(world.image(&context).file("file").text(), "two");
    assert_eq!(server.asked("/file"), ["GET", "HEAD", "HEAD", "GET"]);
}

#[test]
fn a_server_that_cannot_say_what_has_changed_is_asked_for_the_file() {
    let (world, server) = (World::start(), WebServer::start());
    server.page("/file", Page::new("same"));
    let context = add(&server.url("/file"));
    world.build(&context).succeeds();
    let step = format!("ADD {} /", server.url("/file"));
    assert!(world.build(&context).succeeds().cached().contains(&step));
    assert_eq!(server.asked("/file"), ["GET", "GET"]);
}

#[test]
fn an_added_file_has_the_name_of_its_url_and_the_time_of_its_server() {
    let (world, server) = (World::start(), WebServer::start());
    let named = Page::new("x").header("Content-Disposition", "attachment; filename=other");
    server.page("/a/b.txt", named.header("Last-Modified", DATE));
    server.page("/plain", Page::new("y"));
    let (dated, plain) = (server.url("/a/b.txt?x=y"), server.url("/plain"));
    let context = Context::new().dockerfile(&format!(
        "
        FROM busybox
        ADD {dated} /in/
        ADD --chmod=755 --chown=12:34 {plain} /as
        ADD --link {plain} /linked/
        "
    ));
    let image = world.image(&context);
    for (path, mode, owner, mtime) in [
        ("in/b.txt", 0o600, (0, 0), 1_700_000_000),
        ("as", 0o755, (12, 34), 0),
        ("linked/plain", 0o600, (0, 0), 0),
    ] {
        let file = image.file(path);
        assert_eq!((file.mode, (file.uid, file.gid)), (mode, owner), "{path}");
        assert_eq!(file.mtime, mtime, "{path}");
    }
}

#[test]
fn a_checksum_is_a_promise() {
    let (world, server) = (World::start(), WebServer::start());
    server.page("/file", Page::new("content"));
    let url = server.url("/file");
    let with = |checksum: &str| {
        Context::new().dockerfile(&format!("FROM scratch\nADD --checksum={checksum} {url} /"))
    };
    let (good, bad) = (digest(b"content"), digest(b"other"));
    assert_eq!(world.image(&with(&good)).file("file").text(), "content");
    world.build(&with(&good)).succeeds();
    assert_eq!(server.asked("/file"), ["GET"], "what is here is not asked for");
    let failure = world.build(&with(&bad)).fails();
    failure.says(&format!("digest mismatch for {url}: {good} (expected: {bad})"));
    world.build(&with("md5:abc")).fails().says("unsupported digest algorithm");
}

#[test]
fn what_goes_wrong_is_said_with_the_address() {
    let (world, server) = (World::start(), WebServer::start());
    let redirect = |to: &str| Page::new("").status(302).header("Location", to);
    server.page("/missing", Page::new("no").status(404));
    server.page("/broken", Page::new("no").status(500));
    server.page("/cut", Page::new("begin").cut_off());
    server.page("/loop", redirect(&server.url("/loop")));
    server.page("/elsewhere", redirect("file:///etc/passwd"));
    server.page("/packed", Page::new("no gzip").header("Content-Encoding", "gzip"));
    for (path, message) in [
        ("/missing", "invalid response status 404"),
        ("/broken", "invalid response status 500"),
        ("/cut", "the transfer broke off after 5 bytes"),
        ("/loop", "too many redirects"),
        ("/elsewhere", "cannot get"),
        ("/packed", "cannot store"),
    ] {
        let url = server.url(path);
        world.build(&add(&url)).fails().says(&url).says(message);
    }
    world.build(&add("http://127.0.0.1:1/x")).fails().says("http://127.0.0.1:1/x");
}

#[test]
fn an_archive_from_a_server_stays_packed_unless_somebody_says_otherwise() {
    let (world, server) = (World::start(), WebServer::start());
    server.page("/a.tar", Page::new(LayerTar::new().file("inside", 0o644, b"x").finish()));
    let url = server.url("/a.tar");
    let context = Context::new()
        .dockerfile(&format!("FROM scratch\nADD {url} /packed/\nADD --unpack {url} /unpacked/"));
    let image = world.image(&context);
    assert!(image.has("packed/a.tar") && image.has("unpacked/inside"));
    assert!(!image.has("unpacked/a.tar"));
}

#[test]
fn what_a_server_packs_for_the_way_is_unpacked() {
    let (world, server) = (World::start(), WebServer::start());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"content").expect("gzip in memory");
    let packed = gzip.finish().expect("gzip in memory");
    server.page("/file", Page::new(packed).header("Content-Encoding", "gzip"));
    assert_eq!(world.image(&add(&server.url("/file"))).file("file").text(), "content");
}

#[test]
fn a_context_can_be_an_archive_or_a_dockerfile_at_a_url() {
    let (world, server) = (World::start(), WebServer::start());
    let tar = LayerTar::new()
        .file("sub/Dockerfile", 0o644, b"FROM scratch\nCOPY greeting /\n")
        .file("greeting", 0o644, b"hello\n")
        .finish();
    server.page("/context.tar", Page::new(tar));
    server.page("/Dockerfile", Page::new("FROM busybox\nRUN echo alone > /greeting\n"));
    let out = Context::new();
    for (path, file, expected) in
        [("/context.tar", "sub/Dockerfile", "hello\n"), ("/Dockerfile", "Dockerfile", "alone\n")]
    {
        let build = world.kiln().args(["build", &server.url(path), "-f", file]);
        build.arg("-o").arg(out.at(file)).succeeds();
        assert_eq!(out.read(&format!("{file}/greeting")), expected);
    }
}

#[test]
fn a_named_context_can_be_a_file_at_a_url() {
    let (world, server) = (World::start(), WebServer::start());
    server.page("/data", Page::new("named\n"));
    let context = Context::new().dockerfile("FROM scratch\nCOPY --from=data context /data");
    let out = Context::new();
    let named = format!("data={}", server.url("/data"));
    let build = world.build(&context).args(["--build-context", &named]);
    build.arg("-o").arg(out.at("x")).succeeds();
    assert_eq!(out.read("x/data"), "named\n");
}

#[test]
fn the_time_of_a_build_can_be_that_of_its_context_or_of_a_stage() {
    let (world, server) = (World::start(), WebServer::start());
    let dockerfile = "FROM scratch\nWORKDIR /made\n";
    server.page("/Dockerfile", Page::new(dockerfile).header("Last-Modified", DATE));
    let name = |name: &str| world.registry.reference(name);
    let build = |context: &str| {
        let arg = "SOURCE_DATE_EPOCH=context";
        world.kiln().args(["build", context, "--build-arg", arg, "--push", "-t"])
    };
    build(&server.url("/Dockerfile")).arg(name("dated")).succeeds();
    let created = &world.registry.image("dated").config["created"];
    assert_eq!(created, "2023-11-14T22:13:20Z");

    // A client's directory has no time.
    let local = Context::new().dockerfile(dockerfile);
    build(&local.path().display().to_string()).arg(name("undated")).succeeds();
    assert_ne!(&world.registry.image("undated").config["created"], created);

    let url = server.url("/Dockerfile");
    let staged = Context::new().dockerfile(&format!(
        "ARG SOURCE_DATE_EPOCH=dated\nFROM scratch AS dated\nADD {url} /\nFROM scratch\nWORKDIR /x"
    ));
    assert_eq!(&world.image(&staged).config["created"], created);
}

#[test]
fn a_secret_opens_a_server() {
    let (world, server) = (World::start(), WebServer::start());
    server.page("/token", Page::new("x").authorization("Bearer open sesame"));
    server.page("/header", Page::new("x").authorization("Custom value"));
    for (path, secret, value) in [
        ("/token", "HTTP_AUTH_TOKEN_127.0.0.1", "open sesame"),
        ("/header", "HTTP_AUTH_HEADER_127.0.0.1", "Custom value"),
    ] {
        let context = add(&server.url(path));
        world.build(&context).fails().says("401");
        let secret = format!("id={secret},env=VALUE");
        world.build(&context).args(["--secret", &secret]).env("VALUE", value).succeeds();
    }
}
