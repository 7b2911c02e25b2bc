//! The network of steps, on a host of the test's own: a network namespace with a way to another
//! one, which stands for the rest of the world.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use common::{Bench, eventually};
use kiln_executor::{
    BridgeConfig, CniConfig, ExecutorConfig, ExecutorError, ExitStatus, Network, NetworkConfig,
    NetworkError, ProcessSpec, Security, Subnet,
};
use nix::sched::{CloneFlags, unshare};

/// The host's address on the way out, and that of the world.
const HOST: &str = "192.0.2.1";
const WORLD: &str = "192.0.2.2";

/// The rest of the world.
struct World {
    /// The path of its network namespace.
    namespace: String,
    _namespace: std::fs::File,
    /// The names that its name server was asked for.
    asked: mpsc::Receiver<String>,
}

/// Moves the test into a host of its own. In the world a server on port 80 answers everybody with
/// the address that they have there, and a name server says that there are no names.
fn host() -> World {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
    let (sender, ready) = mpsc::channel();
    let (ask, asked) = mpsc::channel();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let home = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
        let (go, gone) = mpsc::channel();
        sender.send((home, go)).unwrap();
        gone.recv().unwrap();
        ip(&format!("addr add {WORLD}/24 dev out"));
        ip("link set out up");
        // Behind a way through the host that the world knows, as a neighbour in a network would.
        ip(&format!("route add 10.0.0.0/8 via {HOST}"));
        let listener = TcpListener::bind((WORLD, 80)).unwrap();
        let names = UdpSocket::bind((WORLD, 53)).unwrap();
        std::thread::spawn(move || answer(&names, &ask));
        sender.send((String::new(), mpsc::channel().0)).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = stream.write_all(format!("{peer}\n").as_bytes());
        }
    });
    let (world, go) = ready.recv().unwrap();
    let world = std::fs::File::open(world).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), world.as_raw_fd());
    ip(&format!("link add wan type veth peer name out netns {path}"));
    ip(&format!("addr add {HOST}/24 dev wan"));
    ip("link set wan up");
    ip(&format!("route add default via {WORLD}"));
    go.send(()).unwrap();
    ready.recv().unwrap();
    World { namespace: path, _namespace: world, asked }
}

/// Answers each question with "no such name".
fn answer(names: &UdpSocket, asked: &mpsc::Sender<String>) {
    let mut message = [0; 512];
    while let Ok((length, peer)) = names.recv_from(&mut message) {
        let first_label = &message[13..13 + usize::from(message[12])];
        let _ = asked.send(String::from_utf8_lossy(first_label).into_owned());
        message[2..4].copy_from_slice(&[0x81, 0x83]);
        let _ = names.send_to(&message[..length], peer);
    }
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {said}");
}

