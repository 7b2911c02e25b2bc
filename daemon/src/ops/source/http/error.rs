//! Why a file could not be had.

use kiln_cache::Digest;

/// Why a file could not be had from a web server. Addresses are named without credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("invalid URL {url:?}")]
    Url { url: String, source: url::ParseError },
    #[error("URL {0:?} has no host")]
    NoHost(String),
    #[error("invalid {name} {value:?} of {url}")]
    Attribute { url: String, name: &'static str, value: String },
    #[error("{0} is not supported by this daemon")]
    NotSupported(String),
    #[error("the HTTP client cannot be set up")]
    Client(#[source] kiln_http::ClientError),
    #[error("cannot get {url}")]
    Request { url: String, source: reqwest::Error },
    #[error("cannot get {url}: invalid response status {status}")]
    Status { url: String, status: reqwest::StatusCode },
    #[error("cannot get {url}: the transfer broke off after {received} bytes")]
    Body { url: String, received: u64, source: reqwest::Error },
    #[error("cannot get {url}: it has more than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    #[error("cannot store what {url} sends")]
    Store { url: String, source: std::io::Error },
    #[error("digest mismatch for {url}: {got} (expected: {wanted})")]
    Mismatch { url: String, got: Digest, wanted: Digest },
    #[error("{url} is said not to have changed, but it was not asked whether it has")]
    NotModified { url: String },
}
