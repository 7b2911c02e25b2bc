//! What the host's packet filter does for the steps of a bridge: gives what they send the host's
//! address, and keeps them from the daemon.
//!
//! All of it is one table of nf_tables that belongs to a socket, so that the kernel removes it when
//! the socket closes, however the daemon ends (`linux/netfilter/nf_tables.h`).

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use super::netlink::{APPEND, CREATE, Family, Message, Socket};
use super::subnet::Subnet;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;

/// Of a table: it goes with the socket that made it.
const OWNED: u32 = 2;

/// The register that every rule computes in.
const REGISTER: u32 = 1;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// The rules of one daemon; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Firewall {
    _owner: Socket,
    forwarding: Option<Forwarding>,
}

impl Firewall {
    /// Masquerades what comes from `subnet` by way of the interface `uplink`, drops what comes from
    /// there with other addresses, keeps it from the host's `closed_ports`, and lets others only
    /// answer it.
    ///
    /// The host is this one, unless its addresses beyond a further network are given.
    pub(super) fn new(
        uplink: &str,
        subnet: Subnet,
        closed_ports: &[u16],
        host: Option<&[Ipv4Addr]>,
    ) -> Result<Self, Errno> {
        let mut owner = Socket::open(Family::Filter)?;
        // An earlier daemon's may still be there when its interface's name is free again.
        let table = Table(format!("{uplink}-{}", std::process::id()));
        let mut batch = vec![
            generic(Message::unacknowledged(BATCH_BEGIN, 0), SUBSYSTEM),
            table.make(),
            table.chain("postrouting", "nat", Hook { number: 4, priority: 100 }),
            table.chain("forward", "filter", Hook { number: 2, priority: 0 }),
            table.chain("input", "filter", Hook { number: 1, priority: 0 }),
            table.rule("postrouting", |rule| {
                rule.source(EQUAL, subnet).outgoing(NOT_EQUAL, uplink).masquerade()
            }),
            table.rule("forward", |rule| {
                rule.incoming(uplink).source(NOT_EQUAL, subnet).drop_packet()
            }),
            table.rule("forward", |rule| rule.outgoing(EQUAL, uplink).unsolicited().drop_packet()),
        ];
        for port in closed_ports {
            batch.push(
                table.rule("input", |rule| rule.incoming(uplink).tcp_port(*port).drop_packet()),
            );
            batch.extend(host.into_iter().flatten().map(|address| {
                table.rule("forward", |rule| {
                    rule.incoming(uplink).destination(*address).tcp_port(*port).drop_packet()
                })
            }));
        }
        batch.push(generic(Message::unacknowledged(BATCH_END, 0), SUBSYSTEM));
        owner.request(batch)?;
        // Beyond a network of the daemon's own, no other program has made rules.
        let forwarding = host.is_none().then(|| Forwarding::permit(uplink)).flatten();
        Ok(Self { _owner: owner, forwarding })
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.forbid();
        }
    }
}

/// The kernel's `struct nfgenmsg`.
fn generic(message: Message, resource: u16) -> Message {
    let [high, low] = resource.to_be_bytes();
    message.fixed(&[libc::AF_INET as u8, 0, high, low])
}

/// Where and when a chain sees packets.
#[derive(Clone, Copy)]
struct Hook {
    number: u32,
    priority: i32,
}

struct Table(String);

impl Table {
    fn make(&self) -> Message {
        generic(Message::new(NEW_TABLE, CREATE), 0)
            .text(1, &self.0)
            .attribute(2, &OWNED.to_be_bytes())
    }

    fn chain(&self, name: &str, kind: &str, hook: Hook) -> Message {
        generic(Message::new(NEW_CHAIN, CREATE), 0)
            .text(1, &self.0)
            .text(3, name)
            .nested(4, |message| {
                message
                    .attribute(1, &hook.number.to_be_bytes())
                    .attribute(2, &hook.priority.to_be_bytes())
            })
            .text(7, kind)
    }

    fn rule(&self, chain: &str, expressions: impl FnOnce(Rule) -> Rule) -> Message {
        generic(Message::new(NEW_RULE, APPEND), 0)
            .text(1, &self.0)
            .text(2, chain)
            .nested(4, |message| expressions(Rule(message)).0)
    }
}

/// The expressions of a rule: each is tried if those before it hold.
struct Rule(Message);

impl Rule {
    fn incoming(self, interface: &str) -> Self {
        let iifname = 6;
        self.meta(iifname).compare(EQUAL, &name(interface))
    }

