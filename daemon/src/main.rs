//! Kiln's daemon.
fn main() {}
