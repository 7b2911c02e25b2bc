//! How registries are reached: the `[registry."host"]` tables of `buildkitd.toml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;

/// Blobs pulled at once from one registry, and as many pushed, unless configured.
pub const DEFAULT_MAX_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Everything that is configured about registries.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// By registry host as references name it (`docker.io`, `localhost:5000`), and by mirror host.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Blobs pulled at once from one registry, and as many pushed
    /// (`system.maxRegistryConcurrency`).
    pub max_concurrency: NonZeroUsize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { hosts: BTreeMap::new(), max_concurrency: DEFAULT_MAX_CONCURRENCY }
    }
}

/// One `[registry."host"]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Hosts asked first, in order, for what is pulled: `host[:port][/project]`, with `http://`
    /// in front for plain HTTP.
    pub mirrors: Vec<String>,
    /// Plain HTTP instead of TLS. Where unset, loopback hosts are plain.
    pub http: Option<bool>,
    /// TLS without verification; together with `http`, plain HTTP where TLS is not spoken.
    pub insecure: Option<bool>,
    /// PEM files with certificate authorities that are trusted beside the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates.
    pub keypair: Vec<KeyPair>,
    /// Directories with `*.crt` (authorities), `*.cert` and `*.key` (client certificates).
    pub tlsconfigdir: Vec<PathBuf>,
}

/// A client certificate and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// The private key.
    pub key: PathBuf,
    /// The certificate, followed by the chain to its authority.
    pub cert: PathBuf,
}

/// Which protocol a host speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// TLS, verified.
    Https,
    /// TLS, unverified.
    HttpsUnverified,
    /// TLS, unverified, and plain HTTP where the host turns out not to speak TLS.
    HttpsUnverifiedOrHttp,
    /// Plain HTTP.
    Http,
}

impl HostConfig {
    /// The protocol of `host` by this table.
    pub(crate) fn protocol(&self, host: &str) -> Protocol {
        let is_plain = self.http.unwrap_or_else(|| is_loopback(host));
        match (self.insecure.unwrap_or(false), is_plain) {
            (true, true) => Protocol::HttpsUnverifiedOrHttp,
            (true, false) => Protocol::HttpsUnverified,
            (false, true) => Protocol::Http,
            (false, false) => Protocol::Https,
        }
    }
}

/// Whether `host`, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None if host.parse::<IpAddr>().is_ok() => host,
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_recognised_with_and_without_port() {
        for host in
            ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]:5000", "::1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.1:80", "[fe80::1]:5", "", "["]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_tables_of_buildkitd_toml_are_read() {
        let text = r#"
            mirrors = ["yourmirror.local:5000", "core.harbor.domain/proxy.docker.io"]
            http = true
            insecure = true
            ca = ["/etc/config/myca.pem"]
            tlsconfigdir = ["/etc/certs.d/x"]
            [[keypair]]
            key = "/etc/config/key.pem"
            cert = "/etc/config/cert.pem"
        "#;
        let expected = HostConfig {
            mirrors: vec![
                "yourmirror.local:5000".to_owned(),
                "core.harbor.domain/proxy.docker.io".to_owned(),
            ],
            http: Some(true),
            insecure: Some(true),
            ca: vec!["/etc/config/myca.pem".into()],
            tlsconfigdir: vec!["/etc/certs.d/x".into()],
            keypair: vec![KeyPair {
                key: "/etc/config/key.pem".into(),
                cert: "/etc/config/cert.pem".into(),
            }],
        };
        assert_eq!(toml::from_str::<HostConfig>(text).unwrap(), expected);
        assert_eq!(toml::from_str::<HostConfig>("").unwrap(), HostConfig::default());
        assert!(toml::from_str::<HostConfig>("insecur = true").is_err());
    }

    #[test]
    fn loopback_is_plain_unless_told_otherwise() {
        let table = |http, insecure| HostConfig { http, insecure, ..HostConfig::default() };
        let rows = [
            ("localhost:5000", None, None, Protocol::Http),
            ("localhost:5000", Some(false), None, Protocol::Https),
            ("localhost:5000", None, Some(true), Protocol::HttpsUnverifiedOrHttp),
            ("example.com", None, None, Protocol::Https),
            ("example.com", Some(true), None, Protocol::Http),
            ("example.com", None, Some(true), Protocol::HttpsUnverified),
            ("example.com", Some(true), Some(true), Protocol::HttpsUnverifiedOrHttp),
        ];
        for (host, http, insecure, protocol) in rows {
            assert_eq!(table(http, insecure).protocol(host), protocol, "{host} {http:?}");
        }
    }
}
