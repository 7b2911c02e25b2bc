#![no_main]
//! See [`kiln_fuzz::ignore_file`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::ignore_file(data));
