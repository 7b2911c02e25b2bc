//! Connections to stores.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::RootCertStore;
use url::{Host, Url};

use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_mins(1);
/// How long a peer may leave sent data unacknowledged before the connection counts as dead.
const USER_TIMEOUT: Duration = Duration::from_mins(1);
/// A machine's own metadata service is near, or not there at all.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// Talks with stores; made when it is first needed, for that reads the system's certificates.
#[derive(Clone, Default)]
pub struct HttpClient(Arc<OnceLock<Clients>>);

struct Clients {
    /// Obeys the environment's proxy settings.
    proxied: Client,
    /// Never uses a proxy, which could not reach this machine's loopback.
    direct: Client,
    /// For services that hand out credentials.
    metadata: Client,
}

impl HttpClient {
    /// The client for `url`.
    pub(crate) fn for_url(&self, url: &Url) -> Result<&Client, Error> {
        let clients = self.clients()?;
        Ok(if is_loopback(url) { &clients.direct } else { &clients.proxied })
    }

    /// The client for services that hand out credentials.
    pub(crate) fn for_credentials(&self) -> Result<&Client, Error> {
        Ok(&self.clients()?.metadata)
    }

    fn clients(&self) -> Result<&Clients, Error> {
        if let Some(clients) = self.0.get() {
            return Ok(clients);
        }
        let made = make().map_err(Error::Client)?;
        Ok(self.0.get_or_init(|| made))
    }
}

fn make() -> Result<Clients, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "system certificate not loaded");
    }
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = || {
        // HTTP/1.1 because its connections carry blobs in parallel; over HTTP/2 they would share one
        // connection and its flow control. A signature is for one address, so that there is no
        // redirect to follow.
        ClientBuilder::new()
            .tls_backend_preconfigured(tls.clone())
            .http1_only()
            .redirect(Policy::none())
            .referer(false)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .tcp_user_timeout(USER_TIMEOUT)
    };
    let metadata = builder().connect_timeout(METADATA_TIMEOUT).timeout(CONNECT_TIMEOUT);
    Ok(Clients {
        proxied: builder().build()?,
        direct: builder().no_proxy().build()?,
        metadata: metadata.build()?,
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
