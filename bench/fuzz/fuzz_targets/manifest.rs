#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ron_fuzz::manifest::manifest(input));
