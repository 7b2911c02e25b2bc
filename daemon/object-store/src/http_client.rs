//! Connections to stores.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kiln_http::{CONNECT_TIMEOUT, ClientError, Clients};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use url::Url;

use crate::error::Error;

/// A machine's own metadata service is near, or not there at all.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// Talks with stores; made when it is first needed, for that reads the system's certificates.
#[derive(Clone, Default)]
pub struct HttpClient(Arc<OnceLock<Made>>);

struct Made {
    stores: Clients,
    /// For services that hand out credentials.
    metadata: Client,
}

impl HttpClient {
    /// The client for `url`.
    pub(crate) fn for_url(&self, url: &Url) -> Result<&Client, Error> {
        Ok(self.made()?.stores.for_url(url))
    }

    /// The client for services that hand out credentials.
    pub(crate) fn for_credentials(&self) -> Result<&Client, Error> {
        Ok(&self.made()?.metadata)
    }

    fn made(&self) -> Result<&Made, Error> {
        if let Some(made) = self.0.get() {
            return Ok(made);
        }
        let made = make().map_err(Error::Client)?;
        Ok(self.0.get_or_init(|| made))
    }
}

fn make() -> Result<Made, ClientError> {
    let tls = kiln_http::usual_tls()?;
    // A signature is for one address, so that there is no redirect to follow.
    let configure = |builder: ClientBuilder| {
        builder.redirect(Policy::none()).user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
    };
    let metadata = configure(kiln_http::builder(&tls));
    let metadata = metadata.connect_timeout(METADATA_TIMEOUT).timeout(CONNECT_TIMEOUT);
    Ok(Made { stores: Clients::new(&tls, configure)?, metadata: metadata.build()? })
}
