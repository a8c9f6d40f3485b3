//! Micro-benchmarks, a file per subject in `benches/`: `cargo bench -p ron-bench`.
//!
//! Each group measures the same work several times: once as `limit: …`, the least that the machine
//! or a library below us takes for it, perhaps as `beside: …`, another yardstick, and as we do it.
//! `table.py` prints the ratios. Here is what the files share: bytes that follow from a seed, and
//! how long is measured.
//!
//! Nothing here waits for a network or measures a node: that is `perf/`.

use std::time::Duration;

use criterion::Criterion;
use ron_codec::address::Address;

/// Samples of one benchmark.
pub const SAMPLES: usize = 20;

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(1);

/// Resamples of the samples, from which the confidence intervals come.
const RESAMPLES: usize = 10_000;

/// Short measurements, so that all of them take less than five minutes: differences of a few
/// percent are within their noise.
#[must_use]
pub fn brief() -> Criterion {
    Criterion::default()
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURE)
        .sample_size(SAMPLES)
        .nresamples(RESAMPLES)
        .without_plots()
}

/// `len` bytes that look random and follow from `seed`.
#[must_use]
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Address number `n` of those that follow from `seed`.
#[must_use]
pub fn address(seed: u64, n: u64) -> Address {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&seed.to_le_bytes());
    name[8..].copy_from_slice(&n.to_le_bytes());
    Address::of(&name)
}

/// `count` numbers below `below` that follow from `seed`.
///
/// # Panics
///
/// When `below` is 0.
#[must_use]
pub fn random_picks(seed: u64, count: usize, below: u64) -> Vec<u64> {
    let bytes = random_bytes(seed, count * size_of::<u64>());
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word) % below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_a_seed_is_always_the_same() {
        assert_eq!(random_bytes(1, 1000), random_bytes(1, 1000));
        assert_eq!(random_bytes(1, 1000)[..10], random_bytes(1, 10));
        assert_ne!(random_bytes(1, 32), random_bytes(2, 32));
        assert!(random_bytes(1, 0).is_empty());
        assert_eq!(address(1, 2), address(1, 2));
        assert_ne!(address(1, 2), address(2, 1));
    }

    #[test]
    fn picks_reach_every_number_and_none_beyond() {
        let picks = random_picks(7, 1000, 10);
        assert_eq!(picks.len(), 1000);
        assert!((0..10).all(|n| picks.contains(&n)));
        assert!(picks.iter().all(|n| *n < 10));
    }
}
