//! A network of the daemon's own: steps on a bridge, and the host as their way out.
//!
//! ```text
//!  step ── eth0 ═══ port ─┐
//!  step ── eth0 ═══ port ─┴─ bridge ── router ── uplink ═══ kiln0 ── host (masquerading)
//! ```
//!
//! The bridge is in a network namespace of its own, the router's, which exists as long as the
//! daemon holds it. However the daemon ends, the kernel then takes all of it away: a namespace
//! takes its interfaces along, and an interface the one it is connected to; the table of the
//! packet filter belongs to a socket. What a daemon that was killed cannot take back is that the host
//! forwards (`ip_forward`), and exceptions for its interface where another program had forbidden that.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use super::firewall::Firewall;
use super::namespace::{Namespace, Owner};
use super::netlink::{Family, Socket};
use super::route::{self, End};
use super::subnet::Subnet;
use super::uplink::{self, Uplink};
use super::{At, NetworkError};

/// Where daemons without a configured range find theirs; each takes one of 64 parts.
const DEFAULT_RANGE: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 0);
const DEFAULT_PARTS: u32 = 64;
const DEFAULT_LENGTH: u8 = 22;

/// Room for the uplink and one step.
const LONGEST_LENGTH: u8 = 28;

const UPLINK: &str = "uplink";
const BRIDGE: &str = "steps";

/// The bridge's, which only its ports see: a locally administered one, so that it is no device's.
const BRIDGE_ADDRESS: [u8; 6] = *b"\x02kilnd";

/// How to make the bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The name of the host's interface, `kiln` and a number if not given.
    pub name: Option<String>,
    /// The addresses of the steps and the way to them, a free part of 10.89.0.0/16 if not given.
    pub subnet: Option<Subnet>,
    /// TCP ports of the host that steps must not reach: the daemon's.
    pub closed_ports: Vec<u16>,
}

/// The bridge with what leads to it.
#[derive(Debug)]
pub(super) struct Bridge {
    _router: Namespace,
    in_router: Socket,
    in_host: Socket,
    _firewall: Firewall,
    uplink: String,
    addresses: Addresses,
    /// The bridge by its index in the router's namespace.
    ports: u32,
    mtu: u32,
}

impl Bridge {
    /// Makes it, in a thread that is in the namespace `home`, which is connected by `program` if it is
    /// not the host's own.
    pub(super) fn new(
        config: &BridgeConfig,
        home: &Namespace,
        program: Option<&Uplink>,
    ) -> Result<Self, NetworkError> {
        let mut in_host = Socket::open(Family::Route).at("open a netlink socket")?;
        let mtu = if program.is_some() { uplink::MTU } else { host_mtu() };
        let (router, mut in_router) = home
            .visit_new(&Owner::Daemon, || {
                fs::write("/proc/sys/net/ipv4/ip_forward", "1")
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                Socket::open(Family::Route)
            })
            .at("make the router's network namespace")?;
        let routes = program.map_or_else(host_routes, |program| program.host().routes.clone());
        let (uplink, subnet) = connect_host(config, &mut in_host, &router, mtu, &routes)?;
        let places = Places::of(subnet);
        // The host is here, or is what the program reaches at the host's addresses.
        let host = program.map(|program| &*program.host().addresses);
        let firewall = Firewall::new(&uplink, subnet, &config.closed_ports, host)
            .at("set the packet filter (nf_tables) up")?;
        let ports = route(&mut in_host, &mut in_router, &uplink, &places, mtu);
        let ports = ports.at("set routes up")?;
        permit_forwarding()?;
        Ok(Self {
            _router: router,
            in_router,
            in_host,
            _firewall: firewall,
            uplink,
            addresses: Addresses::new(places.host, places.steps),
            ports,
            mtu,
        })
    }

