//! Loops that get somewhere.
//!
//! A shard is one thread: a loop of it that does not end takes every connection of its core with
//! it. So every loop there takes from an input that gets shorter, has a fixed number of rounds, or
//! is watched by a [`Progress`], which ends it when it gets nowhere.

/// Rounds in a row that may use nothing. A round may change a state instead, and states do not
/// change many times without input.
pub const IDLE_ROUNDS_MAX: u32 = 16;

/// Watches one loop over an input.
#[derive(Debug, Default)]
pub struct Progress {
    idle_rounds: u32,
}

impl Progress {
    /// Notes a round that used so much of the input. False when the loop gets nowhere and has to
    /// end: a mistake of ours, which must cost one connection and not the shard.
    #[must_use]
    #[inline]
    pub fn made(&mut self, used: usize) -> bool {
        self.idle_rounds = if used > 0 { 0 } else { self.idle_rounds + 1 };
        self.idle_rounds <= IDLE_ROUNDS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_uses_nothing_ends() {
        let (mut progress, mut rounds) = (Progress::default(), 0);
        while progress.made(0) {
            rounds += 1;
        }
        assert_eq!(rounds, IDLE_ROUNDS_MAX);
    }

    #[test]
    fn a_loop_that_uses_something_now_and_then_goes_on() {
        let mut progress = Progress::default();
        for round in 0..10 * IDLE_ROUNDS_MAX {
            assert!(progress.made(usize::from(round % IDLE_ROUNDS_MAX == 0)), "{round}");
        }
    }
}
