//! HTTP clients, as every part of the daemon that talks with servers makes them: TLS with rustls and
//! ring, the system's authorities, and no proxy on the way to this machine's own loopback.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tls = kiln_http::usual_tls()?;
//! let clients = kiln_http::Clients::new(&tls, |builder| builder.user_agent("kiln"))?;
//! let client = clients.for_url(&"https://example.com/".parse()?);
//! # let _ = client;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod trouble;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

pub use trouble::{is_transient, retry_after};

/// How long a server has to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

const KEEPALIVE: Duration = Duration::from_mins(1);
/// How long a peer may leave sent data unacknowledged before the connection counts as dead.
const USER_TIMEOUT: Duration = Duration::from_mins(1);

/// A client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No version of TLS is left to speak.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The library refuses.
    #[error("the HTTP client cannot be set up")]
    Client(#[from] reqwest::Error),
}

/// The system's certificate authorities. Reading them takes milliseconds.
pub fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "system certificate not loaded");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// TLS with servers that the system's authorities know, and no certificate of our own.
///
/// # Errors
/// If no version of TLS is left to speak.
pub fn usual_tls() -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(system_authorities()).with_no_client_auth())
}

/// Two clients that differ in whether they may use a proxy.
pub struct Clients {
    /// Obeys the environment's proxy settings.
    proxied: Client,
    /// Never uses a proxy, which could not reach this machine's loopback.
    direct: Client,
}

impl Clients {
    /// Clients with what `configure` says besides what is usual here.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn new(
        tls: &ClientConfig,
        configure: impl Fn(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            proxied: configure(builder(tls)).build()?,
            direct: configure(builder(tls).no_proxy()).build()?,
        })
    }

    /// The client for `url`.
    pub fn for_url(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.direct } else { &self.proxied }
    }
}

/// What all clients have in common.
pub fn builder(tls: &ClientConfig) -> ClientBuilder {
    // HTTP/1.1 because its connections carry blobs in parallel; over HTTP/2 they would share one
    // connection and its flow control.
    ClientBuilder::new()
        .tls_backend_preconfigured(tls.clone())
        .http1_only()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
        .tcp_user_timeout(USER_TIMEOUT)
}

/// Whether `url` is on this machine's loopback.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_no_proxy_can_reach() {
        for (url, expected) in [
            ("http://localhost:5000/", true),
            ("http://a.localhost/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]/", true),
            ("http://localhost.example.com/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
