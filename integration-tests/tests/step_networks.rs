//! What network the steps of a build have.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use kiln_integration_tests::{Context, Host, World};

/// Runs `script` as a step that must succeed and returns what it says.
fn said(world: &World, instruction: &str) -> Vec<String> {
    let context = Context::new().dockerfile(&format!("FROM busybox\n{instruction}"));
    let build = world.build(&context).args(["--allow", "network.host"]);
    let build = build.args(["--add-host", "here:host-gateway", "--no-cache"]).succeeds();
    build.step(instruction).log.clone()
}

/// A world on a host of its own, whose steps ask the host's own name server.
fn world() -> (World, Host) {
    on_a_host(World::start)
}

fn on_a_host(start: fn() -> World) -> (World, Host) {
    let host = Host::enter();
    let mut world = start();
    world.daemon.configure("[dns]\n nameservers = [\"127.0.0.1\"]\n");
    (world, host)
}

#[test]
fn a_step_finds_the_world_by_name_and_has_the_hosts_address_there() {
    let (world, _host) = world();
    let page = format!("RUN wget -q -O- http://{}/", Host::NAME);
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
    assert_eq!(said(&world, "RUN ls /sys/class/net"), ["eth0", "lo"]);
    let unknown =
        Context::new().dockerfile("FROM busybox\nRUN wget -q -O- http://nowhere.example/");
    let failed = world.build(&unknown).fails();
    assert!(failed.stderr.contains("bad address 'nowhere.example'"), "{}", failed.stderr);
}

#[test]
fn the_way_outside_stays_the_same_for_a_step_while_others_come() {
    let (world, _host) = world();
    // A step remembers for a while by which hardware address its gateway is reached.
    let way =
        format!("wget -q -O- http://{}/ && awk '/eth0/ {{print $4}}' /proc/net/arp", Host::WORLD);
    let first = said(&world, &format!("RUN {way}"));
    assert_eq!((first.len(), &*first[0]), (2, Host::ADDRESS));
    // The others wait for one another, so that each has a network of its own.
    let steps: Vec<String> = (1..=12)
        .map(|number| {
            format!(
                "RUN --mount=type=cache,target=/met touch /met/{number} && \
                 until [ $(ls /met | wc -l) = 12 ]; do sleep 0.1; done && {way}"
            )
        })
        .collect();
    let stages =
        steps.iter().enumerate().map(|(n, step)| format!("FROM busybox AS s{n}\n{step}\n"));
    let mounts = (0..steps.len()).map(|n| format!("--mount=from=s{n},target=/{n} "));
    let dockerfile = format!(
        "{}FROM busybox\nRUN {}true",
        stages.collect::<String>(),
        mounts.collect::<String>()
    );
    let build = world.build(&Context::new().dockerfile(&dockerfile)).succeeds();
    for step in &steps {
        assert_eq!(build.step(step).log, first);
    }
}

#[test]
fn ipv6_loopback_works_in_every_network() {
    let (world, _host) = world();
    for flag in ["default", "none"] {
        let ping = format!("RUN --network={flag} ping -c 1 -W 5 ::1 | grep -c 'seq=0'");
        assert_eq!(said(&world, &ping), ["1"]);
    }
}

#[test]
fn the_hosts_network_and_none_are_there_for_those_who_ask() {
    let (world, host) = world();
    assert_eq!(said(&world, "RUN --network=none ls /sys/class/net"), ["lo"]);
    let mut shared = said(&world, "RUN --network=host ls /sys/class/net");
    let mut own = host.interfaces();
    own.sort();
    shared.sort();
    assert_eq!(shared, own);
}

#[test]
fn a_daemon_can_be_configured_to_let_steps_use_the_hosts_network() {
    let (mut world, host) = world();
    world.daemon.stop();
    world.daemon.replace_in_configuration("[worker.oci]", "[worker.oci]\n networkMode = \"host\"");
    world.daemon.start_again();
    let mut shared = said(&world, "RUN ls /sys/class/net");
    let mut own = host.interfaces();
    own.sort();
    shared.sort();
    assert_eq!(shared, own);
    let page = format!("RUN wget -q -O- http://{}/", Host::WORLD);
    assert_eq!(said(&world, &page), [Host::ADDRESS]);
}

#[test]
fn services_of_the_host_are_reached_by_host_gateway_and_the_daemon_is_not() {
    let (mut world, _host) = world();
    world.daemon.stop();
    world.daemon.listen_on_too("tcp://0.0.0.0:1234");
    world.daemon.start_again();
    let service = TcpListener::bind("0.0.0.0:8000").expect("a service");
    std::thread::spawn(move || service.incoming().for_each(drop));
    let connect = |port: u16| {
        // What nc complains of would come another way, maybe after the word.
        let connect = format!("timeout 10 nc -w 2 here {port} </dev/null 2>/dev/null");
        format!("RUN {connect} && echo reached || echo refused")
    };
    assert_eq!(said(&world, &connect(8000)), ["reached"]);
    assert_eq!(said(&world, &connect(1234)), ["refused"]);
    // Itself it does answer.
    assert!(std::net::TcpStream::connect("127.0.0.1:1234").is_ok());
}

#[test]
fn a_host_that_cannot_have_such_networks_says_what_to_do() {
    let (mut world, _host) = world();
    world.daemon.stop();
    let taken = "[worker.oci]\n bridgeSubnet = \"192.0.2.0/24\"";
    world.daemon.replace_in_configuration("[worker.oci]", taken);
    world.daemon.start_again();
    let context = Context::new().dockerfile("FROM busybox\nRUN true");
    let failed = world.build(&context).fails();
    for part in
        ["192.0.2.0/24 overlaps", "networkMode = \"host\"", "--network=none", "Dockerfile:2"]
    {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    world.build(&context).args(["--network", "none"]).succeeds();
}

#[test]
fn a_daemon_that_is_killed_leaves_no_interface_behind() {
    // Without root there are none: a program is the way outside.
    let (mut world, host) = on_a_host(World::start_with_rights);
    let before = host.interfaces();
    said(&world, "RUN true");
    assert_ne!(host.interfaces(), before);
    world.daemon.kill();
    // The kernel takes network namespaces away in its own time, and tells nobody.
    let end = Instant::now() + Duration::from_secs(30);
    while host.interfaces() != before {
        assert!(Instant::now() < end, "{:?}", host.interfaces());
        std::thread::yield_now();
    }
    world.daemon.start_again();
    said(&world, "RUN true");
}
