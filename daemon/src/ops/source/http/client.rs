//! The HTTP client of the daemon.

use std::sync::OnceLock;
use std::time::Duration;

use kiln_http::{ClientError, Clients};
use reqwest::Client;
use reqwest::redirect::Policy;
use url::Url;

use super::error::HttpError;
use crate::worker::BUILDKIT_VERSION;

/// How long a server may send nothing.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
const MOST_REDIRECTS: usize = 10;

/// Talks with web servers; made when it is first needed, for that reads the system's certificates.
#[derive(Default)]
pub(crate) struct HttpClient(OnceLock<Clients>);

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
        Ok(clients.for_url(url))
    }
}

fn make() -> Result<Clients, ClientError> {
    // Servers know the name of the builder whose sources these are.
    let agent = format!("kiln/{} buildkit/{BUILDKIT_VERSION}", env!("CARGO_PKG_VERSION"));
    Clients::new(&kiln_http::usual_tls()?, |builder| {
        builder
            .redirect(Policy::limited(MOST_REDIRECTS))
            .user_agent(&agent)
            .read_timeout(READ_TIMEOUT)
    })
}
