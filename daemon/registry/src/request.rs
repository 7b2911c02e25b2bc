//! Sending requests: authorization, repetition.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::Response;
use url::Url;

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::purpose::Purpose;
use crate::retry::Retries;
use crate::transport::{Body, Call};

/// How often one request answers challenges: once for the scheme, once for a token that has
/// become invalid.
const MAX_CHALLENGES: u32 = 2;

/// One request to a registry.
pub(crate) struct Request<'a> {
    pub(crate) purpose: &'a Purpose,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<&'a dyn Body>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(purpose: &'a Purpose, method: Method, url: Url) -> Self {
        Self { purpose, method, url, headers: HeaderMap::new(), body: None }
    }

    /// Asks for one of these media types; left out if they cannot stand in a header.
    pub(crate) fn accept(mut self, types: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(types) {
            self.headers.insert(ACCEPT, value);
        }
        self
    }

    pub(crate) fn body(mut self, media_type: &str, body: &'a dyn Body) -> Self {
        if let Ok(value) = HeaderValue::from_str(media_type) {
            self.headers.insert(CONTENT_TYPE, value);
        }
        self.body = Some(body);
        self
    }
}

impl Client {
    /// Sends `request` to `endpoint`, answering its challenges; `Ok` with any status that is left
    /// after the repetitions.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        request: &Request<'_>,
        mut retries: Retries,
    ) -> Result<Response, Error> {
        let transport = &*endpoint.transport;
        let is_authorized = endpoint.owns(&request.url);
        let mut authorization = None;
        if is_authorized {
            authorization = self.authorizer.known(transport, request.purpose).await?;
        }
        let mut challenges = 0;
        loop {
            let call = Call {
                method: &request.method,
                url: request.url.clone(),
                headers: &request.headers,
                authorization: authorization.as_ref(),
                body: request.body,
            };
            let outcome = transport.exchange(call).await;
            if let Some(delay) = retries.delay(&outcome) {
                tokio::time::sleep(delay).await;
                continue;
            }
            let response = outcome?;
            let is_challenge = response.status() == StatusCode::UNAUTHORIZED
                && is_authorized
                && endpoint.owns(response.url());
            if !is_challenge || challenges == MAX_CHALLENGES {
                return Ok(response);
            }
            challenges += 1;
            let used = authorization.as_ref();
            let answer = self
                .authorizer
                .answer(transport, request.purpose, used, response.headers())
                .await?;
            authorization = Some(answer);
        }
    }

    /// As [`Self::send`], with every status but success an error.
    pub(crate) async fn send_checked(
        &self,
        endpoint: &Endpoint,
        request: &Request<'_>,
        retries: Retries,
    ) -> Result<Response, Error> {
        let response = self.send(endpoint, request, retries).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(request.purpose.failure(&request.method, response).await)
    }
}
