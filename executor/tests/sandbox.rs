//! What a confined step sees and what it cannot do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Bench, has_users};
use kiln_executor::{ExitStatus, Network, Security, User};

/// Docker's default capabilities as /proc shows them.
const DEFAULT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

async fn capabilities(bench: &Bench, security: Security, uid: u32) -> Vec<String> {
    let mut spec = bench.spec("grep ^Cap /proc/self/status");
    spec.security = security;
    spec.user.uid = uid;
    let outcome = bench.run(spec).await.unwrap();
    let value = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
    outcome.stdout.lines().map(value).collect()
}

#[tokio::test]
async fn root_has_dockers_default_capabilities() {
    let bench = Bench::new();
    let found = capabilities(&bench, Security::Sandbox, 0).await;
    // Inheritable, permitted, effective, bounding, ambient.
    assert_eq!(found, [NONE, DEFAULT, DEFAULT, DEFAULT, NONE]);
}

#[tokio::test]
async fn an_unprivileged_user_has_no_capabilities() {
    let bench = Bench::new();
    let found = capabilities(&bench, Security::Sandbox, 1000).await;
    assert_eq!(found, [NONE, NONE, NONE, DEFAULT, NONE]);
}

#[tokio::test]
async fn an_insecure_step_has_every_capability_and_no_filter() {
    let bench = Bench::new();
    let found = capabilities(&bench, Security::Insecure, 1000).await;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(found, [all; 5]);

    let mut spec = bench.spec("mount -t tmpfs x /tmp && wc -c < /proc/timer_list; ls /dev/kmsg");
    spec.security = Security::Insecure;
    let outcome = bench.run(spec).await.unwrap();
    assert!(
        outcome.stdout.ends_with("/dev/kmsg\n") && !outcome.stdout.starts_with('0'),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn privileges_can_be_gained_by_setuid_programs_as_in_docker() {
    let bench = Bench::new();
    assert_eq!(bench.output("grep NoNewPrivs /proc/self/status").await, "NoNewPrivs:\t0\n");
    assert_eq!(bench.output("grep Seccomp: /proc/self/status").await, "Seccomp:\t2\n");
}

#[tokio::test]
async fn what_would_reach_the_host_is_refused() {
    let bench = Bench::new();
    for script in [
        "mount -t tmpfs x /tmp",
        "umount /proc",
        "unshare -m true",
        "unshare -U true",
        "hostname other",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/profiling",
        "touch /proc/sys/x",
        "date -s 2001-01-01; test $(date +%Y) = 2001",
        "mknod /disk b 253 0 && head -c 1 /disk",
        "mknod /disk b 254 0 && head -c 1 /disk",
        "mknod /mem c 1 1 && head -c 1 /mem",
        "mknod /port c 1 4 && head -c 1 /port",
        "head -c 1 /proc/kcore | grep -q .",
        "ls /proc/acpi/* /sys/firmware/*",
        "cat /proc/1/environ",
        "readlink /proc/1/fd/3",
        "echo x > /proc/1/fd/3",
        "ls /proc/1/root/",
        "readlink /proc/1/exe",
        "kill -9 1; kill -STOP 1; sleep 0.1; grep -q 'State:.*T' /proc/1/status",
        "echo -1000 > /proc/self/oom_score_adj",
    ] {
        let mut spec = bench.spec(script);
        spec.network = Network::None;
        let outcome = bench.run(spec).await.unwrap();
        assert!(matches!(outcome.exit.status, ExitStatus::Code(1..)), "{script}: {outcome:?}");
    }
}

#[tokio::test]
async fn masked_paths_are_empty_and_others_read_only() {
    let bench = Bench::new();
    assert_eq!(bench.output("wc -c < /proc/keys; wc -c < /proc/timer_list").await, "0\n0\n");
    assert_eq!(bench.output("ls /sys/firmware | wc -l").await, "0\n");
    let mounts = bench.output("cat /proc/self/mounts").await;
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/sys"] {
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(path)).expect(path);
        assert!(line.split(' ').nth(3).unwrap().starts_with("ro"), "{line}");
    }
}

