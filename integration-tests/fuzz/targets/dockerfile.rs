#![no_main]
//! See [`kiln_fuzz::dockerfile`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::dockerfile(data));
