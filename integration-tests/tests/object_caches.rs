//! `--cache-to` and `--cache-from` with object stores: S3, Azure Blob Storage, GitHub's cache.

use std::time::Duration;

use kiln_integration_tests::object_server::{
    ACCESS_KEY, CLIENT_SECRET, FEDERATED_TOKEN, ObjectServer, SECRET_KEY, SESSION_TOKEN,
};
use kiln_integration_tests::{Context, Daemon, Invocation, World};

const DOCKERFILE: &str = "
    FROM busybox AS build
    COPY source .
    RUN cp -v source /out
    FROM busybox
    COPY --from=build /out /out
    RUN wc -c /out > /size
";
const CHANGED: (&str, &str) = ("> /size", "> /size && cat /size");

fn project() -> Context {
    Context::new().dockerfile(DOCKERFILE).file("source", "content")
}

/// What somebody does to the content of a store.
type Change = fn(&mut Vec<u8>);

/// A cache in a store: its attributes, and what the client's environment has for it.
struct Cache {
    attributes: String,
    environment: Vec<(&'static str, String)>,
}

impl Cache {
    fn s3(server: &ObjectServer) -> Self {
        Self { attributes: server.s3_with_key(), environment: Vec::new() }
    }

    fn of_every_kind(server: &ObjectServer) -> [Self; 5] {
        let keys = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_SESSION_TOKEN", SESSION_TOKEN),
        ];
        let environment = keys.map(|(name, value)| (name, value.to_owned())).to_vec();
        let gha = |is_v2, name| Self {
            attributes: format!("type=gha,scope={name}"),
            environment: server.job(is_v2),
        };
        [
            Self::s3(server),
            Self { attributes: format!("{},name=other", server.s3()), environment },
            Self { attributes: server.azblob(), environment: Vec::new() },
            gha(false, "one"),
            gha(true, "two"),
        ]
    }

    fn with(&self, flag: &str, more: &str, build: Invocation) -> Invocation {
        let build = build.args([flag, &format!("{}{more}", self.attributes)]);
        self.environment.iter().fold(build, |build, (name, value)| build.env(name, value))
    }

    fn export(&self, build: Invocation) -> Invocation {
        self.with("--cache-to", ",mode=max", build)
    }

    fn import(&self, build: Invocation) -> Invocation {
        self.with("--cache-from", "", build)
    }
}

#[test]
fn an_empty_daemon_hits_every_step_of_a_cache_in_any_store_and_fetches_what_it_needs() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    for cache in Cache::of_every_kind(&server) {
        let cold = cache.import(cache.export(world.build(&context))).succeeds();
        assert!(!cold.stderr.contains("ERROR"), "{}", cold.stderr);
        let second = Daemon::start(&world.registry);
        let fetched = || server.asked("GET", "/blobs/") + server.asked("GET", "/entries/");
        let before = fetched();
        let build = cache.import(second.build(&context)).succeeds();
        assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
        // The index of GitHub's cache is an entry, too.
        assert!(fetched() - before <= 1, "blobs were fetched for nothing: {}", cache.attributes);

        context.write_dockerfile(&DOCKERFILE.replace(CHANGED.0, CHANGED.1));
        let build = cache.import(second.build(&context)).succeeds();
        assert_eq!(build.step("RUN wc -c /out > /size && cat /size").log, ["7 /out"]);
        assert_eq!(build.step("RUN cp -v source /out").log, <[&str; 0]>::default());
        context.write_dockerfile(DOCKERFILE);
    }
}

#[test]
fn large_layers_go_in_parts_and_come_back_whole() {
    const LARGE: &str = "
        FROM busybox
        RUN head -c 40000000 /dev/urandom > /large; sha256sum /large > /sum
        RUN sha256sum -c /sum && date
    ";
    let world = World::start();
    let context = Context::new().dockerfile(LARGE);
    let server = ObjectServer::start();
    for cache in Cache::of_every_kind(&server) {
        cache.export(world.build(&context)).succeeds();
        let second = Daemon::start(&world.registry);
        context.write_dockerfile(&LARGE.replace("date", "echo whole"));
        let build = cache.import(second.build(&context)).succeeds();
        let log = build.step("RUN sha256sum -c /sum && echo whole").log;
        assert_eq!(log, ["/large: OK", "whole"], "{}", cache.attributes);
        context.write_dockerfile(LARGE);
    }
    for part in ["partNumber=3", "comp=blocklist"] {
        assert!(server.asked("PUT", part) > 0, "nothing was sent as {part}");
    }
    assert!(server.asked("PATCH", "caches") > 1, "nothing was sent in chunks");
}

