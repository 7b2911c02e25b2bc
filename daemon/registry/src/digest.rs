//! Computing and checking digests.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::error::Error;

/// The sha256 digest of `content`.
pub fn sha256(content: &[u8]) -> Digest {
    let mut hasher = Hasher::Sha256(Sha256::new());
    hasher.update(content);
    hasher.finish()
}

/// A digest in the making.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// For digests of the same algorithm as `digest`.
    pub(crate) fn like(digest: &Digest) -> Result<Self, Error> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::Sha256(Sha256::new())),
            DigestAlgorithm::Sha384 => Ok(Self::Sha384(Sha384::new())),
            DigestAlgorithm::Sha512 => Ok(Self::Sha512(Sha512::new())),
            _ => Err(Error::UnsupportedDigest { digest: digest.clone() }),
        }
    }

    pub(crate) fn update(&mut self, content: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(content),
            Self::Sha384(hasher) => hasher.update(content),
            Self::Sha512(hasher) => hasher.update(content),
        }
    }

    #[expect(clippy::expect_used, reason = "the text is made here")]
    pub(crate) fn finish(self) -> Digest {
        let text = match self {
            Self::Sha256(hasher) => format!("sha256:{}", hex::encode(hasher.finalize())),
            Self::Sha384(hasher) => format!("sha384:{}", hex::encode(hasher.finalize())),
            Self::Sha512(hasher) => format!("sha512:{}", hex::encode(hasher.finalize())),
        };
        text.parse().expect("an algorithm and as many hexadecimal digits as it has")
    }
}

/// Checks that `content` is what `expected` names; `subject` is for the error.
pub(crate) fn verify(subject: &str, expected: &Digest, content: &[u8]) -> Result<(), Error> {
    let mut hasher = Hasher::like(expected)?;
    hasher.update(content);
    check(subject, expected, hasher)
}

fn check(subject: &str, expected: &Digest, hasher: Hasher) -> Result<(), Error> {
    let actual = hasher.finish();
    if actual == *expected {
        return Ok(());
    }
    Err(Error::DigestMismatch { subject: subject.to_owned(), expected: expected.clone(), actual })
}

/// A stream whose end is an error unless everything before it has the expected digest.
pub struct VerifiedStream<S> {
    inner: S,
    subject: String,
    expected: Digest,
    /// `None` once the stream has ended.
    hasher: Option<Hasher>,
}

impl<S> VerifiedStream<S> {
    pub(crate) fn new(inner: S, subject: String, expected: Digest) -> Result<Self, Error> {
        let hasher = Some(Hasher::like(&expected)?);
        Ok(Self { inner, subject, expected, hasher })
    }
}

impl<S: Stream<Item = Result<Bytes, Error>> + Unpin> Stream for VerifiedStream<S> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(hasher) = &mut this.hasher else { return Poll::Ready(None) };
        let next = std::task::ready!(Pin::new(&mut this.inner).poll_next(context));
        Poll::Ready(match next {
            Some(Ok(chunk)) => {
                hasher.update(&chunk);
                Some(Ok(chunk))
            }
            Some(Err(error)) => {
                this.hasher = None;
                Some(Err(error))
            }
            None => this
                .hasher
                .take()
                .and_then(|hasher| check(&this.subject, &this.expected, hasher).err())
                .map(Err),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [&str; 3] = [
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha384:38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
        "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    ];

    #[test]
    fn every_algorithm_of_the_specification_is_computed() {
        for digest in EMPTY {
            let digest: Digest = digest.parse().unwrap();
            verify("x", &digest, b"").unwrap();
            let error = verify("x", &digest, b"y").unwrap_err();
            assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        }
        assert_eq!(sha256(b"").to_string(), EMPTY[0]);
        let odd = "blake3:abc".parse().unwrap();
        assert!(matches!(verify("x", &odd, b""), Err(Error::UnsupportedDigest { .. })));
    }
}
