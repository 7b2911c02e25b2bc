//! Parser directives: `# syntax=…`, `# escape=…` and `# check=…` at the head of the file.

use crate::error::ErrorKind;
use crate::{Location, ParseError};

/// One directive, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Everything after the equals sign, without surrounding blanks.
    pub value: String,
    /// The line it is on.
    pub location: Location,
}

impl Directive {
    /// The value up to its first blank: the part that counts for `syntax` and `check`.
    pub fn first_word(&self) -> &str {
        self.value.split(' ').next().unwrap_or_default()
    }
}

/// The directives of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend to read this file with.
    pub syntax: Option<Directive>,
    /// `# check=`: options for the lint rules.
    pub check: Option<Directive>,
    /// The escape character, `\` unless `` # escape=` `` says otherwise.
    pub escape: char,
    /// Number of the last line that belongs to the head; 0 if there is none.
    pub(crate) last_line: u32,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, check: None, escape: '\\', last_line: 0 }
    }
}

impl Directives {
    /// Reads the head of `source`. Its first line may start with `#!`.
    pub(crate) fn read(source: &str) -> Result<Self, ParseError> {
        let mut directives = Self::default();
        let mut escape_seen = false;
        for (location, name, value) in head(source, "#") {
            let directive = Directive { value: value.to_owned(), location };
            let repeated = match name.as_str() {
                "syntax" => directives.syntax.replace(directive).is_some(),
                "check" => directives.check.replace(directive).is_some(),
                _ => {
                    directives.escape = match value {
                        "\\" => '\\',
                        "`" => '`',
                        _ => {
                            let kind = ErrorKind::InvalidEscape { value: value.to_owned() };
                            return Err(ParseError::new(kind, location));
                        }
                    };
                    std::mem::replace(&mut escape_seen, true)
                }
            };
            if repeated {
                return Err(ParseError::new(ErrorKind::RepeatedDirective { name }, location));
            }
            directives.last_line = location.end;
        }
        if directives.last_line == 0 && source.starts_with("#!") {
            directives.last_line = 1;
        }
        Ok(directives)
    }
}

/// The `syntax` directive of any build definition, Dockerfile or not.
///
/// Besides the Dockerfile's own `# syntax=` this understands `// syntax=` and a JSON object with
/// a `syntax` member, so that definitions in other languages can name their frontend.
pub fn detect_syntax(source: &[u8]) -> Option<Directive> {
    let source = String::from_utf8_lossy(source);
    let source = strip_bom(&source);
    for prefix in ["#", "//"] {
        let found = head(source, prefix).find(|(_, name, _)| name == "syntax");
        if let Some((location, _, value)) = found {
            return Some(Directive { value: value.to_owned(), location });
        }
    }
    let (number, body) = skip_shebang(source);
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).ok()?;
    let value = object.get("syntax")?.as_str()?;
    Some(Directive { value: value.to_owned(), location: Location::line(number) })
}

/// Without the byte order mark that some editors put first.
pub(crate) fn strip_bom(source: &str) -> &str {
    source.strip_prefix('\u{feff}').unwrap_or(source)
}

/// The directives at the head of `source`, up to the first line that is none: place, name in
/// lower case, value.
fn head<'a>(source: &'a str, prefix: &'a str) -> impl Iterator<Item = (Location, String, &'a str)> {
    let (first, body) = skip_shebang(source);
    (first..).zip(body.split('\n')).map_while(move |(number, line)| {
        let (name, value) = parse(line.trim_start().strip_prefix(prefix)?)?;
        Some((Location::line(number), name, value))
    })
}

/// Number of the first line after a `#!` line, and the text from there on.
fn skip_shebang(source: &str) -> (u32, &str) {
    if !source.starts_with("#!") {
        return (1, source);
    }
    (2, source.split_once('\n').map_or("", |(_, rest)| rest))
}

/// Splits `name = value`, if that is what `text` is and the name is known.
pub(crate) fn parse(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let value = value.trim();
    let known = matches!(name.as_str(), "syntax" | "escape" | "check");
    (known && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syntax(source: &str) -> Option<(String, u32)> {
        detect_syntax(source.as_bytes())
            .map(|found| (found.first_word().to_owned(), found.location.start))
    }

    #[test]
    fn syntax_is_found_in_each_style_of_comment() {
        let cases = [
            ("# syntax = docker/dockerfile:1 # opts\nFROM a\n", Some(("docker/dockerfile:1", 1))),
            ("#SYNTAX=a\r\nFROM a\r\n", Some(("a", 1))),
            ("\u{feff}# syntax=a\nFROM a\n", Some(("a", 1))),
            ("#!/bin/sh\n# syntax=a\n", Some(("a", 2))),
            ("# escape=`\n# syntax=a\n", Some(("a", 2))),
            ("//syntax=a\n//key=value", Some(("a", 1))),
            ("{\"syntax\": \"a\", \"more\": [1]}", Some(("a", 1))),
            ("#!/bin/sh\n\n# syntax=a\n", None),
            ("# a comment\n# syntax=a\n", None),
            ("# unknown=1\n# syntax=a\n", None),
            ("FROM a\n# syntax=a\n", None),
            ("{\"syntax\": \"a\"", None),
            ("", None),
        ];
        for (source, expected) in cases {
            let expected = expected.map(|(name, line)| (name.to_owned(), line));
            assert_eq!(syntax(source), expected, "{source:?}");
        }
    }

    #[test]
    fn the_head_ends_with_the_first_line_that_is_no_directive() {
        let directives = Directives::read("# check=skip=all # why\n# escape=`\n\n# syntax=a\n");
        let directives = directives.unwrap();
        assert_eq!(directives.check.unwrap().first_word(), "skip=all");
        assert_eq!(directives.escape, '`');
        assert_eq!(directives.syntax, None);
        assert_eq!(directives.last_line, 2);
    }

    #[test]
    fn a_directive_may_be_given_once() {
        for source in ["#escape=`\n#escape=`\n", "#syntax=a\n# Syntax=b\n"] {
            let error = Directives::read(source).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::RepeatedDirective { .. }), "{source:?}");
            assert_eq!(error.location(), Some(Location::line(2)));
        }
    }

    #[test]
    fn only_backslash_and_backtick_escape() {
        let error = Directives::read("# escape=x\n").unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidEscape { value: "x".to_owned() });
    }
}