/// The interfaces of this host.
fn interfaces() -> String {
    let output = Command::new("ip").args(["-o", "link"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn sandboxed(bench: &Bench, script: &str) -> ProcessSpec {
    ProcessSpec { network: Network::Sandbox, ..bench.spec(script) }
}

async fn run(bench: &Bench, script: &str) -> common::Outcome {
    bench.run(sandboxed(bench, script)).await.unwrap()
}

async fn output(bench: &Bench, script: &str) -> String {
    let outcome = run(bench, script).await;
    assert_eq!(outcome.exit.status, ExitStatus::Code(0), "{outcome:?}");
    outcome.stdout
}

fn bridge(bridge: BridgeConfig) -> ExecutorConfig {
    ExecutorConfig { network: NetworkConfig::Bridge(bridge), ..ExecutorConfig::default() }
}

#[tokio::test]
async fn a_step_reaches_the_world_under_the_hosts_address() {
    host();
    let bench = Bench::new();
    assert_eq!(output(&bench, &format!("nc {WORLD} 80")).await, format!("{HOST}\n"));
    let interfaces = output(&bench, "ls /sys/class/net; ip -o addr").await;
    assert!(interfaces.starts_with("eth0\nlo\n"), "{interfaces}");
    assert!(interfaces.contains(" 10.89."), "{interfaces}");
    assert!(interfaces.contains(" ::1/128"), "{interfaces}");
}

#[tokio::test]
async fn steps_do_not_reach_each_other() {
    host();
    let bench = Bench::new();
    let listening = sandboxed(
        &bench,
        "ip -o -4 addr show eth0 | sed 's/.*inet //;s/\\/.*//'; nc -l -p 80 >/dev/null & sleep 60",
    );
    let (mut running, mut stdout) = bench.start(listening).await;
    let mut address = [0; 64];
    let length = stdout.read(&mut address).unwrap();
    let address = String::from_utf8_lossy(&address[..length]).trim().to_owned();
    let attempt = run(&bench, &format!("timeout 5 nc -w 1 {address} 80 </dev/null")).await;
    assert_eq!(attempt.exit.status, ExitStatus::Code(1), "{attempt:?}");
    // It does listen, which the host can see.
    let address = format!("{address}:80").parse().unwrap();
    eventually("listening", || {
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    })
    .await;
    running.kill();
    running.wait().await.unwrap();
}

#[tokio::test]
async fn the_world_does_not_reach_steps_by_itself() {
    let world = host();
    let bench = Bench::new();
    // What the host itself would let through is the packet filter's to drop.
    let script = "ip -o -4 addr show eth0 | sed 's/.*inet //;s/\\/.*//'; nc -l -p 80; echo got it";
    let (mut running, mut stdout) = bench.start(sandboxed(&bench, script)).await;
    let mut address = [0; 64];
    let length = stdout.read(&mut address).unwrap();
    let address = String::from_utf8_lossy(&address[..length]).trim().to_owned();
    let ping = Command::new("nsenter")
        .arg(format!("--net={}", world.namespace))
        .args(["busybox", "nc", "-w", "1", &address, "80"])
        .output()
        .unwrap();
    assert!(!ping.status.success(), "{ping:?}");
    running.kill();
    running.wait().await.unwrap();
    assert_eq!(common::read(stdout), "");
}

#[tokio::test]
async fn ports_of_the_daemon_are_closed_to_steps_and_others_are_not() {
    host();
    let [own, other] = [(); 2].map(|()| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let config = BridgeConfig { closed_ports: vec![port(&own)], ..BridgeConfig::default() };
    for listener in [&own, &other].map(|listener| listener.try_clone().unwrap()) {
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    let bench = Bench::with(bridge(config));
    let gateway = bench.executor.host_address().await.unwrap().unwrap();
    for address in [gateway.to_string(), HOST.to_owned()] {
        let connect =
            |listener| format!("timeout 5 nc -w 1 {address} {} </dev/null", port(listener));
        let refused = run(&bench, &connect(&own)).await;
        assert_eq!(refused.exit.status, ExitStatus::Code(1), "{refused:?}");
        let accepted = run(&bench, &connect(&other)).await;
        assert_eq!(accepted.exit.status, ExitStatus::Code(0), "{accepted:?}");
    }
}

#[tokio::test]
async fn a_step_cannot_pretend_to_have_another_address() {
    let world = host();
    let bench = Bench::new();
    // Only an unconfined one can try.
    let script = format!(
        "timeout 5 nslookup own {WORLD}; set -e; ip addr add 10.1.1.1/32 dev lo; \
         ip route add {WORLD} via $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') \
         src 10.1.1.1; timeout 1 nslookup other {WORLD} || true; ip route del {WORLD}; \
         timeout 5 nslookup last {WORLD} || true; echo tried"
    );
    let spec = ProcessSpec { security: Security::Insecure, ..sandboxed(&bench, &script) };
    let outcome = bench.run(spec).await.unwrap();
    assert!(outcome.stdout.ends_with("tried\n"), "{outcome:?}");
    let mut asked: Vec<_> = world.asked.try_iter().collect();
    asked.dedup();
    assert_eq!(asked, ["own", "last"]);
}

#[tokio::test]
async fn a_network_is_used_again_unless_it_may_have_been_changed() {
    host();
    let bench = Bench::new();
    let script = "readlink /proc/self/ns/net";
    for network in [Network::Sandbox, Network::None] {
        let spec = |security| ProcessSpec { network, security, ..bench.spec(script) };
        let run = async |security| bench.run(spec(security)).await.unwrap().stdout;
        // The first has one made while another is prepared: from then on there are two at most.
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            seen.insert(run(Security::Sandbox).await);
        }
        assert!(seen.len() < 3, "{seen:?}");
        let changed = run(Security::Insecure).await;
        for _ in 0..3 {
            assert_ne!(run(Security::Sandbox).await, changed);
        }
    }
}

#[tokio::test]
async fn a_killed_steps_network_is_thrown_away() {
    host();
    let bench = Bench::new();
    let (running, mut stdout) =
        bench.start(sandboxed(&bench, "readlink /proc/self/ns/net; sleep 60")).await;
    let mut namespace = [0; 64];
    let length = stdout.read(&mut namespace).unwrap();
    drop(running);
    let next = output(&bench, "readlink /proc/self/ns/net").await;
    assert_ne!(next.as_bytes(), &namespace[..length]);
}

#[tokio::test]
async fn steps_at_once_have_networks_of_their_own() {
    host();
    let bench = Bench::new();
    let script = format!("ip -o -4 addr show eth0; nc {WORLD} 80");
    let steps = (0..20).map(|_| output(&bench, &script));
    let mut outputs = futures::future::join_all(steps).await;
    assert!(outputs.iter().all(|output| output.ends_with(&format!("{HOST}\n"))), "{outputs:?}");
    outputs.sort();
    outputs.dedup();
    assert_eq!(outputs.len(), 20);
}

#[tokio::test]
async fn nothing_of_the_network_is_left_on_the_host() {
    host();
    let before = interfaces();
    let bench = Bench::new();
    output(&bench, "true").await;
    assert!(interfaces().contains("kiln0"), "{}", interfaces());
    drop(bench);
    assert_eq!(interfaces(), before);
}

#[tokio::test]
async fn two_daemons_of_a_host_have_networks_of_their_own() {
    host();
    let benches = [Bench::new(), Bench::new()];
    for bench in &benches {
        assert_eq!(output(bench, &format!("nc {WORLD} 80")).await, format!("{HOST}\n"));
    }
    assert!(interfaces().contains("kiln0") && interfaces().contains("kiln1"));
}

#[tokio::test]
async fn name_and_range_of_the_bridge_can_be_chosen() {
    host();
    let subnet: Subnet = "172.20.0.0/24".parse().unwrap();
    let config = BridgeConfig {
        name: Some("build0".into()),
        subnet: Some(subnet),
        ..BridgeConfig::default()
    };
    let bench = Bench::with(bridge(config));
    let addresses = output(&bench, "ip -o -4 addr show eth0").await;
    assert!(addresses.contains(" 172.20.0."), "{addresses}");
    assert!(interfaces().contains("build0"));
}

#[tokio::test]
async fn a_range_that_is_not_free_or_too_small_is_refused() {
    host();
    for (subnet, reason) in [
        ("192.0.2.0/25", "192.0.2.0/25 overlaps with the host's route to 192.0.2.0/24"),
        ("10.0.0.0/29", "10.0.0.0/29 is too small"),
    ] {
        let config =
            BridgeConfig { subnet: Some(subnet.parse().unwrap()), ..BridgeConfig::default() };
        let bench = Bench::with(bridge(config));
        let error = bench.run(sandboxed(&bench, "true")).await.unwrap_err();
        let ExecutorError::Network { source, .. } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains(reason), "{source}");
        // A step that does not need it runs.
        bench.output("true").await;
    }
}

#[tokio::test]
async fn what_a_host_forwards_for_nobody_else_it_forwards_for_steps() {
    host();
    let iptables = |args: &[&str]| {
        let output = Command::new("iptables").args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    iptables(&["-P", "FORWARD", "DROP"]);
    let bench = Bench::new();
    assert_eq!(output(&bench, &format!("nc {WORLD} 80")).await, format!("{HOST}\n"));
    drop(bench);
    assert_eq!(iptables(&["-S", "FORWARD"]), "-P FORWARD DROP\n");
}

/// A plugin that gives a fixed address and writes down what it was asked.
const PLUGIN: &str = r#"#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >> "$CNI_PATH/log"
cat >> "$CNI_PATH/config"
echo >> "$CNI_PATH/config"
[ -e "$CNI_PATH/broken" ] && { echo '{"cniVersion":"1.0.0","code":11,"msg":"out of order"}'; exit 1; }
[ $CNI_COMMAND = ADD ] || exit 0
nsenter --net="$CNI_NETNS" ip link add $CNI_IFNAME type veth peer name other || exit 1
echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}'
"#;

fn cni(bench: &std::path::Path) -> CniConfig {
    use std::os::unix::fs::PermissionsExt as _;
    let plugins = bench.join("plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    std::fs::write(plugins.join("fixed"), PLUGIN).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(plugins.join("fixed"), mode).unwrap();
    let config = bench.join("cni.json");
    let text = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"fixed","x":1}]}"#;
    std::fs::write(&config, text).unwrap();
    CniConfig { config, plugins, state: bench.join("state") }
}

#[tokio::test]
async fn plugins_connect_steps_and_are_told_when_these_are_gone() {
    host();
    let dir = tempfile::tempdir().unwrap();
    let config = NetworkConfig::Cni(cni(dir.path()));
    let bench = Bench::with(ExecutorConfig { network: config, ..ExecutorConfig::default() });
    assert!(output(&bench, "ls /sys/class/net").await.starts_with("eth0\nlo\n"));
    drop(bench);
    let log = std::fs::read_to_string(dir.path().join("plugins/log")).unwrap();
    let count = |command: &str| log.lines().filter(|line| line.starts_with(command)).count();
    assert!(count("ADD") > 0 && count("ADD") == count("DEL"), "{log}");
    let sent = std::fs::read_to_string(dir.path().join("plugins/config")).unwrap();
    let first = sent.lines().next().unwrap();
    assert_eq!(first, r#"{"cniVersion":"1.0.0","name":"net","type":"fixed","x":1}"#);
    assert!(sent.lines().last().unwrap().contains("prevResult"), "{sent}");
    assert_eq!(std::fs::read_dir(dir.path().join("state")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_killed_daemon_left_connected_the_next_one_disconnects() {
    host();
    let dir = tempfile::tempdir().unwrap();
    let config = cni(dir.path());
    std::fs::create_dir_all(&config.state).unwrap();
    std::fs::write(config.state.join("kiln-1-1"), r#"{"ips":[]}"#).unwrap();
    let network = NetworkConfig::Cni(config);
    let bench = Bench::with(ExecutorConfig { network, ..ExecutorConfig::default() });
    output(&bench, "true").await;
    let log = std::fs::read_to_string(dir.path().join("plugins/log")).unwrap();
    assert!(log.starts_with("DEL kiln-1-1 eth0\n"), "{log}");
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_with_what_it_says() {
    host();
    let dir = tempfile::tempdir().unwrap();
    let config = cni(dir.path());
    std::fs::write(config.plugins.join("broken"), "").unwrap();
    let network = NetworkConfig::Cni(config);
    let bench = Bench::with(ExecutorConfig { network, ..ExecutorConfig::default() });
    let error = bench.run(sandboxed(&bench, "true")).await.unwrap_err();
    let ExecutorError::Network { source: NetworkError::Cni(source), .. } = error else {
        panic!("{error:?}")
    };
    assert!(source.to_string().ends_with("plugins/fixed: out of order"), "{source}");
}
