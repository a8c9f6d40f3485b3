//! When requests are due: as soon as a connection is free, or at times that do not care.
//!
//! In a closed loop every connection asks again as soon as it was answered, so a slow answer delays
//! the next question, and what would have been asked meanwhile is never counted. An open loop asks
//! like a world that does not wait: arrival `i` is due at `begin + i / rate`, and its latency
//! counts from then, whenever a connection was free for it.

use std::time::{Duration, Instant};

/// The arrivals of one thread out of several: every `stride`th of all.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    begin: Instant,
    /// Nothing is due from here on.
    end: Instant,
    /// Of all threads together, per second.
    rate: f64,
    /// The next arrival.
    next: u64,
    stride: u64,
}

impl Schedule {
    pub(super) fn new(begin: Instant, end: Instant, rate: f64, thread: u32, threads: u32) -> Self {
        Self { begin, end, rate, next: u64::from(thread), stride: u64::from(threads) }
    }

    fn at(&self, arrival: u64) -> Instant {
        // Far below 2^53, where integers are exact: days of the highest rate.
        let seconds = arrival as f64 / self.rate;
        self.begin + Duration::from_secs_f64(seconds)
    }

    /// When the next request is due; `None` when none is left.
    pub(super) fn next_at(&self) -> Option<Instant> {
        Some(self.at(self.next)).filter(|at| *at < self.end)
    }

    /// Takes the next arrival if it is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let at = self.next_at().filter(|at| *at <= now)?;
        self.next += self.stride;
        Some(at)
    }

    /// Arrivals that are due and were not taken.
    pub(super) fn backlog(&self, now: Instant) -> u64 {
        let Some(at) = self.next_at() else { return 0 };
        let until = now.min(self.end);
        if until < at {
            return 0;
        }
        let apart = self.stride as f64 / self.rate;
        ((until - at).as_secs_f64() / apart) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn arrivals_are_at_constant_distances_and_end() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, begin + SECOND, 4.0, 0, 1);
        let mut taken = Vec::new();
        while let Some(at) = schedule.take(begin + 9 * SECOND) {
            taken.push((at - begin).as_millis());
        }
        assert_eq!(taken, [0, 250, 500, 750]);
        assert_eq!((schedule.next_at(), schedule.backlog(begin + SECOND)), (None, 0));
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, begin + SECOND, 10.0, 0, 1);
        assert_eq!(schedule.take(begin), Some(begin));
        assert_eq!(schedule.take(begin + SECOND / 10 - Duration::from_nanos(1)), None);
        assert!(schedule.take(begin + SECOND / 10).is_some());
    }

    #[test]
    fn threads_share_the_arrivals() {
        let begin = Instant::now();
        let mut all = Vec::new();
        for thread in 0..3 {
            let mut schedule = Schedule::new(begin, begin + SECOND, 1000.0, thread, 3);
            while let Some(at) = schedule.take(begin + SECOND) {
                all.push(at);
            }
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn the_backlog_is_what_waits() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, begin + SECOND, 1000.0, 0, 1);
        let late = begin + Duration::from_micros(100_500);
        assert_eq!(schedule.backlog(late), 101);
        for _ in 0..101 {
            assert!(schedule.take(late).is_some());
        }
        assert_eq!((schedule.backlog(late), schedule.take(late)), (0, None));
    }
}
