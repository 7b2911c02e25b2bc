//! The cache of GitHub Actions: entries that are written once, and found by the beginning of their
//! names within the scopes (branches) that a token is for.

mod listing;
mod token;
mod v1;
mod v2;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::try_join_all;
use http::header::HeaderValue;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use url::Url;

pub use self::listing::Listing;
use self::token::Token;
use crate::block_blob::{self, PARALLELISM};
use crate::download::{Ask, download};
use crate::error::Error;
use crate::http_client::HttpClient;
use crate::patience::Patience;
use crate::request::{Request, Unsigned, read_limited};
use crate::store::{Blob, BlobReader, MAX_INDEX};

/// The layout of the cache, as it is part of all names.
const LAYOUT: &str = "1";
/// What BuildKit hashes in place of the paths that other clients have in their archives.
const VERSION_OF: &str = "|go-actionscache-1.0";
/// How many numbers of an index may be taken by others while it is written.
const MAX_RESERVATIONS: u64 = 100;

/// The protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The one with chunks.
    V1,
    /// The one with signed addresses of Azure's blobs.
    V2,
}

/// Where the cache of a repository is.
#[derive(Clone)]
pub struct GithubConfig {
    /// The service's address.
    pub url: String,
    /// How it is spoken with.
    pub protocol: Protocol,
    /// The token of the running job.
    pub token: String,
    /// Which of several caches of the repository it is.
    pub scope: String,
    /// How long the service may ask for patience.
    pub timeout: Duration,
    /// Where all names can be asked for at once.
    pub listing: Option<Listing>,
}

impl fmt::Debug for GithubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = ("url", &self.url);
        f.debug_struct("GithubConfig").field(url.0, url.1).finish_non_exhaustive()
    }
}

/// A cache in the service of GitHub Actions.
#[derive(Clone)]
pub struct Github(Arc<Inner>);

struct Inner {
    base: Url,
    config: GithubConfig,
    token: Token,
    http: HttpClient,
    uploads: Semaphore,
    /// Names of blobs that are there, if they were asked for.
    listed: tokio::sync::OnceCell<Option<std::collections::HashSet<String>>>,
}

impl fmt::Debug for Github {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Github").field(&self.0.config).finish()
    }
}

/// An entry that was found.
#[derive(Clone)]
struct Entry {
    /// Its whole name.
    key: String,
    /// Where its content is; a signed address.
    url: Url,
}

impl Github {
    /// Talks with nobody yet.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Credentials`] if address or token are not valid.
    pub fn new(config: GithubConfig, http: &HttpClient) -> Result<Self, Error> {
        let token = Token::parse(&config.token, SystemTime::now())?;
        let problem = || "it is not an HTTP address".to_owned();
        let mut base = Url::parse(&config.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| Error::Setting { setting: "url", problem: problem() })?;
        base.set_query(None);
        base.set_fragment(None);
        let (http, uploads) = (http.clone(), Semaphore::new(PARALLELISM));
        let listed = tokio::sync::OnceCell::new();
        Ok(Self(Arc::new(Inner { base, config, token, http, uploads, listed })))
    }

    pub(crate) fn place(&self) -> String {
        let listing = self.0.config.listing.as_ref();
        let repository = listing.map_or("", |listing| listing.repository.as_str());
        format!("gha:{}#{repository}", self.0.base)
    }

    pub(crate) fn title(&self) -> String {
        format!("gha:{} ({})", self.0.base, self.0.config.scope)
    }

    /// The index of a scope of the token, without its number.
    fn index_key(&self, scope: &str) -> String {
        let scope = hex::encode(Sha256::digest(scope));
        format!("index-{}-{LAYOUT}-{}", self.0.config.scope, &scope[..8])
    }

    pub(crate) async fn indexes(&self) -> Result<Vec<Bytes>, Error> {
        let all = self.0.token.scopes().map(async |scope| {
            let key = format!("{}#", self.index_key(scope));
            let Some(entry) = self.load(&key).await? else { return Ok(None) };
            // It is small, and so are the chances of an address that expires meanwhile.
            let request = match self.0.config.protocol {
                Protocol::V1 => Request::new(Method::GET, entry.url.clone()),
                Protocol::V2 => block_blob::request(Method::GET, entry.url.clone())?,
            };
            let response = request.send(&self.0.http, &Unsigned).await?;
            read_limited(response, &entry.url, MAX_INDEX).await.map(Some)
        });
        Ok(try_join_all(all).await?.into_iter().flatten().collect())
    }

    pub(crate) async fn save_index(&self, json: Bytes) -> Result<(), Error> {
        let key = self.index_key(self.0.token.written_scope());
        let newest = self.load(&format!("{key}#")).await?;
        let number = |entry: &Entry| entry.key.rsplit_once('#')?.1.parse::<u64>().ok();
        let newest = newest.as_ref().and_then(number).unwrap_or_default();
        // A number that is taken is that of somebody who is faster, or has died: what has the
        // highest one is read.
        for number in 1..=MAX_RESERVATIONS {
            let key = format!("{key}#{}", newest.saturating_add(number));
            match self.save(&key, Content::Bytes(json.clone())).await {
                Err(error) if error.is_conflict() => {}
                outcome => return outcome,
            }
        }
        Err(Error::malformed(&self.0.base, "all numbers of the index are taken"))
    }

