//! Calls of the system that have no safe interface elsewhere.

pub(crate) mod memory;
