//! Azure's block blobs, which GitHub's cache consists of, too.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use http::{Method, StatusCode};
use reqwest::Response;
use serde::Serialize;
use tokio::sync::Semaphore;
use url::Url;

use crate::error::Error;
use crate::http_client::HttpClient;
use crate::request::{Payload, Piece, Request, Sign};

/// The version of the protocol that requests are made in.
const VERSION: &str = "2021-12-02";
/// A larger blob is sent in blocks of at least this size.
const BLOCK: u64 = 16 << 20;
/// The most blocks that a blob may have.
const MAX_BLOCKS: u64 = 50_000;
/// How much of one store is sent at once.
pub(crate) const PARALLELISM: usize = 4;

/// A blob's address, and the proof of who asks.
pub(crate) struct BlockBlob<'a> {
    pub(crate) http: &'a HttpClient,
    pub(crate) url: Url,
    pub(crate) sign: &'a dyn Sign,
}

/// Blocks in the order in which they make a blob; those that were stored last.
#[derive(Serialize)]
struct BlockList {
    #[serde(rename = "Latest")]
    latest: Vec<String>,
}

/// A request in this protocol.
pub(crate) fn request<'a>(method: Method, url: Url) -> Result<Request<'a>, Error> {
    Request::new(method, url).header("x-ms-version", VERSION)
}

/// Asks for a blob from `offset` on.
pub(crate) fn ask(
    http: HttpClient,
    url: Url,
    sign: std::sync::Arc<dyn Sign>,
    offset: u64,
) -> BoxFuture<'static, Result<Response, Error>> {
    Box::pin(async move {
        let mut request = request(Method::GET, url)?;
        if offset > 0 {
            request = request.header("range", &format!("bytes={offset}-"))?;
        }
        request.send(&http, sign.as_ref()).await
    })
}

impl BlockBlob<'_> {
    /// Stores a blob in place of one that may be there.
    pub(crate) async fn put(&self, bytes: Bytes) -> Result<(), Error> {
        let request = request(Method::PUT, self.url.clone())?
            .header("x-ms-blob-type", "BlockBlob")?
            .payload(Payload::Bytes(bytes));
        request.send(self.http, self.sign).await?;
        Ok(())
    }

    /// Stores a file of `size` bytes, if there is no blob yet; `turns` bounds how much is sent at
    /// once.
    pub(crate) async fn put_file(
        &self,
        path: &Path,
        size: u64,
        turns: &Semaphore,
    ) -> Result<(), Error> {
        let outcome = if size > BLOCK {
            self.put_blocks(path, size, turns).await
        } else {
            let piece = Piece { path, offset: 0, length: size };
            let request = request(Method::PUT, self.url.clone())?
                .header("x-ms-blob-type", "BlockBlob")?
                .header("if-none-match", "*")?
                .payload(Payload::Piece(piece));
            let _turn = turns.acquire().await;
            request.send(self.http, self.sign).await.map(drop)
        };
        match outcome {
            Err(error)
                if error.has_status(&[StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED]) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn put_blocks(&self, path: &Path, size: u64, turns: &Semaphore) -> Result<(), Error> {
        let length = size.div_ceil(MAX_BLOCKS).max(BLOCK);
        let blocks = (0..).zip(Piece::all(path, size, length)).map(async |(nth, piece)| {
            let _turn = turns.acquire().await;
            // All ids of a blob have to be of one length.
            let id = STANDARD.encode(format!("{nth:08}"));
            let mut url = self.url.clone();
            url.query_pairs_mut().append_pair("comp", "block").append_pair("blockid", &id);
            let request = request(Method::PUT, url)?.payload(Payload::Piece(piece));
            request.send(self.http, self.sign).await?;
            Ok::<_, Error>(id)
        });
        let blocks = try_join_all(blocks).await?;
        let list = BlockList { latest: blocks };
        let list =
            quick_xml::se::to_string(&list).map_err(|error| Error::malformed(&self.url, error))?;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("comp", "blocklist");
        let request = request(Method::PUT, url)?
            .header("if-none-match", "*")?
            .header("content-type", "application/xml")?
            .payload(Payload::Bytes(list.into()));
        request.send(self.http, self.sign).await?;
        Ok(())
    }
}
