//! `EXPOSE`: ports and ranges of ports, once variables are replaced.

use std::fmt;
use std::net::IpAddr;

/// The ports that one word of EXPOSE names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedPorts {
    /// The ports.
    pub range: PortRange,
    /// The protocol as written, if that was not in lower case.
    pub odd_protocol: Option<String>,
    /// Whether a host's address or port was given as well, which has no meaning here.
    pub has_host_part: bool,
}

/// Consecutive ports of one protocol, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub start: u16,
    /// Last port.
    pub end: u16,
    /// Their protocol.
    pub protocol: Protocol,
}

impl PortRange {
    /// Each port in the form of image configs: `80/tcp`.
    pub fn ports(self) -> impl Iterator<Item = String> {
        (self.start..=self.end).map(move |port| format!("{port}/{}", self.protocol))
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP, which is the default.
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A word that names no ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Nothing where the port should be.
    #[error("invalid port: {word:?}: no port specified")]
    Missing {
        /// The word.
        word: String,
    },
    /// Not tcp, udp or sctp.
    #[error("invalid port: {word:?}: invalid proto: {protocol}")]
    Protocol {
        /// The word.
        word: String,
        /// What was given.
        protocol: String,
    },
    /// The host's part is no address.
    #[error("invalid IP address: {address}")]
    Address {
        /// What was given.
        address: String,
    },
    /// Not a port, or range of ports, from 0 to 65535.
    #[error("invalid containerPort: {port}")]
    Container {
        /// What was given.
        port: String,
    },
    /// Not a port, or range of ports, of the host.
    #[error("invalid hostPort: {port}")]
    Host {
        /// What was given.
        port: String,
    },
    /// Ranges of the host and the container that differ in length.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Lengths {
        /// The container's.
        container: String,
        /// The host's.
        host: String,
    },
}

/// Parses `[[address:]host-ports:]ports[/protocol]`.
pub fn parse_port(word: &str) -> Result<ExposedPorts, PortError> {
    let (host, container) = word.rsplit_once(':').unwrap_or(("", word));
    let (address, host_port) = host.rsplit_once(':').unwrap_or(("", host));
    let (port, written) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(PortError::Missing { word: word.to_owned() });
    }
    let protocol = match written.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => {
            let (word, protocol) = (word.to_owned(), written.to_owned());
            return Err(PortError::Protocol { word, protocol });
        }
    };
    check_address(address)?;
    let (start, end) = range(port).ok_or_else(|| PortError::Container { port: port.to_owned() })?;
    if !host_port.is_empty() {
        let (host_start, host_end) =
            range(host_port).ok_or_else(|| PortError::Host { port: host_port.to_owned() })?;
        // One port may be offered on any of a range of the host's.
        if start != end && end - start != host_end - host_start {
            let (container, host) = (port.to_owned(), host_port.to_owned());
            return Err(PortError::Lengths { container, host });
        }
    }
    Ok(ExposedPorts {
        range: PortRange { start, end, protocol },
        odd_protocol: (written.to_lowercase() != written).then(|| written.to_owned()),
        has_host_part: !address.is_empty() || !host_port.is_empty(),
    })
}

fn check_address(address: &str) -> Result<(), PortError> {
    if address.is_empty() {
        return Ok(());
    }
    let bare = address
        .strip_prefix('[')
        .map_or(Some(address), |inner| inner.strip_suffix(']'))
        .and_then(|bare| bare.parse::<IpAddr>().ok());
    match bare {
        Some(_) => Ok(()),
        None => Err(PortError::Address { address: address.to_owned() }),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end): (u16, u16) = (start.parse().ok()?, end.parse().ok()?);
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_protocols_are_normalised() {
        let cases: &[(&str, &[&str])] = &[
            ("80", &["80/tcp"]),
            ("80/", &["80/tcp"]),
            ("53/UDP", &["53/udp"]),
            ("3456-3458/sctp", &["3456/sctp", "3457/sctp", "3458/sctp"]),
            ("80-80", &["80/tcp"]),
            ("8080:80", &["80/tcp"]),
            ("8000-9000:80", &["80/tcp"]),
            ("0.0.0.0:1234-1235:3333-3334/tcp", &["3333/tcp", "3334/tcp"]),
            ("[2001:4860:0:2001::68]::333", &["333/tcp"]),
            ("[::1]:80:80", &["80/tcp"]),
            ("2001:4860:0:2001::68::333", &["333/tcp"]),
            ("::1:80:80", &["80/tcp"]),
            ("::::80", &["80/tcp"]),
        ];
        for (word, expected) in cases {
            let ports: Vec<String> = parse_port(word).unwrap().range.ports().collect();
            assert_eq!(ports, *expected, "{word}");
        }
    }

    #[test]
    fn what_has_no_meaning_is_noticed() {
        assert_eq!(parse_port("80/Tcp").unwrap().odd_protocol.as_deref(), Some("Tcp"));
        assert_eq!(parse_port("80/tcp").unwrap().odd_protocol, None);
        assert!(parse_port("8080:80").unwrap().has_host_part);
        assert!(parse_port("127.0.0.1::80").unwrap().has_host_part);
        assert!(!parse_port("80").unwrap().has_host_part);
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", "invalid port: \"\": no port specified"),
            ("0.0.0.0:1234:/tcp", "invalid port: \"0.0.0.0:1234:/tcp\": no port specified"),
            ("80/icmp", "invalid port: \"80/icmp\": invalid proto: icmp"),
            ("x", "invalid containerPort: x"),
            ("65536", "invalid containerPort: 65536"),
            ("-1", "invalid containerPort: -1"),
            ("90-80", "invalid containerPort: 90-80"),
            ("x:80", "invalid hostPort: x"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("[::1:80:80", "invalid IP address: [::1"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
        ];
        for (word, message) in cases {
            assert_eq!(parse_port(word).unwrap_err().to_string(), message, "{word}");
        }
    }
}
