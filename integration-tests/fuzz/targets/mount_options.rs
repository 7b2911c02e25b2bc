#![no_main]
//! See [`kiln_fuzz::mount_options`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::mount_options(data));
