//! Calls of the system that have no safe interface elsewhere.

pub(crate) mod files;
pub(crate) mod memory;
