//! Root's daemon with steps whose root is nobody on the host.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_integration_tests::{
    Context, Daemon, GatewayBuild, LayerTar, Process, Registry, Signal, USER_NAMESPACES, World,
    kilnd, processes_with,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The first of the host's ids in [`USER_NAMESPACES`].
const FIRST: u32 = 1_000_000;

/// A file capability, `CAP_CHOWN`, as it is kept outside of user namespaces.
const CAPABILITY: &str = "0100000201000000000000000000000000000000";

fn world() -> World {
    let registry = Registry::start();
    let mut world = World { daemon: Daemon::start_with_rights(&registry), registry };
    world.daemon.configure_worker(USER_NAMESPACES);
    world
}

/// Pushes busybox with the program that makes system calls, as `my/tools`.
fn push_tools(registry: &Registry) {
    registry.push_tools(Path::new(env!("CARGO_BIN_EXE_kiln-test-syscall")), "syscall");
}

/// An instruction that makes `/cap/busybox`, which has the capability; it says 0.
fn set_capability() -> String {
    format!(
        "RUN mkdir /cap && cp /bin/busybox /cap/ && /syscall {} text:/cap/busybox \
         text:security.capability hex:{CAPABILITY} 20 0",
        libc::SYS_setxattr
    )
}

/// Runs one instruction that must succeed and returns what it says.
fn said(world: &World, instruction: &str) -> Vec<String> {
    let context = Context::new().dockerfile(&format!("FROM busybox\n{instruction}"));
    let build = world.build(&context).args(["--no-cache", "--allow", "security.insecure"]);
    build.args(["--allow", "network.host"]).succeeds().step(instruction).log.clone()
}

#[test]
fn root_of_a_step_is_nobody_on_the_host() {
    let world = world();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN cat /proc/self/uid_map; id -u; echo started; sleep 7501.5");
    let build = world.build(&context).start();
    build.until_output("started");
    let step = processes_with("7501.5").into_iter().max().expect("the step");
    let status = fs::read_to_string(format!("/proc/{step}/status")).expect("status");
    let of_host = format!("\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}\n");
    assert!(status.contains(&format!("Uid:{of_host}Gid:{of_host}")), "{status}");
    build.signal(Signal::INT);
    let map = "         0    1000000      65536";
    let log = build.finish().stderr;
    assert!(log.contains(map), "{log}");
}

#[test]
fn a_step_has_the_same_surroundings_as_without() {
    let world = world();
    assert_eq!(said(&world, "RUN grep CapEff /proc/self/status"), ["CapEff:\t00000000a80425fb"]);
    assert_eq!(said(&world, "RUN grep Seccomp: /proc/self/status"), ["Seccomp:\t2"]);
    let root_owns = "RUN stat -c '%u %g' / /dev /dev/null /dev/fd /dev/pts /dev/pts/ptmx /dev/shm \
                     /etc/hosts /tmp | sort -u";
    assert_eq!(said(&world, root_owns), ["0 0"]);
    let streams = "RUN echo out > /dev/stdout && : > /dev/stderr";
    assert_eq!(said(&world, streams), ["out"]);
    assert_eq!(said(&world, "RUN head -c 4 /dev/zero | wc -c"), ["4"]);
    let mounts = "RUN --mount=type=tmpfs,target=/t touch /t/x /dev/shm/x /dev/mqueue/x && \
                  stat -c '%u %a' /t /t/x";
    assert_eq!(said(&world, mounts), ["0 1777", "0 644"]);
    // Raw sockets and low ports: the step's root has rights over the step's network.
    let ping = "RUN ping -c 1 127.0.0.1 | grep -c '1 packets received'";
    assert_eq!(said(&world, ping), ["1"]);
    let low = "RUN nc -l -p 80 </dev/null >/dev/null & for try in $(seq 200); do \
               nc 127.0.0.1 80 </dev/null && echo bound && break; sleep 0.02; done 2>/dev/null";
    assert_eq!(said(&world, low), ["bound"]);
    let refused = "RUN mknod /null c 1 3 2>/dev/null || echo refused";
    assert_eq!(said(&world, refused), ["refused"]);
}

