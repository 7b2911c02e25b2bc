//! One request and its answer.

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use reqwest::Response;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::Url;

use crate::error::{Answer, Error, shown};
use crate::http_client::HttpClient;
use crate::patience::Patience;

/// How long an answer, or its next piece, is waited for.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The slowest line on which something is sent, in bytes a second.
const SLOWEST: u64 = 32 << 10;
/// How much of a file is read at once.
const CHUNK: usize = 128 << 10;
/// An answer that is not a blob or an index is no longer than this.
pub(crate) const MAX_ANSWER: u64 = 1 << 20;
/// As much of a refusal's explanation is shown.
const MAX_MESSAGE: usize = 500;

/// Puts the proof of who is asking into a request.
pub(crate) trait Sign: Send + Sync {
    fn sign<'a>(&'a self, parts: &'a mut Parts) -> BoxFuture<'a, Result<(), Error>>;
}

/// For addresses that are a proof themselves, and requests with a token in a header.
pub(crate) struct Unsigned;

impl Sign for Unsigned {
    fn sign<'a>(&'a self, _: &'a mut Parts) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What a request sends.
pub(crate) enum Payload<'a> {
    Nothing,
    Bytes(Bytes),
    Piece(Piece<'a>),
}

/// Some bytes of a file.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl<'a> Piece<'a> {
    /// A file of `size` bytes in pieces of `length`; at least one.
    pub(crate) fn all(path: &'a Path, size: u64, length: u64) -> impl Iterator<Item = Self> {
        (0..size.div_ceil(length).max(1)).map(move |nth| {
            let offset = nth * length;
            Self { path, offset, length: length.min(size - offset) }
        })
    }
}

impl Payload<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Piece(piece) => piece.length,
        }
    }

    async fn open(&self) -> Result<reqwest::Body, Error> {
        Ok(match self {
            Self::Nothing => reqwest::Body::from(""),
            Self::Bytes(bytes) => bytes.clone().into(),
            Self::Piece(piece) => {
                let mut file = tokio::fs::File::open(piece.path).await?;
                file.seek(SeekFrom::Start(piece.offset)).await?;
                let reader = file.take(piece.length);
                reqwest::Body::wrap_stream(ReaderStream::with_capacity(reader, CHUNK))
            }
        })
    }
}

/// One request.
pub(crate) struct Request<'a> {
    method: Method,
    url: Url,
    headers: HeaderMap,
    payload: Payload<'a>,
    patience: Patience,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        let (headers, payload) = (HeaderMap::new(), Payload::Nothing);
        Self { method, url, headers, payload, patience: Patience::USUAL }
    }

    /// With a header; one whose value no header can have is refused by name.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(value).map_err(|_| Error::Setting {
            setting: name,
            problem: "it has characters that no header can have".to_owned(),
        })?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    pub(crate) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    pub(crate) fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it, more than once if need be. `Ok` with a status of success only.
    pub(crate) async fn send(&self, http: &HttpClient, sign: &dyn Sign) -> Result<Response, Error> {
        let mut retries = self.patience.begin();
        loop {
            let outcome = self.attempt(http, sign).await;
            if let Some(delay) = retries.delay(&outcome) {
                tracing::debug!(url = shown(&self.url), ?delay, "request is sent again");
                tokio::time::sleep(delay).await;
                continue;
            }
            let response = outcome?;
            if response.status().is_success() {
                return Ok(response);
            }
            return Err(self.refusal(response).await);
        }
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn text(&self, http: &HttpClient, sign: &dyn Sign) -> Result<String, Error> {
        let response = self.send(http, sign).await?;
        let body = read_limited(response, &self.url, MAX_ANSWER).await?;
        String::from_utf8(body.into()).map_err(|_| Error::malformed(&self.url, "it is not text"))
    }

    /// Sends it and reads the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, http: &HttpClient) -> Result<T, Error> {
        let text = self.text(http, &Unsigned).await?;
        serde_json::from_str(&text).map_err(|error| Error::malformed(&self.url, error))
    }

    async fn attempt(&self, http: &HttpClient, sign: &dyn Sign) -> Result<Response, Error> {
        let builder = http::Request::builder().method(&self.method).uri(self.url.as_str());
        let request = builder.body(()).map_err(|error| Error::malformed(&self.url, error))?;
        let mut parts = request.into_parts().0;
        parts.headers = self.headers.clone();
        let length = self.payload.length();
        if matches!(self.method, Method::PUT | Method::POST | Method::PATCH) {
            parts.headers.insert(CONTENT_LENGTH, length.into());
        }
        sign.sign(&mut parts).await?;
        // Not signed, for there are servers that change it on the way. Blobs have their digest as
        // they are stored, not as a server may recode them.
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let request = http::Request::from_parts(parts, self.payload.open().await?);
        let failed = |source: reqwest::Error| Error::Transport {
            method: self.method.clone(),
            url: shown(&self.url),
            source: source.without_url(),
        };
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        tracing::debug!(method = %self.method, url = shown(&self.url), "request");
        let after = IDLE_TIMEOUT + Duration::from_secs(length / SLOWEST);
        let sent = http.for_url(&self.url)?.execute(request);
        let response = tokio::time::timeout(after, sent).await.map_err(|_| Error::Timeout {
            method: self.method.clone(),
            url: shown(&self.url),
            after,
        })?;
        let response = response.map_err(failed)?;
        tracing::debug!(status = response.status().as_u16(), url = shown(&self.url), "response");
        Ok(response)
    }

    async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let in_headers = header("x-ms-error-code");
        let region = header("x-amz-bucket-region");
        let body = read_limited(response, &self.url, MAX_ANSWER).await.unwrap_or_default();
        let mut answer = explain(status, &body);
        if answer.code.is_empty() {
            answer.code = in_headers;
        }
        if status.is_redirection() && !region.is_empty() {
            answer.message = format!("the bucket is in the region {region}");
        }
        Error::Refused { method: self.method.clone(), url: shown(&self.url), answer }
    }
}

