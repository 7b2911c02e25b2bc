#![no_main]
//! See [`kiln_fuzz::add_archive`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::add_archive(data));
