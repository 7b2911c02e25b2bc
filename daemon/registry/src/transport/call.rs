//! One request and its answer, redirects followed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use reqwest::Response;
use url::Url;

use super::http_client::Transport;
use crate::error::{Error, Malformed, shown};

const MAX_REDIRECTS: usize = 10;
/// How long an answer, or its next piece, is waited for.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// What a request sends; opened anew each time the request is sent.
pub(crate) trait Body: Send + Sync {
    /// The content, from its beginning.
    fn open(&self) -> BoxFuture<'_, Result<reqwest::Body, Error>>;

    /// Whether sending it may take longer than an answer is waited for.
    fn is_large(&self) -> bool;
}

impl Body for Bytes {
    fn open(&self) -> BoxFuture<'_, Result<reqwest::Body, Error>> {
        Box::pin(std::future::ready(Ok(self.clone().into())))
    }

    fn is_large(&self) -> bool {
        false
    }
}

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: Url,
    pub(crate) headers: &'a HeaderMap,
    /// Sent to the host of `url` only.
    pub(crate) authorization: Option<&'a HeaderValue>,
    pub(crate) body: Option<&'a dyn Body>,
}

impl Transport {
    /// Sends `call`, following redirects; `Ok` with any status but those.
    pub(crate) async fn exchange(&self, call: Call<'_>) -> Result<Response, Error> {
        let mut origin = call.url.origin();
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = call.authorization.filter(|_| url.origin() == origin);
            let request = self.prepare(&call, &url, authorization).await?;
            let response = match self.execute(&call, &url, request).await {
                Err(Error::Transport { cause, .. })
                    if let Some(plain) = self.fall_back(&url, &cause) =>
                {
                    url = plain;
                    origin = url.origin();
                    continue;
                }
                outcome => outcome?,
            };
            if !is_followed(call.method, response.status()) {
                return Ok(response);
            }
            let next = location(response.headers(), &url)?;
            // A body may be a secret (a token request) or a private layer; the host that it is
            // for does not pass it on.
            if call.body.is_some() && next.origin() != origin {
                return Ok(response);
            }
            url = next;
        }
        let problem = Malformed::Redirects { limit: MAX_REDIRECTS };
        Err(Error::Malformed { url: shown(&call.url), problem })
    }

    async fn prepare(
        &self,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::RequestBuilder, Error> {
        let mut request = self
            .client(url)
            .request(call.method.clone(), url.clone())
            // Blobs have their digest as they are stored, not as a server may recode them.
            .header(ACCEPT_ENCODING, "identity")
            .headers(call.headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = call.body {
            request = request.body(body.open().await?);
        }
        Ok(request)
    }

    async fn execute(
        &self,
        call: &Call<'_>,
        url: &Url,
        request: reqwest::RequestBuilder,
    ) -> Result<Response, Error> {
        tracing::debug!(method = %call.method, url = shown(url), "request");
        let sent = request.send();
        let outcome = if call.body.is_some_and(Body::is_large) {
            sent.await
        } else {
            tokio::time::timeout(IDLE_TIMEOUT, sent).await.map_err(|_| Error::Timeout {
                method: call.method.clone(),
                url: shown(url),
                after: IDLE_TIMEOUT,
            })?
        };
        let response = outcome.map_err(|error| failed(call.method, url, error))?;
        tracing::debug!(status = response.status().as_u16(), url = shown(url), "response");
        Ok(response)
    }
}

fn is_followed(method: &Method, status: StatusCode) -> bool {
    match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            *method == Method::GET || *method == Method::HEAD
        }
        _ => false,
    }
}

/// The address in `headers`, relative to `base`.
pub(crate) fn location(headers: &HeaderMap, base: &Url) -> Result<Url, Error> {
    headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| base.join(text).ok())
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::Malformed { url: shown(base), problem: Malformed::Location })
}

/// The HTTP client's error, with what it was doing.
pub(crate) fn failed(method: &Method, url: &Url, error: reqwest::Error) -> Error {
    let cause = Box::new(error.without_url());
    Error::Transport { method: method.clone(), url: shown(url), cause }
}

/// The whole body of `response`, if it is no longer than `limit`.
pub(crate) async fn read_limited(mut response: Response, limit: u64) -> Result<Bytes, Error> {
    let url = response.url().clone();
    let too_large = || Error::TooLarge { subject: shown(&url), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(IDLE_TIMEOUT, response.chunk())
            .await
            .map_err(|_| Error::Timeout {
                method: Method::GET,
                url: shown(&url),
                after: IDLE_TIMEOUT,
            })?
            .map_err(|error| failed(&Method::GET, &url, error))?;
        let Some(chunk) = chunk else { return Ok(body.freeze()) };
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}
