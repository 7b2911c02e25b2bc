//! What is done with foreign bytes, for a fuzzer to try.
//!
//! Each function takes any bytes and must return: a panic, a hang or a failed assertion is a bug.
//! `make fuzz TARGET=dockerfile SECONDS=3600` looks for new ones, with the fuzzer's instrumentation;
//! what it finds is fixed and becomes a file in `seeds/<target>/`. The tests run every target over
//! its seeds and over thousands of changes to them.

mod archive;
mod language;
mod text;
mod transfer;

#[cfg(feature = "cache")]
mod cache;

pub use archive::{add_archive, layer_archive};
#[cfg(feature = "cache")]
pub use cache::cache_config;
pub use language::{dockerfile, expansion, mount_options};
pub use text::{ignore_file, image_reference};
pub use transfer::file_transfer;
