//! What checks of a Dockerfile found, as the user reads it.

use crate::source::{self, Lines};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::fmt::Write as _;

/// Excerpts end when the text is so long: a file may be one line that much is found in.
const MOST_TEXT: usize = 1 << 20;

/// The answer of a frontend. All of it may be missing: the daemon may be of any version.
#[derive(Debug, Deserialize)]
struct Results {
    warnings: Option<Vec<Warning>>,
    sources: Option<Vec<Source>>,
    #[serde(rename = "buildError")]
    error: Option<BuildError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Warning {
    #[serde(rename = "ruleName")]
    rule: String,
    url: String,
    detail: String,
    location: Location,
}

/// Why a build would fail.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BuildError {
    message: String,
    location: Location,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    filename: String,
    data: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Location {
    #[serde(rename = "sourceIndex")]
    source: usize,
    ranges: Vec<Range>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Position {
    line: i64,
}

/// What checks found.
#[derive(Debug)]
pub(super) struct Checks<'a> {
    warnings: Vec<Warning>,
    sources: Vec<Source>,
    error: Option<BuildError>,
    /// The Dockerfile's name to its user, if that is not the one that the daemon knows.
    dockerfile: Option<&'a str>,
}

impl<'a> Checks<'a> {
    /// Reads the answer of a frontend; none if it is in another form.
    pub(super) fn parse(json: &str, dockerfile: Option<&'a str>) -> Option<Self> {
        let results: Results = serde_json::from_str(json).ok()?;
        let mut warnings = results.warnings.unwrap_or_default();
        let sources = results.sources.unwrap_or_default();
        let place = |warning: &Warning| {
            let file = sources.get(warning.location.source).map(|source| source.filename.clone());
            (file, warning.location.ranges.first().map(|range| range.start.line))
        };
        warnings.sort_by_cached_key(place);
        Some(Self { warnings, sources, error: results.error, dockerfile })
    }

    /// What was found, in the order of the file.
    pub(super) fn text(&self) -> String {
        let mut text = match self.warnings.len() {
            0 if self.error.is_some() => String::new(),
            0 => "Check complete, no warnings found.\n".to_owned(),
            1 => "Check complete, 1 warning has been found!\n".to_owned(),
            count => format!("Check complete, {count} warnings have been found!\n"),
        };
        for warning in &self.warnings {
            // Writing to a string cannot fail.
            let _ = write!(text, "\nWARNING: {}", warning.rule);
            if !warning.url.is_empty() {
                let _ = write!(text, " - {}", warning.url);
            }
            let _ = writeln!(text, "\n{}", warning.detail);
            if text.len() < MOST_TEXT {
                text.push_str(&self.place(&warning.location));
            }
        }
        if self.error.is_some() && !text.is_empty() {
            text.push('\n');
        }
        text
    }

    /// Why a build would fail, with the place.
    pub(super) fn error(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        let text = format!("{}\n{}", error.message, self.place(&error.location));
        Some(text.trim_end().to_owned())
    }

    fn place(&self, location: &Location) -> String {
        let Some(source) = self.sources.get(location.source) else { return String::new() };
        let data = STANDARD.decode(&source.data).unwrap_or_default();
        let lines = |range: &Range| Lines::new(range.start.line, range.end.line);
        let ranges: Vec<Lines> = location.ranges.iter().map(lines).collect();
        let name = self.dockerfile.unwrap_or(&source.filename);
        source::excerpt(name, &String::from_utf8_lossy(&data), &ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(warnings: &serde_json::Value, error: &serde_json::Value) -> Checks<'static> {
        let sources = serde_json::json!([{
            "filename": "Dockerfile",
            "data": STANDARD.encode("FROM a AS B\nMAINTAINER me\nRNU x\n"),
        }]);
        let json = serde_json::json!({
            "warnings": warnings, "sources": sources, "buildError": error,
        });
        Checks::parse(&json.to_string(), Some("docker/Dockerfile")).unwrap()
    }

    fn at(line: i64) -> serde_json::Value {
        serde_json::json!({ "ranges": [{ "start": { "line": line }, "end": { "line": line } }] })
    }

    #[test]
    fn findings_are_told_in_order_with_their_places_and_then_the_error() {
        let warnings = serde_json::json!([
            { "ruleName": "Second", "detail": "two", "location": at(2) },
            { "ruleName": "First", "url": "https://example.com/", "detail": "one", "location": at(1) },
        ]);
        let error = serde_json::json!({ "message": "unknown instruction", "location": at(3) });
        let checks = checks(&warnings, &error);
        insta::assert_snapshot!(checks.text(), @r"
        Check complete, 2 warnings have been found!

        WARNING: First - https://example.com/
        one
        docker/Dockerfile:1
        --------------------
           1 | >>> FROM a AS B
           2 |     MAINTAINER me
           3 |     RNU x
        --------------------

        WARNING: Second
        two
        docker/Dockerfile:2
        --------------------
           1 |     FROM a AS B
           2 | >>> MAINTAINER me
           3 |     RNU x
           4 |     
        --------------------

        ");
        insta::assert_snapshot!(checks.error().unwrap(), @r"
        unknown instruction
        docker/Dockerfile:3
        --------------------
           1 |     FROM a AS B
           2 |     MAINTAINER me
           3 | >>> RNU x
           4 |     
        --------------------
        ");
    }

    #[test]
    fn a_fine_file_and_one_that_only_fails_are_told_so() {
        let none = serde_json::Value::Null;
        assert_eq!(checks(&none, &none).text(), "Check complete, no warnings found.\n");
        let failed = checks(&none, &serde_json::json!({ "message": "no" }));
        assert_eq!((failed.text(), failed.error()), (String::new(), Some("no".to_owned())));
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert!(Checks::parse("[]", None).is_none());
        let json = r#"{"warnings":[{"ruleName":"A","location":{"sourceIndex":7}}]}"#;
        let text = Checks::parse(json, None).unwrap().text();
        assert_eq!(text, "Check complete, 1 warning has been found!\n\nWARNING: A\n\n");
    }
}