    /// The address, on the way to the steps, of the namespace that it was made from.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.addresses.host
    }

    /// Makes a namespace with a way out, in a thread that is in `home`.
    pub(super) fn connect(
        &mut self,
        home: &Namespace,
        owner: &Owner,
    ) -> Result<(Namespace, u32), NetworkError> {
        let place = self.addresses.take().ok_or(NetworkError::NoAddress)?;
        let made = self.connect_as(place, home, owner);
        if made.is_err() {
            self.addresses.give_back(place);
        }
        made.at("connect a network namespace").map(|namespace| (namespace, place))
    }

    fn connect_as(
        &mut self,
        place: u32,
        home: &Namespace,
        owner: &Owner,
    ) -> Result<Namespace, Errno> {
        let steps = self.addresses.steps;
        let (namespace, mut inside) = home.visit_new(owner, || Socket::open(Family::Route))?;
        let port = format!("step{place}");
        let near = End { name: &port, namespace: None, bridge: Some(self.ports) };
        let far = End { name: "eth0", namespace: Some(namespace.as_fd()), bridge: None };
        self.in_router
            .request([route::new_pair(&near, &far, self.mtu), route::isolate_port(&port)])?;
        let index = name_to_index(&inside, "eth0")?;
        inside.request([
            route::set_up(index),
            route::new_address(index, steps.nth(place), steps),
            route::new_route(Subnet::ALL, steps.nth(1)),
        ])?;
        Ok(namespace)
    }

    /// Makes the address at `place` free again, whose namespace is being given up.
    pub(super) fn disconnect(&mut self, place: u32) {
        // The kernel takes namespaces away in its own time; the address must not be there twice.
        let _ = self.in_router.request([route::delete(&format!("step{place}"))]);
        self.addresses.give_back(place);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // It would go with the router's namespace, but later.
        let _ = self.in_host.request([route::delete(&self.uplink)]);
    }
}

/// Makes the router's bridge, whose index is returned, and the ways to it and from it.
fn route(
    in_host: &mut Socket,
    in_router: &mut Socket,
    uplink: &str,
    places: &Places,
    mtu: u32,
) -> Result<u32, Errno> {
    let link = Subnet::new(places.host, 30);
    let index = name_to_index(&*in_host, uplink)?;
    in_host.request([
        route::new_address(index, places.host, link),
        route::new_route(places.steps, places.router),
    ])?;
    in_router.request([route::new_bridge(BRIDGE, BRIDGE_ADDRESS, mtu)])?;
    let ports = name_to_index(&*in_router, BRIDGE)?;
    let index = name_to_index(&*in_router, UPLINK)?;
    in_router.request([
        route::set_up(index),
        route::new_address(index, places.router, link),
        route::new_route(Subnet::ALL, places.host),
        route::new_address(ports, places.steps.nth(1), places.steps),
    ])?;
    Ok(ports)
}

/// Makes the host's interface, whose name and addresses are nobody else's.
fn connect_host(
    config: &BridgeConfig,
    in_host: &mut Socket,
    router: &Namespace,
    mtu: u32,
    routes: &[Subnet],
) -> Result<(String, Subnet), NetworkError> {
    let mut connect = |name: &str| {
        let near = End { name, namespace: None, bridge: None };
        let far = End { name: UPLINK, namespace: Some(router.as_fd()), bridge: None };
        in_host.request([route::new_pair(&near, &far, mtu)])
    };
    if let Some(subnet) = config.subnet {
        if subnet.length() > LONGEST_LENGTH {
            return Err(NetworkError::TooSmall(subnet));
        }
        if let Some(route) = routes.iter().find(|route| route.overlaps(subnet)) {
            return Err(NetworkError::InUse(subnet, *route));
        }
    }
    for part in 0..DEFAULT_PARTS {
        let own = Ipv4Addr::from_bits(DEFAULT_RANGE.to_bits() | (part << (32 - DEFAULT_LENGTH)));
        let subnet = config.subnet.unwrap_or(Subnet::new(own, DEFAULT_LENGTH));
        // Of two daemons that see the same part free, one gets the interface's name.
        let name = config.name.clone().unwrap_or_else(|| format!("kiln{part}"));
        if config.subnet.is_none() && routes.iter().any(|route| route.overlaps(subnet)) {
            continue;
        }
        match connect(&name) {
            Ok(()) => return Ok((name, subnet)),
            Err(Errno::EXIST) if config.name.is_none() => {}
            Err(source) => return Err(NetworkError::Setup(format!("make {name}"), source.into())),
        }
    }
    Err(NetworkError::NoSubnet)
}

