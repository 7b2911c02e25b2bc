//! What an op asks for.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use kiln_cache::{CacheKey, Digest, key_of};
use kiln_proto::pb;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use serde::Serialize;
use url::Url;

use super::disposition;
use super::error::HttpError;
use crate::graph::go_json::{self, is_empty};
use crate::ops::source::op_digest;

/// Headers that a client may set; others are left out, as BuildKit does.
const USER_HEADERS: [&str; 2] = ["accept", "user-agent"];
/// The mode of a file where nothing says another.
const DEFAULT_MODE: u32 = 0o600;
/// The name of a file that has none.
const UNNAMED: &str = "download";

/// A file on a web server.
#[derive(Debug, Clone)]
pub(crate) struct HttpSource {
    pub(super) url: Url,
    /// The address as it was written.
    text: String,
    /// The digest that the file must have.
    pub(crate) checksum: Option<Digest>,
    filename: Option<String>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The secret with the value of the header `Authorization`.
    pub(super) auth_secret: Option<String>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// What tells one address, with all that is asked for there, from another.
#[derive(Serialize)]
struct Asked<'a> {
    address: &'a str,
    name: &'a str,
    mode: u32,
    uid: u32,
    gid: u32,
    auth_secret: Option<&'a str>,
    headers: Vec<(&'a str, &'a [u8])>,
}

/// What tells one file from another, as in BuildKit.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    filename: &'a str,
    perm: u32,
    #[serde(rename = "UID")]
    uid: u32,
    #[serde(rename = "GID")]
    gid: u32,
    checksum: String,
    #[serde(rename = "LastModTime", skip_serializing_if = "String::is_empty")]
    last_modified: String,
    #[serde(skip_serializing_if = "is_empty")]
    auth_header_secret: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    header: Vec<Header<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Header<'a> {
    name: &'static str,
    value: Cow<'a, str>,
}

impl<'a> Header<'a> {
    fn of((name, value): &'a (HeaderName, HeaderValue)) -> Self {
        let name = if *name == ACCEPT { "Accept" } else { "User-Agent" };
        Self { name, value: String::from_utf8_lossy(value.as_bytes()) }
    }
}

impl HttpSource {
    pub(crate) fn parse(op: &pb::SourceOp) -> anyhow::Result<Self> {
        let text = op.identifier.clone();
        let url =
            Url::parse(&text).map_err(|source| HttpError::Url { url: text.clone(), source })?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(HttpError::NoHost(text).into());
        }
        let mut parsed = Self {
            url,
            text,
            checksum: None,
            filename: None,
            mode: DEFAULT_MODE,
            uid: 0,
            gid: 0,
            auth_secret: None,
            headers: Vec::new(),
        };
        for (name, value) in &op.attrs {
            parsed.set(name, value)?;
        }
        parsed.headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let invalid = |name: &'static str| HttpError::Attribute {
            url: self.shown(),
            name,
            value: value.to_owned(),
        };
        match name {
            "http.checksum" => self.checksum = Some(checksum(value)?),
            "http.filename" => self.filename = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "http.perm" => {
                let mode = number(value).filter(|&mode| mode <= 0o7777);
                let mode = mode.ok_or_else(|| invalid("http.perm"))?;
                self.mode = if mode == 0 { DEFAULT_MODE } else { mode };
            }
            "http.uid" => self.uid = number(value).ok_or_else(|| invalid("http.uid"))?,
            "http.gid" => self.gid = number(value).ok_or_else(|| invalid("http.gid"))?,
            "http.authheadersecret" => {
                self.auth_secret = Some(value.to_owned()).filter(|v| !v.is_empty());
            }
            // A check that is asked for must not be passed over.
            "http.sig.pubkey" | "http.sig.signature" => {
                let what = format!("verifying the signature of {}", self.shown());
                return Err(HttpError::NotSupported(what).into());
            }
            _ => {
                let header = name.strip_prefix("http.header.").map(str::to_ascii_lowercase);
                if let Some(header) = header.filter(|h| USER_HEADERS.contains(&h.as_str())) {
                    let value = value.parse().map_err(|_| invalid("http.header"))?;
                    self.headers.push((header.parse()?, value));
                }
            }
        }
        Ok(())
    }

    /// The address without its credentials.
    pub(super) fn shown(&self) -> String {
        crate::ops::source::without_credentials(&self.text)
    }

    /// The file's name; a server that has answered may have given it one.
    pub(super) fn file_name(&self, disposition: Option<&str>) -> String {
        if let Some(name) = &self.filename {
            return safe(name);
        }
        if let Some(name) = disposition.and_then(disposition::file_name) {
            return safe(&name);
        }
        let path = percent_encoding::percent_decode_str(self.url.path()).decode_utf8_lossy();
        safe(&path)
    }

    /// What the file is known by before the server is asked.
    pub(super) fn url_key(&self) -> CacheKey {
        let headers = self.headers.iter();
        let asked = Asked {
            address: &self.text,
            name: self.filename.as_deref().unwrap_or_default(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            auth_secret: self.auth_secret.as_deref(),
            headers: headers.map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        };
        // Numbers, strings and bytes: nothing that JSON cannot hold.
        let json = serde_json::to_vec(&asked).unwrap_or_default();
        key_of(&Digest::of([b"http\0".as_slice(), &json].concat()), 0, &[])
    }

    /// The digest of an op that is known by the file's content, and by what its metadata is made of.
    pub(super) fn content_key(
        &self,
        name: &str,
        digest: &Digest,
        last_modified: Option<i64>,
    ) -> anyhow::Result<Digest> {
        let content = Content {
            filename: name,
            perm: if self.mode == DEFAULT_MODE { 0 } else { self.mode },
            uid: self.uid,
            gid: self.gid,
            checksum: digest.to_string(),
            last_modified: last_modified.map(http_date).unwrap_or_default(),
            auth_header_secret: self.auth_secret.as_deref().unwrap_or_default(),
            header: self.headers.iter().map(Header::of).collect(),
        };
        Ok(op_digest(go_json::digest(&content)?))
    }
}