#[test]
fn what_a_store_has_is_not_sent_again_and_kept_from_expiring() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    let cache = Cache::s3(&server);
    cache.export(world.build(&context)).succeeds();
    let sent = server.asked("PUT", "/blobs/");
    assert!(sent > 0);
    cache.export(world.build(&context)).succeeds();
    assert_eq!(server.asked("PUT", "/blobs/"), sent);
    // Copies onto themselves, one for each.
    server.age(Duration::from_hours(48));
    cache.export(world.build(&context)).succeeds();
    assert_eq!(server.asked("PUT", "/blobs/"), sent * 2);
}

#[test]
fn a_wrong_key_is_named_when_exporting_and_costs_only_time_when_importing() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    let wrong_id = server.s3_with_key().replace(ACCESS_KEY, "AKIDOTHER");
    let wrong_key = server.s3_with_key().replace(SECRET_KEY, "other");
    let azure = server.azblob().replace("secret_access_key=", "secret_access_key=AAAA");
    let mut job = server.job(true);
    job[0].1.push('x');
    for (attributes, environment, says) in [
        (wrong_id, Vec::new(), "InvalidAccessKeyId"),
        (wrong_key, Vec::new(), "SignatureDoesNotMatch"),
        (azure, Vec::new(), "AuthenticationFailed"),
        ("type=gha".to_owned(), job, "unauthenticated"),
    ] {
        let cache = Cache { attributes, environment };
        let failed = cache.export(world.build(&context)).fails();
        failed.says(says).says("exporting cache to");
        assert!(!failed.stderr.contains(SECRET_KEY), "{}", failed.stderr);
        let ignored = ",mode=max,ignore-error=true";
        cache.with("--cache-to", ignored, world.build(&context)).succeeds();
        cache.import(world.build(&context)).succeeds().says(says);
    }
}

#[test]
fn without_a_key_a_store_is_asked_as_the_machine_that_the_daemon_runs_on() {
    let mut world = World::start();
    let context = project();
    let server = ObjectServer::start();
    let [account, metadata, authority] = server.azure();
    let token = Context::new().file("token", FEDERATED_TOKEN);
    let token = token.at("token").to_str().expect("UTF-8").to_owned();
    let (tenant, client) = ("tenant".to_owned(), "client".to_owned());
    let cache =
        |name| Cache { attributes: format!("type=azblob,name={name}"), environment: Vec::new() };
    world.daemon.set("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", &account);
    // Each of them goes before those that were there already.
    let identities = [
        ("machine", vec![("AZURE_IMDS_ENDPOINT", metadata)], "/metadata/"),
        (
            "workload",
            vec![
                ("AZURE_AUTHORITY_HOST", authority),
                ("AZURE_TENANT_ID", tenant),
                ("AZURE_CLIENT_ID", client),
                ("AZURE_FEDERATED_TOKEN_FILE", token),
            ],
            "/tenant/",
        ),
        ("application", vec![("AZURE_CLIENT_SECRET", CLIENT_SECRET.to_owned())], "/tenant/"),
    ];
    for (name, variables, asked) in identities {
        for (variable, value) in variables {
            world.daemon.set(variable, value);
        }
        world.daemon.stop();
        world.daemon.start_again();
        let before = server.asked("POST", asked) + server.asked("GET", asked);
        cache(name).export(world.build(&context)).succeeds();
        cache(name).import(world.build(&context)).succeeds().says("importing cache manifest");
        assert!(server.asked("POST", asked) + server.asked("GET", asked) > before, "{name}");
        assert_eq!(server.asked("PUT", &format!("/manifests/{name}")), 1);
    }

    // Who asks for a token could go on as the machine.
    let elsewhere = cache("machine").attributes + ",account_url=" + &account + "/elsewhere";
    let refused = world.build(&context).args(["--cache-to", &elsewhere]).fails();
    refused.says("secret_access_key is missing").says(&account);

    world.daemon.set("AZURE_IMDS_ENDPOINT", format!("{account}/nowhere"));
    world.daemon.set("AZURE_CLIENT_ID", "another");
    world.daemon.stop();
    world.daemon.start_again();
    let refused = cache("machine").export(world.build(&context)).fails();
    refused.says("neither the client nor this machine has any for Azure");
    world.daemon.set("AWS_EC2_METADATA_DISABLED", "true");
    world.daemon.stop();
    world.daemon.start_again();
    let refused = world.build(&context).args(["--cache-to", &server.s3()]).fails();
    refused.says("neither the client nor this machine has any for AWS");
}

