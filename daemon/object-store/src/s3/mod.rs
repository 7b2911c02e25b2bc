//! S3, and what speaks its protocol.

mod address;
mod credentials;
mod multipart;

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, LAST_MODIFIED};
use reqsign_aws_v4::Credential;
use tokio::sync::Semaphore;
use url::Url;

use self::address::Address;
pub use self::credentials::AwsCredentials;
use crate::download::download;
use crate::error::Error;
use crate::http_client::HttpClient;
use crate::identity::Identity;
use crate::patience::Patience;
use crate::request::{Payload, Piece, Request, read_limited};
use crate::store::{Blob, BlobReader, MAX_INDEX};

/// Says of a request how its content is signed.
const CONTENT_SHA256: &str = "x-amz-content-sha256";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// A larger blob is sent in parts.
const MAX_SINGLE: u64 = 16 << 20;

/// Where a cache in a bucket is.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// The region that it is in.
    pub region: String,
    /// Before the names of all objects.
    pub prefix: String,
    /// After that, before the names of indexes.
    pub manifests_prefix: String,
    /// The same for blobs.
    pub blobs_prefix: String,
    /// The names of the index; the first is the one that is read.
    pub names: Vec<String>,
    /// A blob that was stored so long ago is stored again by the service itself, lest it expire.
    pub touch_refresh: Duration,
    /// The service's address, if it is not Amazon's.
    pub endpoint: Option<String>,
    /// Whether the bucket is in the address's path there and not in its host.
    pub use_path_style: bool,
    /// If there are none, they come from where AWS's programs find them.
    pub credentials: Option<AwsCredentials>,
    /// How much is sent at once.
    pub upload_parallelism: usize,
    /// How often a request is sent that meets with trouble.
    pub max_attempts: u32,
}

impl S3Config {
    /// What is usual.
    pub fn new(bucket: impl Into<String>, region: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            region: region.into(),
            prefix: String::new(),
            manifests_prefix: "manifests/".to_owned(),
            blobs_prefix: "blobs/".to_owned(),
            names: vec!["buildkit".to_owned()],
            touch_refresh: Duration::from_hours(24),
            endpoint: None,
            use_path_style: false,
            credentials: None,
            upload_parallelism: 4,
            max_attempts: Patience::USUAL.attempts,
        }
    }
}

/// A cache in a bucket.
pub struct S3 {
    config: S3Config,
    address: Address,
    signer: Identity<Credential>,
    http: HttpClient,
    uploads: Semaphore,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What is known of an object.
struct Stat {
    size: u64,
    modified: Option<SystemTime>,
}

impl S3 {
    /// Talks with nobody yet.
    ///
    /// # Errors
    /// [`Error::Setting`] if no address can be made of the configuration.
    pub fn new(config: S3Config, http: &HttpClient) -> Result<Self, Error> {
        let address = Address::of(&config)?;
        let signer = credentials::identity(&config, http)?;
        let uploads = Semaphore::new(config.upload_parallelism.max(1));
        Ok(Self { config, address, signer, http: http.clone(), uploads })
    }

    pub(crate) fn place(&self) -> String {
        let S3Config { prefix, blobs_prefix, .. } = &self.config;
        format!("s3:{}", self.address.object(&format!("{prefix}{blobs_prefix}")))
    }

    pub(crate) fn title(&self) -> String {
        let name = self.config.names.first().map_or("", String::as_str);
        format!("s3:{}", self.address.object(&self.index_key(name)))
    }

    fn blob_key(&self, digest: &str) -> String {
        format!("{}{}{digest}", self.config.prefix, self.config.blobs_prefix)
    }

    fn index_key(&self, name: &str) -> String {
        format!("{}{}{name}", self.config.prefix, self.config.manifests_prefix)
    }

    fn request<'a>(&self, method: Method, url: Url) -> Request<'a> {
        let patience = Patience { attempts: self.config.max_attempts, ..Patience::USUAL };
        Request::new(method, url).patience(patience)
    }

