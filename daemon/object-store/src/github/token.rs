//! What a job's token says about itself. The service checks it; here it is only read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;
use serde::Deserialize;

use super::is_header;
use crate::error::Error;

/// In a scope's permissions: may be written to.
const WRITE: u32 = 2;
/// More scopes than any token has.
const MAX_SCOPES: usize = 64;

/// The branches whose caches a job may use.
pub(super) struct Token {
    scopes: Vec<Scope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scope {
    scope: String,
    permission: u32,
}

#[derive(Deserialize)]
struct Claims {
    /// A list of scopes, as JSON in a string.
    ac: String,
    exp: f64,
    nbf: f64,
}

impl Token {
    pub(super) fn parse(text: &str, now: SystemTime) -> Result<Self, Error> {
        // Why it is not valid would show a part of it.
        let invalid = |what: &str| Error::Credentials(format!("the token {what}"));
        let not_jwt = || invalid("is not that of a job of GitHub Actions");
        if !is_header(text) {
            return Err(not_jwt());
        }
        let padded =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, padded);
        let claims = text.split('.').nth(1).ok_or_else(not_jwt)?;
        let claims = engine.decode(claims).map_err(|_| not_jwt())?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| not_jwt())?;
        let scopes: Vec<Scope> = serde_json::from_str(&claims.ac).map_err(|_| not_jwt())?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        if claims.exp < now {
            return Err(invalid("has expired"));
        }
        if claims.nbf > now {
            return Err(invalid("is not valid yet"));
        }
        if scopes.len() > MAX_SCOPES {
            return Err(invalid("has too many scopes"));
        }
        Ok(Self { scopes })
    }

    /// All of them; what may be written may be read.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(|scope| scope.scope.as_str())
    }

    /// The one that is written to.
    pub(super) fn written_scope(&self) -> &str {
        let mut writable = self.scopes.iter().filter(|scope| scope.permission & WRITE != 0);
        writable.next_back().map_or("", |scope| scope.scope.as_str())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    pub(crate) fn token(scopes: &[(&str, u32)], nbf: u32, exp: u32) -> String {
        let scope = |(scope, permission): &(&str, u32)| serde_json::json!({ "Scope": scope, "Permission": permission });
        let scopes: Vec<_> = scopes.iter().map(scope).collect();
        let ac = serde_json::to_string(&scopes).unwrap();
        let claims = serde_json::json!({ "ac": ac, "exp": exp, "nbf": nbf });
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn a_token_names_scopes_and_ends() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let scopes = [("refs/heads/main", 1), ("refs/heads/topic", 3)];
        let read = Token::parse(&token(&scopes, 900, 1100), now).unwrap();
        assert_eq!(read.scopes().collect::<Vec<_>>(), ["refs/heads/main", "refs/heads/topic"]);
        assert_eq!(read.written_scope(), "refs/heads/topic");
        for (bad, says) in [
            (token(&scopes, 900, 999), "expired"),
            (token(&scopes, 1001, 1100), "not valid yet"),
            ("ghp_abc".to_owned(), "not that of a job"),
            ("a.b.c\n".to_owned(), "not that of a job"),
            ("a.e30.c".to_owned(), "not that of a job"),
        ] {
            let error = Token::parse(&bad, now).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains(&bad), "{error}");
        }
    }
}
