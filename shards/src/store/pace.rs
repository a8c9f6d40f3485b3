//! How fast work in the background may go: a bucket of tokens, one a byte.
//!
//! Tokens come at the configured rate up to a small stock, so that ticks which come late are made
//! up for and a long rest earns no burst. A read may take more than there is; then the next waits
//! until the debt is paid. It has no clock: the caller says what time it is.

use crate::limits::PACE_BURST_LEN;

const SECOND_NS: u128 = 1_000_000_000;

/// A bucket of tokens.
#[derive(Debug)]
pub(super) struct Pace {
    /// Tokens a second; 0: none ever come.
    rate: u64,
    tokens: i64,
    /// What came of the next token, in billionths.
    spare: u128,
    /// When the tokens were last counted.
    counted_ns: u64,
}

impl Pace {
    pub(super) fn new(rate: u64) -> Pace {
        Pace { rate, tokens: PACE_BURST_LEN, spare: 0, counted_ns: 0 }
    }

    /// Whether anything may ever be read.
    pub(super) fn is_never(&self) -> bool {
        self.rate == 0
    }

    /// When the next read may start: `now_ns` if it may at once.
    pub(super) fn ready_at(&mut self, now_ns: u64) -> u64 {
        self.count(now_ns);
        if self.tokens > 0 {
            return now_ns;
        }
        let missing = (u128::from(self.tokens.unsigned_abs()) + 1) * SECOND_NS - self.spare;
        let wait = missing.div_ceil(u128::from(self.rate.max(1)));
        self.counted_ns.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// What was taken and is not paid is forgotten.
    pub(super) fn forgive(&mut self) {
        self.tokens = self.tokens.max(0);
    }

    /// Takes what a read costs.
    pub(super) fn take(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(bytes);
    }

    fn count(&mut self, now_ns: u64) {
        let passed = u128::from(now_ns.saturating_sub(self.counted_ns));
        let came = passed * u128::from(self.rate) + self.spare;
        self.counted_ns = self.counted_ns.max(now_ns);
        self.spare = came % SECOND_NS;
        let came = i64::try_from(came / SECOND_NS).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(came).min(PACE_BURST_LEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rest_earns_no_more_than_the_stock() {
        let mut pace = Pace::new(1000);
        let year = 365 * 24 * 3600 * 1_000_000_000;
        assert_eq!(pace.ready_at(year), year);
        pace.take(PACE_BURST_LEN as u64);
        assert_eq!(pace.ready_at(year), year + 1_000_000, "one token takes a millisecond");
    }

    #[test]
    fn at_the_time_it_names_it_is_ready() {
        let mut pace = Pace::new(32 * 1024 * 1024);
        let mut now = 5;
        for taken in [65_536, 1, 1_000_000, 3, 65_536] {
            pace.take(taken + PACE_BURST_LEN as u64);
            let at = pace.ready_at(now);
            assert!(at > now);
            assert!(pace.ready_at(at - 1) > at - 1, "not before");
            assert_eq!(pace.ready_at(at), at);
            now = at;
        }
    }

    #[test]
    fn without_a_rate_nothing_ever_comes() {
        assert!(Pace::new(0).is_never() && !Pace::new(1).is_never());
        let mut pace = Pace::new(0);
        pace.take(u64::MAX);
        pace.take(u64::MAX);
        assert!(pace.ready_at(u64::MAX / 2) > u64::MAX / 2);
    }

    proptest! {
        #[test]
        fn never_faster_than_the_rate(
            rate in 1..200_000_000_u64,
            reads in prop::collection::vec((1..70_000_u64, 0..5_000_000_u64), 1..200),
        ) {
            let mut pace = Pace::new(rate);
            let (mut now, mut total) = (0_u64, 0_u64);
            for (len, nap) in reads {
                now += nap;
                let at = pace.ready_at(now);
                if at > now {
                    // Asking often neither earns nor loses tokens.
                    prop_assert_eq!(pace.ready_at(now + (at - now) / 2), at);
                    prop_assert!(pace.ready_at(at - 1) > at - 1);
                    now = at;
                }
                prop_assert_eq!(pace.ready_at(now), now);
                let allowed = u128::from(now) * u128::from(rate) / SECOND_NS;
                let allowed = allowed + PACE_BURST_LEN as u128;
                prop_assert!(u128::from(total) < allowed, "{} of {}", total, allowed);
                pace.take(len);
                total += len;
            }
        }
    }
}
