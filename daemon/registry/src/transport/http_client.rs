//! The HTTP clients of one host.

use std::sync::atomic::{AtomicBool, Ordering};

use kiln_http::Clients;
use reqwest::redirect::Policy;
use url::Url;

use super::tls::{TlsError, Trust};
use crate::config::{HostConfig, Protocol};

/// Connections to one host, shared by everyone who talks with it.
pub(crate) struct Transport {
    host: String,
    protocol: Protocol,
    /// Whether the host turned out not to speak TLS ([`Protocol::HttpsUnverifiedOrHttp`]).
    has_fallen_back: AtomicBool,
    clients: Clients,
}

impl Transport {
    /// `protocol` may be another than `config` says by itself.
    pub(crate) fn new(
        host: &str,
        protocol: Protocol,
        config: &HostConfig,
        trust: &Trust,
    ) -> Result<Self, TlsError> {
        // A plain host may redirect to one with TLS.
        let tls = trust.client_config(config, protocol)?;
        let clients = Clients::new(&tls, |builder| {
            builder.redirect(Policy::none()).user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        });
        let clients = clients.map_err(|source| TlsError::Client { source })?;
        Ok(Self {
            host: host.to_owned(),
            protocol,
            has_fallen_back: AtomicBool::new(false),
            clients,
        })
    }

    /// The host and port that are connected to.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The host's address, for messages.
    pub(crate) fn address(&self) -> String {
        format!("{}://{}", self.scheme(), self.host)
    }

    /// `https`, or `http` where the host is plain.
    pub(crate) fn scheme(&self) -> &'static str {
        let has_tls = match self.protocol {
            Protocol::Http => false,
            Protocol::HttpsUnverifiedOrHttp => !self.has_fallen_back.load(Ordering::Relaxed),
            Protocol::Https | Protocol::HttpsUnverified => true,
        };
        if has_tls { "https" } else { "http" }
    }

    /// Whether the host proves who it is.
    pub(crate) fn is_secure(&self) -> bool {
        self.protocol == Protocol::Https
    }

    pub(super) fn client(&self, url: &Url) -> &reqwest::Client {
        self.clients.for_url(url)
    }

    /// The plain form of `url`, if `error` shows that its host does not speak TLS and that is
    /// allowed; from then on the host is asked in plain.
    pub(super) fn fall_back(&self, url: &Url, error: &reqwest::Error) -> Option<Url> {
        let own = Url::parse(&format!("https://{}", self.host)).ok()?;
        if self.protocol != Protocol::HttpsUnverifiedOrHttp || own.origin() != url.origin() {
            return None;
        }
        // Without a port, the other protocol is at another port.
        let is_refused = error.is_connect() && is_io(error, std::io::ErrorKind::ConnectionRefused);
        if !speaks_no_tls(error) && (!is_refused || url.port().is_some()) {
            return None;
        }
        let mut plain = Url::parse(&format!("http://{}", self.host)).ok()?;
        plain.set_path(url.path());
        plain.set_query(url.query());
        self.has_fallen_back.store(true, Ordering::Relaxed);
        tracing::debug!(host = self.host, "host does not speak TLS, using plain HTTP");
        Some(plain)
    }
}

fn causes<'a>(
    error: &'a reqwest::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let first: Option<&'a (dyn std::error::Error + 'static)> = Some(error);
    std::iter::successors(first, |cause| {
        // An I/O error's source is its inner error's source: the inner error itself is skipped.
        match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        }
    })
}

/// Whether the peer's first bytes were not those of TLS.
fn speaks_no_tls(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidMessage(_)))
    })
}

fn is_io(error: &reqwest::Error, kind: std::io::ErrorKind) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == kind)
    })
}
