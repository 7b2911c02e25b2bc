//! Writing blobs and manifests.

use std::io;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, StatusCode};
use oci_spec::image::{Descriptor, Digest, MediaType};
use reqwest::Response;
use tokio::io::AsyncRead;
use url::Url;

use crate::client::Client;
use crate::digest::{sha256, verify};
use crate::endpoint::Endpoint;
use crate::error::{Action, Error};
use crate::manifest::announced_digest;
use crate::purpose::Purpose;
use crate::reference::ImageRef;
use crate::request::Request;
use crate::retry::Retries;
use crate::transport::{Body, location};
use crate::upload::Upload;

/// How a pushed blob came to be in its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobPush {
    /// It was there already; nothing was sent.
    Existed,
    /// Its bytes were sent.
    Uploaded,
}

impl Client {
    /// Puts a blob into the repository of `image`, unless it is there.
    ///
    /// `source` is called for each attempt and must yield the blob from its beginning, of exactly
    /// the descriptor's size. Counts as a transfer while it runs.
    pub async fn push_blob<F, Fut, R>(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
        source: F,
    ) -> Result<BlobPush, Error>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = io::Result<R>> + Send,
        R: AsyncRead + Send + Unpin + 'static,
    {
        let digest = descriptor.digest();
        let purpose = Purpose::push(image, format!("{}@{digest}", image.name()));
        let upload = Upload::new(&source, digest, descriptor.size());
        let endpoint = self.registry(image)?;
        let _transfer = self.transfer(image, Action::Push).await;
        let mut retries = Retries::transient();
        // An upload that broke cannot be sent again to where it went: each attempt starts a new
        // one, after a look whether the last one arrived after all.
        loop {
            match self.blob_exists(image, digest, &purpose).await {
                Ok(true) => return Ok(BlobPush::Existed),
                // A refusal is left to the upload, whose answer has words for it; and who may not
                // read may still write.
                Ok(false) | Err(Error::Unauthorized { .. } | Error::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
            let attempt = Attempt { client: self, endpoint: &endpoint, image, purpose: &purpose };
            let error = match attempt.upload(digest, descriptor.size(), &upload).await {
                Ok(()) => return Ok(BlobPush::Uploaded),
                Err(error) => upload.blame(error),
            };
            let delay = if error.is_transient() { retries.next() } else { None };
            let Some(delay) = delay else { return Err(error) };
            tracing::debug!(%error, "upload interrupted, starting again");
            tokio::time::sleep(delay).await;
        }
    }

    /// Makes the registry take a blob over from `from`, another repository on the same host.
    /// Whether it did; where it did not, the blob must be pushed.
    pub async fn mount_blob(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
        from: &str,
    ) -> Result<bool, Error> {
        let digest = descriptor.digest();
        let mut purpose = Purpose::push(image, format!("{}@{digest}", image.name()));
        purpose.scopes = purpose.scopes.and(from, &["pull"]);
        let endpoint = self.registry(image)?;
        let mut url = endpoint.url(image.repository(), "blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", digest.as_ref()).append_pair("from", from);
        let request = Request::new(&purpose, Method::POST, url);
        let outcome = self.send_checked(&endpoint, &request, Retries::transient()).await;
        let response = match outcome {
            Ok(response) => response,
            // The other repository may be closed to us, or gone, while this one is open.
            Err(Error::Unauthorized { .. } | Error::Denied { .. } | Error::NotFound { .. }) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        self.abandon_upload(&endpoint, &purpose, &response).await;
        Ok(false)
    }

    /// Puts a manifest or index into the repository of `image`: under its tag, or under its digest
    /// if it has no tag. Everything that it names must have been pushed.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] if `image` has another digest than `content`, or the registry
    /// stored something else.
    pub async fn push_manifest(
        &self,
        image: &ImageRef,
        media_type: &MediaType,
        content: Bytes,
    ) -> Result<Digest, Error> {
        let purpose = Purpose::push(image, image.to_string());
        let digest = match image.digest() {
            Some(expected) => {
                verify(&purpose.subject, expected, &content)?;
                expected.clone()
            }
            None => sha256(&content),
        };
        let object = image.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let endpoint = self.registry(image)?;
        let url = endpoint.url(image.repository(), &format!("manifests/{object}"))?;
        if self.has_manifest(&endpoint, &purpose, &url, media_type, &digest).await? {
            return Ok(digest);
        }
        let request = Request::new(&purpose, Method::PUT, url).body(media_type.as_ref(), &content);
        let response = self.send_checked(&endpoint, &request, Retries::transient()).await?;
        match announced_digest(&response)? {
            Some(actual) if actual.algorithm() == digest.algorithm() && actual != digest => {
                Err(Error::DigestMismatch { subject: purpose.subject, expected: digest, actual })
            }
            _ => Ok(digest),
        }
    }

    /// Whether `url` is `digest` already. Registries with immutable tags refuse even the same
    /// manifest again.
    async fn has_manifest(
        &self,
        endpoint: &Endpoint,
        purpose: &Purpose,
        url: &Url,
        media_type: &MediaType,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let request =
            Request::new(purpose, Method::HEAD, url.clone()).accept(&format!("{media_type}, */*"));
        // Other answers are left to the PUT, which has words for them.
        let response = match self.send(endpoint, &request, Retries::transient()).await {
            Err(Error::Unauthorized { .. }) => return Ok(false),
            outcome => outcome?,
        };
        Ok(response.status().is_success() && announced_digest(&response)?.as_ref() == Some(digest))
    }

    /// Lets the registry forget an upload that it began; it would in time by itself.
    async fn abandon_upload(&self, endpoint: &Endpoint, purpose: &Purpose, started: &Response) {
        if let Ok(url) = location(started.headers(), started.url()) {
            let request = Request::new(purpose, Method::DELETE, url);
            let outcome = self.send_checked(endpoint, &request, Retries::none()).await;
            if let Err(error) = outcome {
                tracing::debug!(%error, "unused upload not cancelled");
            }
        }
    }
}

/// One upload, from its start to its end.
struct Attempt<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    image: &'a ImageRef,
    purpose: &'a Purpose,
}

impl Attempt<'_> {
    async fn upload(&self, digest: &Digest, size: u64, body: &dyn Body) -> Result<(), Error> {
        let url = self.endpoint.url(self.image.repository(), "blobs/uploads/")?;
        let request = Request::new(self.purpose, Method::POST, url);
        let retries = Retries::transient();
        let started = self.client.send_checked(self.endpoint, &request, retries).await?;
        let mut url = location(started.headers(), started.url())?;
        url.query_pairs_mut().append_pair("digest", digest.as_ref());
        let mut request =
            Request::new(self.purpose, Method::PUT, url).body("application/octet-stream", body);
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        self.client.send_checked(self.endpoint, &request, Retries::none()).await?;
        Ok(())
    }
}
