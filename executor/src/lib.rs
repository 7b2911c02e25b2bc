//! Runs one process in its own namespaces on given mounts.
