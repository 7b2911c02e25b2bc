//! The older protocol: an entry is reserved, filled in chunks, and committed.

use futures::future::try_join_all;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{Content, Entry, Github, signed, version};
use crate::error::Error;
use crate::request::{Payload, Piece, Request, Unsigned};

const ACCEPT: &str = "application/json;api-version=6.0-preview.1";
/// How much is sent in one request.
const CHUNK: u64 = 32 << 20;

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "cacheKey", default)]
    key: String,
    #[serde(rename = "archiveLocation", default)]
    location: String,
}

#[derive(Deserialize)]
struct Reserved {
    #[serde(rename = "cacheId", alias = "cacheID")]
    id: u64,
}

impl Github {
    fn v1<'a>(&self, method: Method, url: Url) -> Result<Request<'a>, Error> {
        self.request(method, url)
            .header("authorization", &self.authorization())?
            .header("accept", ACCEPT)
    }

    fn v1_url(&self, path: &[&str]) -> Url {
        self.url(&[&["_apis", "artifactcache"], path].concat())
    }

    pub(super) async fn load_v1(&self, key: &str) -> Result<Option<Entry>, Error> {
        let mut url = self.v1_url(&["cache"]);
        url.query_pairs_mut().append_pair("keys", key).append_pair("version", &version());
        let text = self.v1(Method::GET, url.clone())?.text(&self.0.http, &Unsigned).await?;
        if text.is_empty() {
            return Ok(None);
        }
        let found: Found =
            serde_json::from_str(&text).map_err(|error| Error::malformed(&url, error))?;
        if found.key.is_empty() {
            return Ok(None);
        }
        Ok(Some(Entry { url: signed(&url, &found.location)?, key: found.key }))
    }

    pub(super) async fn save_v1(&self, key: &str, content: Content<'_>) -> Result<(), Error> {
        let json = |value: serde_json::Value| Payload::Bytes(value.to_string().into());
        let asked = json!({ "key": key, "version": version() });
        let request = self
            .v1(Method::POST, self.v1_url(&["caches"]))?
            .header("content-type", "application/json")?
            .patience(self.once())
            .payload(json(asked));
        let Reserved { id } = request.json(&self.0.http).await?;
        let url = self.v1_url(&["caches", &id.to_string()]);
        let size = content.size();
        let chunk = async |first: u64, length: u64, payload| {
            if length == 0 {
                return Ok(());
            }
            let request = self
                .v1(Method::PATCH, url.clone())?
                .header("content-type", "application/octet-stream")?
                .header("content-range", &format!("bytes {first}-{}/*", first + length - 1))?
                .payload(payload);
            let _turn = self.0.uploads.acquire().await;
            request.send(&self.0.http, &Unsigned).await.map(drop)
        };
        match content {
            Content::Bytes(bytes) => chunk(0, size, Payload::Bytes(bytes)).await?,
            Content::File { path, size } => {
                let chunks = Piece::all(path, size, CHUNK)
                    .map(|piece| chunk(piece.offset, piece.length, Payload::Piece(piece)));
                try_join_all(chunks).await?;
            }
        }
        let request = self
            .v1(Method::POST, url.clone())?
            .header("content-type", "application/json")?
            .payload(json(json!({ "size": size })));
        request.send(&self.0.http, &Unsigned).await?;
        Ok(())
    }
}
