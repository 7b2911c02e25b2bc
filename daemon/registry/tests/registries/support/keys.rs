//! A holder of credentials.

use std::sync::Arc;

use futures::future::BoxFuture;
use kiln_registry::{Authenticator, AuthenticatorError, Credentials, Token, TokenRequest};
use parking_lot::Mutex;

/// Has credentials, tokens, both or neither, and remembers what it was asked.
#[derive(Default)]
pub(crate) struct Keys {
    pub(crate) credentials: Option<Credentials>,
    pub(crate) token: Option<Token>,
    pub(crate) asked: Mutex<Vec<TokenRequest>>,
}

impl Keys {
    /// A user and password, or an identity token.
    pub(crate) fn of(username: &str, secret: &str) -> Arc<Self> {
        let credentials = Credentials { username: username.into(), secret: secret.into() };
        Arc::new(Self { credentials: Some(credentials), ..Self::default() })
    }
}

impl Authenticator for Keys {
    fn credentials<'a>(
        &'a self,
        _host: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credentials>, AuthenticatorError>> {
        Box::pin(std::future::ready(Ok(self.credentials.clone())))
    }

    fn fetch_token<'a>(
        &'a self,
        request: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<Option<Token>, AuthenticatorError>> {
        self.asked.lock().push(request.clone());
        Box::pin(std::future::ready(Ok(self.token.clone())))
    }
}
