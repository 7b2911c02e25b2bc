//! Reading blobs.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use http::header::{CONTENT_RANGE, HeaderValue, RANGE};
use http::{Method, StatusCode};
use oci_spec::image::{Descriptor, Digest};
use reqwest::Response;
use tokio::io::AsyncRead;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::StreamReader;

use crate::client::Client;
use crate::digest::VerifiedStream;
use crate::endpoint::Endpoint;
use crate::error::{Action, Error, Malformed, shown};
use crate::purpose::Purpose;
use crate::reference::ImageRef;
use crate::request::Request;
use crate::retry::Retries;
use crate::transport::{IDLE_TIMEOUT, failed};

/// A connection that lasted this many bytes was a good one: the patience with the next begins
/// anew. A server that cuts earlier each time uses the patience up.
const GOOD_PROGRESS: u64 = 1024 * 1024;

impl Client {
    /// The bytes of a blob from `offset` on, in the repository of `image`.
    ///
    /// Returns when the first answer is there. Connections that break later are made again from
    /// where they broke. Counts as a transfer until the stream is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no host has the blob; [`Error::SizeMismatch`] if it has another size
    /// than the descriptor says.
    pub async fn blob(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobStream, Error> {
        let size = descriptor.size();
        let subject = format!("{}@{}", image.name(), descriptor.digest());
        if offset > size {
            return Err(Error::SizeMismatch { subject, expected: size, actual: offset });
        }
        let mut download = Download {
            client: self.clone(),
            image: image.clone(),
            purpose: Purpose::pull(image, subject.clone()),
            digest: descriptor.digest().clone(),
            size,
            position: offset,
            connection: None,
            _transfer: self.transfer(image, Action::Pull).await,
            retries: Retries::transient(),
            progress: 0,
        };
        // At the end of the blob there is nothing to ask for.
        if offset < size {
            download.connection = Some(download.connect().await?);
        }
        let inner = stream::try_unfold(download, |mut download| async move {
            Ok(download.next().await?.map(|chunk| (chunk, download)))
        });
        let digest = descriptor.digest().clone();
        Ok(BlobStream { inner: inner.boxed(), subject, digest, offset, size })
    }

    /// Whether the registry of `image` has the blob, in that repository. Mirrors are not asked.
    pub async fn has_blob(&self, image: &ImageRef, descriptor: &Descriptor) -> Result<bool, Error> {
        let digest = descriptor.digest();
        let purpose = Purpose::pull(image, format!("{}@{digest}", image.name()));
        self.blob_exists(image, digest, &purpose).await
    }

    pub(crate) async fn blob_exists(
        &self,
        image: &ImageRef,
        digest: &Digest,
        purpose: &Purpose,
    ) -> Result<bool, Error> {
        let endpoint = self.registry(image)?;
        let url = endpoint.url(image.repository(), &format!("blobs/{digest}"))?;
        let request = Request::new(purpose, Method::HEAD, url);
        match self.send_checked(&endpoint, &request, Retries::transient()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The content of a blob, as it arrives.
///
/// Ends after exactly the descriptor's size, or with an error. Its digest is checked only by
/// [`BlobStream::verified`].
pub struct BlobStream {
    inner: BoxStream<'static, Result<Bytes, Error>>,
    subject: String,
    digest: Digest,
    offset: u64,
    size: u64,
}

impl BlobStream {
    /// The size of the whole blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where in the blob the stream began.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The same stream, with an error in place of its end if the content has another digest.
    /// Makes sense only for streams from the blob's beginning.
    ///
    /// # Errors
    /// [`Error::UnsupportedDigest`] if the digest is of an algorithm that cannot be computed.
    pub fn verified(self) -> Result<VerifiedStream<Self>, Error> {
        let (subject, digest) = (self.subject.clone(), self.digest.clone());
        VerifiedStream::new(self, subject, digest)
    }

    /// The stream as a reader; its errors have the [`Error`] as their source.
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self.map_err(std::io::Error::other))
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(context)
    }
}

struct Download {
    client: Client,
    image: ImageRef,
    purpose: Purpose,
    digest: Digest,
    size: u64,
    position: u64,
    connection: Option<Connection>,
    retries: Retries,
    /// Bytes since the retries were last renewed.
    progress: u64,
    _transfer: Option<OwnedSemaphorePermit>,
}

struct Connection {
    response: Response,
    /// Bytes to drop first, where the server did not begin where it was asked to.
    skip: u64,
}

impl Download {
    /// The next piece, `None` at the end of the blob.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.position < self.size {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.next(&self.purpose, self.position, self.size).await {
                Ok(chunk) => {
                    self.connection = Some(connection);
                    self.position += chunk.len() as u64;
                    self.progress += chunk.len() as u64;
                    if self.progress >= GOOD_PROGRESS {
                        self.retries = Retries::transient();
                        self.progress = 0;
                    }
                    if !chunk.is_empty() {
                        return Ok(Some(chunk));
                    }
                }
                Err(error) => self.pause_or_fail(error).await?,
            }
        }
        Ok(None)
    }

    async fn pause_or_fail(&mut self, error: Error) -> Result<(), Error> {
        let is_cut = error.is_transient()
            || matches!(&error, Error::SizeMismatch { expected, actual, .. } if actual < expected);
        let delay: Option<Duration> = if is_cut { self.retries.next() } else { None };
        let Some(delay) = delay else { return Err(error) };
        tracing::debug!(%error, position = self.position, "blob interrupted, resuming");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Asks for the blob from `position` on.
    async fn connect(&self) -> Result<Connection, Error> {
        let mut turns = self.client.pull_turns(&self.image)?;
        loop {
            match self.connect_to(turns.endpoint(), turns.retries()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => turns.pass(error)?,
            }
        }
    }

    async fn connect_to(&self, endpoint: &Endpoint, retries: Retries) -> Result<Connection, Error> {
        let url = endpoint.url(self.image.repository(), &format!("blobs/{}", self.digest))?;
        let mut request = Request::new(&self.purpose, Method::GET, url);
        if self.position > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.position))
        {
            request.headers.insert(RANGE, range);
        }
        let response = self.client.send_checked(endpoint, &request, retries).await?;
        self.accept(response)
    }

    /// Checks that `response` is the range and size that was asked for.
    fn accept(&self, response: Response) -> Result<Connection, Error> {
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE);
                let start = range.and_then(|range| range_start(range.to_str().ok()?));
                let url = || shown(response.url());
                start
                    .filter(|&start| start == self.position)
                    .ok_or_else(|| Error::Malformed { url: url(), problem: Malformed::Range })?
            }
            // The whole blob, from a server that does not know ranges.
            _ => 0,
        };
        if let Some(length) = response.content_length() {
            let actual = start.saturating_add(length);
            if actual != self.size {
                let subject = self.purpose.subject.clone();
                return Err(Error::SizeMismatch { subject, expected: self.size, actual });
            }
        }
        Ok(Connection { response, skip: self.position - start })
    }
}