/// What the parts of a range are for: four addresses for the way to the router, half of them all
/// for the steps.
struct Places {
    host: Ipv4Addr,
    router: Ipv4Addr,
    steps: Subnet,
}

impl Places {
    fn of(subnet: Subnet) -> Self {
        Self { host: subnet.nth(1), router: subnet.nth(2), steps: subnet.upper_half() }
    }
}

/// The places of addresses in the range of the steps. The first three and the last are not theirs:
/// the range itself, the bridge, and all.
#[derive(Debug)]
struct Addresses {
    host: Ipv4Addr,
    steps: Subnet,
    taken: BTreeSet<u32>,
    last: u32,
}

impl Addresses {
    fn new(host: Ipv4Addr, steps: Subnet) -> Self {
        Self { host, steps, taken: BTreeSet::new(), last: 1 }
    }

    /// One that nothing has, and had for as long as possible.
    fn take(&mut self) -> Option<u32> {
        let end = (self.steps.size() - 1) as u32;
        let place = (self.last + 1..end).chain(2..=self.last).find(|p| !self.taken.contains(p))?;
        self.taken.insert(place);
        self.last = place;
        Some(place)
    }

    fn give_back(&mut self, place: u32) {
        self.taken.remove(&place);
    }
}

/// Lets the host send on what is not for itself.
fn permit_forwarding() -> Result<(), NetworkError> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(path, "1").map_err(|source| NetworkError::Setup(format!("set {path}"), source))
}

/// The ranges that the host has routes to, but for the one to everywhere.
pub(super) fn host_routes() -> Vec<Subnet> {
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let route = |line: &str| {
        let (_, destination, mask) = route_line(line)?;
        let length = mask.to_bits().leading_ones() as u8;
        Some(Subnet::new(destination, length)).filter(|_| length > 0)
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// The largest packet of the interface that leads outside.
fn host_mtu() -> u32 {
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let mut routes = table.lines().skip(1).filter_map(route_line);
    let outside =
        routes.find(|(_, destination, mask)| destination.is_unspecified() && mask.is_unspecified());
    let mtu = outside.and_then(|(interface, ..)| {
        fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()
    });
    mtu.unwrap_or(1500)
}

/// Interface, destination and mask of a line of /proc/net/route, which has addresses as numbers in
/// the machine's order of bytes.
fn route_line(line: &str) -> Option<(&str, Ipv4Addr, Ipv4Addr)> {
    let mut fields = line.split_whitespace();
    let interface = fields.next()?;
    let address = |field: &str| {
        u32::from_str_radix(field, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()))
    };
    let destination = address(fields.next()?)?;
    Some((interface, destination, address(fields.nth(5)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_free_again_is_used_last() {
        let steps = Subnet::new(Ipv4Addr::new(10, 0, 0, 8), 29);
        let mut addresses = Addresses::new(Ipv4Addr::LOCALHOST, steps);
        assert_eq!([(); 2].map(|()| addresses.take()), [Some(2), Some(3)]);
        addresses.give_back(2);
        let rest = [(); 5].map(|()| addresses.take());
        assert_eq!(rest, [Some(4), Some(5), Some(6), Some(2), None]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn routes_of_the_kernel_are_read() {
        let line = "eth0\t0004590A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0";
        let (interface, destination, mask) = route_line(line).unwrap();
        assert_eq!(interface, "eth0");
        assert_eq!(destination, Ipv4Addr::new(10, 89, 4, 0));
        assert_eq!(mask, Ipv4Addr::new(255, 255, 252, 0));
        assert!(route_line("eth0 x").is_none());
    }
}
