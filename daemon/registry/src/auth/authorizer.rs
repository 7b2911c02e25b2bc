//! Which `Authorization` header a request gets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::HeaderValue;
use parking_lot::Mutex;
use url::Url;

use super::authenticator::{Authenticator, Credentials, Token, TokenRequest};
use super::challenge::{Challenge, challenges};
use super::scope::Scopes;
use super::token::{TokenServer, basic, bearer};
use crate::error::{Error, Malformed};
use crate::purpose::Purpose;
use crate::transport::Transport;

/// How long a token without a lifetime is used.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
/// No token is kept longer, whatever its server says.
const MAX_LIFETIME: Duration = Duration::from_hours(24);

/// Answers challenges with one user's credentials, and remembers the answers.
///
/// Nothing in it is shared between users: what one build's session may do says nothing about
/// another's.
pub(crate) struct Authorizer {
    authenticator: Option<Arc<dyn Authenticator>>,
    /// What a host asked for the last time.
    schemes: Mutex<HashMap<String, Scheme>>,
    tokens: Mutex<HashMap<(String, Scopes), Arc<TokenSlot>>>,
}

/// Held while a token is fetched, so that requests that want the same one wait for it.
type TokenSlot = tokio::sync::Mutex<Option<CachedToken>>;

#[derive(Clone)]
enum Scheme {
    Basic(HeaderValue),
    Bearer(TokenServer),
}

struct CachedToken {
    header: HeaderValue,
    /// What it was asked for; at least the slot's scopes.
    scopes: Scopes,
    expires: Instant,
}

impl Authorizer {
    pub(crate) fn new(authenticator: Option<Arc<dyn Authenticator>>) -> Self {
        Self { authenticator, schemes: Mutex::default(), tokens: Mutex::default() }
    }

    /// The header to begin with: what the host is known to want, `None` if it has not said yet.
    pub(crate) async fn known(
        &self,
        transport: &Transport,
        purpose: &Purpose,
    ) -> Result<Option<HeaderValue>, Error> {
        let scheme = self.schemes.lock().get(transport.host()).cloned();
        let server = match scheme {
            None => return Ok(None),
            Some(Scheme::Basic(header)) => return Ok(Some(header)),
            Some(Scheme::Bearer(server)) => server,
        };
        let slot = self.slot(transport, purpose);
        let mut token = slot.lock().await;
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.expires) {
            return Ok(Some(token.header.clone()));
        }
        let scopes = token.as_ref().map_or(&purpose.scopes, |token| &token.scopes).clone();
        let fresh = self.fetch(transport, purpose, &server, scopes).await?;
        let header = fresh.header.clone();
        *token = Some(fresh);
        Ok(Some(header))
    }

    /// The header that answers the challenge in `headers`, which came to a request that was sent
    /// with `used`.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        purpose: &Purpose,
        used: Option<&HeaderValue>,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, Error> {
        for challenge in challenges(headers) {
            match challenge {
                Challenge::Bearer { realm, service, scopes, error } => {
                    let server = self.learn(transport, &realm, service)?;
                    let scopes = purpose.scopes.clone().union(&scopes);
                    let slot = self.slot(transport, purpose);
                    let mut token = slot.lock().await;
                    if let Some(token) = token.as_ref().filter(|token| token.scopes.covers(&scopes))
                    {
                        if used != Some(&token.header) {
                            return Ok(token.header.clone());
                        }
                        // A token for just this is not enough: another will not be either.
                        if error == "insufficient_scope" {
                            return Err(purpose.unauthorized(&error));
                        }
                    }
                    let fresh = self.fetch(transport, purpose, &server, scopes).await?;
                    let header = fresh.header.clone();
                    *token = Some(fresh);
                    return Ok(header);
                }
                Challenge::Basic => {
                    let user = self.credentials(transport).await?;
                    let user = user.filter(|user| !user.username.is_empty());
                    if let Some(header) = user.as_ref().and_then(basic)
                        && used != Some(&header)
                    {
                        let host = transport.host().to_owned();
                        self.schemes.lock().insert(host, Scheme::Basic(header.clone()));
                        return Ok(header);
                    }
                }
            }
        }
        Err(purpose.unauthorized(""))
    }

    fn learn(
        &self,
        transport: &Transport,
        realm: &str,
        service: String,
    ) -> Result<TokenServer, Error> {
        let realm = Url::parse(realm)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| malformed(transport, Malformed::Realm))?;
        let server = TokenServer { realm, service };
        let scheme = Scheme::Bearer(server.clone());
        self.schemes.lock().insert(transport.host().to_owned(), scheme);
        Ok(server)
    }

    fn slot(&self, transport: &Transport, purpose: &Purpose) -> Arc<TokenSlot> {
        let key = (transport.host().to_owned(), purpose.scopes.clone());
        Arc::clone(self.tokens.lock().entry(key).or_default())
    }

    async fn fetch(
        &self,
        transport: &Transport,
        purpose: &Purpose,
        server: &TokenServer,
        scopes: Scopes,
    ) -> Result<CachedToken, Error> {
        let token = match self.held_token(transport, server, &scopes).await? {
            Some(token) => token,
            None => self.server_token(transport, purpose, server, &scopes).await?,
        };
        let header = bearer(&token).ok_or_else(|| malformed(transport, Malformed::Token))?;
        // A token is renewed before its end, so that it does not end on the way.
        let lifetime = token.expires_in.unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME) * 9 / 10;
        Ok(CachedToken { header, scopes, expires: Instant::now() + lifetime })
    }

    /// A token that the authenticator has or gets by itself.
    async fn held_token(
        &self,
        transport: &Transport,
        server: &TokenServer,
        scopes: &Scopes,
    ) -> Result<Option<Token>, Error> {
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        let request = TokenRequest {
            host: transport.host().to_owned(),
            realm: server.realm.to_string(),
            service: server.service.clone(),
            scopes: scopes.to_list(),
        };
        let held = authenticator.fetch_token(&request).await;
        held.map_err(|source| Error::Authenticator { host: request.host, source })
    }

    /// A token that the server gives for the user's credentials, or to nobody in particular.
    async fn server_token(
        &self,
        transport: &Transport,
        purpose: &Purpose,
        server: &TokenServer,
        scopes: &Scopes,
    ) -> Result<Token, Error> {
        let credentials = self.credentials(transport).await?;
        if credentials.is_some() && transport.is_secure() && server.realm.scheme() == "http" {
            return Err(malformed(transport, Malformed::PlainRealm));
        }
        let outcome = server.fetch(transport, scopes, credentials.as_ref()).await;
        outcome.map_err(|error| purpose.refused_by_token_server(error))
    }

    async fn credentials(&self, transport: &Transport) -> Result<Option<Credentials>, Error> {
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        let host = transport.host();
        authenticator
            .credentials(host)
            .await
            .map(|found| found.filter(|credentials| !credentials.secret.is_empty()))
            .map_err(|source| Error::Authenticator { host: host.to_owned(), source })
    }
}

fn malformed(transport: &Transport, problem: Malformed) -> Error {
    Error::Malformed { url: transport.address(), problem }
}