    fn outgoing(self, operator: u32, interface: &str) -> Self {
        let oifname = 7;
        self.meta(oifname).compare(operator, &name(interface))
    }

    fn source(self, operator: u32, subnet: Subnet) -> Self {
        let (network_header, offset) = (1, 12);
        self.payload(network_header, offset, 4)
            .masked(subnet.mask().octets())
            .compare(operator, &subnet.address().octets())
    }

    fn destination(self, address: Ipv4Addr) -> Self {
        let (network_header, offset) = (1, 16);
        self.payload(network_header, offset, 4).compare(EQUAL, &address.octets())
    }

    /// Neither of a known connection nor related to one.
    fn unsolicited(self) -> Self {
        let (state, established, related) = (0_u32, 2_u32, 4_u32);
        self.expression("ct", |message| {
            message.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &state.to_be_bytes())
        })
        .masked((established | related).to_ne_bytes())
        .compare(EQUAL, &[0; 4])
    }

    fn tcp_port(self, port: u16) -> Self {
        let (l4proto, transport_header, destination) = (16, 2, 2);
        self.meta(l4proto)
            .compare(EQUAL, &[libc::IPPROTO_TCP as u8])
            .payload(transport_header, destination, 2)
            .compare(EQUAL, &port.to_be_bytes())
    }

    fn masquerade(self) -> Self {
        self.expression("masq", |message| message)
    }

    fn drop_packet(self) -> Self {
        let (verdict_register, dropped) = (0_u32, 0_u32);
        self.expression("immediate", |message| {
            message.attribute(1, &verdict_register.to_be_bytes()).nested(2, |message| {
                message.nested(2, |message| message.attribute(1, &dropped.to_be_bytes()))
            })
        })
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", |message| {
            message.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &key.to_be_bytes())
        })
    }

    fn payload(self, header: u32, offset: u32, length: u32) -> Self {
        self.expression("payload", |message| {
            message
                .attribute(1, &REGISTER.to_be_bytes())
                .attribute(2, &header.to_be_bytes())
                .attribute(3, &offset.to_be_bytes())
                .attribute(4, &length.to_be_bytes())
        })
    }

    fn masked(self, mask: [u8; 4]) -> Self {
        self.expression("bitwise", |message| {
            message
                .attribute(1, &REGISTER.to_be_bytes())
                .attribute(2, &REGISTER.to_be_bytes())
                .attribute(3, &4_u32.to_be_bytes())
                .nested(4, |message| message.attribute(1, &mask))
                .nested(5, |message| message.attribute(1, &[0; 4]))
        })
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |message| {
            message
                .attribute(1, &REGISTER.to_be_bytes())
                .attribute(2, &operator.to_be_bytes())
                .nested(3, |message| message.attribute(1, value))
        })
    }

    fn expression(self, kind: &str, data: impl FnOnce(Message) -> Message) -> Self {
        Self(self.0.nested(1, |message| message.text(1, kind).nested(2, data)))
    }
}

/// An interface's name as rules compare it.
fn name(interface: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(interface.as_bytes()) {
        *to = *from;
    }
    padded
}

/// Exceptions from another program's rule to forward nothing.
///
/// Docker's daemon makes `iptables` drop whatever is forwarded and not its own, and what one table
/// drops no other can save.
#[derive(Debug)]
struct Forwarding(String);

impl Forwarding {
    /// Makes the exceptions, if they are needed.
    fn permit(uplink: &str) -> Option<Self> {
        let listed = iptables(&["-S", "FORWARD"])?;
        if !listed.starts_with("-P FORWARD DROP") {
            return None;
        }
        let forwarding = Self(uplink.to_owned());
        for rule in forwarding.rules() {
            let with = |action: &'static str| [&[action, "FORWARD"], &*rule].concat();
            if iptables(&with("-C")).is_none() && iptables(&with("-I")).is_none() {
                tracing::warn!(uplink, "iptables drops what is forwarded, and takes no exception");
            }
        }
        Some(forwarding)
    }

    fn forbid(self) {
        for rule in self.rules() {
            let _ = iptables(&[&["-D", "FORWARD"], &*rule].concat());
        }
    }

    fn rules(&self) -> [Vec<&str>; 2] {
        let answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"];
        [vec!["-i", &self.0, "-j", "ACCEPT"], [&["-o", &*self.0], &answers[..]].concat()]
    }
}

/// The output of `iptables`; `None` if there is no such program, or it failed.
fn iptables(args: &[&str]) -> Option<String> {
    let mut command = Command::new("iptables");
    let output = command.arg("--wait").args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
