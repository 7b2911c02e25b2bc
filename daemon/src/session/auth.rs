//! Registry credentials, which stay with the client.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kiln_proto::auth::auth_client::AuthClient;
use kiln_proto::auth::{CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest};
use kiln_proto::session::methods;
use kiln_registry::{Authenticator, AuthenticatorError, Credentials, Token, TokenRequest};
use tonic::Code;

use super::Session;

/// Asks a client for credentials, or for tokens that it gets itself.
pub(crate) struct SessionAuthenticator(pub(crate) Arc<Session>);

impl SessionAuthenticator {
    async fn ask_credentials(&self, host: &str) -> Result<Option<Credentials>, AuthenticatorError> {
        let Ok(channel) = self.0.channel_for(methods::CREDENTIALS) else { return Ok(None) };
        let request = CredentialsRequest { host: host.to_owned() };
        let answer = AuthClient::new(channel).credentials(request).await?.into_inner();
        let found = !answer.secret.is_empty();
        Ok(found.then_some(Credentials { username: answer.username, secret: answer.secret }))
    }

    async fn ask_token(&self, wanted: &TokenRequest) -> Result<Option<Token>, AuthenticatorError> {
        let (Ok(channel), true) =
            (self.0.channel_for(methods::TOKEN_AUTHORITY), self.0.supports(methods::FETCH_TOKEN))
        else {
            return Ok(None);
        };
        let mut client = AuthClient::new(channel);
        let salt = self.0.id().as_bytes().to_vec();
        let request = GetTokenAuthorityRequest { host: wanted.host.clone(), salt: salt.into() };
        let authority = match client.get_token_authority(request).await {
            Ok(answer) => answer.into_inner().public_key,
            // Clients that hold no token authority say so in these ways.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unimplemented) => {
                return Ok(None);
            }
            Err(status) => return Err(status.into()),
        };
        if authority.is_empty() {
            return Ok(None);
        }
        let request = FetchTokenRequest {
            client_id: "buildkit-client".into(),
            host: wanted.host.clone(),
            realm: wanted.realm.clone(),
            service: wanted.service.clone(),
            scopes: wanted.scopes.clone(),
        };
        let answer = client.fetch_token(request).await?.into_inner();
        let expires_in = u64::try_from(answer.expires_in).ok().map(Duration::from_secs);
        Ok(Some(Token { value: answer.token, expires_in }))
    }
}

impl Authenticator for SessionAuthenticator {
    fn credentials<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credentials>, AuthenticatorError>> {
        self.ask_credentials(host).boxed()
    }

    fn fetch_token<'a>(
        &'a self,
        request: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<Option<Token>, AuthenticatorError>> {
        self.ask_token(request).boxed()
    }
}
