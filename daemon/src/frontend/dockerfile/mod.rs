//! The built-in Dockerfile frontend.

use std::sync::Arc;

use super::{FrontendRequest, FrontendResult};
use crate::solver::{Build, SolveError};

pub(crate) async fn solve(
    _build: &Arc<Build>,
    _request: FrontendRequest,
) -> Result<FrontendResult, SolveError> {
    Ok(FrontendResult::default())
}
