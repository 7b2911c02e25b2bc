//! The client: configuration, connections, and one user's authorization.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{Authenticator, Authorizer};
use crate::config::{HostConfig, Protocol, RegistryConfig};
use crate::endpoint::{Endpoint, Mirror};
use crate::error::{Action, Error};
use crate::reference::{ImageRef, wire_host};
use crate::transport::{Transport, Trust};
use crate::turns::Turns;

/// A handle on all registries; cheap to clone.
///
/// Connections and transfer limits are shared by every handle that comes from the same
/// [`Client::new`]; credentials and tokens only by clones of one handle.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    pub(crate) authorizer: Arc<Authorizer>,
    /// Registries that this handle reaches without verification, configured or not.
    insecure: BTreeSet<String>,
}

struct Shared {
    config: RegistryConfig,
    trust: Trust,
    transports: Mutex<HashMap<(String, Protocol), Arc<Transport>>>,
    /// By registry, however many mirrors answer for it, and direction: a push whose source is a
    /// pull must not wait for pushes like itself.
    transfers: Mutex<HashMap<(String, Action), Arc<Semaphore>>>,
}

impl Client {
    /// A client without credentials.
    pub fn new(config: RegistryConfig) -> Self {
        let shared = Shared {
            config,
            trust: Trust::default(),
            transports: Mutex::default(),
            transfers: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            authorizer: Arc::new(Authorizer::new(None)),
            insecure: BTreeSet::new(),
        }
    }

    /// A handle on the same connections with the credentials of `authenticator`, and no token yet.
    pub fn with_auth(&self, authenticator: Arc<dyn Authenticator>) -> Self {
        let authorizer = Arc::new(Authorizer::new(Some(authenticator)));
        Self { authorizer, ..self.clone() }
    }

    /// A handle that does not verify `host`, and speaks plain HTTP with it if it has no TLS
    /// (`registry.insecure=true` of exporters).
    pub fn with_insecure(&self, host: &str) -> Self {
        let mut handle = self.clone();
        handle.insecure.insert(host.to_owned());
        handle
    }

    /// The hosts to ask for what is pulled.
    pub(crate) fn pull_turns(&self, image: &ImageRef) -> Result<Turns, Error> {
        let mirrors = self.shared.config.hosts.get(image.host()).map(|config| &config.mirrors);
        let mirrors = mirrors.into_iter().flatten();
        let mirrors = mirrors.map(|mirror| self.mirror(image.host(), mirror));
        Ok(Turns::new(mirrors.collect::<Result<_, _>>()?, self.registry(image)?))
    }

    /// The registry itself.
    pub(crate) fn registry(&self, image: &ImageRef) -> Result<Endpoint, Error> {
        let config = self.host_config(image.host());
        let protocol = config.protocol(image.host());
        let transport = self.transport(image.wire_host(), protocol, &config)?;
        Ok(Endpoint { transport, prefix: "/v2".to_owned(), namespace: None })
    }

    /// Waits until another blob may be pulled from, or pushed to, the registry of `image`.
    pub(crate) async fn transfer(
        &self,
        image: &ImageRef,
        action: Action,
    ) -> Option<OwnedSemaphorePermit> {
        let limit = self.shared.config.max_concurrency.get();
        let semaphore = {
            let mut transfers = self.shared.transfers.lock();
            let entry = transfers.entry((image.host().to_owned(), action));
            Arc::clone(entry.or_insert_with(|| Arc::new(Semaphore::new(limit))))
        };
        // Fails only for semaphores that are closed, which these never are.
        semaphore.acquire_owned().await.ok()
    }

    fn mirror(&self, host: &str, text: &str) -> Result<Endpoint, Error> {
        let mirror = Mirror::parse(text)
            .ok_or_else(|| Error::Mirror { host: host.to_owned(), mirror: text.to_owned() })?;
        let config = self.host_config(&mirror.host);
        let protocol = if mirror.is_plain { Protocol::Http } else { config.protocol(&mirror.host) };
        let wire = wire_host(&mirror.host);
        Ok(Endpoint {
            transport: self.transport(wire, protocol, &config)?,
            prefix: format!("/v2{}", mirror.path),
            namespace: (wire != wire_host(host)).then(|| host.to_owned()),
        })
    }

    fn host_config(&self, host: &str) -> HostConfig {
        let mut config = self.shared.config.hosts.get(host).cloned().unwrap_or_default();
        if self.insecure.contains(host) {
            config.http = Some(true);
            config.insecure = Some(true);
        }
        config
    }

    /// The connections to `host`, made the first time; that reads certificates, a few
    /// milliseconds of blocking work that happen once for a host.
    fn transport(
        &self,
        host: &str,
        protocol: Protocol,
        config: &HostConfig,
    ) -> Result<Arc<Transport>, Error> {
        let mut transports = self.shared.transports.lock();
        let key = (host.to_owned(), protocol);
        if let Some(transport) = transports.get(&key) {
            return Ok(Arc::clone(transport));
        }
        let transport = Transport::new(host, protocol, config, &self.shared.trust)
            .map_err(|source| Error::Tls { host: host.to_owned(), source })?;
        let transport = Arc::new(transport);
        transports.insert(key, Arc::clone(&transport));
        Ok(transport)
    }
}
