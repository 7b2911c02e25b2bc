//! The error bodies of registries, read as foreign text.

use std::fmt;

use serde::Deserialize;

/// How many of a response's errors are kept.
const MAX_ERRORS: usize = 4;
/// How much of one code or message is kept, in characters.
const MAX_TEXT: usize = 400;

/// One error as the registry words it; printable and of bounded length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryError {
    /// The code, such as `MANIFEST_UNKNOWN`; may be empty.
    pub code: String,
    /// The message; may be empty.
    pub message: String,
}

/// The errors that came with one response; often none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryErrors(Vec<RegistryError>);

impl RegistryErrors {
    /// Reads a response's body; one that is not in the protocol's form yields no errors.
    pub(crate) fn parse(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            code: serde_json::Value,
            #[serde(default)]
            message: serde_json::Value,
        }
        let Ok(body) = serde_json::from_slice::<Body>(body) else { return Self::default() };
        let text = |value: &serde_json::Value| printable(value.as_str().unwrap_or_default());
        Self(
            body.errors
                .iter()
                .take(MAX_ERRORS)
                .map(|entry| RegistryError {
                    code: text(&entry.code),
                    message: text(&entry.message),
                })
                .filter(|error| !error.code.is_empty() || !error.message.is_empty())
                .collect(),
        )
    }

    /// The errors, in the registry's order.
    pub fn iter(&self) -> impl Iterator<Item = &RegistryError> {
        self.0.iter()
    }

    /// Whether the registry said anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `text` without control characters, cut to a length that a message can bear.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            (code, "") => f.write_str(code),
            ("", message) => f.write_str(message),
            (code, message) => write!(f, "{}: {message}", code.to_lowercase().replace('_', " ")),
        }
    }
}

impl fmt::Display for RegistryErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_code_and_message() {
        let body = br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":null},{"code":"NAME_UNKNOWN"}]}"#;
        assert_eq!(
            RegistryErrors::parse(body).to_string(),
            "denied: requested access to the resource is denied; NAME_UNKNOWN"
        );
    }

    #[test]
    fn foreign_bodies_are_no_errors_and_do_no_harm() {
        for body in [&b""[..], b"<html>", b"[]", b"{}", b"{\"errors\":[{}]}", b"{\"errors\":7}"] {
            assert!(RegistryErrors::parse(body).is_empty());
        }
        let many = format!("{{\"errors\":[{}]}}", vec![r#"{"message":"x"}"#; 100].join(","));
        assert_eq!(RegistryErrors::parse(many.as_bytes()).iter().count(), MAX_ERRORS);
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let body = br#"{"errors":[{"code":"X","message":"a\u001b[31mred\r\nb"}]}"#;
        assert_eq!(RegistryErrors::parse(body).to_string(), "x: a[31mredb");
    }
}
