//! Asking for a file.

use reqwest::header::{AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderValue};
use reqwest::header::{IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Method, Response, StatusCode};

use super::HttpSource;
use super::error::HttpError;
use crate::solver::Build;

/// Asks for the file itself. With `etag`, the answer may be that it has not changed from that.
///
/// # Errors
/// If the server cannot be reached, or says anything but success.
pub(super) async fn get(
    build: &Build,
    source: &HttpSource,
    etag: Option<&str>,
) -> anyhow::Result<Response> {
    let response = send(build, source, Method::GET, etag).await?;
    let status = response.status();
    let is_unchanged = status == StatusCode::NOT_MODIFIED && etag.is_some();
    if !status.is_success() && !is_unchanged {
        let url = source.shown();
        return Err(match status {
            StatusCode::NOT_MODIFIED => HttpError::NotModified { url },
            status => HttpError::Status { url, status },
        }
        .into());
    }
    Ok(response)
}

/// Asks for what the server says of the file, without the file. Some servers answer this right and
/// do not look at the `ETag` that a request for the file names.
pub(super) async fn head(
    build: &Build,
    source: &HttpSource,
    etag: &str,
) -> anyhow::Result<Response> {
    send(build, source, Method::HEAD, Some(etag)).await
}

async fn send(
    build: &Build,
    source: &HttpSource,
    method: Method,
    etag: Option<&str>,
) -> anyhow::Result<Response> {
    let client = build.daemon.http.for_url(&source.url)?;
    let mut request = client.request(method, source.url.clone());
    for (name, value) in &source.headers {
        request = request.header(name, value);
    }
    if let Some(value) = authorization(build, source).await? {
        request = request.header(AUTHORIZATION, value);
    }
    if let Some(etag) = etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let sent = request.send().await.map_err(reqwest::Error::without_url);
    Ok(sent
        .map_err(|source_error| HttpError::Request { url: source.shown(), source: source_error })?)
}

/// What the client's secrets say for this host.
async fn authorization(build: &Build, source: &HttpSource) -> anyhow::Result<Option<HeaderValue>> {
    let host = source.url.host_str().unwrap_or_default();
    let found = if let Some(secret) = &source.auth_secret {
        build.secret(secret, false).await?
    } else if let Some(token) = build.secret(&format!("HTTP_AUTH_TOKEN_{host}"), true).await? {
        Some([b"Bearer ", token.trim_ascii()].concat())
    } else {
        build.secret(&format!("HTTP_AUTH_HEADER_{host}"), true).await?
    };
    let Some(value) = found else { return Ok(None) };
    let mut value = HeaderValue::from_bytes(value.trim_ascii())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// What a server says of a file, besides the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// Tells versions of the file apart.
    pub(super) etag: Option<String>,
    /// In seconds.
    pub(super) last_modified: Option<i64>,
    pub(super) disposition: Option<String>,
}

impl Said {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
            value.map(str::to_owned).filter(|value| !value.is_empty())
        };
        Self {
            etag: text(ETAG).map(|etag| strong(&etag).to_owned()),
            last_modified: text(LAST_MODIFIED).and_then(|date| seconds(&date)),
            disposition: text(CONTENT_DISPOSITION),
        }
    }
}

/// Whether a version is only said to be as good as another does not matter here.
fn strong(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// A date in any of the forms that HTTP knows, in seconds.
fn seconds(date: &str) -> Option<i64> {
    // The zone is always this one; not all servers call it by the name that the standard wants.
    let date =
        date.trim().strip_suffix("UTC").map_or_else(|| date.to_owned(), |d| d.to_owned() + "GMT");
    let time = httpdate::parse_http_date(&date).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_all_forms() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 UTC",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(seconds(date), Some(784_111_777), "{date}");
        }
        assert_eq!(seconds("yesterday"), None);
    }

    #[test]
    fn weak_versions_are_versions() {
        assert_eq!(strong("W/\"a\""), "\"a\"");
        assert_eq!(strong("\"a\""), "\"a\"");
    }
}