#[test]
fn a_store_that_is_gone_costs_time_and_not_the_build() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    let cache = Cache::s3(&server);
    cache.export(world.build(&context)).succeeds();

    let second = Daemon::start(&world.registry);
    cache.import(second.build(&context)).succeeds();
    drop(server);
    // It knows results now whose files it has not fetched, and cannot any more.
    context.write_dockerfile(&DOCKERFILE.replace(CHANGED.0, CHANGED.1));
    let build = cache.import(second.build(&context)).succeeds();
    assert_eq!(build.step("RUN wc -c /out > /size && cat /size").log, ["7 /out"]);
    cache.export(second.build(&context)).fails().says("exporting cache to Amazon S3");
}

#[test]
fn a_build_that_does_not_name_the_store_does_not_get_its_layers() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    let cache = Cache::s3(&server);
    cache.export(world.build(&context)).succeeds();
    let second = Daemon::start(&world.registry);
    cache.import(second.build(&context)).succeeds();
    let before = server.asked("GET", "/blobs/");
    context.write_dockerfile(&DOCKERFILE.replace(CHANGED.0, CHANGED.1));
    let build = second.build(&context).succeeds();
    assert_eq!(build.step("RUN cp -v source /out").log, ["'source' -> '/out'"]);
    assert_eq!(server.asked("GET", "/blobs/"), before);
}

#[test]
fn a_store_with_wrong_content_costs_time_and_not_the_build() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    let flip = |bytes: &mut Vec<u8>| bytes.iter_mut().for_each(|byte| *byte = !*byte);
    let grow = |bytes: &mut Vec<u8>| bytes.resize(1 << 20, 0);
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let fill = |bytes: &mut Vec<u8>| *bytes = b"[{\"layers\": 1".to_vec();
    let changes: [(&str, Change); 5] =
        [("blob", flip), ("blob", grow), ("blob", cut), ("manifests/", fill), ("index-", fill)];
    for (nth, (part, change)) in changes.into_iter().enumerate() {
        let server = if part == "index-" { &ObjectServer::start() } else { &server };
        let mut cache = Cache::s3(server);
        if part == "index-" {
            let attributes = "type=gha".to_owned();
            cache = Cache { attributes, environment: server.job(true) };
        }
        cache.attributes = cache.attributes.replace("prefix=app/", &format!("prefix={nth}/"));
        cache.export(world.build(&context)).succeeds();
        assert!(server.change(part, change) > 0, "{part}");
        let second = Daemon::start(&world.registry);
        context.write_dockerfile(&DOCKERFILE.replace(CHANGED.0, CHANGED.1));
        let build = cache.import(second.build(&context)).succeeds();
        assert_eq!(build.step("RUN wc -c /out > /size && cat /size").log, ["7 /out"]);
        if part != "blob" {
            build.says("config is not valid");
        }
        context.write_dockerfile(DOCKERFILE);
    }
}

#[test]
fn a_busy_store_is_met_with_patience() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    for cache in Cache::of_every_kind(&server) {
        server.be_busy(3);
        cache.export(world.build(&context)).succeeds();
    }
}

#[test]
fn outside_of_a_job_githubs_cache_is_left_out_with_a_note() {
    let world = World::start();
    let context = project();
    let caches = ["--cache-from", "type=gha", "--cache-to", "type=gha,mode=max"];
    world.build(&context).args(caches).succeeds().says("ACTIONS_RUNTIME_TOKEN");
}

#[test]
fn an_attribute_that_a_store_lacks_is_refused_by_name() {
    let world = World::start();
    let context = project();
    let server = ObjectServer::start();
    for (attribute, says) in [
        ("colour=red", "colour"),
        ("retry_mode=adaptive", "retry_mode"),
        ("image-manifest=true", "image-manifest"),
        ("upload_parallelism=0", "upload_parallelism"),
    ] {
        let cache = format!("{},{attribute}", server.s3_with_key());
        world.build(&context).args(["--cache-to", &cache]).fails().says(says);
    }
}
