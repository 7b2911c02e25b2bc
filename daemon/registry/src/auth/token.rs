//! Asking token servers for tokens (the distribution project's token and OAuth2 protocols).

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use super::authenticator::{Credentials, Token};
use super::scope::Scopes;
use crate::error::{Error, Malformed, shown};
use crate::retry::Retries;
use crate::transport::{Call, Transport, read_limited};

const CLIENT_ID: &str = "kiln";
/// Tokens are a few kilobytes; servers that send more have something else in mind.
const MAX_ANSWER: u64 = 1024 * 1024;

/// The token server that a registry names in its challenges.
#[derive(Clone)]
pub(super) struct TokenServer {
    pub(super) realm: Url,
    /// The registry's name there; may be empty.
    pub(super) service: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl TokenServer {
    /// A token for `credentials`, or for nobody.
    ///
    /// Identity tokens are exchanged by POST. Passwords are sent with GET, which every server
    /// knows, and by POST to those that answer that they want it.
    pub(super) async fn fetch(
        &self,
        transport: &Transport,
        scopes: &Scopes,
        credentials: Option<&Credentials>,
    ) -> Result<Token, Error> {
        match credentials {
            None => self.get(transport, scopes, None).await,
            Some(identity) if identity.username.is_empty() => {
                self.post(transport, scopes, identity).await
            }
            Some(user) => match self.get(transport, scopes, Some(user)).await {
                Err(Error::Http { status, .. })
                    if [
                        StatusCode::UNAUTHORIZED,
                        StatusCode::NOT_FOUND,
                        StatusCode::METHOD_NOT_ALLOWED,
                    ]
                    .contains(&status) =>
                {
                    self.post(transport, scopes, user).await
                }
                outcome => outcome,
            },
        }
    }

    async fn get(
        &self,
        transport: &Transport,
        scopes: &Scopes,
        user: Option<&Credentials>,
    ) -> Result<Token, Error> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if !self.service.is_empty() {
                query.append_pair("service", &self.service);
            }
            for scope in scopes.to_list() {
                query.append_pair("scope", &scope);
            }
        }
        let authorization = user.and_then(basic);
        let headers = HeaderMap::new();
        self.ask(transport, || Call {
            method: &Method::GET,
            url: url.clone(),
            headers: &headers,
            authorization: authorization.as_ref(),
            body: None,
        })
        .await
    }

    async fn post(
        &self,
        transport: &Transport,
        scopes: &Scopes,
        with: &Credentials,
    ) -> Result<Token, Error> {
        let body = Bytes::from(self.form(scopes, with));
        let mut headers = HeaderMap::new();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form_type);
        self.ask(transport, || Call {
            method: &Method::POST,
            url: self.realm.clone(),
            headers: &headers,
            authorization: None,
            body: Some(&body),
        })
        .await
    }

    /// The OAuth2 form that `with` is exchanged by.
    fn form(&self, scopes: &Scopes, with: &Credentials) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("service", &self.service).append_pair("client_id", CLIENT_ID);
        let scopes = scopes.to_string();
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes);
        }
        if with.username.is_empty() {
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("refresh_token", &with.secret);
        } else {
            form.append_pair("grant_type", "password");
            form.append_pair("username", &with.username);
            form.append_pair("password", &with.secret);
        }
        form.finish()
    }

    async fn ask<'c>(
        &self,
        transport: &Transport,
        call: impl Fn() -> Call<'c>,
    ) -> Result<Token, Error> {
        let mut retries = Retries::transient();
        let response = loop {
            let outcome = transport.exchange(call()).await;
            match retries.delay(&outcome) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => break outcome?,
            }
        };
        let status = response.status();
        let body = read_limited(response, MAX_ANSWER).await?;
        if !status.is_success() {
            return Err(Error::Http {
                method: call().method.clone(),
                url: shown(&self.realm),
                status,
                errors: crate::RegistryErrors::parse(&body),
            });
        }
        parse(&body)
            .ok_or_else(|| Error::Malformed { url: shown(&self.realm), problem: Malformed::Token })
    }
}

fn parse(body: &[u8]) -> Option<Token> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let value = if answer.access_token.is_empty() { answer.token } else { answer.access_token };
    let expires_in =
        answer.expires_in.as_u64().filter(|&seconds| seconds > 0).map(Duration::from_secs);
    (!value.is_empty()).then_some(Token { value, expires_in })
}

/// The header for user and password; `None` if they cannot stand in one.
pub(super) fn basic(user: &Credentials) -> Option<HeaderValue> {
    let pair = BASE64_STANDARD.encode(format!("{}:{}", user.username, user.secret));
    sensitive(&format!("Basic {pair}"))
}

/// The header for a token; `None` if it cannot stand in one.
pub(super) fn bearer(token: &Token) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.value))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_token_under_either_name_and_perhaps_a_lifetime() {
        let rows = [
            (r#"{"token":"a"}"#, Some(("a", None))),
            (r#"{"access_token":"b","expires_in":300}"#, Some(("b", Some(300)))),
            (r#"{"token":"a","access_token":"b"}"#, Some(("b", None))),
            (r#"{"token":"a","expires_in":0}"#, Some(("a", None))),
            (r#"{"token":"a","expires_in":-5}"#, Some(("a", None))),
            (r#"{"token":"a","expires_in":"soon"}"#, Some(("a", None))),
            (r#"{"token":""}"#, None),
            ("{}", None),
            ("<html>", None),
        ];
        for (body, expected) in rows {
            let token = parse(body.as_bytes());
            let read = token.as_ref().map(|token| {
                (token.value.as_str(), token.expires_in.map(|lifetime| lifetime.as_secs()))
            });
            assert_eq!(read, expected, "{body}");
        }
    }

    #[test]
    fn tokens_that_would_break_a_header_are_refused() {
        assert!(bearer(&Token { value: "a\r\nX: y".to_owned(), expires_in: None }).is_none());
    }
}