#[test]
fn other_users_of_a_step_have_their_streams_secrets_and_files() {
    let world = world();
    let instruction = "RUN --mount=type=secret,id=s,uid=1000,mode=0400 \
                       cat /run/secrets/s && echo > /dev/stdout && touch mine && \
                       ! touch /theirs 2> /dev/null";
    let context = Context::new()
        .dockerfile(&format!(
            "
            FROM busybox
            RUN mkdir -p /home/w && chown 1000:1000 /home/w && chmod 700 /home/w
            USER 1000:1000
            WORKDIR /home/w
            {instruction}
            RUN --mount=type=tmpfs,target=/home/w/in/there true
            "
        ))
        .file("secret", "word\n");
    let secret = format!("id=s,src={}", context.at("secret").display());
    let (outcome, image) =
        world.pushed("test/image:latest", world.build(&context).args(["--secret", &secret]));
    assert_eq!(outcome.step(instruction).log, ["word", ""]);
    assert_eq!((image.file("home/w/mine").uid, image.file("home/w/mine").gid), (1000, 1000));
    assert!(!image.has("home/w/in"));
}

#[test]
fn the_layers_are_those_that_are_made_without() {
    let world = world();
    push_tools(&world.registry);
    let set = set_capability();
    let context = Context::new()
        .dockerfile(&format!(
            "
            FROM my/tools
            COPY --chown=5:6 --chmod=750 tree /tree
            RUN mkdir /made && echo x > /made/x && chown -R 7:8 /made && rm -r /tree/sub && mkfifo /p
            RUN rm -r /made && mkdir /made && touch /made/y && chown 65535:65535 /made/y
            {set}
            RUN chmod 711 /cap/busybox && rm /tree/link
            ADD packed.tar /packed/
            RUN --mount=type=bind,target=/tree,rw touch /tree/gone && chmod 4755 /made/y
            "
        ))
        .file("tree/one", vec![1; 100_000])
        .file("tree/sub/two", "2")
        .symlink("tree/link", "sub/two")
        .file("packed.tar", LayerTar::new().file("f", 0o4711, b"f").dir("d", 0o1777).finish());
    let image = |daemon: &Daemon, name: &str| {
        let (outcome, image) = world.reproduced(daemon, name, &context);
        assert_eq!(outcome.step(&set).log, ["0"]);
        image
    };
    let with = image(&world.daemon, "with/users:latest");
    let without = image(&Daemon::start_with_rights(&world.registry), "without/users:latest");
    assert_eq!(with.layers, without.layers);
    assert_eq!(with.digest, without.digest);
    // The capability is one that counts everywhere.
    let image = world.registry.reference("with/users:latest");
    let run = "RUN /cap/busybox grep CapEff /proc/self/status";
    let context = Context::new().dockerfile(&format!("FROM {image}\nUSER 1000\n{run}"));
    let fresh = Daemon::start_with_rights(&world.registry);
    assert_eq!(fresh.build(&context).succeeds().step(run).log, ["CapEff:\t0000000000000001"]);
}

#[test]
fn capabilities_of_files_count_in_later_steps() {
    let world = world();
    push_tools(&world.registry);
    let set = set_capability();
    let run = "RUN /cap/busybox grep CapEff /proc/self/status";
    let context = Context::new()
        .dockerfile(&format!("FROM my/tools\n{set}\nRUN touch /cap/busybox\nUSER 1000\n{run}"));
    let build = world.build(&context).succeeds();
    assert_eq!(build.step(run).log, ["CapEff:\t0000000000000001"]);
}

