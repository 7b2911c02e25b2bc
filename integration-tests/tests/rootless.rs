//! Daemons that an ordinary user runs.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_integration_tests::{
    Context, Daemon, Host, LayerTar, OrdinaryUser, Process, ReadySocket, Registry, World,
    busybox_layer, children_of, ends_within, image_config, kiln, kilnd, processes_with,
    work_directories,
};
use tar::EntryType;

const LIMIT: Duration = Duration::from_mins(1);

/// Runs one instruction that must succeed and returns what it says.
fn said(world: &World, instruction: &str) -> Vec<String> {
    let context = Context::new().dockerfile(&format!("FROM busybox\n{instruction}"));
    world.build(&context).arg("--no-cache").succeeds().step(instruction).log.clone()
}

#[test]
fn steps_run_as_root_and_as_other_users_and_give_files_to_whomever_they_like() {
    let world = World::start_rootless();
    let user = OrdinaryUser::with_ids();
    let process =
        fs::read_to_string(format!("/proc/{}/status", world.daemon.id())).expect("status");
    let uid = format!("Uid:\t{0}\t{0}\t{0}\t{0}", user.uid());
    assert!(process.contains(&uid), "the daemon is not the user's:\n{process}");

    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            RUN id -u && mkdir /d && echo x > /d/f && chown 65533:42 /d/f && chmod 4755 /d/f
            COPY --chown=12:34 file /copied
            RUN mkdir -p /home/w && chown 2000:2000 /home/w
            USER 2000:2000
            WORKDIR /home/w
            RUN id -u && touch mine && ! touch /d/theirs
            ",
        )
        .file("file", "content");
    let image = world.image(&context);
    let owner = |path: &str| (image.file(path).uid, image.file(path).gid);
    assert_eq!(owner("d"), (0, 0));
    assert_eq!((owner("d/f"), image.file("d/f").mode & 0o7777), ((65533, 42), 0o4755));
    assert_eq!(owner("copied"), (12, 34));
    assert_eq!(owner("home/w/mine"), (2000, 2000));
}

#[test]
fn a_step_has_the_same_surroundings_as_with_root() {
    let world = World::start_rootless();
    assert_eq!(said(&world, "RUN grep CapEff /proc/self/status"), ["CapEff:\t00000000a80425fb"]);
    assert_eq!(said(&world, "RUN grep Seccomp: /proc/self/status"), ["Seccomp:\t2"]);
    assert_eq!(said(&world, "RUN mount -t tmpfs x /mnt 2>/dev/null || echo refused"), ["refused"]);
    assert_eq!(said(&world, "RUN touch /sys/x 2>/dev/null || echo refused"), ["refused"]);
    assert_eq!(said(&world, "RUN cat /proc/kcore 2>/dev/null | wc -c"), ["0"]);
    assert_eq!(said(&world, "RUN echo $$ && head -c 4 /dev/zero | wc -c"), ["2", "4"]);
    assert_eq!(said(&world, "RUN mknod /dev/sda b 8 0 2>/dev/null || echo refused"), ["refused"]);
    let shm = "RUN --mount=type=tmpfs,target=/t touch /t/x /dev/shm/x && stat -c %a /dev/pts/ptmx";
    assert_eq!(said(&world, shm), ["666"]);
}

#[test]
fn what_layers_hide_is_hidden_in_later_steps_and_in_the_image() {
    let world = World::start_rootless();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN mkdir -p /a /b/c && touch /a/1 /a/2 /b/c/3 /gone
        RUN rm -r /a /gone && mkdir /a && touch /a/4 && rm /b/c/3
        RUN find /a /b /gone 2>/dev/null | sort > /found
        ",
    );
    let image = world.image(&context);
    assert_eq!(image.file("found").text(), "/a\n/a/4\n/b\n/b/c\n");
    assert_eq!(image.layers[2].paths(), [".wh.gone", "a/.wh.1", "a/.wh.2", "a/4", "b/c/.wh.3"]);
    // Layers of the image are unpacked to the same by a daemon that has none of it.
    let other = Daemon::start_rootless(&world.registry);
    let name = world.registry.reference("test/image:latest");
    let context = Context::new().dockerfile(&format!(
        "FROM {name}\nRUN find /a /b /gone 2>/dev/null | sort | cmp - /found"
    ));
    other.build(&context).succeeds();
}

