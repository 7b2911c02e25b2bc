//! The generated types, nested as their packages are.
//!
//! `lib.rs` gives them the short names under which the rest of Kiln knows them.

#![allow(missing_docs, unreachable_pub, deprecated, clippy::all, clippy::pedantic, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/wire.rs"));