/// A time as servers write it; a number where they could not.
fn http_date(secs: i64) -> String {
    /// The end of the year 9999.
    const END: u64 = 253_402_300_800;
    match u64::try_from(secs) {
        Ok(secs @ ..END) => {
            httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
        }
        _ => secs.to_string(),
    }
}

fn checksum(text: &str) -> anyhow::Result<Digest> {
    match text.split_once(':') {
        Some((algorithm @ ("sha384" | "sha512"), _)) => {
            Err(HttpError::NotSupported(format!("a checksum with {algorithm} ({text})")).into())
        }
        _ => Ok(text.parse()?),
    }
}

/// A number as Go reads one with a prefix that says its base.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix('0') {
        None | Some("") => (text, 10),
        Some(rest) => match rest.split_at_checked(1) {
            Some(("x" | "X", digits)) => (digits, 16),
            Some(("b" | "B", digits)) => (digits, 2),
            Some(("o" | "O", digits)) => (digits, 8),
            _ => (rest, 8),
        },
    };
    u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

/// The last part of a path as the name of a file.
fn safe(path: &str) -> String {
    let name = path.trim().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_usable = !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
    if is_usable { name.to_owned() } else { UNNAMED.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str, attrs: &[(&str, &str)]) -> anyhow::Result<HttpSource> {
        HttpSource::parse(&pb::SourceOp {
            identifier: url.into(),
            attrs: attrs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        })
    }

    #[test]
    fn a_file_is_named_by_the_client_the_server_or_its_address() {
        let cases = [
            ("http://h/a/b.txt?x=y", None, None, "b.txt"),
            ("http://h/a/b.txt", None, Some("attachment; filename=\"c.txt\""), "c.txt"),
            ("http://h/a/b.txt", Some("d"), Some("attachment; filename=c.txt"), "d"),
            ("http://h/a%2Fb%20c", None, None, "b c"),
            ("http://h/a/", None, None, "a"),
            ("http://h", None, None, "download"),
            ("http://h/b", None, Some("attachment; filename=\"../../etc/passwd\""), "passwd"),
            ("http://h/b", None, Some("attachment; filename=\"..\""), "download"),
            ("http://h/b", None, Some("attachment; filename=\"x/\""), "b"),
            ("http://h/b", Some("a/\nb"), None, "download"),
        ];
        for (url, name, disposition, expected) in cases {
            let attrs: Vec<_> = name.iter().map(|name| ("http.filename", *name)).collect();
            let source = source(url, &attrs).unwrap();
            assert_eq!(source.file_name(disposition), expected, "{url} {disposition:?}");
        }
    }

    #[test]
    fn modes_and_owners_are_numbers_in_any_base() {
        let cases =
            [("0644", Some(0o644)), ("420", Some(420)), ("0x1F", Some(31)), ("0o17", Some(15))];
        for (text, expected) in cases {
            assert_eq!(number(text), expected, "{text}");
        }
        for text in ["", "x", "-1", "08", "+1", "0x", "99999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(source("http://h/a", &[("http.perm", "0")]).unwrap().mode, 0o600);
        assert!(source("http://h/a", &[("http.perm", "010000")]).is_err());
    }

    #[test]
    fn a_check_that_cannot_be_made_is_refused() {
        for (name, value) in [("http.sig.pubkey", "x"), ("http.checksum", "sha512:aa")] {
            let error = source("http://u:p@h/a", &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains("not supported") && !error.contains("u:p"), "{error}");
        }
        assert!(source("http://h/a", &[("http.checksum", "sha256:zz")]).is_err());
    }

    #[test]
    fn only_harmless_headers_are_the_clients() {
        let attrs = [("http.header.Accept", "text/plain"), ("http.header.cookie", "x")];
        let source = source("http://h/a", &attrs).unwrap();
        assert_eq!(source.headers.len(), 1);
        assert_eq!(source.headers[0].1, "text/plain");
    }

    #[test]
    fn all_that_makes_another_file_makes_another_key() {
        let digest = Digest::of("content");
        let key = |attrs: &[(&str, &str)], name: &str, time| {
            source("http://h/a", attrs).unwrap().content_key(name, &digest, time).unwrap()
        };
        let plain = key(&[], "a", None);
        assert_eq!(plain, key(&[("http.perm", "0600")], "a", None));
        for other in [
            key(&[("http.perm", "0644")], "a", None),
            key(&[("http.uid", "1")], "a", None),
            key(&[], "b", None),
            key(&[], "a", Some(1)),
        ] {
            assert_ne!(plain, other);
        }
    }
}
