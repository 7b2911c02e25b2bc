//! Errors, and the lines of the Dockerfile that they are about.

use std::sync::Arc;

use kiln_dockerfile::{ErrorKind, Location, ParseError};
use kiln_proto::pb;

use crate::graph::SourceLocation;
use crate::solver::SolveError;

/// The place of `location` in `file`.
pub(super) fn lines(file: &Arc<pb::SourceInfo>, location: Location) -> SourceLocation {
    SourceLocation::lines(file, location.start, location.end)
}

/// An error of the instruction at `location`. The error of a build that was given up stays what
/// it is.
pub(super) fn located(
    file: &Arc<pb::SourceInfo>,
    location: Location,
    error: impl Into<anyhow::Error>,
) -> SolveError {
    SolveError::in_source(lines(file, location), error)
}

/// A file that cannot be parsed.
pub(super) fn parse_error(file: &Arc<pb::SourceInfo>, error: &ParseError) -> SolveError {
    with_places(file, error, error.to_string())
}

/// A file whose stages make no sense.
pub(super) fn plan_error(file: &Arc<pb::SourceInfo>, error: &ParseError) -> SolveError {
    with_places(file, error, with_help(error))
}

/// A mistake that shows when variables are replaced.
pub(super) fn explained(kind: impl Into<ErrorKind>) -> anyhow::Error {
    // The instruction that is evaluated is located by who evaluates it.
    anyhow::Error::msg(with_help(&ParseError::new(kind.into(), Location::line(1))))
}

fn with_help(error: &ParseError) -> String {
    match error.help() {
        Some(help) => format!("{} ({help})", error.message()),
        None => error.message(),
    }
}

fn with_places(file: &Arc<pb::SourceInfo>, error: &ParseError, message: String) -> SolveError {
    let locations = error.locations().iter().map(|&location| lines(file, location)).collect();
    SolveError::in_sources(locations, anyhow::Error::msg(message))
}
