//! The HTTP client of the daemon.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::RootCertStore;
use url::{Host, Url};

use super::error::HttpError;
use crate::worker::BUILDKIT_VERSION;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server may send nothing.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
const MOST_REDIRECTS: usize = 10;

/// Talks with web servers; made when it is first needed, for that reads the system's certificates.
#[derive(Default)]
pub(crate) struct HttpClient(OnceLock<Clients>);

struct Clients {
    /// Obeys the environment's proxy settings.
    proxied: Client,
    /// Never uses a proxy, which could not reach this machine's loopback.
    direct: Client,
}

impl HttpClient {
    /// The client for `url`.
    pub(super) fn for_url(&self, url: &Url) -> Result<&Client, HttpError> {
        let clients = match self.0.get() {
            Some(clients) => clients,
            None => {
                let made = make().map_err(HttpError::Client)?;
                self.0.get_or_init(|| made)
            }
        };
        Ok(if is_loopback(url) { &clients.direct } else { &clients.proxied })
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
    // Servers know the name of the builder whose sources these are.
    let agent = format!("kiln/{} buildkit/{BUILDKIT_VERSION}", env!("CARGO_PKG_VERSION"));
    let builder = || {
        ClientBuilder::new()
            .tls_backend_preconfigured(tls.clone())
            .http1_only()
            .redirect(Policy::limited(MOST_REDIRECTS))
            .referer(false)
            .user_agent(&agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
    };
    Ok(Clients { proxied: builder().build()?, direct: builder().no_proxy().build()? })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
