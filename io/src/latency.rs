//! How long requests took, in buckets that are fine enough for quantiles.
//!
//! The buckets are those of an HdrHistogram of two significant digits, so the counts can be put
//! into one where quantiles are read. One microsecond is the unit:
//!
//! ```text
//!   microseconds   0 … 255      256 … 511    512 … 1023   1024 … 2047   …  3.6 · 10⁹
//!   buckets        256, each 1  128, each 2  128, each 4  128, each 8   …
//! ```
//!
//! Like the other counters these are written by the shard's thread alone and read by any. To record
//! is a relaxed load and a relaxed store; it takes no memory.

use crate::{counter::Counter, limits::LATENCY_MAX};

/// Significant digits that a latency is kept with.
pub const DIGITS: u8 = 2;

/// The longest latency that is distinguished from longer ones, in microseconds.
pub const MAX_US: u64 = LATENCY_MAX.as_micros() as u64;

/// Latencies below this have a bucket each: the least power of two that is 2 · 10^`DIGITS` or more.
const EXACT: u64 = (2 * 10u64.pow(DIGITS as u32)).next_power_of_two();

/// Buckets of each power of two from there on.
const HALF: u64 = EXACT / 2;

const BUCKETS: usize = bucket(MAX_US) + 1;

/// Bytes of the buckets of one histogram.
pub const HISTOGRAM_LEN: usize = BUCKETS * size_of::<Counter>();

/// Latencies of one kind, each in its bucket.
#[derive(Debug)]
pub struct Latencies {
    buckets: Box<[Counter; BUCKETS]>,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies { buckets: Box::new(std::array::from_fn(|_| Counter::default())) }
    }
}

impl Latencies {
    /// Counts one, by the one writer. What is longer than `MAX_US` counts as that.
    #[inline]
    pub fn record(&self, us: u64) {
        self.buckets[bucket(if us < MAX_US { us } else { MAX_US })].add(1);
    }

    /// For each bucket that is not empty the least latency that falls into it, in microseconds, and
    /// how many did.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.buckets.iter().enumerate().map(|(at, count)| (lowest(at), count.get()));
        counts.filter(|(_, count)| *count > 0)
    }
}

/// How far the latencies of a bucket are shifted: it is as wide as 1 shifted as far.
const fn shift(us: u64) -> u32 {
    (us | (EXACT - 1)).ilog2() - HALF.ilog2()
}

const fn bucket(us: u64) -> usize {
    let shift = shift(us);
    (shift as u64 * HALF + (us >> shift)) as usize
}

/// The least latency of a bucket.
const fn lowest(bucket: usize) -> u64 {
    let (bucket, shift) = (bucket as u64, (bucket as u64 / HALF).saturating_sub(1));
    (bucket - shift * HALF) << shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!((EXACT, HALF), (256, 128));
        let mut next = 0;
        for at in 0..BUCKETS {
            assert_eq!(lowest(at), next, "bucket {at}");
            assert_eq!(bucket(next), at, "{next} µs");
            next += 1 << shift(next);
            assert_eq!(bucket(next - 1), at, "{next} µs less one");
        }
        assert!(lowest(BUCKETS - 1) <= MAX_US && MAX_US < next);
    }

    #[test]
    fn what_is_too_long_is_in_the_last_bucket() {
        let latencies = Latencies::default();
        [MAX_US, MAX_US + 1, u64::MAX].iter().for_each(|us| latencies.record(*us));
        latencies.record(0);
        let counts: Vec<(u64, u64)> = latencies.counts().collect();
        assert_eq!(counts, [(0, 1), (lowest(BUCKETS - 1), 3)]);
    }

    proptest! {
        #[test]
        fn a_bucket_is_as_narrow_as_its_digits_say(bits in 0..33u32, any in any::<u64>()) {
            let us = (any & ((1 << bits) - 1)).min(MAX_US);
            let least = lowest(bucket(us));
            prop_assert!(least <= us && (us - least) * 10u64.pow(u32::from(DIGITS)) <= us);
        }
    }
}
