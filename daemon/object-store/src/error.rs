//! What can go wrong.

use std::fmt;
use std::io;
use std::time::Duration;

use http::{Method, StatusCode};
use url::Url;

/// Why a store could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has no meaning.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There are no credentials, or they cannot be used.
    #[error("no usable credentials: {0}")]
    Credentials(String),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] kiln_http::ClientError),
    /// A server cannot be talked with.
    #[error("{method} {url}")]
    Transport {
        /// The request's method.
        method: Method,
        /// The address, without its query.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// A server is silent.
    #[error("{method} {url}: no answer within {} seconds", .after.as_secs())]
    Timeout {
        /// The request's method.
        method: Method,
        /// The address, without its query.
        url: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A server refuses.
    #[error("{method} {url}: {answer}")]
    Refused {
        /// The request's method.
        method: Method,
        /// The address, without its query.
        url: String,
        /// Its words.
        answer: Answer,
    },
    /// An answer is longer than anything of its kind.
    #[error("{url} has more than {limit} bytes")]
    TooLarge {
        /// The address, without its query.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// An answer is not what it should be.
    #[error("{url}: {what}")]
    Malformed {
        /// The address, without its query.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// An object has another size than it should have.
    #[error("{url} has {actual} bytes instead of {expected}")]
    Size {
        /// The address, without its query.
        url: String,
        /// The size that it should have.
        expected: u64,
        /// The size that it has, or that was reached.
        actual: u64,
    },
    /// A service has no entry of that name.
    #[error("{0} is not in the cache")]
    Missing(String),
    /// A file that was to be sent cannot be read.
    #[error("cannot read what is to be sent")]
    File(#[from] io::Error),
}

/// A server's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The service's word for it, if it gave one.
    pub code: String,
    /// Its explanation, if it gave one.
    pub message: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

impl Error {
    /// Whether the object, or what should hold it, is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Missing(_) => true,
            Self::Refused { answer, .. } => answer.status == StatusCode::NOT_FOUND,
            _ => false,
        }
    }

    /// Whether an object is there already.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { answer, .. } if answer.status == StatusCode::CONFLICT)
    }

    pub(crate) fn has_status(&self, wanted: &[StatusCode]) -> bool {
        matches!(self, Self::Refused { answer, .. } if wanted.contains(&answer.status))
    }

    pub(crate) fn malformed(url: &Url, what: impl fmt::Display) -> Self {
        Self::Malformed { url: shown(url), what: what.to_string() }
    }
}

/// An address for messages: a query may hold a signature, and a user a password.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}
