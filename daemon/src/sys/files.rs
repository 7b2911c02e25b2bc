//! How many files the daemon may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Lets the daemon have as many files open as it may. The usual limit of a shell, 1024, is for programs
/// that wait with select(2); an image of five hundred layers takes more.
pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}