#[test]
fn the_layers_are_those_that_roots_daemon_makes() {
    let world = World::start_rootless();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            COPY --chown=5:6 --chmod=750 tree /tree
            RUN mkdir /made && echo x > /made/x && chown -R 7:8 /made && rm -r /tree/sub && mkfifo /p
            ADD packed.tar /packed/
            ",
        )
        .file("tree/one", vec![1; 100_000])
        .file("tree/sub/two", "2")
        .symlink("tree/link", "sub/two")
        .file("packed.tar", LayerTar::new().file("f", 0o4711, b"f").dir("d", 0o1777).finish());
    let (_, user) = world.reproduced(&world.daemon, "by/user:latest", &context);
    let with_rights = Daemon::start_with_rights(&world.registry);
    let (_, root) = world.reproduced(&with_rights, "by/root:latest", &context);
    assert_eq!(user.layers, root.layers);
    assert_eq!(user.digest, root.digest);
}

#[test]
fn caches_secrets_and_what_was_built_are_there_after_a_restart() {
    let mut world = World::start_rootless();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            ARG round
            RUN --mount=type=cache,target=/cache,uid=1000 --mount=type=secret,id=s \\
                echo $round >> /cache/rounds && stat -c %u /cache && cat /run/secrets/s > /s && \\
                cat /cache/rounds > /rounds
            ",
        )
        .file("secret", "word");
    let build = |world: &World, round: &str| {
        let secret = format!("id=s,src={}", context.at("secret").display());
        let build = world.build(&context).args(["--secret", &secret, "--build-arg", round]);
        world.pushed("test/rounds:latest", build)
    };
    build(&world, "round=1");
    world.daemon.stop();
    // The kernel makes some of them with a mode that lets nobody in.
    assert_eq!(work_directories(world.daemon.root()), <[&Path; 0]>::default());
    world.daemon.start_again();
    let (again, _) = build(&world, "round=1");
    assert_eq!(again.cached().len(), 1, "{}", again.stderr);
    let (_, image) = build(&world, "round=2");
    assert_eq!(image.file("rounds").text(), "1\n2\n");
    assert_eq!(image.file("s").text(), "word");

    world.daemon.forget_builds();
    world.kiln().args(["prune", "--all", "--force"]).succeeds();
    for kind in ["snapshots", "cachemounts"] {
        let folder = world.daemon.root().join(kind);
        let left: Vec<_> = fs::read_dir(&folder).expect("a folder").flatten().collect();
        assert!(left.is_empty(), "{} has {left:?}", folder.display());
    }
}

#[test]
fn what_a_users_daemon_keeps_is_checked_by_the_user_and_left_alone_by_root() {
    let mut world = World::start_rootless();
    // What is left out, what is hidden, and owners that are not the user's.
    let nodes = LayerTar::new().device("null", EntryType::Char, 1, 3).file("gone", 0o644, b"");
    world.registry.push("my/nodes:latest", &[busybox_layer(), nodes.finish()], &image_config());
    let context = Context::new().dockerfile(
        "
        FROM my/nodes
        COPY --chown=12:34 Dockerfile /
        RUN ! test -e /null && rm /gone && mkdir /d && chown 65533:42 /d && chmod 4750 /d
        ",
    );
    let built = world.image(&context).contents();
    world.daemon.stop();
    world.daemon.check(&[]).is_clean();

    let root = world.daemon.root();
    let address = format!("unix://{}", world.daemon.socket().display());
    for command in [&["check", "--repair"][..], &["--addr", &address]] {
        let folder = Context::new();
        let log = File::create(folder.at("log")).expect("log");
        let mut kilnd = Command::new(kilnd());
        kilnd.args(command).arg("--root").arg(root).stdin(Stdio::null()).stderr(log);
        let status = Process::spawn(&mut kilnd).wait_within(LIMIT);
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{command:?}");
        let (said, user) = (folder.read("log"), OrdinaryUser::with_ids());
        assert!(said.contains(user.name()) && said.contains("as that user"), "{said}");
    }
    world.daemon.start_again();
    let again = world.build(&context).succeeds();
    assert_eq!(again.ran(), <[&str; 0]>::default());
    assert_eq!(world.image(&context).contents(), built);
}

#[test]
fn a_step_reaches_the_world_by_its_names_and_has_the_hosts_address_there() {
    let _host = Host::enter();
    let mut world = World::start_rootless();
    world.daemon.configure("[dns]\n nameservers = [\"127.0.0.1\"]\n");
    let page = format!("RUN wget -q -O- http://{}/", Host::NAME);
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
    assert_eq!(said(&world, "RUN ls /sys/class/net"), ["eth0", "lo"]);
    assert_eq!(said(&world, "RUN --network=none ls /sys/class/net"), ["lo"]);
}