#[tokio::test]
async fn the_hosts_mounts_are_gone() {
    let bench = Bench::new();
    let mounts = bench.output("cat /proc/self/mounts").await;
    assert!(!mounts.contains("ext4") && !mounts.contains("/old"), "{mounts}");
    assert!(mounts.lines().next().unwrap().starts_with("overlay / overlay rw"), "{mounts}");
}

#[tokio::test]
async fn dev_has_the_usual_devices() {
    let bench = Bench::new();
    let listed =
        bench.output("ls /dev; ls -l /dev/null /dev/ptmx | cut -c1-10 2>/dev/null; true").await;
    for name in [
        "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ] {
        assert!(listed.lines().any(|line| line == name), "{name}: {listed}");
    }
    bench.output("echo x > /dev/null; head -c 8 /dev/urandom > /dev/shm/x; ls /dev/pts/ptmx").await;
    // A node of an ordinary device works wherever a step makes it, as installers of systems need.
    if !has_users() {
        bench.output("mknod /null c 1 3 && echo x > /null").await;
    }
}

#[tokio::test]
async fn the_step_has_its_own_host_name_processes_and_ipc() {
    let bench = Bench::new();
    assert_eq!(bench.output("hostname").await, "buildkitsandbox\n");
    let processes = bench.output("ps -o pid,args").await;
    assert!(processes.lines().count() <= 4, "{processes}");
    assert!(
        processes.contains("1 {kiln-init} kiln-init") || processes.contains("1 kiln-init"),
        "{processes}"
    );
    for namespace in ["mnt", "pid", "ipc", "uts", "net"] {
        let inside = bench.output(&format!("readlink /proc/self/ns/{namespace}")).await;
        let outside = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(inside.trim(), outside.to_str().unwrap(), "{namespace}");
    }
}

#[tokio::test]
async fn a_step_without_network_has_loopback_only_and_it_is_up() {
    let bench = Bench::new();
    let links = bench.output("ls /sys/class/net; ping -c 1 127.0.0.1 | grep -c 'seq=0'").await;
    assert_eq!(links, "lo\n1\n");
    assert!(bench.output("ip addr").await.contains("LOOPBACK,UP"), "lo is up");
}

#[tokio::test]
async fn the_hosts_network_is_seen_if_asked_for() {
    let bench = Bench::new();
    let mut spec = bench.spec("readlink /proc/self/ns/net");
    spec.network = Network::Host;
    let outcome = bench.run(spec).await.unwrap();
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(outcome.stdout.trim(), outside.to_str().unwrap());
}

#[tokio::test]
async fn no_descriptor_of_the_daemon_is_open_in_the_step() {
    let bench = Bench::new();
    assert_eq!(bench.output("ls /proc/self/fd | wc -l").await, "4\n", "0 to 2 and that of ls");
}

#[tokio::test]
async fn signals_have_their_default_effects() {
    let bench = Bench::new();
    let spec = bench.command(&["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"]);
    let found = bench.run(spec).await.unwrap().stdout;
    assert_eq!(found, format!("SigBlk:\t{NONE}\nSigIgn:\t{NONE}\n"));
}

#[tokio::test]
async fn keys_of_the_daemon_are_out_of_reach() {
    let bench = Bench::new();
    assert_eq!(bench.output("cat /proc/keys").await, "");
}

#[tokio::test]
async fn an_unprivileged_user_cannot_write_where_root_can() {
    let bench = Bench::new();
    let mut spec = bench.spec("touch /etc/x");
    spec.user = User { uid: 1000, gid: 1000, additional_gids: Vec::new() };
    assert_eq!(bench.run(spec).await.unwrap().exit.status, ExitStatus::Code(1));
}
