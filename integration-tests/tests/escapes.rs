//! What a RUN step may try to get out of its container or to harm the host, and how it fails.
//!
//! Each attempt is made by a real step and says itself how it went, so that one which succeeds, or
//! is not made at all, is told from one which is refused.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use kiln_integration_tests::{
    Context, Daemon, GatewayBuild, LayerTar, Outcome, Registry, Signal, World, busybox_layer,
    image_config, processes_with,
};
use rustix::fs::StatVfsMountFlags;
use tar::EntryType;

/// Runs `script` as a step that must succeed and returns the lines that it writes.
fn said(world: &World, flags: &str, script: &str) -> Vec<String> {
    let dockerfile = format!("FROM my/tools\nCOPY script /\nRUN {flags} sh /script\n");
    let context = Context::new().file("Dockerfile", dockerfile).file("script", script);
    let build = world.build(&context).args(["--allow", "security.insecure"]).succeeds();
    let step = build.progress().steps().find(|step| step.name.contains("] RUN")).cloned();
    step.unwrap_or_else(|| panic!("no step in this log:\n{}", build.stderr)).log
}

/// Pushes busybox with the program that makes system calls, as `my/tools`.
fn push_tools(registry: &Registry) {
    registry.push_tools(Path::new(env!("CARGO_BIN_EXE_kiln-test-syscall")), "syscall");
}

fn world() -> World {
    with_tools(World::start())
}

fn with_tools(world: World) -> World {
    push_tools(&world.registry);
    world
}

/// One system call: what it would do, its number and arguments.
type Call = (&'static str, libc::c_long, String);

fn call(what: &'static str, number: libc::c_long, arguments: impl Into<String>) -> Call {
    (what, number, arguments.into())
}

/// Makes the calls in one step and returns what became of each.
fn results(world: &World, flags: &str, calls: &[Call]) -> Vec<String> {
    let lines =
        calls.iter().map(|(_, number, arguments)| format!("/syscall {number} {arguments}\n"));
    let script = format!("touch /file\nmkdir /dir\n{}", lines.collect::<String>());
    let said = said(world, flags, &script);
    assert_eq!(said.len(), calls.len(), "{said:#?}");
    said
}

/// Calls that would reach the kernel or the host, and that no step gets through.
fn refused() -> Vec<Call> {
    let new = |flags: i32| (flags | libc::SIGCHLD).to_string();
    vec![
        call("mount", libc::SYS_mount, "text:x text:/dir text:tmpfs 0 0"),
        call("mount again as writable", libc::SYS_mount, "text:x text:/proc/sys text:x 4128 0"),
        call("unmount what masks", libc::SYS_umount2, "text:/proc/kcore 2"),
        call("mount by descriptors", libc::SYS_fsopen, "text:tmpfs 0"),
        call("copy a mount", libc::SYS_open_tree, "-100 text:/ 1"),
        call("move a mount", libc::SYS_move_mount, "-100 text:/proc -100 text:/dir 0"),
        call("change a mount", libc::SYS_mount_setattr, "-100 text:/sys 0 zeros:32 32"),
        call("change the root", libc::SYS_pivot_root, "text:/dir text:/dir"),
        call("a user namespace", libc::SYS_unshare, libc::CLONE_NEWUSER.to_string()),
        call("a mount namespace", libc::SYS_unshare, libc::CLONE_NEWNS.to_string()),
        call("a cgroup namespace", libc::SYS_unshare, libc::CLONE_NEWCGROUP.to_string()),
        call("another's namespace", libc::SYS_setns, "0 0"),
        call("a child in a user namespace", libc::SYS_clone, new(libc::CLONE_NEWUSER)),
        call("a child in a network namespace", libc::SYS_clone, new(libc::CLONE_NEWNET)),
        call("a file by its handle", libc::SYS_open_by_handle_at, "-100 zeros:64 0"),
        call("the keyring", libc::SYS_keyctl, "0 -3 0"),
        call("a new key", libc::SYS_add_key, "text:user text:x text:x 1 -3"),
        call("a key by name", libc::SYS_request_key, "text:user text:x 0 -3"),
        call("io_uring", libc::SYS_io_uring_setup, "1 zeros:120"),
        call("BPF", libc::SYS_bpf, "0 zeros:120 120"),
        call("performance counters", libc::SYS_perf_event_open, "zeros:128 0 -1 -1 0"),
        call("page faults", libc::SYS_userfaultfd, "0"),
        call("another kernel", libc::SYS_kexec_load, "0 0 0 0"),
        call("a module", libc::SYS_init_module, "zeros:8 8 text:"),
        call("a module's file", libc::SYS_finit_module, "0 text: 0"),
        call("no module", libc::SYS_delete_module, "text:kiln_no_such_module 0"),
        call("swap", libc::SYS_swapon, "text:/file 0"),
        call("no swap", libc::SYS_swapoff, "text:/file"),
        call("reboot", libc::SYS_reboot, "-18751827 672274793 0"),
        // With nowhere to read the time from, so that the clock stays right if it is not refused.
        call("the clock", libc::SYS_clock_settime, "0 0"),
        call("accounting", libc::SYS_acct, "text:/file"),
        call("quotas", libc::SYS_quotactl, "0 0 0 0"),
        call("the host's name", libc::SYS_sethostname, "text:x 1"),
        call("the kernel's log", libc::SYS_syslog, "3 zeros:64 64"),
        call("file system events", libc::SYS_fanotify_init, "0 0"),
        call("hang up", libc::SYS_vhangup, ""),
        call("a descriptor of another", libc::SYS_pidfd_getfd, "0 0 0"),
        call("debug the supervisor", libc::SYS_ptrace, "16 1 0 0"),
        call("kernel crypto", libc::SYS_socket, format!("{} 5 0", libc::AF_ALG)),
        call(
            "kernel crypto, disguised",
            libc::SYS_socket,
            format!("{} 5 0", i64::from(libc::AF_ALG) | 1 << 32),
        ),
        call("the hypervisor", libc::SYS_socket, format!("{} 1 0", libc::AF_VSOCK)),
        call("executable data", libc::SYS_personality, "4194304"),
        call("memory of other nodes", libc::SYS_mbind, "0 0 0 0 0 0"),
    ]
}

#[test]
fn system_calls_that_reach_beyond_the_step_are_refused() {
    let world = world();
    let mut calls = refused();
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        call("ports", libc::SYS_iopl, "3"),
        call("some ports", libc::SYS_ioperm, "128 1 1"),
        call("another kernel's file", libc::SYS_kexec_file_load, "0 0 0 0 0"),
    ]);
    for ((what, ..), result) in calls.iter().zip(results(&world, "", &calls)) {
        assert_eq!(result, "EPERM", "{what}");
    }
    // Its flags are in memory, so libraries are told to fall back to clone, whose flags are not.
    let calls = [call("clone3", libc::SYS_clone3, "zeros:88 88")];
    assert_eq!(results(&world, "", &calls), ["ENOSYS"]);
}