#[test]
fn a_step_reaches_neither_the_hosts_loopback_nor_the_daemon() {
    let _host = Host::enter();
    let mut world = World::start_rootless();
    world.daemon.stop();
    world.daemon.listen_on_too("tcp://0.0.0.0:1234");
    world.daemon.start_again();
    for (address, port) in [("127.0.0.1", 8001), ("0.0.0.0", 8000)] {
        let service = TcpListener::bind((address, port)).expect("a service");
        std::thread::spawn(move || service.incoming().for_each(drop));
    }
    let connect = |address: &str, port: u16| {
        // What nc complains of would come another way, maybe after the word.
        let step = format!(
            "RUN nc -w 2 {address} {port} </dev/null 2>/dev/null && echo open || echo shut"
        );
        said(&world, &step).join(" ")
    };
    // A service of the host is reached as from elsewhere, and the daemon is not.
    assert_eq!(connect(Host::ADDRESS, 8000), "open");
    assert_eq!(connect(Host::ADDRESS, 1234), "shut");
    let context = Context::new().dockerfile("FROM busybox\nRUN nc -w 2 here 8000 </dev/null");
    world.build(&context).args(["--add-host", "here:host-gateway"]).succeeds();
    // The next router of the way outside stands for nothing of the host.
    for router in ["169.254.77.1", "169.254.77.2"] {
        assert_eq!(connect(router, 8001), "shut", "{router}");
    }
}

#[test]
fn steps_share_the_hosts_network_where_that_is_granted() {
    let host = Host::enter();
    let world = World::start_rootless();
    let list = "RUN --network=host sed -n 's/ *\\([^ ]*\\):.*/\\1/p' /proc/net/dev";
    let context = Context::new().dockerfile(&format!("FROM busybox\n{list}"));
    let build = world.build(&context).args(["--allow", "network.host"]).succeeds();
    assert_eq!(build.step(list).log, host.interfaces());
    // The machine's own: the kernel makes no other for this network.
    let context = Context::new().dockerfile("FROM busybox\nRUN --network=host touch /sys/x");
    let build = world.build(&context).args(["--allow", "network.host"]).fails();
    assert!(build.stderr.contains("Read-only file system"), "{}", build.stderr);
}

/// A folder with what the daemon needs to start, and the `further` programs.
fn programs(further: &[&str]) -> Context {
    let link = |folder: Context, name: &str| folder.symlink(name, &format!("/usr/bin/{name}"));
    let folder = further.iter().copied().fold(Context::new(), link);
    let folder = ["newuidmap", "newgidmap"].into_iter().fold(folder, link);
    OrdinaryUser::with_ids().own(folder.path());
    folder
}

#[test]
fn slirp4netns_connects_steps_where_there_is_no_pasta() {
    let _host = Host::enter();
    let mut world = World::start_rootless();
    world.daemon.stop();
    let programs = programs(&["slirp4netns"]);
    world.daemon.start_again_with_path(programs.path());
    let page = format!("RUN wget -q -O- http://{}/", Host::WORLD);
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
}

#[test]
fn without_a_program_that_connects_steps_the_user_is_told_what_to_do() {
    let mut world = World::start_rootless();
    world.daemon.stop();
    let programs = programs(&[]);
    world.daemon.start_again_with_path(programs.path());
    let context = Context::new().dockerfile("FROM busybox\nRUN true");
    let failed = world.build(&context).fails();
    failed.says("pasta").says("networkMode = \"host\"");
    let context = Context::new().dockerfile("FROM busybox\nRUN --network=none true");
    world.build(&context).succeeds();
}

#[test]
fn when_the_daemon_is_killed_nothing_of_it_is_left() {
    let mut world = World::start_rootless();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo started; sleep 7207.5");
    let build = world.build(&context).start();
    build.until_output("started");
    let step = processes_with("7207.5");
    let children = children_of(world.daemon.id());
    // The zygote and what connects steps.
    assert!(!step.is_empty() && children.len() >= 2, "{step:?} {children:?}");
    world.daemon.kill();
    build.finish();
    for process in step.into_iter().chain(children) {
        assert!(ends_within(process, Duration::from_secs(10)), "process {process} is left");
    }
    world.daemon.start_again();
    world.daemon.stop();
}

