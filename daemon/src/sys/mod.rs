//! What the daemon's process asks of the system for itself.

pub(crate) mod files;
pub(crate) mod memory;