/// What is typed into a terminal (TIOCSTI) is run by whoever reads from it next.
#[test]
fn a_step_has_no_terminal_to_type_into() {
    let world = world();
    let type_into =
        |fd: u32| call("type", libc::SYS_ioctl, format!("{fd} {} text:x", libc::TIOCSTI));
    let not_a_terminal = format!("error {}", libc::ENOTTY);
    let calls = [0, 1, 2].map(type_into);
    assert_eq!(results(&world, "", &calls), [0, 1, 2].map(|_| not_a_terminal.clone()));
    let said = said(&world, "", "(: < /dev/tty) 2>&1 | grep -c 'No such device or address'");
    assert_eq!(said, ["1"]);
}

/// The same attempts show that they would be noticed: each of these goes through where it is allowed.
#[test]
fn the_same_system_calls_work_in_a_step_that_is_allowed_everything() {
    let world = world();
    let is_harmless = |what: &str| {
        [
            "mount",
            "mount by descriptors",
            "copy a mount",
            "change a mount",
            "a mount namespace",
            "a user namespace",
            "the keyring",
            "the host's name",
            "executable data",
        ]
        .contains(&what)
    };
    let calls: Vec<_> = refused().into_iter().filter(|(what, ..)| is_harmless(what)).collect();
    assert_eq!(calls.len(), 9);
    for ((what, ..), result) in calls.iter().zip(results(&world, "--security=insecure", &calls)) {
        assert!(result.parse::<i64>().is_ok(), "{what}: {result}");
    }
}