#[test]
fn namespaces_are_where_apparmor_lets_pasta_look_and_do_not_stay_there() {
    let _host = Host::enter();
    let mut world = World::start_rootless();
    world.daemon.stop();
    let runtime = Context::new();
    OrdinaryUser::with_ids().own(runtime.path());
    world.daemon.start_again_with("XDG_RUNTIME_DIR", runtime.path());
    let page = format!("RUN wget -q -O- http://{}/", Host::WORLD);
    let places = || {
        let places = fs::read_dir(runtime.at("netns")).expect("places of namespaces");
        places.map(|place| place.expect("a place").file_name()).collect::<Vec<_>>()
    };
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
    let before = places();
    assert!(!before.is_empty());
    world.daemon.kill();
    world.daemon.start_again();
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
    assert!(
        places().iter().all(|place| !before.contains(place)),
        "what was killed left {before:?}"
    );
    world.daemon.stop();
    assert_eq!(places(), <[&str; 0]>::default());
}

#[test]
fn the_way_outside_is_made_anew_when_its_program_has_ended() {
    let _host = Host::enter();
    let world = World::start_rootless();
    let page = format!("RUN timeout 10 wget -q -O- http://{}/", Host::WORLD);
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
    let before = children_of(world.daemon.id());
    let program = before.iter().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("pasta") || name.starts_with("passt")
    });
    let program = *program.expect("pasta");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(program), nix::sys::signal::SIGKILL)
        .expect("a process");
    assert!(ends_within(program, Duration::from_secs(10)));
    // The first step may have been given a network before, in which it waits for answers in vain.
    let context = Context::new().dockerfile(&format!("FROM busybox\n{page}"));
    world.build(&context).arg("--no-cache").run();
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
}

#[test]
fn limits_that_nobody_has_delegated_are_refused_by_name() {
    let world = World::start_rootless();
    let context = Context::new().dockerfile("FROM busybox\nRUN true");
    world.build(&context).args(["--memory", "64m"]).fails().says("memory").says("delegated");
}

#[test]
fn a_step_without_a_control_group_has_a_limit_of_processes_without_being_told() {
    let world = World::start_rootless();
    let limit =
        said(&world, "RUN sed -n 's/^Max processes *//p' /proc/self/limits | cut -d ' ' -f 1");
    // The user may have fewer.
    let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NPROC);
    assert_eq!(limit, [own.expect("a limit").1.min(8192).to_string()]);
}

#[test]
fn ids_that_the_user_does_not_have_are_named() {
    let world = World::start_rootless();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY --chown=3000000:7 Dockerfile /")
        .file("user/Dockerfile", "FROM busybox\nUSER 3000000\nRUN true");
    world.build(&context).fails().says("3000000:7").says("/etc/subuid");
    world.kiln().arg("build").arg(context.at("user")).fails().says("/etc/subuid");
}

#[test]
fn an_unconfined_step_has_the_rights_of_root_in_the_users_namespace_and_no_more() {
    let world = World::start_rootless();
    let script = "RUN --security=insecure mount -t tmpfs x /tmp && touch /tmp/x && \
                  cat /proc/self/uid_map | head -n 1 | wc -w && ! mknod /sda b 8 0 2>/dev/null";
    let context = Context::new().dockerfile(&format!("FROM busybox\n{script}"));
    let build = world.build(&context).args(["--allow", "security.insecure"]).succeeds();
    assert_eq!(build.step(script).log, ["3"]);
}