#[test]
fn caches_and_layers_are_the_same_with_and_without() {
    let mut world = world();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN echo base > /base && chown 9:9 /base
        ARG round
        RUN --mount=type=cache,target=/cache,uid=1000 test $round = 1 || \\
            stat -c '%n %u' /cache/* /base >> /owners; \\
            touch /cache/$round && chown $round:$round /cache/$round
        ",
    );
    let build = |world: &World, round: &str| {
        let round = format!("round={round}");
        world.pushed("test/rounds:latest", world.build(&context).args(["--build-arg", &round]))
    };
    build(&world, "1");
    world.daemon.replace_in_configuration("userNamespaces = true", "userNamespaces = false");
    world.daemon.replace_in_configuration("userNamespaceIds", "# ");
    world.daemon.stop();
    world.daemon.start_again();
    let (outcome, image) = build(&world, "2");
    assert_eq!(image.file("owners").text(), "/cache/1 1\n/base 9\n");
    assert!(outcome.cached().iter().any(|step| step.contains("/base")), "{}", outcome.stderr);
    world.daemon.replace_in_configuration("userNamespaces = false", "userNamespaces = true");
    world.daemon.replace_in_configuration("# ", "userNamespaceIds");
    world.daemon.stop();
    world.daemon.start_again();
    let (_, image) = build(&world, "3");
    assert_eq!(image.file("owners").text(), "/cache/1 1\n/cache/2 2\n/base 9\n");
}

#[test]
fn an_unconfined_step_stays_in_the_hosts_user_namespace() {
    let world = world();
    let map = "RUN --security=insecure tr -s ' ' < /proc/self/uid_map && mknod /null c 1 3 && \
               mount -t tmpfs x /tmp && echo mounted";
    assert_eq!(said(&world, map), [" 0 0 4294967295", "mounted"]);
}

#[test]
fn the_hosts_network_is_not_the_steps() {
    let world = world();
    let run = "RUN --network=host ls /sys/class/net >/dev/null && \
               ping -c 1 127.0.0.1 2>&1 | grep -o 'permission denied'";
    assert_eq!(said(&world, run), ["permission denied"]);
}

#[test]
fn an_id_that_steps_do_not_have_is_named() {
    let world = world();
    let context = Context::new().dockerfile("FROM busybox\nUSER 70000\nRUN true");
    world.build(&context).fails().says("the id 70000").says("below 65536");
    // What an image has of it is nobody's, and stays what it is.
    let context = Context::new()
        .file("f", "x")
        .dockerfile("FROM busybox\nCOPY --chown=70000:70000 f /f\nRUN stat -c %u /f > /owner");
    let image = world.image(&context);
    assert_eq!((image.file("f").uid, image.file("owner").text()), (70000, "65534\n".into()));
}

#[tokio::test]
async fn containers_of_frontends_and_their_further_processes_have_one_too() {
    let world = world();
    let mut build = GatewayBuild::start(&world.daemon, "users").await;
    build.container("c", "docker.io/library/busybox:latest").await;
    let map = "tr -s ' ' < /proc/self/uid_map; stat -c %u /dev/console; tty; exit 4";
    let command = format!("echo up; read x; {map}");
    let mut first = build.shell("c", &command, true).await;
    first.until("up").await;
    let further = build.shell("c", map, true).await.exit().await;
    first.write("\n").await;
    for (code, output) in [further, first.exit().await] {
        assert_eq!(code, 4, "{output}");
        assert!(output.contains(" 0 1000000 65536\r\n0\r\n"), "{output}");
    }
    build.end().await;
}

/// Starts a daemon that must not get ready, and returns what it says.
fn gives_up(root: &Path, config: &str) -> String {
    let folder = Context::new().file("kilnd.toml", config);
    let mut command = Command::new(kilnd());
    command.arg("--root").arg(root).arg("--config").arg(folder.at("kilnd.toml"));
    command.arg("--addr").arg(format!("unix://{}", folder.at("kilnd.sock").display()));
    let log = File::create(folder.at("log")).expect("log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let status = Process::spawn(&mut command).wait_within(Duration::from_mins(1));
    assert!(status.is_some_and(|status| !status.success()), "the daemon started");
    folder.read("log")
}

#[test]
fn a_missing_line_of_subordinate_ids_is_named() {
    let folder = Context::new();
    let ids = "userNamespaceIds = \"kiln-test-has-none\"";
    let log =
        gives_up(&folder.at("root"), &format!("[worker.oci]\nuserNamespaces = true\n{ids}\n"));
    assert!(log.contains("worker.oci.userNamespaceIds: /etc/subuid has no line for"), "{log}");
    assert!(log.contains("add \"kiln-test-has-none:"), "{log}");
}

#[test]
fn a_file_system_without_idmapped_mounts_is_refused_at_the_start() {
    let folder = Context::new().dir("lower").dir("upper").dir("work").dir("root");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        folder.at("lower").display(),
        folder.at("upper").display(),
        folder.at("work").display()
    );
    let root = folder.at("root");
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .expect("an overlay");
    let log = gives_up(&root, &format!("[worker.oci]\n{USER_NAMESPACES}\n"));
    umount2(&root, MntFlags::MNT_DETACH).expect("unmounted");
    assert!(log.contains("the kernel makes no idmapped mount of"), "{log}");
    assert!(log.contains("ext4, XFS and Btrfs have"), "{log}");
}