#[test]
fn files_that_reach_beyond_the_step_cannot_be_written_or_read() {
    let world = world();
    let disk = fs::metadata("/").expect("the root directory").dev();
    let disk = format!("{} {}", libc::major(disk), libc::minor(disk));
    let block = format!("mknod /disk b {disk} && head -c 1 /disk");
    let (read_only, denied, refused) =
        ("Read-only file system", "Permission denied", "Operation not permitted");
    let missing = "No such file or directory";
    // Not every kernel has them.
    let has_requests = Path::new("/proc/sysrq-trigger").exists();
    let requests = if has_requests { read_only } else { "nonexistent directory" };
    let own = std::process::id();
    let stranger = format!("kill -9 {own}");
    let attempts = [
        ("a setting of the kernel", "echo 1 > /proc/sys/kernel/panic", read_only),
        ("the core pattern", "echo '|/x' > /proc/sys/kernel/core_pattern", read_only),
        // The letter that prints help: there is a host to lose.
        ("system requests", "echo h > /proc/sysrq-trigger", requests),
        ("an attribute of a device", "echo add > /sys/class/mem/null/uevent", read_only),
        ("a new file in /sys", "touch /sys/x", read_only),
        ("a new group", "mkdir /sys/fs/cgroup/x", "can't create directory"),
        ("a hierarchy of groups", "mount -t cgroup -o memory x /dir", "permission denied"),
        ("the supervisor's environment", "cat /proc/1/environ", denied),
        ("the supervisor's memory", "head -c 1 /proc/1/mem", denied),
        ("the supervisor's program", "head -c 1 /proc/1/exe", denied),
        ("overwriting that program", "echo x > /proc/1/exe", denied),
        ("the supervisor's descriptors", "head -c 1 /proc/1/fd/3", denied),
        ("writing to them", "echo x > /proc/1/fd/3", denied),
        ("the supervisor's root", "ls /proc/1/root/", denied),
        ("the supervisor's directory", "ls /proc/1/cwd/", denied),
        ("up from the root", "ls /proc/self/root/../../../boot", missing),
        ("less likely to be killed", "echo -1000 > /proc/self/oom_score_adj", denied),
        ("the kernel's log", "head -c 1 /dev/kmsg", missing),
        ("a node of that log", "mknod /kmsg c 1 11 && head -c 1 /kmsg", refused),
        ("a node of memory", "mknod /mem c 1 1 && head -c 1 /mem", refused),
        ("a node of ports", "mknod /port c 1 4 && head -c 1 /port", refused),
        ("a node of the host's disk", &block, refused),
        ("a node of a loop device", "mknod /loop b 7 0 && head -c 1 /loop", refused),
        ("a node of a console", "mknod /vc c 4 1 && echo x > /vc", refused),
        ("a terminal to type into", "echo x > /dev/tty", "No such device or address"),
        ("a process outside", &stranger, "No such process"),
        (
            "more in memory",
            "dd if=/dev/zero of=/dev/shm/x bs=1M count=65 2>&1 | grep space",
            "No space left on device",
        ),
    ];
    let line = |script: &str| format!("({script}) 2>&1 | tail -n 1 | tr '\\n' ' '; echo .\n");
    let script: String = attempts.iter().map(|(_, script, _)| line(script)).collect();
    let said = said(&world, "", &format!("mkdir /dir\n{script}"));
    assert_eq!(said.len(), attempts.len(), "{said:#?}");
    for ((what, _, expected), result) in attempts.iter().zip(&said) {
        assert!(result.contains(expected), "{what}: {result:?}");
    }
}

#[test]
fn devices_in_an_image_are_inert_but_for_the_usual_ones() {
    // Without root, nodes in images are left out.
    let world = World::start_with_rights();
    let disk = fs::metadata("/").expect("the root directory").dev();
    let nodes = LayerTar::new()
        .device("disk", EntryType::Block, libc::major(disk), libc::minor(disk))
        .device("mem", EntryType::Char, 1, 1)
        .device("zero", EntryType::Char, 1, 5)
        .finish();
    world.registry.push("my/tools:latest", &[busybox_layer(), nodes], &image_config());
    let script = "test -b /disk && test -c /mem && echo there\n\
                  for node in disk mem zero; do head -c 1 /$node 2>&1 | tr '\\0' 0; echo; done";
    let said = said(&world, "", script);
    let refused = |node: &str| format!("head: /{node}: Operation not permitted");
    let said: Vec<_> = said.iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(said, ["there", &refused("disk"), &refused("mem"), "0"]);
}

#[test]
fn files_in_memory_are_bounded_in_number_too() {
    let world = world();
    let script =
        "cd $1; i=0; while [ $i -lt 70000 ] && true 2>/dev/null > $i; do i=$((i+1)); done; echo $i";
    let run = "FROM my/tools\nCOPY script /\nRUN sh /script /dev/shm\n\
               RUN --mount=type=tmpfs,target=/small,size=1048576 sh /script /small\n";
    let context = Context::new().file("Dockerfile", run).file("script", script);
    let build = world.build(&context).succeeds();
    let small = "RUN --mount=type=tmpfs,target=/small,size=1048576 sh /script /small";
    for (step, most) in [("RUN sh /script /dev/shm", 65_535), (small, 1023)] {
        let log = build.step(step).log;
        let made = log.last().and_then(|made| made.parse::<u32>().ok());
        assert!(made.is_some_and(|made| made <= most), "{step}: {log:?}");
    }
}

