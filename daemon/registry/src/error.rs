//! What can go wrong between this client and a registry.

use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};
use oci_spec::image::Digest;
use url::Url;

use crate::auth::AuthenticatorError;
use crate::registry_error::RegistryErrors;
use crate::transport::TlsError;

/// What was being done with a reference when access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Resolving or reading.
    Pull,
    /// Writing.
    Push,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
        })
    }
}

/// A request to a registry that had no good end.
///
/// No message has credentials, tokens or query strings in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry does not have it.
    #[error("{subject}: not found")]
    NotFound {
        /// The reference, or name and digest.
        subject: String,
    },
    /// There were no credentials, or they were not accepted (401).
    #[error(
        "{subject}: {action} access denied, repository does not exist or may require \
         authorization{}", detail(.message)
    )]
    Unauthorized {
        /// The reference, or name and digest.
        subject: String,
        /// What was tried.
        action: Action,
        /// What the registry or its token server said; empty if nothing.
        message: String,
    },
    /// The registry knows who asks, and refuses (403).
    #[error("{subject}: {action} denied by the registry{}", detail(.errors))]
    Denied {
        /// The reference, or name and digest.
        subject: String,
        /// What was tried.
        action: Action,
        /// The registry's words.
        errors: RegistryErrors,
    },
    /// Any other status that is not success.
    #[error("unexpected status from {method} request to {url}: {status}{}", detail(.errors))]
    Http {
        /// The request's method.
        method: Method,
        /// The address, without its query.
        url: String,
        /// The status.
        status: StatusCode,
        /// The registry's words.
        errors: RegistryErrors,
    },
    /// The content is not what its digest says.
    #[error("{subject}: content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// The reference, or name and digest.
        subject: String,
        /// The digest asked for or announced.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The content is not of the size that its descriptor says.
    #[error("{subject}: content has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// The reference, or name and digest.
        subject: String,
        /// The descriptor's size.
        expected: u64,
        /// The size announced, or as much as came before it was given up.
        actual: u64,
    },
    /// A manifest or answer larger than is read into memory.
    #[error("{subject}: larger than the {limit} bytes that are accepted")]
    TooLarge {
        /// The reference or address.
        subject: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The manifest is of a kind that has no use here.
    #[error("{subject}: {media_type} is no longer supported, push the image again in a newer form")]
    UnsupportedManifest {
        /// The reference.
        subject: String,
        /// Docker's first schema, plain or signed.
        media_type: String,
    },
    /// The connection could not be made or broke.
    #[error("{method} request to {url}: {}", innermost(.cause))]
    Transport {
        /// The request's method.
        method: Method,
        /// The address, without its query.
        url: String,
        /// The HTTP client's error; its message is part of this one.
        cause: Box<reqwest::Error>,
    },
    /// The registry did not answer, or stopped in the middle of it.
    #[error("{method} request to {url}: no data for {} seconds", .after.as_secs())]
    Timeout {
        /// The request's method.
        method: Method,
        /// The address, without its query.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// The registry answered with something that is not in the protocol.
    #[error("{url}: {problem}")]
    Malformed {
        /// The address, without its query.
        url: String,
        /// What is wrong.
        problem: Malformed,
    },
    /// The algorithm of a digest is not one that can be computed here.
    #[error("{digest}: digests of this algorithm cannot be verified")]
    UnsupportedDigest {
        /// The digest.
        digest: Digest,
    },
    /// The holder of the credentials could not be asked.
    #[error("credentials for {host}: {source}")]
    Authenticator {
        /// The registry's wire host.
        host: String,
        /// Its error.
        source: AuthenticatorError,
    },
    /// The host's configuration cannot be used.
    #[error("registry {host}: {source}")]
    Tls {
        /// The host.
        host: String,
        /// What is wrong.
        source: TlsError,
    },
    /// A configured mirror is not a host with an optional path.
    #[error("registry {host}: mirror \"{mirror}\" is not of the form host[:port][/path]")]
    Mirror {
        /// The host that has the mirror.
        host: String,
        /// The mirror as configured.
        mirror: String,
    },
    /// What is to be pushed could not be read.
    #[error("{digest}: cannot be read to be pushed: {source}")]
    Source {
        /// The blob.
        digest: Digest,
        /// The reader's error.
        source: std::io::Error,
    },
}

/// In which way an answer breaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// An address that cannot be asked.
    #[error("the address is not valid")]
    Address,
    /// More redirects than are followed.
    #[error("more than {limit} redirects")]
    Redirects {
        /// The limit.
        limit: usize,
    },
    /// A redirect, or the start of an upload, without a usable `Location`.
    #[error("the answer names no valid location")]
    Location,
    /// A digest header that is no digest.
    #[error("the answer has an invalid Docker-Content-Digest header")]
    DigestHeader,
    /// A list of referrers that is no index.
    #[error("the answer is no index of manifests")]
    Index,
    /// Another range than was asked for.
    #[error("the answer is not the range that was asked for")]
    Range,
    /// A token server's answer without a token.
    #[error("the answer of the token server has no usable token")]
    Token,
    /// A challenge whose realm is no HTTP address.
    #[error("the realm of the challenge is not a valid address")]
    Realm,
    /// A challenge that would send credentials in the clear, from a host that speaks TLS.
    #[error("the realm of the challenge is plain HTTP, credentials are not sent there")]
    PlainRealm,
}

impl Error {
    /// Whether the same request may succeed a little later: the server had trouble or too much to
    /// do, or a connection broke. (Every request has already been repeated a few times.)
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::Timeout { .. } => true,
            Self::Transport { cause, .. } => cause.is_timeout() || !cause.is_connect(),
            _ => false,
        }
    }

    /// Whether the registry said that it does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// The innermost cause, which has the words that help ("connection refused"); what surrounds it
/// names the layers of the HTTP client.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// `text` behind a colon, nothing if it is empty.
fn detail(text: &impl fmt::Display) -> String {
    let text = text.to_string();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// `url` as messages may show it: without user, password, query and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // These fail only for addresses that cannot have a user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        let url =
            Url::parse("https://user:pass@host:5000/v2/x/blobs/y?X-Amz-Signature=z#f").unwrap();
        assert_eq!(shown(&url), "https://host:5000/v2/x/blobs/y");
    }

    #[test]
    fn messages_are_those_that_users_of_buildkit_know() {
        let subject = || "docker.io/library/foo:latest".to_owned();
        assert_eq!(
            Error::NotFound { subject: subject() }.to_string(),
            "docker.io/library/foo:latest: not found"
        );
        let message = "insufficient_scope: authorization failed".to_owned();
        assert_eq!(
            Error::Unauthorized { subject: subject(), action: Action::Pull, message }.to_string(),
            "docker.io/library/foo:latest: pull access denied, repository does not exist or may \
             require authorization: insufficient_scope: authorization failed"
        );
        let errors =
            RegistryErrors::parse(br#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#);
        assert_eq!(
            Error::Denied { subject: subject(), action: Action::Push, errors }.to_string(),
            "docker.io/library/foo:latest: push denied by the registry: denied: not yours"
        );
    }
}