impl Connection {
    /// The next piece, at `position` of `size`; the end is an error.
    async fn next(&mut self, purpose: &Purpose, position: u64, size: u64) -> Result<Bytes, Error> {
        let url = self.response.url().clone();
        let method = Method::GET;
        let mismatch = |actual| {
            let subject = purpose.subject.clone();
            Error::SizeMismatch { subject, expected: size, actual }
        };
        let mut chunk = match tokio::time::timeout(IDLE_TIMEOUT, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Err(mismatch(position)),
            Ok(Err(error)) => return Err(failed(&method, &url, error)),
            Err(_) => {
                return Err(Error::Timeout { method, url: shown(&url), after: IDLE_TIMEOUT });
            }
        };
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        chunk.advance(skipped as usize);
        let end = position.saturating_add(chunk.len() as u64);
        if end > size { Err(mismatch(end)) } else { Ok(chunk) }
    }
}

/// The first number of `bytes 10-19/20`.
fn range_start(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_begin_with_a_number() {
        assert_eq!(range_start("bytes 10-19/20"), Some(10));
        assert_eq!(range_start("bytes 0-1/*"), Some(0));
        for bad in
            ["", "bytes", "bytes */20", "bytes -5", "items 1-2/3", "bytes 99999999999999999999-"]
        {
            assert_eq!(range_start(bad), None, "{bad}");
        }
    }
}