#[test]
fn a_file_system_in_memory_without_a_size_counts_as_its_steps_memory() {
    // Without root, limits of memory take a control group that somebody delegates.
    let world = World::start_with_rights();
    let fill = "RUN --mount=type=tmpfs,target=/t dd if=/dev/zero of=/t/x bs=1M count=200";
    let context = Context::new().dockerfile(&format!("FROM busybox\n{fill}"));
    let build = world.build(&context).args(["--resource", "memory=64m"]);
    build.args(["--resource", "memory-swap=64m"]).fails().says("killed for using more memory");
}

/// A command, or the interpreter of one, can be a link to /proc/self/exe, which is the daemon's
/// program until the command has been executed (CVE-2019-5736).
#[test]
fn the_daemons_program_cannot_be_written_through_a_process_that_starts_steps() {
    let world = world();
    let context = Context::new().dockerfile("FROM my/tools\nRUN echo started; sleep 7402.5");
    let build = world.build(&context).start();
    build.until_output("started");
    let starts_steps = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("kiln-")
    };
    let mut supervisors = descendants(world.daemon.id() as i32);
    supervisors.retain(starts_steps);
    assert!(supervisors.len() >= 2, "the zygote and a supervisor: {supervisors:?}");
    for pid in supervisors {
        // Opening it for writing fails in any case as long as it runs, which it does not for ever.
        let program = fs::File::open(format!("/proc/{pid}/exe")).expect("a program");
        let mount = rustix::fs::fstatvfs(program).expect("a file system");
        assert!(mount.f_flag.contains(StatVfsMountFlags::RDONLY), "{:?}", mount.f_flag);
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("an environment");
        assert!(environment.is_empty(), "the daemon's environment is not handed on");
    }
    build.signal(Signal::INT);
    build.finish();
}

/// The processes that come from one.
fn descendants(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("the children of a process");
    let children: Vec<i32> =
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    let below = children.iter().flat_map(|child| descendants(*child)).collect::<Vec<_>>();
    [children, below].concat()
}

#[test]
fn links_in_an_image_lead_no_mount_out_of_it() {
    let world = World::start();
    let outside = Context::new().file("victim", "untouched");
    let folder = outside.path().display().to_string();
    let up = format!("{}{folder}", "../".repeat(16));
    let links = LayerTar::new()
        .symlink("etc/resolv.conf", &format!("{folder}/made"))
        .symlink("etc/hosts", &format!("{up}/victim"))
        .symlink("cache", &folder)
        .symlink("secret", &format!("{up}/secret"))
        .finish();
    world.registry.push("my/links:latest", &[busybox_layer(), links], &image_config());
    let context = Context::new().dockerfile(
        "
            FROM my/links
            RUN cat /etc/hosts /etc/resolv.conf | grep -c localhost
            RUN --mount=type=cache,target=/cache touch /cache/pwned
            RUN --mount=type=bind,target=/cache/bound,rw touch /cache/bound/pwned
            RUN --mount=type=tmpfs,target=/secret/x touch /secret/x/pwned
            RUN rm /cache && ln -s /proc/self/root/../../.. /cache
            RUN --mount=type=cache,target=/cache touch /cache/pwned || true
            ",
    );
    world.build(&context).run();
    let left: Vec<_> = fs::read_dir(outside.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(outside.read("victim"), "untouched");
}

#[test]
fn standard_file_systems_are_not_mounted_onto_links() {
    let world = World::start();
    let outside = Context::new();
    for name in ["proc", "dev", "sys"] {
        let link = LayerTar::new().symlink(name, &outside.path().display().to_string()).finish();
        let base = LayerTar::new().file("bin/sh", 0o755, &busybox()).finish();
        world.registry.push("my/links:latest", &[base, link], &image_config());
        let context = Context::new().dockerfile("FROM my/links\nRUN true");
        world.build(&context).arg("--no-cache").fails().says(&format!("mount target {name}"));
        assert!(fs::read_dir(outside.path()).expect("a folder").next().is_none());
    }
}

fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox")).expect("busybox")
}

