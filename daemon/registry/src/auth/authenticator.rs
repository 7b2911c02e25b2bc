//! The seam to whoever holds the user's credentials.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

/// An [`Authenticator`]'s error; it becomes the source of [`crate::Error::Authenticator`].
pub type AuthenticatorError = Box<dyn std::error::Error + Send + Sync>;

/// Holds credentials, or gets tokens without showing them.
///
/// Hosts are wire hosts, with their port: `registry-1.docker.io` for Docker Hub.
pub trait Authenticator: Send + Sync {
    /// The credentials for `host`, if there are any.
    fn credentials<'a>(
        &'a self,
        host: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credentials>, AuthenticatorError>>;

    /// A token for `request`, from a holder that talks to token servers itself; `None` if it
    /// does not, and [`Self::credentials`] are to be used.
    fn fetch_token<'a>(
        &'a self,
        request: &'a TokenRequest,
    ) -> BoxFuture<'a, Result<Option<Token>, AuthenticatorError>>;
}

/// A user and a password, or an identity token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user; empty if the secret is an identity token (an OAuth2 refresh token).
    pub username: String,
    /// The password or identity token.
    pub secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a token is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry's wire host.
    pub host: String,
    /// The token server's address.
    pub realm: String,
    /// The name by which the token server knows the registry; may be empty.
    pub service: String,
    /// Scopes such as `repository:library/busybox:pull`.
    pub scopes: Vec<String>,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What stands after `Bearer` in the header.
    pub value: String,
    /// How long it can be used from now on; unknown is taken as a minute.
    pub expires_in: Option<Duration>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_in_debug_output() {
        let credentials = Credentials { username: "me".into(), secret: "hunter2".into() };
        let token = Token { value: "hunter2".into(), expires_in: None };
        assert!(!format!("{credentials:?} {token:?}").contains("hunter2"));
    }
}
