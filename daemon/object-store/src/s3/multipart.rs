//! What is too large for one request.

use std::path::Path;

use bytes::Bytes;
use futures::future::try_join_all;
use http::Method;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{CONTENT_SHA256, EMPTY_SHA256, MAX_SINGLE, S3};
use crate::error::Error;
use crate::request::{MAX_ANSWER, Payload, Piece, Request, read_limited};

/// The most parts that an object may have.
const MAX_PARTS: u64 = 10_000;
/// The most that one request copies.
const MAX_COPY: u64 = 5 << 30;

#[derive(Deserialize)]
struct Started {
    #[serde(rename = "UploadId")]
    upload_id: String,
}

#[derive(Serialize)]
#[serde(rename = "CompleteMultipartUpload")]
struct Complete {
    #[serde(rename = "Part")]
    parts: Vec<Part>,
}

#[derive(Clone, Serialize)]
struct Part {
    #[serde(rename = "PartNumber")]
    number: u64,
    #[serde(rename = "ETag")]
    etag: String,
}

/// The answer to a copy.
#[derive(Deserialize)]
struct Copied {
    #[serde(rename = "ETag")]
    etag: String,
}

/// An answer with a status of success may still be an error: it was begun too early.
fn check(url: &Url, answer: &str) -> Result<(), Error> {
    if answer.contains("<Error>") || answer.contains("<Error ") {
        let text: String = answer.chars().take(500).collect();
        return Err(Error::malformed(url, format!("it answers with success and {text}")));
    }
    Ok(())
}

fn parse<'de, T: Deserialize<'de>>(url: &Url, answer: &'de str) -> Result<T, Error> {
    check(url, answer)?;
    quick_xml::de::from_str(answer).map_err(|error| Error::malformed(url, error))
}

impl S3 {
    pub(super) async fn save_in_parts(
        &self,
        key: &str,
        path: &Path,
        size: u64,
    ) -> Result<(), Error> {
        let upload = self.begin(key).await?;
        let length = size.div_ceil(MAX_PARTS).max(MAX_SINGLE);
        let parts = (1..).zip(Piece::all(path, size, length)).map(async |(number, piece)| {
            let _turn = self.uploads.acquire().await;
            let url = part_url(&upload, number);
            let request = self
                .request(Method::PUT, url.clone())
                .header(CONTENT_SHA256, "UNSIGNED-PAYLOAD")?
                .payload(Payload::Piece(piece));
            let response = request.send(&self.http, &self.signer).await?;
            let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
            let etag = etag.ok_or_else(|| Error::malformed(&url, "it has no ETag"))?.to_owned();
            Ok(Part { number, etag })
        });
        let parts = try_join_all(parts).await;
        self.end(upload, parts).await
    }

    /// Makes an object as new as if it were stored again.
    pub(super) async fn touch(&self, key: &str, size: u64) -> Result<(), Error> {
        let source = self.address.source(key);
        if size > MAX_COPY {
            return self.touch_in_parts(key, &source, size).await;
        }
        let url = self.address.object(key);
        // A copy onto itself has to change something.
        let now = httpdate::fmt_http_date(std::time::SystemTime::now());
        let request = self
            .request(Method::PUT, url.clone())
            .header(CONTENT_SHA256, EMPTY_SHA256)?
            .header("x-amz-copy-source", &source)?
            .header("x-amz-metadata-directive", "REPLACE")?
            .header("x-amz-meta-updated-at", &now)?;
        check(&url, &request.text(&self.http, &self.signer).await?)
    }

    async fn touch_in_parts(&self, key: &str, source: &str, size: u64) -> Result<(), Error> {
        let upload = self.begin(key).await?;
        let starts = (0..size.div_ceil(MAX_COPY)).map(|nth| nth * MAX_COPY);
        let parts = (1..).zip(starts).map(async |(number, start)| {
            let _turn = self.uploads.acquire().await;
            let url = part_url(&upload, number);
            let last = size.min(start + MAX_COPY) - 1;
            let request = self
                .request(Method::PUT, url.clone())
                .header(CONTENT_SHA256, EMPTY_SHA256)?
                .header("x-amz-copy-source", source)?
                .header("x-amz-copy-source-range", &format!("bytes={start}-{last}"))?;
            let answer = request.text(&self.http, &self.signer).await?;
            let Copied { etag } = parse(&url, &answer)?;
            Ok(Part { number, etag })
        });
        let parts = try_join_all(parts).await;
        self.end(upload, parts).await
    }

    /// Begins an object in parts; returns its address for them.
    async fn begin(&self, key: &str) -> Result<Url, Error> {
        let mut url = self.address.object(key);
        url.set_query(Some("uploads="));
        let request =
            self.request(Method::POST, url.clone()).header(CONTENT_SHA256, EMPTY_SHA256)?;
        let answer = request.text(&self.http, &self.signer).await?;
        let Started { upload_id } = parse(&url, &answer)?;
        let mut upload = self.address.object(key);
        upload.query_pairs_mut().append_pair("uploadId", &upload_id);
        Ok(upload)
    }

    /// Makes an object of its parts. If one of them failed, the service is told to forget the others.
    ///
    /// If this is never called because the build was cancelled, they stay: a bucket for caches should
    /// have a rule for uploads that nobody completes.
    async fn end(&self, upload: Url, parts: Result<Vec<Part>, Error>) -> Result<(), Error> {
        let outcome = match parts {
            Ok(parts) => self.complete(&upload, Complete { parts }).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            let abort =
                Request::new(Method::DELETE, upload).header(CONTENT_SHA256, EMPTY_SHA256)?;
            if let Err(error) = abort.send(&self.http, &self.signer).await {
                tracing::debug!(%error, "an upload in parts is left behind");
            }
        }
        outcome
    }

    async fn complete(&self, upload: &Url, parts: Complete) -> Result<(), Error> {
        use sha2::Digest as _;
        let xml =
            quick_xml::se::to_string(&parts).map_err(|error| Error::malformed(upload, error))?;
        let request = self
            .request(Method::POST, upload.clone())
            .header(CONTENT_SHA256, &hex::encode(sha2::Sha256::digest(&xml)))?
            .header("content-type", "application/xml")?
            .payload(Payload::Bytes(Bytes::from(xml)));
        let response = request.send(&self.http, &self.signer).await?;
        let answer = read_limited(response, upload, MAX_ANSWER).await?;
        check(upload, &String::from_utf8_lossy(&answer))
    }
}

fn part_url(upload: &Url, number: u64) -> Url {
    let mut url = upload.clone();
    url.query_pairs_mut().append_pair("partNumber", &number.to_string());
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_those_of_the_service() {
        let parts = [1, 2].map(|number| Part { number, etag: format!("\"{number}\"") });
        let xml = quick_xml::se::to_string(&Complete { parts: parts.to_vec() }).unwrap();
        assert_eq!(
            xml,
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"1\"</ETag></Part>\
             <Part><PartNumber>2</PartNumber><ETag>\"2\"</ETag></Part></CompleteMultipartUpload>"
        );
        let url = Url::parse("http://host/bucket/key").unwrap();
        let started = "<?xml version=\"1.0\"?>\n<InitiateMultipartUploadResult xmlns=\"http://s3\">\
                       <Bucket>b</Bucket><UploadId>id+/</UploadId></InitiateMultipartUploadResult>";
        assert_eq!(parse::<Started>(&url, started).unwrap().upload_id, "id+/");
        let error = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
        assert!(check(&url, error).unwrap_err().to_string().contains("InternalError"));
    }
}