#[test]
fn a_fork_bomb_hits_the_limit() {
    let mut world = world();
    let build = fork_bomb(&mut world, "7403.5");
    build.says("can't fork: Resource temporarily unavailable");
    // The next step starts from nothing.
    said(&world, "", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0 & done; wait; echo fine");
}

#[test]
fn a_fork_bomb_is_named() {
    // Without root and a control group, the kernel does not tell that its limit was hit.
    let mut world = with_tools(World::start_with_rights());
    let build = fork_bomb(&mut world, "7406.5");
    build.says("it had as many processes as allowed (worker.oci.pidsLimit)");
}

/// Starts more processes in one step than the daemon allows, each of which sleeps for so long.
fn fork_bomb(world: &mut World, seconds: &str) -> Outcome {
    world.daemon.configure_worker("pidsLimit = 50");
    let context = Context::new().dockerfile(&format!(
        "
        FROM my/tools
        RUN i=0; while [ $i -lt 100 ]; do sleep {seconds} & i=$((i+1)); done; echo all of them
        "
    ));
    let build = world.build(&context).fails();
    assert!(processes_with(&format!("sleep {seconds}")).is_empty());
    build
}

#[test]
fn a_step_has_a_limit_of_processes_without_being_told() {
    // Without root and a control group, it is one of the user's processes: see rootless.rs.
    let world = with_tools(World::start_with_rights());
    // The group has no namespace of its own in version 1, and is the root of what is seen in 2.
    let pids = "grep -E '(pids|^0:)' /proc/self/cgroup | head -n 1 | cut -d : -f 3";
    let context = Context::new()
        .dockerfile(&format!("FROM my/tools\nRUN {pids}; echo started; sleep 7404.5"));
    let build = world.build(&context).start();
    build.until_output("started");
    let pid = processes_with("7404.5").into_iter().max().expect("the step");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups");
    let of_pids = groups.lines().find_map(|line| line.split_once(":pids:"));
    let (root, group) = match of_pids {
        Some((_, group)) => ("/sys/fs/cgroup/pids", group),
        None => ("/sys/fs/cgroup", groups.trim().trim_start_matches("0::")),
    };
    let max = fs::read_to_string(format!("{root}{group}/pids.max")).expect("the limit");
    assert_eq!(max.trim(), "8192");
    build.signal(Signal::INT);
    build.finish();
}

#[test]
fn secrets_and_caches_of_another_build_are_unseen() {
    let world = world();
    let victim = Context::new().file("token", "kiln-secret-word").dockerfile(
        "
        FROM my/tools
        RUN --mount=type=secret,id=token --mount=type=cache,id=private,target=/cache \
            cp /run/secrets/token /cache/word; echo started; sleep 7405.5
        ",
    );
    let secret = format!("id=token,src={}", victim.at("token").display());
    let running = world.build(&victim).args(["--secret", &secret]).start();
    running.until_output("started");
    let script = "
        cat /proc/[0-9]*/root/run/secrets/token 2>/dev/null
        cat /proc/[0-9]*/environ /proc/*/cmdline 2>/dev/null | grep -c kiln-secret-[w]ord
        ls /cache | wc -l
        find / -xdev -type f -exec grep -l kiln-secret-word {} + 2>/dev/null | grep -v /script
        echo looked";
    let flags =
        "--mount=type=cache,id=other,target=/cache --mount=type=cache,id=third,target=/third";
    assert_eq!(said(&world, flags, script), ["0", "0", "looked"]);
    running.signal(Signal::INT);
    running.finish();
}

#[test]
fn sockets_of_the_host_without_a_file_are_unseen_without_its_network() {
    let world = world();
    let name = format!("kiln-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _socket = UnixListener::bind_addr(&address).expect("a socket");
    let unseen = format!("grep -c @{name} /proc/net/unix; echo looked");
    assert_eq!(said(&world, "--network=none", &unseen), ["0", "looked"]);
    // The daemon has none, whatever the network.
    assert_eq!(
        said(&world, "", "grep -c @kiln-zygote /proc/net/unix; ls /proc/self/fd | wc -l"),
        ["0", "4"]
    );
}

#[tokio::test]
async fn a_terminal_is_the_steps_own() {
    let world = World::start();
    let mut build = GatewayBuild::start(&world.daemon, "terminal").await;
    build.container("c", "docker.io/library/busybox:latest").await;
    // What is typed by TIOCSTI, where a kernel still has it, comes out of the same terminal. The other
    // terminals of the host are in an instance of their own.
    let command = "ls /dev/pts; tty; exit 4";
    let (code, output) = build.shell("c", command, true).await.exit().await;
    assert_eq!((code, output.as_str()), (4, "ptmx\r\n/dev/console\r\n"));
    build.end().await;
}

#[test]
fn other_users_of_the_host_cannot_execute_what_images_contain() {
    let registry = Registry::start();
    let folder = Context::new();
    let daemon = Daemon::start_with_root(&folder.at("new/root"), &registry);
    let mode = fs::metadata(daemon.root()).expect("the root").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}
