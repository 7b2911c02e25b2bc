#![no_main]
//! See [`kiln_fuzz::file_transfer`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::file_transfer(data));
