//! What the machine itself takes away: the time in which a thread that only reads the clock does
//! not run.
//!
//! A request that comes while its server's core is paused waits for the end of that pause, however
//! fast the server is. [`Pauses::quantile`] is the latency that an infinitely fast server on this
//! core would show for requests that come at any moment; a tail is judged by what it adds to that.

use std::time::{Duration, Instant};

/// Gaps shorter than this are reading the clock, or an interrupt that any server meets.
const PAUSE_MIN: Duration = Duration::from_micros(5);

/// The pauses of one core, seen by one thread that was always ready to run.
#[derive(Clone, Debug)]
pub struct Pauses {
    watched: Duration,
    /// Longest first.
    gaps: Vec<Duration>,
}

impl Pauses {
    /// Reads the clock for so long. The caller chooses the core (`taskset`).
    pub fn watch(time: Duration) -> Self {
        let began = Instant::now();
        let (mut last, mut gaps) = (began, Vec::new());
        while last - began < time {
            let now = Instant::now();
            if now - last >= PAUSE_MIN {
                gaps.push(now - last);
            }
            last = now;
        }
        Self::new(last - began, gaps)
    }

    fn new(watched: Duration, mut gaps: Vec<Duration>) -> Self {
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        Self { watched, gaps }
    }

    /// The wait that at most `1 - share` of all moments exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let spare = self.watched.mul_f64((1.0 - share).clamp(0.0, 1.0));
        let mut sum = Duration::ZERO;
        for (at, gap) in self.gaps.iter().enumerate() {
            sum += *gap;
            let next = self.gaps.get(at + 1).copied().unwrap_or_default();
            // Of each of these gaps, what lies more than `wait` before its end is exceeded.
            let count = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let wait = sum.saturating_sub(spare) / count;
            if wait >= next {
                return wait;
            }
        }
        Duration::ZERO
    }

    /// The longest pause.
    pub fn longest(&self) -> Duration {
        self.gaps.first().copied().unwrap_or_default()
    }

    /// The share of time that was taken away.
    pub fn share(&self) -> f64 {
        let taken: Duration = self.gaps.iter().sum();
        taken.as_secs_f64() / self.watched.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_quantile_is_what_is_left_of_the_pause_one_falls_into() {
        // Of a second, the last 1 ms of a pause of 10 ms is one thousandth.
        let one = Pauses::new(ms(1000), vec![ms(10)]);
        assert_eq!(one.quantile(0.99), ms(0));
        assert_eq!(one.quantile(0.999), ms(9));
        assert_eq!(one.quantile(1.0), ms(10));
        assert_eq!(one.longest(), ms(10));
        assert!((one.share() - 0.01).abs() < 1e-9);
        // 10 ms of 1 s may be waited for: 5 ms of each of the longer ones, the short one is less.
        let three = Pauses::new(ms(1000), vec![ms(20), ms(3), ms(20)]);
        assert_eq!(three.quantile(0.99), ms(15));
        assert_eq!(three.quantile(0.96), ms(1));
    }

    #[test]
    fn a_core_without_pauses_makes_nobody_wait() {
        assert_eq!(Pauses::new(ms(1000), Vec::new()).quantile(0.999), Duration::ZERO);
        let seen = Pauses::watch(ms(5));
        assert!(seen.watched >= ms(5) && seen.quantile(0.0) <= seen.longest());
    }
}
