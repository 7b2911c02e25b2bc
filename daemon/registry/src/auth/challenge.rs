//! `WWW-Authenticate` (RFC 9110, section 11.6.1), read as hostile input.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use super::scope::Scopes;
use crate::registry_error::printable;

/// Longer headers are not looked at.
const MAX_HEADER: usize = 8 * 1024;

/// A way in which a registry wants requests authorized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token of the token server at `realm`.
    Bearer {
        /// The token server's address.
        realm: String,
        /// The registry's name there; may be empty.
        service: String,
        /// What the token must be good for.
        scopes: Scopes,
        /// Why the token that was sent is not enough; empty if none was sent.
        error: String,
    },
    /// User and password.
    Basic,
}

/// The challenges in `headers` that can be answered, those with tokens first.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter(|value| value.len() <= MAX_HEADER)
        .flat_map(|value| parse(&String::from_utf8_lossy(value.as_bytes())))
        .collect();
    found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    found
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut input = Input(header);
    while input.skip_separators() {
        let word = input.token();
        if word.is_empty() {
            input.skip_byte();
            continue;
        }
        match (input.value(), schemes.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            // A parameter before any scheme belongs to nothing.
            (Some(_), None) => {}
            (None, _) => schemes.push((word.to_ascii_lowercase(), Vec::new())),
        }
    }
    schemes.iter().filter_map(|(scheme, parameters)| challenge(scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let parameter = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm"),
            service: parameter("service"),
            scopes: Scopes::parse(&parameter("scope")),
            error: printable(&parameter("error")),
        }),
        _ => None,
    }
}

/// What is left to read.
struct Input<'a>(&'a str);

impl<'a> Input<'a> {
    /// Skips white space and commas; whether anything is left.
    fn skip_separators(&mut self) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
        !self.0.is_empty()
    }

    fn skip_byte(&mut self) {
        let mut rest = self.0.chars();
        rest.next();
        self.0 = rest.as_str();
    }

    /// A token, empty if none is next.
    fn token(&mut self) -> &'a str {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// `=` and a token or quoted text; `None`, with nothing read, if no `=` is next.
    fn value(&mut self) -> Option<String> {
        let rest = self.0.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        self.0 = rest.trim_start_matches([' ', '\t']);
        match self.0.strip_prefix('"') {
            Some(quoted) => Some(self.quoted(quoted)),
            None => Some(self.token().to_owned()),
        }
    }

    /// Text up to the closing quote, or to the end where there is none.
    fn quoted(&mut self, text: &'a str) -> String {
        let mut value = String::new();
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match c {
                '"' => break,
                '\\' => value.extend(characters.next()),
                c => value.push(c),
            }
        }
        self.0 = characters.as_str();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str, error: &str) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.to_owned(),
            scopes: Scopes::parse(scope),
            error: error.to_owned(),
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull",error="insufficient_scope""#;
        let rows = [
            (
                hub,
                vec![bearer(
                    "https://auth.docker.io/token",
                    "registry.docker.io",
                    "repository:library/x:pull",
                    "insufficient_scope",
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            ("BEARER realm=https://t/x", vec![bearer("https://t/x", "", "", "")]),
            (
                r#"Basic realm="a", Bearer realm="b" , service = "c""#,
                vec![Challenge::Basic, bearer("b", "c", "", "")],
            ),
            (r#"Bearer realm="a\"b\\c""#, vec![bearer("a\"b\\c", "", "", "")]),
            ("Negotiate abc==, Basic", vec![Challenge::Basic]),
            ("Digest realm=x", vec![]),
        ];
        for (header, expected) in rows {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn broken_headers_end_and_yield_what_was_understood() {
        let rows = [
            ("", vec![]),
            (",,, ,", vec![]),
            ("=", vec![]),
            ("\"\"", vec![]),
            ("realm=x", vec![]),
            (r#"Bearer realm="x"#, vec![bearer("x", "", "", "")]),
            ("Bearer realm=\"x\\", vec![bearer("x", "", "", "")]),
            ("Bearer realm=", vec![bearer("", "", "", "")]),
            ("Bearer ((realm=x", vec![bearer("x", "", "", "")]),
            ("Bearer\u{fffd}é realm=x", vec![bearer("x", "", "", "")]),
            ("Bearer realm=x,realm=y", vec![bearer("x", "", "", "")]),
        ];
        for (header, expected) in rows {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn tokens_are_preferred_and_giant_headers_ignored() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=x".parse().unwrap());
        let giant = format!("Bearer realm={}", "y".repeat(MAX_HEADER));
        headers.append(WWW_AUTHENTICATE, giant.parse().unwrap());
        assert_eq!(challenges(&headers), [bearer("x", "", "", ""), Challenge::Basic]);
    }

    proptest::proptest! {
        #[test]
        fn any_header_ends(header in "\\PC*|[a-zA-Z=\", \\\\]*") {
            parse(&header);
        }

        #[test]
        fn quoted_values_are_read_as_they_were_meant(realm in "\\PC*") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{quoted}\",service=x");
            proptest::prop_assert_eq!(parse(&header), [bearer(&realm, "x", "", "")]);
        }
    }
}
