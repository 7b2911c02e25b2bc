#![no_main]
//! See [`kiln_fuzz::layer_archive`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::layer_archive(data));
