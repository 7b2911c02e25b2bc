#![no_main]
//! See [`kiln_fuzz::cache_config`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::cache_config(data));
