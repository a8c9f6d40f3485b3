//! The time: it passes when the simulation says so.

use crate::ports::Now;

/// When a simulated machine was switched on, in Unix milliseconds.
const EPOCH_MS: i64 = 1_750_000_000_000;

/// The last millisecond whose year has four digits, which dates on the wire must have.
const UNIX_MS_MAX: i64 = 253_402_300_799_999;

/// Time since the machine was switched on, which never goes back, and the time of day, which may.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    mono_ns: u64,
    skew_ms: i64,
}

impl Clock {
    pub fn now(&self) -> Now {
        let passed_ms = (self.mono_ns / 1_000_000) as i64;
        let unix_ms = EPOCH_MS.saturating_add(passed_ms).saturating_add(self.skew_ms);
        Now { mono_ns: self.mono_ns, unix_ms: unix_ms.clamp(0, UNIX_MS_MAX) as u64 }
    }

    pub fn pass(&mut self, ns: u64) {
        self.mono_ns = self.mono_ns.saturating_add(ns);
    }

    /// Lets time pass until `mono_ns`, if it has not come.
    pub fn pass_until(&mut self, mono_ns: u64) {
        self.mono_ns = self.mono_ns.max(mono_ns);
    }

    /// Somebody sets the time of day.
    pub fn set_back_or_forward(&mut self, ms: i64) {
        self.skew_ms = self.skew_ms.saturating_add(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_day_goes_back() {
        let mut clock = Clock::default();
        clock.pass(3_000_000);
        clock.pass_until(2);
        assert_eq!(clock.now().mono_ns, 3_000_000);
        assert_eq!(clock.now().unix_ms, EPOCH_MS as u64 + 3);
        clock.set_back_or_forward(-1000);
        assert_eq!(clock.now().unix_ms, EPOCH_MS as u64 - 997);
        clock.set_back_or_forward(i64::MIN);
        assert_eq!(clock.now().unix_ms, 0);
        clock.set_back_or_forward(i64::MAX);
        clock.set_back_or_forward(i64::MAX);
        assert_eq!(clock.now().unix_ms, UNIX_MS_MAX as u64);
        assert_eq!(clock.now().mono_ns, 3_000_000);
    }
}