/// What a daemon of `user` says before it gives up.
fn gives_up(user: &OrdinaryUser, args: &[&str], path: Option<&str>) -> String {
    let folder = Context::new();
    user.own(folder.path());
    let log = File::create(folder.at("log")).expect("log");
    let mut command = user.command(&kilnd(), folder.path());
    command.args(args).envs(path.map(|path| ("PATH", path)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let status = Process::spawn(&mut command).wait_within(LIMIT);
    assert!(status.is_some_and(|status| !status.success()), "the daemon started");
    folder.read("log")
}

#[test]
fn a_user_without_subordinate_ids_is_told_which_line_is_missing_where() {
    let log = gives_up(&OrdinaryUser::without_ids(), &[], None);
    assert!(log.contains("nobody:100000:65536") && log.contains("/etc/subuid"), "{log}");
}

#[test]
fn what_an_ordinary_user_cannot_have_is_refused_at_the_start() {
    let user = OrdinaryUser::with_ids();
    let log = gives_up(&user, &["--oci-worker-net=cni"], None);
    assert!(log.contains("networkMode is \"cni\""), "{log}");
}

#[test]
fn a_users_client_starts_a_daemon_of_the_users_own() {
    let (user, registry) = (OrdinaryUser::with_ids(), Registry::start());
    let folder = Context::new()
        .dockerfile(&format!("FROM {}\nRUN id -u", registry.reference("library/busybox")));
    let home = Context::new();
    user.own(home.path());
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("permissions");
    // Beside the client, where it looks for the daemon.
    user.command(&kilnd(), home.path());
    let mut build = user.command(&kiln(), home.path());
    build.args(["build", "--progress=plain"]).arg(folder.path());
    let output = build.env_remove("KILN_HOST").output().expect("kiln");
    let said = String::from_utf8_lossy(&output.stderr);
    let socket = home.at(".cache/kiln/kilnd.sock");
    let login = format!("/run/user/{}", user.uid());
    assert!(!fs::exists(&login).expect("/run"), "a login of the tests' user is in the way");
    let daemons = processes_with(&socket.display().to_string());
    for daemon in daemons.clone() {
        let pid = nix::unistd::Pid::from_raw(daemon);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("a process");
        assert!(ends_within(daemon, LIMIT), "the daemon does not end");
    }
    assert!(output.status.success(), "{said}\n{}", {
        fs::read_to_string(home.at(".local/state/kiln/kilnd.log")).unwrap_or_default()
    });
    assert_eq!(daemons.len(), 1, "{said}");
    assert!(home.at(".local/share/kiln/index").is_dir());
}

#[test]
fn a_daemon_in_a_container_that_hides_parts_of_proc_says_so() {
    let mut world = World::start_rootless();
    world.daemon.stop();
    // What is mounted now in this thread's namespace, the daemon's is a copy of.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let (none, private) =
        (None::<&str>, nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC);
    nix::mount::mount(none, "/", none, private, none).expect("private mounts");
    let flags = nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(Some("x"), "/proc/fs", Some("tmpfs"), flags, none).expect("a mask");
    world.daemon.start_again();
    let context = Context::new().dockerfile("FROM busybox\nRUN --network=none true");
    world.build(&context).fails().says("/proc").says("systempaths=unconfined");
}

/// A control group of version 2 that is a user's; gone with all below it when dropped.
struct Delegated(PathBuf);

impl Delegated {
    fn to(user: &OrdinaryUser, name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = fields.find(|fields| fields[2] == "cgroup2").expect("cgroups of version 2");
        let group = Path::new(mount[1]).join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&group).expect("a control group");
        user.own(&group);
        for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            user.own(&group.join(file));
        }
        Self(group)
    }

    fn remove(group: &Path) {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                Self::remove(&entry.path());
            }
        }
        let _ = fs::remove_dir(group);
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        Self::remove(&self.0);
    }
}

#[test]
fn steps_have_control_groups_of_their_own_below_one_that_was_delegated() {
    let (user, registry, folder) =
        (OrdinaryUser::with_ids(), Registry::start(), Context::new().dir("home"));
    user.own(folder.path());
    user.own(&folder.at("home"));
    let group = Delegated::to(&user, "kiln-rootless");
    let ready = ReadySocket::bind(folder.path());
    let host = format!("unix://{}", folder.at("kilnd.sock").display());
    // Root puts the process there, as a service manager does.
    let script = "echo $$ > $0/cgroup.procs && exec setpriv --clear-groups \"$@\"";
    let program = user.command(&kilnd(), folder.path()).get_program().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&group.0);
    command.args(["--reuid", user.name(), "--regid", user.name()]).arg(program);
    command.args(["--addr", &host, "--root"]).arg(folder.at("home/root"));
    command.env("HOME", folder.at("home")).env("NOTIFY_SOCKET", ready.path());
    let mut daemon = Process::spawn(command.stdin(Stdio::null()));
    assert!(ready.wait(&daemon, LIMIT), "the daemon does not get ready");

    let of_process = |pid: u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups");
        groups
            .lines()
            .find_map(|line| line.strip_prefix("0::").map(str::to_owned))
            .expect("a group")
    };
    let own = format!("/{}", group.0.file_name().expect("a name").display());
    assert_eq!(of_process(daemon.id()), format!("{own}/daemon"));
    let context = Context::new().dockerfile(&format!(
        "FROM {}\nRUN echo started; sleep 7211.5",
        registry.reference("library/busybox")
    ));
    let mut build = Command::new(kiln());
    build.args(["build", "--progress=plain"]).arg(context.path()).env("KILN_HOST", &host);
    build.env("HOME", context.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut build = Process::spawn(&mut build);
    let log = BufReader::new(build.child().stderr.take().expect("the log"));
    let mut lines = log.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with(" started")), "the step did not start");
    let steps = processes_with("7211.5");
    let step = of_process(steps[0].unsigned_abs());
    assert!(step.starts_with(&format!("{own}/kiln/")) && step.contains("/sandbox/"), "{step}");
    build.stop();
    assert!(daemon.stop().is_some_and(|status| status.success()));
}