/// What a refusal says, in any of the forms of these services.
fn explain(status: StatusCode, body: &[u8]) -> Answer {
    #[derive(serde::Deserialize, Default)]
    struct Xml {
        #[serde(rename = "Code", default)]
        code: String,
        #[serde(rename = "Message", default)]
        message: String,
    }
    #[derive(serde::Deserialize, Default)]
    struct Json {
        #[serde(alias = "typeKey", default)]
        code: String,
        #[serde(alias = "msg", default)]
        message: String,
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let (code, message) = if text.starts_with('<') {
        let xml: Xml = quick_xml::de::from_str(text).unwrap_or_default();
        (xml.code, xml.message)
    } else if let Ok(json) = serde_json::from_str::<Json>(text) {
        (json.code, json.message)
    } else {
        (String::new(), text.to_owned())
    };
    let one_line = |text: String| {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        words.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
    };
    Answer { status, code: one_line(code), message: one_line(message) }
}

/// The next piece of a body.
pub(crate) async fn chunk(response: &mut Response, url: &Url) -> Result<Option<Bytes>, Error> {
    let chunk = tokio::time::timeout(IDLE_TIMEOUT, response.chunk()).await;
    let timeout = |_| Error::Timeout { method: Method::GET, url: shown(url), after: IDLE_TIMEOUT };
    chunk.map_err(timeout)?.map_err(|source| Error::Transport {
        method: Method::GET,
        url: shown(url),
        source: source.without_url(),
    })
}

/// The whole body of `response`, if it is no longer than `limit`.
pub(crate) async fn read_limited(
    mut response: Response,
    url: &Url,
    limit: u64,
) -> Result<Bytes, Error> {
    let too_large = || Error::TooLarge { url: shown(url), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = chunk(&mut response, url).await? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_in_the_forms_of_all_services() {
        let code = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>gone\n away</Message></Error>";
        for (body, shown) in [
            (code, "403 Forbidden: NoSuchKey: gone away"),
            (
                r#"{"code": "already_exists", "msg": "it is"}"#,
                "403 Forbidden: already_exists: it is",
            ),
            ("\u{feff}{\"typeKey\": \"Key\", \"message\": \"m\"}", "403 Forbidden: Key: m"),
            ("plain", "403 Forbidden: plain"),
            ("<html>", "403 Forbidden"),
            ("", "403 Forbidden"),
        ] {
            assert_eq!(
                explain(StatusCode::FORBIDDEN, body.as_bytes()).to_string(),
                shown,
                "{body}"
            );
        }
    }

    #[test]
    fn a_file_is_sent_in_pieces_that_cover_it() {
        for (size, expected) in
            [(0, vec![(0, 0)]), (4, vec![(0, 4)]), (9, vec![(0, 4), (4, 4), (8, 1)])]
        {
            let pieces = Piece::all(Path::new("f"), size, 4);
            let pieces: Vec<_> = pieces.map(|piece| (piece.offset, piece.length)).collect();
            assert_eq!(pieces, expected, "{size}");
        }
    }
}