    pub(crate) async fn index(&self) -> Result<Option<Bytes>, Error> {
        let Some(name) = self.config.names.first() else { return Ok(None) };
        let url = self.address.object(&self.index_key(name));
        let request =
            self.request(Method::GET, url.clone()).header(CONTENT_SHA256, EMPTY_SHA256)?;
        match request.send(&self.http, &self.signer).await {
            Ok(response) => Ok(Some(read_limited(response, &url, MAX_INDEX).await?)),
            Err(error) if is_no_key(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn save_index(&self, json: Bytes) -> Result<(), Error> {
        use sha2::Digest as _;
        let digest = hex::encode(sha2::Sha256::digest(&json));
        for name in &self.config.names {
            let url = self.address.object(&self.index_key(name));
            let request = self
                .request(Method::PUT, url)
                .header(CONTENT_SHA256, &digest)?
                .header("content-type", "application/json")?
                .payload(Payload::Bytes(json.clone()));
            request.send(&self.http, &self.signer).await?;
        }
        Ok(())
    }

    pub(crate) async fn has_blob(&self, blob: Blob<'_>) -> Result<bool, Error> {
        let key = self.blob_key(blob.digest);
        let stat = match self.stat(&key).await? {
            // Somebody's upload may have been cut short, on a service that does not look.
            Some(stat) if stat.size == blob.size => stat,
            _ => return Ok(false),
        };
        let age = stat.modified.and_then(|time| time.elapsed().ok()).unwrap_or_default();
        if age > self.config.touch_refresh {
            self.touch(&key, stat.size).await?;
        }
        Ok(true)
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, Error> {
        let request = self
            .request(Method::HEAD, self.address.object(key))
            .header(CONTENT_SHA256, EMPTY_SHA256)?;
        let response = match request.send(&self.http, &self.signer).await {
            Ok(response) => response,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error @ Error::Refused { .. }) => {
                return Err(self.reason(key).await.unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        let header = |name| response.headers().get(name)?.to_str().ok();
        let size = header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let modified = header(LAST_MODIFIED).and_then(|text| httpdate::parse_http_date(text).ok());
        Ok(size.map(|size| Stat { size, modified }))
    }

    /// Why an object cannot be looked at: answers to `HEAD` have no room for a reason.
    async fn reason(&self, key: &str) -> Option<Error> {
        let request = self
            .request(Method::GET, self.address.object(key))
            .header(CONTENT_SHA256, EMPTY_SHA256)
            .and_then(|request| request.header("range", "bytes=0-0"));
        request.ok()?.send(&self.http, &self.signer).await.err()
    }

    pub(crate) async fn blob(&self, blob: Blob<'_>) -> Result<BlobReader, Error> {
        let url = self.address.object(&self.blob_key(blob.digest));
        let (http, signer, asked) = (self.http.clone(), self.signer.clone(), url.clone());
        let attempts = self.config.max_attempts;
        let ask = Box::new(move |offset| {
            let (http, signer, url) = (http.clone(), signer.clone(), asked.clone());
            let patience = Patience { attempts, ..Patience::USUAL };
            let ask = async move {
                let mut request = Request::new(Method::GET, url)
                    .patience(patience)
                    .header(CONTENT_SHA256, EMPTY_SHA256)?;
                if offset > 0 {
                    request = request.header("range", &format!("bytes={offset}-"))?;
                }
                request.send(&http, &signer).await
            };
            Box::pin(ask) as futures::future::BoxFuture<'static, _>
        });
        download(url, blob.size, ask).await
    }

    pub(crate) async fn save_blob(&self, blob: Blob<'_>, path: &Path) -> Result<(), Error> {
        let key = self.blob_key(blob.digest);
        if blob.size > MAX_SINGLE {
            return self.save_in_parts(&key, path, blob.size).await;
        }
        // The blob's name is what it has to be signed with: the service checks what it gets.
        let digest = blob.digest.strip_prefix("sha256:").unwrap_or("UNSIGNED-PAYLOAD");
        let piece = Piece { path, offset: 0, length: blob.size };
        let request = self
            .request(Method::PUT, self.address.object(&key))
            .header(CONTENT_SHA256, digest)?
            .payload(Payload::Piece(piece));
        let _turn = self.uploads.acquire().await;
        request.send(&self.http, &self.signer).await?;
        Ok(())
    }
}

/// Whether an object is not there, in a bucket that is.
fn is_no_key(error: &Error) -> bool {
    error.is_not_found()
        && !matches!(error, Error::Refused { answer, .. } if answer.code == "NoSuchBucket")
}
