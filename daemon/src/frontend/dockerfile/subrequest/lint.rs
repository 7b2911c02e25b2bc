//! What the lint rules find.

use std::fmt::Write as _;

use kiln_dockerfile::excerpt;
use kiln_dockerfile::lint::{Linter, Warning};
use serde::Serialize;

use super::Answer;
use crate::frontend::dockerfile::convert::Conversion;
use crate::frontend::dockerfile::errors::lines;
use crate::frontend::dockerfile::{convert_quietly, lint_options};
use crate::graph::go_json::{Location, Range, SourceInfo, ranges};
use crate::solver::SolveError;

/// In JSON, no findings are `null`.
#[derive(Serialize)]
struct Results<'a> {
    warnings: Option<Vec<Finding<'a>>>,
    sources: [SourceInfo<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<BuildError>,
}

#[derive(Serialize)]
struct Finding<'a> {
    #[serde(rename = "ruleName")]
    rule: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    detail: &'a str,
    location: Location,
}

/// Why a build would fail.
#[derive(Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

/// Goes through the stages as a build does; an error on the way is part of the answer.
pub(super) async fn answer(conversion: &Conversion<'_>) -> Result<Answer, SolveError> {
    let loaded = conversion.loaded;
    let mut linter = Linter::default();
    let checked = async {
        linter = Linter::new(lint_options(conversion.options, loaded)?);
        convert_quietly(conversion, &mut linter).await
    };
    let error = match checked.await {
        Err(error) if error.is_canceled() => return Err(error),
        outcome => outcome.err(),
    };
    let file = &loaded.file;
    let found = linter.warnings();
    let findings = found.iter().map(|warning| Finding {
        rule: warning.rule.name(),
        description: warning.rule.description(),
        url: warning.rule.url(),
        detail: &warning.detail,
        location: Location::new(&lines(file, warning.location).ranges),
    });
    let results = Results {
        warnings: (!found.is_empty()).then(|| findings.collect()),
        sources: [SourceInfo::from(&**file)],
        error: error.as_ref().map(BuildError::from),
    };
    let is_fine = results.warnings.is_none() && results.error.is_none();
    let text = text(&file.filename, &String::from_utf8_lossy(&file.data), found);
    Ok(Answer { status: Some(u8::from(!is_fine)), ..Answer::new(&results, text)? })
}

impl From<&SolveError> for BuildError {
    fn from(error: &SolveError) -> Self {
        let locations = error.locations().iter();
        let mut all: Vec<Range> = locations.flat_map(|at| ranges(&at.ranges)).collect();
        all.sort();
        // What overlaps is one range.
        all.dedup_by(|next, last| {
            let overlaps = next.start.line <= last.end.line;
            if overlaps {
                last.end.line = last.end.line.max(next.end.line);
            }
            overlaps
        });
        let mut location = Location::default();
        location.ranges = all;
        Self { message: error.to_string(), location }
    }
}

/// Excerpts end when the text is so long: a file may be one line that much is found in.
const MOST_TEXT: usize = 1 << 20;

/// The findings for people, in the order of the file.
fn text(filename: &str, source: &str, found: &[Warning]) -> String {
    let mut found: Vec<&Warning> = found.iter().collect();
    found.sort_by_key(|warning| warning.location.start);
    let lines: Vec<&str> = source.split('\n').collect();
    let mut text = String::new();
    for warning in found {
        let (rule, url) = (warning.rule, warning.rule.url());
        let more = if url.is_empty() { String::new() } else { format!(" - {url}") };
        // Writing to a string cannot fail.
        let _ = write!(text, "\nWARNING: {rule}{more}\n{}\n", warning.detail);
        if text.len() < MOST_TEXT {
            text.push_str(&excerpt(filename, &lines, &[warning.location]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use kiln_dockerfile::Location as Lines;
    use kiln_dockerfile::lint::Rule;

    use super::*;
    use crate::graph::SourceLocation;

    #[test]
    fn findings_are_told_in_the_order_of_the_file() {
        let warning = |rule, line, detail: &str| Warning {
            rule,
            detail: detail.to_owned(),
            location: Lines::line(line),
        };
        let found = [
            warning(Rule::UndefinedVar, 2, "Usage of undefined variable '$x'"),
            warning(Rule::InvalidBaseImagePlatform, 1, "for another platform"),
        ];
        insta::assert_snapshot!(text("Dockerfile", "FROM a\nCOPY $x .\n", &found), @r"

        WARNING: InvalidBaseImagePlatform
        for another platform
        Dockerfile:1
        --------------------
           1 | >>> FROM a
           2 |     COPY $x .
           3 |     
        --------------------

        WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/
        Usage of undefined variable '$x'
        Dockerfile:2
        --------------------
           1 |     FROM a
           2 | >>> COPY $x .
           3 |     
        --------------------
        ");
    }

    #[test]
    fn places_of_an_error_are_in_order_and_do_not_overlap() {
        let place = |first, last| SourceLocation::lines(&std::sync::Arc::default(), first, last);
        let places = vec![place(5, 6), place(1, 1), place(5, 5)];
        let error = BuildError::from(&SolveError::in_sources(places, anyhow::anyhow!("no")));
        let lines = error.location.ranges.iter().map(|range| (range.start.line, range.end.line));
        assert_eq!(lines.collect::<Vec<_>>(), [(1, 1), (5, 5), (6, 6)]);
        assert_eq!(error.message, "no");
    }
}
