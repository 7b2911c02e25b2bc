//! Requests about interfaces, addresses and routes (`rtnetlink(7)`).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{CREATE, Message};
use super::subnet::Subnet;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

// Attributes of interfaces.
const HARDWARE_ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;
const NAMESPACE: u16 = 28;
const VETH_PEER: u16 = 1;
const PORT_ISOLATED: u16 = 33;

// Attributes of addresses and routes.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const DESTINATION: u16 = 1;
const GATEWAY: u16 = 5;

const UP: u32 = 1;

/// One end of a pair of interfaces that are connected to each other.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    /// Where it is, if not in the namespace of the socket.
    pub(super) namespace: Option<BorrowedFd<'a>>,
    /// The bridge that it is a port of, by its index.
    pub(super) bridge: Option<u32>,
}

/// Makes two connected interfaces, of which the near one is up. The far one cannot be: the kernel
/// makes it first, and nothing is up whose other end is not there.
pub(super) fn new_pair(near: &End<'_>, far: &End<'_>, mtu: u32) -> Message {
    let end = |message: Message, end: &End<'_>| {
        let mut message = message.text(NAME, end.name).attribute(MTU, &mtu.to_ne_bytes());
        if let Some(bridge) = end.bridge {
            message = message.attribute(MASTER, &bridge.to_ne_bytes());
        }
        if let Some(namespace) = end.namespace {
            message = message.attribute(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
        }
        message
    };
    end(Message::new(NEW_LINK, CREATE).fixed(&interface(0, UP)), near).nested(INFO, |message| {
        message.text(INFO_KIND, "veth").nested(INFO_DATA, |message| {
            message.nested(VETH_PEER, |message| end(message.fixed(&interface(0, 0)), far))
        })
    })
}

/// Brings an interface up.
pub(super) fn set_up(index: u32) -> Message {
    Message::new(NEW_LINK, 0).fixed(&interface(index, UP))
}

/// Makes a bridge, which is up. Without an address of its own it would have the lowest of its ports',
/// and so another one when ports come and go; who has asked for it before would send to nobody.
pub(super) fn new_bridge(name: &str, hardware_address: [u8; 6], mtu: u32) -> Message {
    Message::new(NEW_LINK, CREATE)
        .fixed(&interface(0, UP))
        .text(NAME, name)
        .attribute(HARDWARE_ADDRESS, &hardware_address)
        .attribute(MTU, &mtu.to_ne_bytes())
        .nested(INFO, |message| message.text(INFO_KIND, "bridge"))
}

/// Keeps a port of a bridge from reaching others that are isolated as well.
pub(super) fn isolate_port(name: &str) -> Message {
    Message::new(NEW_LINK, 0).fixed(&interface(0, 0)).text(NAME, name).nested(INFO, |message| {
        message
            .text(INFO_PORT_KIND, "bridge")
            .nested(INFO_PORT_DATA, |message| message.attribute(PORT_ISOLATED, &[1]))
    })
}

/// Removes an interface, and the one it is connected to.
pub(super) fn delete(name: &str) -> Message {
    Message::new(DELETE_LINK, 0).fixed(&interface(0, 0)).text(NAME, name)
}

/// Gives an interface an address; all of `network` is reached through it.
pub(super) fn new_address(index: u32, address: Ipv4Addr, network: Subnet) -> Message {
    let mut fixed = vec![libc::AF_INET as u8, network.length(), 0, 0];
    fixed.extend(index.to_ne_bytes());
    Message::new(NEW_ADDRESS, CREATE)
        .fixed(&fixed)
        .attribute(LOCAL, &address.octets())
        .attribute(ADDRESS, &address.octets())
}

/// Sends what goes to `network` by way of `gateway`.
pub(super) fn new_route(network: Subnet, gateway: Ipv4Addr) -> Message {
    let (main_table, boot, universe, unicast) = (254, 3, 0, 1);
    let fixed = [
        [libc::AF_INET as u8, network.length(), 0, 0],
        [main_table, boot, universe, unicast],
        [0; 4],
    ];
    Message::new(NEW_ROUTE, CREATE)
        .fixed(fixed.as_flattened())
        .attribute(DESTINATION, &network.address().octets())
        .attribute(GATEWAY, &gateway.octets())
}

/// The kernel's `struct ifinfomsg`, with the flags that are to be set.
fn interface(index: u32, flags: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&flags.to_ne_bytes());
    fixed
}
