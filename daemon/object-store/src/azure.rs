//! Azure Blob Storage.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use reqsign_core::hash::base64_hmac_sha256;
use tokio::sync::Semaphore;
use url::Url;

use crate::block_blob::{self, BlockBlob, PARALLELISM, request};
use crate::download::download;
use crate::error::Error;
use crate::http_client::HttpClient;
use crate::request::{Sign, read_limited};
use crate::store::{Blob, BlobReader, MAX_INDEX};

/// Where a cache in a storage account is.
#[derive(Clone)]
pub struct AzureConfig {
    /// The account's address.
    pub account_url: String,
    /// The account's name.
    pub account_name: String,
    /// The account's key, in base64.
    pub secret_access_key: String,
    /// The container, which is made if it is not there.
    pub container: String,
    /// The folder of all blobs.
    pub prefix: String,
    /// The folder of indexes in it.
    pub manifests_prefix: String,
    /// The folder of the cache's blobs in it.
    pub blobs_prefix: String,
    /// The names of the index.
    pub names: Vec<String>,
}

impl fmt::Debug for AzureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = ("account_url", &self.account_url);
        f.debug_struct("AzureConfig").field(url.0, url.1).finish_non_exhaustive()
    }
}

/// A cache in a container of a storage account.
pub struct Azure {
    config: AzureConfig,
    container: Url,
    key: Arc<SharedKey>,
    http: HttpClient,
    uploads: Semaphore,
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Azure {
    /// Talks with nobody yet.
    ///
    /// # Errors
    /// [`Error::Setting`] if the address or the key is not valid.
    pub fn new(config: AzureConfig, http: &HttpClient) -> Result<Self, Error> {
        let invalid =
            |setting, problem: &str| Error::Setting { setting, problem: problem.to_owned() };
        let mut container = Url::parse(&config.account_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| invalid("account_url", "it is not an HTTP address"))?;
        container.set_query(None);
        container.set_fragment(None);
        let is_usual = |c: char| c.is_ascii_alphanumeric() || "-$".contains(c);
        if config.container.is_empty() || !config.container.chars().all(is_usual) {
            return Err(invalid("container", "it is not a container's name"));
        }
        push(&mut container, &[&config.container]);
        // The reason would show a part of the key.
        let key = STANDARD
            .decode(&config.secret_access_key)
            .map_err(|_| invalid("secret_access_key", "it is not base64"))?;
        let key = Arc::new(SharedKey { account: config.account_name.clone(), key });
        let (http, uploads) = (http.clone(), Semaphore::new(PARALLELISM));
        Ok(Self { config, container, key, http, uploads })
    }

    pub(crate) fn place(&self) -> String {
        format!("azblob:{}", self.at(&self.config.blobs_prefix, ""))
    }

    pub(crate) fn title(&self) -> String {
        let name = self.config.names.first().map_or("", String::as_str);
        format!("azblob:{}", self.at(&self.config.manifests_prefix, name))
    }

    /// The address of a blob in a folder below the prefix.
    fn at(&self, folder: &str, name: &str) -> Url {
        let mut url = self.container.clone();
        let mut path: Vec<&str> = Vec::new();
        // As a path is cleaned: what leads up cannot leave the container.
        for part in [&self.config.prefix, folder, name].into_iter().flat_map(|path| path.split('/'))
        {
            match part {
                "" | "." => {}
                ".." => drop(path.pop()),
                part => path.push(part),
            }
        }
        push(&mut url, &path);
        url
    }

    fn blob_url(&self, blob: Blob<'_>) -> Url {
        self.at(&self.config.blobs_prefix, blob.digest)
    }

    pub(crate) async fn indexes(&self) -> Result<Vec<Bytes>, Error> {
        let all = self.config.names.iter().map(async |name| {
            let url = self.at(&self.config.manifests_prefix, name);
            match request(Method::GET, url.clone())?.send(&self.http, &*self.key).await {
                Ok(response) => read_limited(response, &url, MAX_INDEX).await.map(Some),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        });
        Ok(try_join_all(all).await?.into_iter().flatten().collect())
    }

    pub(crate) async fn save_index(&self, json: Bytes) -> Result<(), Error> {
        for name in &self.config.names {
            let url = self.at(&self.config.manifests_prefix, name);
            self.make_container().await?;
            BlockBlob { http: &self.http, url, sign: &*self.key }.put(json.clone()).await?;
        }
        Ok(())
    }

    /// Makes the container if it is not there.
    async fn make_container(&self) -> Result<(), Error> {
        let mut url = self.container.clone();
        url.query_pairs_mut().append_pair("restype", "container");
        match request(Method::HEAD, url.clone())?.send(&self.http, &*self.key).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        match request(Method::PUT, url)?.send(&self.http, &*self.key).await {
            // Somebody else was faster.
            Err(error) if error.is_conflict() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    pub(crate) async fn has_blob(&self, blob: Blob<'_>) -> Result<bool, Error> {
        let url = self.blob_url(blob);
        match request(Method::HEAD, url)?.send(&self.http, &*self.key).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn blob(&self, blob: Blob<'_>) -> Result<BlobReader, Error> {
        let url = self.blob_url(blob);
        let (http, asked, key) = (self.http.clone(), url.clone(), self.key.clone());
        let ask = move |offset| block_blob::ask(http.clone(), asked.clone(), key.clone(), offset);
        download(url, blob.size, Box::new(ask)).await
    }

    pub(crate) async fn save_blob(&self, blob: Blob<'_>, path: &Path) -> Result<(), Error> {
        let url = self.blob_url(blob);
        let target = BlockBlob { http: &self.http, url, sign: &*self.key };
        match target.put_file(path, blob.size, &self.uploads).await {
            Err(error) if error.is_not_found() => {
                self.make_container().await?;
                target.put_file(path, blob.size, &self.uploads).await
            }
            outcome => outcome,
        }
    }
}

/// Adds the parts of a path to an address.
fn push(url: &mut Url, parts: &[&str]) {
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(parts);
    }
}

/// Signs requests with an account's key ("Authorize with Shared Key" in the service's reference).
struct SharedKey {
    account: String,
    key: Vec<u8>,
}

impl SharedKey {
    /// What is signed.
    fn text(&self, parts: &Parts) -> String {
        let header = |name: &str| {
            let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let length = Some(header(CONTENT_LENGTH.as_str())).filter(|length| length != "0");
        let mut lines = vec![
            parts.method.to_string(),
            header("content-encoding"),
            header("content-language"),
            length.unwrap_or_default(),
            header("content-md5"),
            header("content-type"),
            // The date is in a header of the service's own.
            String::new(),
            header("if-modified-since"),
            header("if-match"),
            header("if-none-match"),
            header("if-unmodified-since"),
            header("range"),
        ];
        let own = parts.headers.keys().map(http::HeaderName::as_str);
        let mut own: Vec<_> = own.filter(|name| name.starts_with("x-ms-")).collect();
        own.sort_unstable();
        lines.extend(own.into_iter().map(|name| format!("{name}:{}", header(name).trim())));
        lines.push(format!("/{}{}", self.account, parts.uri.path()));
        let query = parts.uri.query().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let mut pairs: Vec<_> =
            pairs.map(|(name, value)| format!("{}:{value}", name.to_lowercase())).collect();
        pairs.sort_unstable();
        lines.extend(pairs);
        lines.join("\n")
    }
}

impl Sign for SharedKey {
    fn sign<'a>(&'a self, parts: &'a mut Parts) -> BoxFuture<'a, Result<(), Error>> {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let invalid = |_| Error::Credentials("the account's name is not valid".to_owned());
        let mut sign = move || {
            parts.headers.insert("x-ms-date", HeaderValue::from_str(&date).map_err(invalid)?);
            let signature = base64_hmac_sha256(&self.key, self.text(parts).as_bytes());
            let value = format!("SharedKey {}:{signature}", self.account);
            let mut value = HeaderValue::from_str(&value).map_err(invalid)?;
            value.set_sensitive(true);
            parts.headers.insert(AUTHORIZATION, value);
            Ok(())
        };
        Box::pin(std::future::ready(sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn azure(account_url: &str, prefix: &str) -> Azure {
        let config = AzureConfig {
            account_url: account_url.to_owned(),
            account_name: "account".to_owned(),
            secret_access_key: STANDARD.encode("key"),
            container: "cache".to_owned(),
            prefix: prefix.to_owned(),
            manifests_prefix: "manifests".to_owned(),
            blobs_prefix: "blobs".to_owned(),
            names: vec!["buildkit".to_owned()],
        };
        Azure::new(config, &HttpClient::default()).unwrap()
    }

    #[test]
    fn blobs_are_in_folders_of_the_container() {
        let blob = Blob { digest: "sha256:1", size: 1 };
        for (account, prefix, expected) in [
            (
                "https://a.blob.core.windows.net",
                "",
                "https://a.blob.core.windows.net/cache/blobs/sha256:1",
            ),
            ("http://127.0.0.1:1/a/", "x/../y/", "http://127.0.0.1:1/a/cache/y/blobs/sha256:1"),
        ] {
            assert_eq!(azure(account, prefix).blob_url(blob).as_str(), expected);
        }
    }

    #[test]
    fn the_text_to_sign_has_headers_resource_and_query_in_order() {
        let azure = azure("http://127.0.0.1:1/account", "");
        let request = http::Request::put("http://h/account/c/b?comp=block&blockid=a%3D%3D")
            .header("x-ms-version", "v")
            .header("x-ms-date", "d")
            .header("content-length", "0")
            .header("range", "bytes=1-")
            .body(())
            .unwrap();
        assert_eq!(
            azure.key.text(&request.into_parts().0),
            "PUT\n\n\n\n\n\n\n\n\n\n\nbytes=1-\nx-ms-date:d\nx-ms-version:v\n\
             /account/account/c/b\nblockid:a==\ncomp:block"
        );
    }
}
