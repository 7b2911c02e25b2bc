//! The cache of GitHub Actions: entries of a branch, reserved, filled and committed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::request::{Answer, Request};
use super::{SECRET_KEY, State, azure};

pub(super) struct Entry {
    pub(super) key: String,
    version: String,
    pub(super) bytes: Vec<u8>,
    is_committed: bool,
}

/// The token of a job on a branch, which may read the main one.
pub(super) fn token() -> String {
    let scopes = json!([
        { "Scope": "refs/heads/main", "Permission": 1 },
        { "Scope": "refs/heads/topic", "Permission": 3 },
    ]);
    let claims = json!({ "ac": scopes.to_string(), "nbf": 0, "exp": 32_503_680_000_u64 });
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    format!("{header}.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

pub(super) fn answer(state: &mut State, request: &Request, address: &str) -> Answer {
    if request.header("authorization") != format!("Bearer {}", token()) {
        return Answer::new(401).body(r#"{"code": "unauthenticated", "msg": "bad token"}"#);
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let json = |value: Value| Answer::new(200).body(value.to_string());
    let signed = |at: usize, right: char| format!("http://{address}{}", path(at, right));
    let call = request.path.rsplit('/').next().unwrap_or_default();
    match (request.method.as_str(), call) {
        ("POST", "CreateCacheEntry") => match reserve(state, &text("key"), &text("version")) {
            Some(at) => json(json!({ "ok": true, "signed_upload_url": signed(at, 'w') })),
            None => Answer::new(409)
                .body(r#"{"code": "already_exists", "msg": "cache entry with the same key"}"#),
        },
        ("POST", "FinalizeCacheEntryUpload") => {
            let found = state.entries.iter().position(|entry| entry.key == text("key"));
            let size = asked["size_bytes"].as_u64();
            let at = found.filter(|&at| commit(state, at, size));
            json(json!({ "ok": at.is_some(), "entry_id": "1" }))
        }
        ("POST", "GetCacheEntryDownloadURL") => match find(state, &text("key"), &text("version")) {
            Some(at) => {
                let key = &state.entries[at].key;
                let url = signed(at, 'r');
                json(json!({ "ok": true, "signed_download_url": url, "matched_key": key }))
            }
            None => json(json!({ "ok": false })),
        },
        ("GET", "cache") => match find(state, request.query("keys"), request.query("version")) {
            Some(at) => {
                let (key, url) = (&state.entries[at].key, signed(at, 'r'));
                json(json!({ "cacheKey": key, "archiveLocation": url }))
            }
            None => Answer::new(204),
        },
        ("POST", "caches") => match reserve(state, &text("key"), &text("version")) {
            Some(at) => json(json!({ "cacheId": at + 1 })),
            None => Answer::new(409).body(
                r#"{"typeKey": "ArtifactCacheItemAlreadyExistsException", "message": "exists"}"#,
            ),
        },
        ("PATCH", id) => {
            let range = request.header("content-range").strip_prefix("bytes ");
            let start = range.and_then(|range| range.split('-').next()?.parse().ok());
            let entry = id.parse().ok().and_then(|id: usize| state.entries.get_mut(id - 1));
            let (Some(start), Some(entry)) = (start, entry) else { return Answer::new(400) };
            let end: usize = start + request.body.len();
            entry.bytes.resize(entry.bytes.len().max(end), 0);
            entry.bytes[start..end].copy_from_slice(&request.body);
            Answer::new(204)
        }
        ("POST", id) => {
            let at = id.parse::<usize>().ok().map(|id| id - 1);
            let done = at.is_some_and(|at| commit(state, at, asked["size"].as_u64()));
            Answer::new(if done { 204 } else { 400 })
        }
        _ => Answer::new(404),
    }
}

/// An entry's content, at an address that is its own permission.
pub(super) fn answer_entry(state: &mut State, request: &Request) -> Answer {
    let mut entries = 0..state.entries.len();
    let is_at = |at: &usize, right| {
        let (path, signature) = path(*at, right).split_once('?').map_or_else(
            || (String::new(), String::new()),
            |(path, query)| (path.to_owned(), query.to_owned()),
        );
        path == request.path && signature == format!("sig={}", request.query("sig"))
    };
    let right = if request.method == "GET" { 'r' } else { 'w' };
    let Some(at) = entries.find(|at| is_at(at, right)) else {
        return Answer::error(403, "AuthenticationFailed");
    };
    if request.method == "GET" {
        return request.part_of(&state.entries[at].bytes);
    }
    match azure::put(state, request) {
        Ok(bytes) => {
            if let Some(bytes) = bytes {
                state.entries[at].bytes = bytes;
            }
            Answer::new(201)
        }
        Err(answer) => answer,
    }
}

fn path(at: usize, right: char) -> String {
    let signature = super::request::sha256(format!("{SECRET_KEY}{at}{right}").as_bytes());
    format!("/entries/{at}?sig={signature}")
}

fn reserve(state: &mut State, key: &str, version: &str) -> Option<usize> {
    if key.is_empty() || version.is_empty() || state.entries.iter().any(|entry| entry.key == key) {
        return None;
    }
    let (key, version) = (key.to_owned(), version.to_owned());
    state.entries.push(Entry { key, version, bytes: Vec::new(), is_committed: false });
    Some(state.entries.len() - 1)
}

fn commit(state: &mut State, at: usize, size: Option<u64>) -> bool {
    let Some(entry) = state.entries.get_mut(at) else { return false };
    entry.is_committed |= size == Some(entry.bytes.len() as u64);
    entry.is_committed
}

/// The entry of that name, else the newest whose name begins so.
fn find(state: &State, key: &str, version: &str) -> Option<usize> {
    let is_there = |entry: &Entry| entry.is_committed && entry.version == version;
    let exact = state.entries.iter().position(|entry| is_there(entry) && entry.key == key);
    let begins = |entry: &Entry| is_there(entry) && entry.key.starts_with(key);
    exact.or_else(|| state.entries.iter().rposition(begins))
}
