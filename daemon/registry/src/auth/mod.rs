//! Authorization: challenges, scopes, tokens, and where credentials come from.

mod authenticator;
mod authorizer;
mod challenge;
mod scope;
mod token;

pub use authenticator::{Authenticator, AuthenticatorError, Credentials, Token, TokenRequest};
pub(crate) use authorizer::Authorizer;
pub(crate) use scope::Scopes;
