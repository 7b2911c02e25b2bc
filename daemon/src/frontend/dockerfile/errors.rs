//! Errors, and the lines of the Dockerfile that they are about.

use std::sync::Arc;

use kiln_dockerfile::{Location, ParseError};
use kiln_proto::pb;

use crate::graph::{SourceFile, SourceLocation};
use crate::solver::SolveError;

/// Something that a Dockerfile or its client may ask for and this daemon cannot do.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not supported by this daemon yet")]
pub(super) struct NotSupported(pub(super) String);

/// The place of `location` in `file`.
pub(super) fn lines(file: &Arc<SourceFile>, location: Location) -> SourceLocation {
    SourceLocation::lines(file, location.start as usize, location.end as usize)
}

/// An error of the instruction at `location`. The error of a build that was given up stays what
/// it is.
pub(super) fn located(
    file: &Arc<SourceFile>,
    location: Location,
    error: impl Into<anyhow::Error>,
) -> SolveError {
    SolveError::in_source(lines(file, location), error)
}

/// A file that cannot be parsed.
pub(super) fn parse_error(file: &Arc<SourceFile>, error: &ParseError) -> SolveError {
    with_places(file, error, error.to_string())
}

/// A file whose stages make no sense.
pub(super) fn plan_error(file: &Arc<SourceFile>, error: &ParseError) -> SolveError {
    let message = match error.help() {
        Some(help) => format!("{} ({help})", error.message()),
        None => error.message(),
    };
    with_places(file, error, message)
}

fn with_places(file: &Arc<SourceFile>, error: &ParseError, message: String) -> SolveError {
    let cause = anyhow::Error::msg(message);
    if error.locations().is_empty() {
        return cause.into();
    }
    let ranges: Vec<pb::Range> =
        error.locations().iter().flat_map(|&location| lines(file, location).ranges).collect();
    SolveError::in_source(SourceLocation { file: file.clone(), ranges }, cause)
}
