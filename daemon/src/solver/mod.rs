//! Evaluates a graph on demand, from the requested output back.
//!
//! Every vertex is three memoised async functions: a guess looks for a record under the key that
//! follows from the graph alone; a probe looks further, for which it may need its inputs' files;
//! [`Build::result`] makes the outputs when there is no record. A fully cached build is guesses
//! only: it touches no layer and pulls nothing. There is no event loop and no state machine; a
//! vertex that waits for another is a task that awaits it.

mod build;
mod error;
mod failed_step;
mod flight;
mod key;
mod memo;
mod miss;
mod probe;
mod progress;
mod snapshot;

pub(crate) use build::{Build, BuildRequest, NotEntitled, StepUsage};
pub(crate) use error::{CANCELED, ProcessError, SolveError};
pub(crate) use failed_step::{FailedSteps, LeftBehind, LeftFiles, OpFailure, Subject};
pub(crate) use flight::Flights;
pub(crate) use key::{CacheMap, Dep, Selector};
pub(crate) use memo::Memo;
pub(crate) use progress::{Progress, StatusProgress, VertexProgress, Watcher, now, to_response};
pub(crate) use snapshot::{Outputs, Snapshot, Stack};
