//! The dice: every throw follows from a seed.

use crate::splitmix::SplitMix64;

/// A seeded source of decisions.
#[derive(Clone, Debug)]
pub struct Chance(SplitMix64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(SplitMix64::new(seed))
    }

    /// Another source, whose throws do not depend on how this one is used later.
    pub fn fork(&mut self) -> Chance {
        Chance::new(self.next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number less than `n`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `high` is less than `low`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "{low} to {high}");
        low + self.next_u64() % (high - low).saturating_add(1).max(1)
    }

    /// A number from 1 to about `max`, each order of magnitude as likely as any other.
    pub fn magnitude(&mut self, max: u64) -> u64 {
        let bits = self.between(0, u64::from(max.max(1).ilog2()));
        (1 << bits) | (self.next_u64() & ((1 << bits) - 1))
    }

    /// True once in `n` throws; never when `n` is 0.
    pub fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.next_u64().is_multiple_of(u64::from(n))
    }

    pub fn toss(&mut self) -> bool {
        self.next_u64() & 1 == 0
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same() {
        let throws = |seed| {
            let mut chance = Chance::new(seed);
            [(); 8].map(|()| chance.next_u64())
        };
        assert_eq!(throws(1_234_567)[0], 6_457_827_717_110_365_317, "the numbers of SplitMix64");
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
    }

    #[test]
    fn throws_stay_within_their_bounds() {
        let mut chance = Chance::new(1);
        let mut seen = [false; 3];
        for _ in 0..1000 {
            seen[chance.below(3)] = true;
            assert!((5..=6).contains(&chance.between(5, 6)));
            assert!((1..1024).contains(&chance.magnitude(1000)));
            assert_eq!(chance.magnitude(1), 1);
            assert!(chance.one_in(1) && !chance.one_in(0));
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(chance.between(0, u64::MAX).min(1), 1);
    }
}
