//! Azure Blob Storage: containers of one account, requests with a shared key or a token, and those who
//! hand out tokens; and what its blobs are like, for GitHub's cache has its entries there.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::request::{Answer, Request, hmac};
use super::{ACCESS_KEY, Object, SECRET_KEY, State};

/// The account's key as users have it.
pub(super) fn secret() -> String {
    STANDARD.encode(SECRET_KEY)
}

/// What a token is handed out for: an application's secret, or a statement of who runs a workload.
pub const CLIENT_SECRET: &str = "client secret";
/// The statement.
pub const FEDERATED_TOKEN: &str = "a.federated.token";
/// Where a machine is given a token.
pub(super) const METADATA: &str = "/metadata/identity/oauth2/token";
/// Where an application of a tenant is.
pub(super) const TENANT: &str = "/tenant/oauth2/v2.0/token";
/// A token for the account.
const TOKEN: &str = "a.bearer.token";

/// Hands out tokens to machines and applications that may use the account.
pub(super) fn answer_identity(request: &Request) -> Answer {
    let form = request.form();
    let is = |name, value: &str| form.get(name).is_some_and(|it| it == value);
    let is_allowed = if request.path == METADATA {
        request.header("metadata") == "true"
            && request.query("resource") == "https://storage.azure.com/"
    } else {
        is("grant_type", "client_credentials")
            && is("client_id", "client")
            && is("scope", "https://storage.azure.com/.default")
            && (is("client_secret", CLIENT_SECRET) || is("client_assertion", FEDERATED_TOKEN))
    };
    if !is_allowed {
        return Answer::new(401);
    }
    let expires_on = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    Answer::new(200).body(
        json!({
            "access_token": TOKEN,
            "token_type": "Bearer",
            "expires_in": 3600,
            "expires_on": (expires_on + 3600).to_string(),
        })
        .to_string(),
    )
}

pub(super) fn answer(state: &mut State, request: &Request) -> Answer {
    if !is_signed(request) {
        return refused(403, "AuthenticationFailed");
    }
    let container = request.path.split('/').nth(2).unwrap_or_default().to_owned();
    let marker = format!("/{ACCESS_KEY}/{container}");
    let exists = state.objects.contains_key(&marker);
    if request.query("restype") == "container" {
        return match (request.method.as_str(), exists) {
            ("PUT", true) => refused(409, "ContainerAlreadyExists"),
            ("PUT", false) => {
                state.objects.insert(marker, Object::new(Vec::new()));
                Answer::new(201)
            }
            (_, true) => Answer::new(200),
            (_, false) => refused(404, "ContainerNotFound"),
        };
    }
    if !exists {
        return refused(404, "ContainerNotFound");
    }
    let path = request.path.clone();
    match request.method.as_str() {
        "GET" | "HEAD" => match state.objects.get(&path) {
            Some(object) => request.part_of(&object.bytes),
            None => refused(404, "BlobNotFound"),
        },
        "PUT" => {
            if request.header("if-none-match") == "*" && state.objects.contains_key(&path) {
                return refused(409, "BlobAlreadyExists");
            }
            match put(state, request) {
                Ok(Some(bytes)) => {
                    state.objects.insert(path, Object::new(bytes));
                    Answer::new(201)
                }
                Ok(None) => Answer::new(201),
                Err(answer) => answer,
            }
        }
        _ => refused(405, "UnsupportedHttpVerb"),
    }
}

/// Azure has the code in a header, too, for answers without a body.
fn refused(status: u16, code: &str) -> Answer {
    Answer::error(status, code).header("x-ms-error-code", code)
}

/// A blob as a whole or in blocks; its bytes when it is complete.
pub(super) fn put(state: &mut State, request: &Request) -> Result<Option<Vec<u8>>, Answer> {
    let key = |id: &str| (request.path.clone(), id.to_owned());
    match request.query("comp") {
        "block" => {
            state.parts.insert(key(request.query("blockid")), request.body.clone());
            Ok(None)
        }
        "blocklist" => {
            let list = String::from_utf8_lossy(&request.body).into_owned();
            let ids = list.split("<Latest>").skip(1).filter_map(|rest| rest.split('<').next());
            let blocks = ids.map(|id| state.parts.get(&key(id)).cloned());
            let blocks: Option<Vec<_>> = blocks.collect();
            blocks.map(|blocks| Some(blocks.concat())).ok_or(refused(400, "InvalidBlockList"))
        }
        _ if request.header("x-ms-blob-type") == "BlockBlob" => Ok(Some(request.body.clone())),
        _ => Err(refused(400, "InvalidHeaderValue")),
    }
}

/// "Authorize with Shared Key" and "with Microsoft Entra ID" in the service's reference.
fn is_signed(request: &Request) -> bool {
    let length = Some(request.header("content-length")).filter(|&length| length != "0");
    let mut text = format!("{}\n\n\n{}\n", request.method, length.unwrap_or_default());
    for name in [
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        text += &format!("{}\n", request.header(name));
    }
    for (name, value) in request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")) {
        text += &format!("{name}:{value}\n");
    }
    text += &format!("/{ACCESS_KEY}{}", request.path);
    for (name, value) in &request.query {
        text += &format!("\n{name}:{value}");
    }
    let signature = STANDARD.encode(hmac(SECRET_KEY.as_bytes(), &text));
    let is_dated = !request.header("x-ms-date").is_empty();
    let is_versioned = !request.header("x-ms-version").is_empty();
    let expected = format!("SharedKey {ACCESS_KEY}:{signature}");
    let authorization = request.header("authorization");
    is_dated
        && is_versioned
        && (authorization == expected || authorization == format!("Bearer {TOKEN}"))
}
