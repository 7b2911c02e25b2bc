//! The body of a blob upload: a reader of known length.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use oci_spec::image::Digest;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::Error;
use crate::transport::Body;

/// How much is read at once.
const CHUNK: usize = 128 * 1024;

/// Opens a reader for each time that the body is sent.
pub(crate) struct Upload<'a, F> {
    source: &'a F,
    digest: &'a Digest,
    size: u64,
    /// Why reading failed; the HTTP client only says that it did.
    problem: Arc<Mutex<Option<io::Error>>>,
}

impl<'a, F> Upload<'a, F> {
    pub(crate) fn new(source: &'a F, digest: &'a Digest, size: u64) -> Self {
        Self { source, digest, size, problem: Arc::default() }
    }

    /// What the upload failed of: the reader's error if it had one, else `error`.
    pub(crate) fn blame(&self, error: Error) -> Error {
        match self.problem.lock().take() {
            Some(source) => Error::Source { digest: self.digest.clone(), source },
            None => error,
        }
    }
}

impl<F, Fut, R> Body for Upload<'_, F>
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = io::Result<R>> + Send,
    R: AsyncRead + Send + Unpin + 'static,
{
    fn open(&self) -> BoxFuture<'_, Result<reqwest::Body, Error>> {
        Box::pin(async {
            let reader = (self.source)()
                .await
                .map_err(|source| Error::Source { digest: self.digest.clone(), source })?;
            let problem = Arc::clone(&self.problem);
            let chunks = stream::try_unfold((reader, self.size), move |(mut reader, left)| {
                let problem = Arc::clone(&problem);
                async move {
                    match next(&mut reader, left).await {
                        Ok(Some(chunk)) => {
                            let left = left - chunk.len() as u64;
                            Ok(Some((chunk, (reader, left))))
                        }
                        Ok(None) => Ok(None),
                        Err(error) => {
                            let message = io::Error::new(error.kind(), "source failed");
                            *problem.lock() = Some(error);
                            Err(message)
                        }
                    }
                }
            });
            Ok(reqwest::Body::wrap_stream(chunks))
        })
    }

    fn is_large(&self) -> bool {
        true
    }
}

/// The next piece of the `left` bytes that the reader must still have; what it has beyond them
/// is not sent.
async fn next(reader: &mut (impl AsyncRead + Unpin), left: u64) -> io::Result<Option<Bytes>> {
    if left == 0 {
        return Ok(None);
    }
    let mut chunk = BytesMut::with_capacity(CHUNK);
    // The take keeps the buffer from being filled beyond what is left.
    match reader.take(left.min(CHUNK as u64)).read_buf(&mut chunk).await? {
        0 => {
            let kind = io::ErrorKind::UnexpectedEof;
            Err(io::Error::new(kind, format!("{left} bytes shorter than its descriptor says")))
        }
        _ => Ok(Some(chunk.freeze())),
    }
}
