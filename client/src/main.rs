//! Kiln's client.
fn main() {}
