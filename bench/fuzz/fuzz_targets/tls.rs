#![no_main]

/// It counts what a session holds.
#[global_allocator]
static HEAP: ron_io::sim::heap::Heap = ron_io::sim::heap::Heap;

libfuzzer_sys::fuzz_target!(|input: &[u8]| ron_fuzz::tls::tls(input));
