//! The newer protocol: Twirp calls, and signed addresses of Azure's blobs.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Content, Entry, Github, signed, version};
use crate::block_blob::BlockBlob;
use crate::error::{Answer, Error, shown};
use crate::patience::Patience;
use crate::request::{Payload, Unsigned};

const SERVICE: &str = "github.actions.results.api.v1.CacheService";

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedDownloadUrl")]
    signed_download_url: String,
    #[serde(default, alias = "matchedKey")]
    matched_key: String,
}

#[derive(Deserialize)]
struct Created {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedUploadUrl")]
    signed_upload_url: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Finalized {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    message: String,
}

impl Github {
    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        asked: Value,
        patience: Patience,
    ) -> Result<T, Error> {
        let request = self
            .request(Method::POST, self.url(&["twirp", SERVICE, method]))
            .header("authorization", &self.authorization())?
            .header("content-type", "application/json")?
            .patience(patience)
            .payload(Payload::Bytes(asked.to_string().into()));
        request.json(&self.0.http).await
    }

    pub(super) async fn load_v2(&self, key: &str) -> Result<Option<Entry>, Error> {
        let asked = json!({ "key": key, "restore_keys": [key], "version": version() });
        let found: Found = self.call("GetCacheEntryDownloadURL", asked, self.patience()).await?;
        if !found.ok {
            return Ok(None);
        }
        let url = signed(&self.0.base, &found.signed_download_url)?;
        Ok(Some(Entry { key: found.matched_key, url }))
    }

    pub(super) async fn save_v2(&self, key: &str, content: Content<'_>) -> Result<(), Error> {
        let asked = json!({ "key": key, "version": version() });
        let created: Created = self.call("CreateCacheEntry", asked, self.once()).await?;
        if !created.ok {
            return Err(self.refused("CreateCacheEntry", created.message));
        }
        let url = signed(&self.0.base, &created.signed_upload_url)?;
        let size = content.size();
        let blob = BlockBlob { http: &self.0.http, url, sign: &Unsigned };
        match content {
            Content::Bytes(bytes) => blob.put(bytes).await?,
            Content::File { path, size } => blob.put_file(path, size, &self.0.uploads).await?,
        }
        let asked = json!({ "key": key, "size_bytes": size, "version": version() });
        let finalized: Finalized =
            self.call("FinalizeCacheEntryUpload", asked, self.patience()).await?;
        if !finalized.ok {
            return Err(self.refused("FinalizeCacheEntryUpload", finalized.message));
        }
        Ok(())
    }

    /// The service says no without an error.
    fn refused(&self, method: &str, message: String) -> Error {
        let answer = Answer { status: StatusCode::OK, code: "not ok".to_owned(), message };
        let url = shown(&self.url(&["twirp", SERVICE, method]));
        Error::Refused { method: Method::POST, url, answer }
    }
}
