//! Asking one host after the other.

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::retry::Retries;

/// The hosts that may answer for a registry, asked in turn: its mirrors, then itself.
///
/// Only the registry is asked with patience; a mirror in trouble is passed over.
pub(crate) struct Turns {
    mirrors: std::vec::IntoIter<Endpoint>,
    registry: Endpoint,
    /// The mirror whose turn it is.
    mirror: Option<Endpoint>,
    telling: Option<Error>,
}

impl Turns {
    pub(crate) fn new(mirrors: Vec<Endpoint>, registry: Endpoint) -> Self {
        let mut mirrors = mirrors.into_iter();
        let mirror = mirrors.next();
        Self { mirrors, registry, mirror, telling: None }
    }

    /// The host whose turn it is.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.mirror.as_ref().unwrap_or(&self.registry)
    }

    /// The patience with it.
    pub(crate) fn retries(&self) -> Retries {
        if self.mirror.is_some() { Retries::none() } else { Retries::transient() }
    }

    /// Passes on to the next host, because this one answered with `error`.
    ///
    /// # Errors
    /// After the registry's turn, the first of those errors that say most.
    pub(crate) fn pass(&mut self, error: Error) -> Result<(), Error> {
        let host = self.endpoint().transport.host();
        tracing::debug!(host, %error, "host has no good answer");
        let telling = more_telling(self.telling.take(), error);
        if self.mirror.is_none() {
            return Err(telling);
        }
        self.telling = Some(telling);
        self.mirror = self.mirrors.next();
        Ok(())
    }
}

/// A refusal says more than an absence, and that more than a broken connection.
fn more_telling(first: Option<Error>, second: Error) -> Error {
    let rank = |error: &Error| match error {
        Error::Transport { .. } | Error::Timeout { .. } => 0,
        Error::NotFound { .. } => 1,
        _ => 2,
    };
    match first {
        Some(first) if rank(&first) >= rank(&second) => first,
        _ => second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_that_says_most_is_told() {
        let absent = || Error::NotFound { subject: "x".to_owned() };
        let refused = || Error::TooLarge { subject: "x".to_owned(), limit: 1 };
        let broken = || Error::Timeout {
            method: http::Method::GET,
            url: String::new(),
            after: std::time::Duration::ZERO,
        };
        assert!(matches!(more_telling(None, broken()), Error::Timeout { .. }));
        assert!(matches!(more_telling(Some(broken()), absent()), Error::NotFound { .. }));
        assert!(matches!(more_telling(Some(absent()), broken()), Error::NotFound { .. }));
        assert!(matches!(more_telling(Some(refused()), absent()), Error::TooLarge { .. }));
    }
}
