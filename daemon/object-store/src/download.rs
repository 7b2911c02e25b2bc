//! Reading a blob.

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use futures::{Stream, TryStreamExt as _, stream};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use reqwest::Response;
use tokio_util::io::StreamReader;
use url::Url;

use crate::error::{Error, shown};
use crate::patience::{Patience, Retries};
use crate::request::chunk;
use crate::store::BlobReader;

/// A connection that lasted this many bytes was a good one: the patience with the next begins anew.
/// A server that cuts earlier each time uses the patience up.
const GOOD_PROGRESS: u64 = 1 << 20;

/// Asks for an object from an offset on.
pub(crate) type Ask = Box<dyn Fn(u64) -> BoxFuture<'static, Result<Response, Error>> + Send + Sync>;

/// The bytes of the object at `url`, which has `size` of them. Returns when the first answer is
/// there; connections that break later are made again from where they broke.
pub(crate) async fn download(url: Url, size: u64, ask: Ask) -> Result<BlobReader, Error> {
    let retries = Patience::USUAL.begin();
    let mut download =
        Download { url, size, ask, position: 0, connection: None, retries, progress: 0 };
    if size > 0 {
        download.connection = Some(download.connect().await?);
    }
    Ok(Box::new(StreamReader::new(Box::pin(download.pieces().map_err(std::io::Error::other)))))
}

struct Download {
    url: Url,
    size: u64,
    ask: Ask,
    position: u64,
    connection: Option<Connection>,
    retries: Retries,
    /// Bytes since the retries were last renewed.
    progress: u64,
}

struct Connection {
    response: Response,
    /// Bytes to drop first, where the server did not begin where it was asked to.
    skip: u64,
}

impl Download {
    fn pieces(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::try_unfold(self, |mut download| async move {
            Ok(download.next().await?.map(|chunk| (chunk, download)))
        })
    }

    /// The next piece, `None` at the end of the blob.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.position < self.size {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match self.read(&mut connection).await {
                Ok(chunk) => {
                    self.connection = Some(connection);
                    self.position += chunk.len() as u64;
                    self.progress += chunk.len() as u64;
                    if self.progress >= GOOD_PROGRESS {
                        self.retries = Patience::USUAL.begin();
                        self.progress = 0;
                    }
                    if !chunk.is_empty() {
                        return Ok(Some(chunk));
                    }
                }
                Err(error) => {
                    let is_cut = match &error {
                        Error::Size { expected, actual, .. } => actual < expected,
                        error => matches!(error, Error::Transport { .. } | Error::Timeout { .. }),
                    };
                    let delay = if is_cut { self.retries.after_break() } else { None };
                    let Some(delay) = delay else { return Err(error) };
                    tracing::debug!(%error, position = self.position, "blob interrupted, resuming");
                    tokio::time::sleep(delay).await;
                }
            }
        }
        Ok(None)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let response = (self.ask)(self.position).await?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE);
                let start = range.and_then(|range| range_start(range.to_str().ok()?));
                let start = start.filter(|&start| start == self.position);
                start.ok_or_else(|| Error::malformed(&self.url, "it is another range"))?
            }
            // The whole blob, from a server that does not know ranges.
            _ => 0,
        };
        if let Some(length) = response.content_length() {
            let actual = start.saturating_add(length);
            if actual != self.size {
                return Err(self.wrong_size(actual));
            }
        }
        Ok(Connection { response, skip: self.position - start })
    }

    async fn read(&self, connection: &mut Connection) -> Result<Bytes, Error> {
        let chunk = chunk(&mut connection.response, &self.url).await?;
        let Some(mut chunk) = chunk else { return Err(self.wrong_size(self.position)) };
        let skipped = connection.skip.min(chunk.len() as u64);
        connection.skip -= skipped;
        chunk.advance(skipped as usize);
        let end = self.position.saturating_add(chunk.len() as u64);
        if end > self.size { Err(self.wrong_size(end)) } else { Ok(chunk) }
    }

    fn wrong_size(&self, actual: u64) -> Error {
        Error::Size { url: shown(&self.url), expected: self.size, actual }
    }
}

/// The first number of `bytes 10-19/20`.
fn range_start(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
