//! `/etc/resolv.conf`, as far as it matters who can reach the name servers (`resolv.conf(5)`).

use std::fmt;
use std::net::IpAddr;

/// Where systemd-resolved, whose own address is a loopback one, writes down whom it asks.
const SYSTEMD: &str = "/run/systemd/resolve/resolv.conf";

/// The name servers, and every other line as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvConf {
    servers: Vec<IpAddr>,
    others: Vec<String>,
}

impl ResolvConf {
    pub(super) fn parse(text: &str) -> Self {
        let (mut servers, mut others) = (Vec::new(), Vec::new());
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            match line.strip_prefix("nameserver") {
                // One with a zone is only of use on the link that it names.
                Some(server) => servers.extend(server.trim().parse::<IpAddr>()),
                None => others.push(line.to_owned()),
            }
        }
        Self { servers, others }
    }

    /// All servers, in the order in which they are asked.
    pub(super) fn servers(&self) -> Vec<IpAddr> {
        self.servers.clone()
    }

    /// Whether the server that is asked first cannot be reached from a network namespace on an
    /// IPv4 bridge. Those behind it may not know the same names.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.servers.first().is_some_and(|server| !can_reach(*server))
    }

    /// The same with only those servers that can be reached.
    pub(super) fn within_reach(&self) -> Self {
        let servers = self.servers.iter().copied().filter(|server| can_reach(*server)).collect();
        Self { servers, others: self.others.clone() }
    }

    /// The same with one server.
    pub(super) fn asking(&self, server: IpAddr) -> Self {
        Self { servers: vec![server], others: self.others.clone() }
    }
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in &self.servers {
            writeln!(f, "nameserver {server}")?;
        }
        self.others.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The servers that systemd-resolved asks; empty where it does not run.
pub(super) fn of_systemd() -> String {
    std::fs::read_to_string(SYSTEMD).unwrap_or_default()
}

fn can_reach(server: IpAddr) -> bool {
    match server {
        IpAddr::V4(server) => !server.is_loopback() && !server.is_unspecified(),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steps_cannot_reach_is_left_out_and_the_rest_stays() {
        let text = "# by hand\nnameserver 192.0.2.1\nnameserver ::1\nsearch a.example b.example\n\
                    nameserver 127.0.0.53\noptions ndots:2\nnameserver fe80::1%eth0\n";
        let parsed = ResolvConf::parse(text);
        assert!(!parsed.is_out_of_reach());
        let expected = "nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2\n";
        assert_eq!(parsed.within_reach().to_string(), expected);
    }

    #[test]
    fn who_is_asked_first_decides() {
        for (text, expected) in [
            ("nameserver 127.0.0.53\nnameserver 192.0.2.1", true),
            ("nameserver ::1", true),
            ("nameserver 192.0.2.1\nnameserver 127.0.0.53", false),
            ("search example.com", false),
        ] {
            assert_eq!(ResolvConf::parse(text).is_out_of_reach(), expected, "{text}");
        }
    }

    #[test]
    fn another_server_keeps_the_other_lines() {
        let parsed = ResolvConf::parse("nameserver 127.0.0.1\noptions edns0");
        let asking = parsed.asking(IpAddr::from([10, 0, 0, 1])).to_string();
        assert_eq!(asking, "nameserver 10.0.0.1\noptions edns0\n");
    }
}
