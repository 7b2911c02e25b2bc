#![no_main]
//! See [`kiln_fuzz::expansion`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::expansion(data));
