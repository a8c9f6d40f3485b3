//! What is fuzzed: one function for each target, from bytes to nothing, that panics when a promise
//! does not hold.
//!
//! `fuzz_targets` runs them under libFuzzer (nightly); `bench/tests/corpora.rs` runs them over
//! `corpus` with plain `cargo test`. A target that reads a stream takes its first byte as the way
//! the stream is cut: `0` whole, `1` byte by byte, anything else a seed.

pub mod codec;
pub mod damage;
mod frames;
pub mod manifest;
pub mod session;
pub mod store;
pub mod tls;
mod world;

pub use frames::frames;

/// A target: it panics where something is wrong with what it was given.
pub type Target = fn(&[u8]);

/// Every target, by the name of its file in `fuzz_targets` and of its folder in `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("address", codec::address),
    ("chunks", codec::chunks),
    ("damage", damage::damage),
    ("frames", frames),
    ("http_head", codec::http_head),
    ("http_session", session::http),
    ("manifest", manifest::manifest),
    ("oap_session", session::oap),
    ("ranges", codec::ranges),
    ("record", codec::record),
    ("storage_request", codec::storage_request),
    ("store", store::store),
    ("tls", tls::tls),
];

/// A stream, and where it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    seed: u8,
}

impl Cuts {
    const WHOLE: Cuts = Cuts { seed: b'0' };
    const BYTES: Cuts = Cuts { seed: b'1' };

    /// The first byte of an input says how the rest is cut.
    fn of(input: &[u8]) -> (Cuts, &[u8]) {
        let (seed, stream) = input.split_first().unwrap_or((&b'0', &[]));
        (Cuts { seed: *seed }, stream)
    }

    fn seed(self) -> u8 {
        self.seed
    }

    /// The stream in pieces that are not empty.
    fn pieces(self, stream: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut rest = stream;
        let mut state = u64::from(self.seed) + 1;
        std::iter::from_fn(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = match self.seed {
                b'0' => rest.len(),
                b'1' => 1,
                // Many short ones and some long ones.
                _ => {
                    1 + ((state >> 33) as usize & 0xfff) % (1 << (1 + ((state >> 60) as u32 % 12)))
                }
            };
            let (piece, behind) = rest.split_at(len.min(rest.len()));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        })
    }
}