    pub(crate) async fn has_blob(&self, blob: Blob<'_>) -> Result<bool, Error> {
        let key = blob_key(blob);
        let listed = self.0.listed.get_or_init(async || self.list().await).await;
        match listed {
            Some(names) => Ok(names.contains(&key)),
            None => Ok(self.load(&key).await?.is_some_and(|entry| entry.key == key)),
        }
    }

    pub(crate) async fn blob(&self, blob: Blob<'_>) -> Result<BlobReader, Error> {
        let key = blob_key(blob);
        let entry = self.load(&key).await?.filter(|entry| entry.key == key);
        let entry = entry.ok_or_else(|| Error::Missing(key.clone()))?;
        let shown = entry.url.clone();
        let (github, current) = (self.clone(), Arc::new(Mutex::new(entry.url)));
        let ask: Ask = Box::new(move |offset| {
            let (github, current, key) = (github.clone(), current.clone(), key.clone());
            Box::pin(async move {
                let url = current.lock().clone();
                let outcome = github.ask(url, offset).await;
                // A signed address expires while a large blob is on its way.
                let expired = [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED];
                if !outcome.as_ref().is_err_and(|error| error.has_status(&expired)) {
                    return outcome;
                }
                let entry = github.load(&key).await?.filter(|entry| entry.key == key);
                let url = entry.ok_or_else(|| Error::Missing(key.clone()))?.url;
                current.lock().clone_from(&url);
                github.ask(url, offset).await
            })
        });
        download(shown, blob.size, ask).await
    }

    async fn ask(&self, url: Url, offset: u64) -> Result<reqwest::Response, Error> {
        let http = &self.0.http;
        if self.0.config.protocol == Protocol::V2 {
            return block_blob::ask(http.clone(), url, Arc::new(Unsigned), offset).await;
        }
        let mut request = Request::new(Method::GET, url);
        if offset > 0 {
            request = request.header("range", &format!("bytes={offset}-"))?;
        }
        request.send(http, &Unsigned).await
    }

    pub(crate) async fn save_blob(&self, blob: Blob<'_>, path: &Path) -> Result<(), Error> {
        match self.save(&blob_key(blob), Content::File { path, size: blob.size }).await {
            // Somebody else stores it.
            Err(error) if error.is_conflict() => Ok(()),
            outcome => outcome,
        }
    }

    /// The newest entry whose name begins with `key`.
    async fn load(&self, key: &str) -> Result<Option<Entry>, Error> {
        match self.0.config.protocol {
            Protocol::V1 => self.load_v1(key).await,
            Protocol::V2 => self.load_v2(key).await,
        }
    }

    /// Stores an entry under a name that is not taken.
    async fn save(&self, key: &str, content: Content<'_>) -> Result<(), Error> {
        match self.0.config.protocol {
            Protocol::V1 => self.save_v1(key, content).await,
            Protocol::V2 => self.save_v2(key, content).await,
        }
    }

    /// The address of a part of the service.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.0.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn request<'a>(&self, method: Method, url: Url) -> Request<'a> {
        Request::new(method, url).patience(self.patience())
    }

    fn patience(&self) -> Patience {
        Patience { total: self.0.config.timeout, ..Patience::USUAL }
    }

    /// For a request that is understood in another way the second time.
    fn once(&self) -> Patience {
        Patience { attempts: 1, ..self.patience() }
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.0.config.token)
    }
}

/// What an entry has in it.
#[derive(Clone)]
enum Content<'a> {
    Bytes(Bytes),
    File { path: &'a Path, size: u64 },
}

impl Content<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }
}

fn blob_prefix() -> String {
    format!("buildkit-blob-{LAYOUT}-")
}

fn blob_key(blob: Blob<'_>) -> String {
    format!("{}{}", blob_prefix(), blob.digest)
}

/// What the service has in place of the names of a client's files.
fn version() -> String {
    hex::encode(Sha256::digest(VERSION_OF))
}

/// An address that the service gave.
fn signed(base: &Url, text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Error::malformed(base, "it gives an address that is none"))
}

/// Whether a token can be in a header at all.
fn is_header(text: &str) -> bool {
    HeaderValue::from_str(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_buildkits() {
        let token = token::tests::token(&[("refs/heads/main", 3)], 0, u32::MAX);
        let config = GithubConfig {
            url: "https://host/path/".to_owned(),
            protocol: Protocol::V1,
            token,
            scope: "buildkit".to_owned(),
            timeout: Duration::from_secs(1),
            listing: None,
        };
        let github = Github::new(config, &HttpClient::default()).unwrap();
        // The first digits of sha256("refs/heads/main").
        assert_eq!(github.index_key("refs/heads/main"), "index-buildkit-1-f921bd05");
        assert_eq!(blob_key(Blob { digest: "sha256:a", size: 1 }), "buildkit-blob-1-sha256:a");
        assert_eq!(github.url(&["a", "b"]).as_str(), "https://host/path/a/b");
        assert_eq!(version().len(), 64);
    }
}
