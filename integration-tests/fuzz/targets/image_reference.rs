#![no_main]
//! See [`kiln_fuzz::image_reference`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiln_fuzz::image_reference(data));
