//! A set of small numbers that finds its next member from any place in a few steps.

/// A set of numbers below a fixed bound, with a summary bit for each word of 64.
pub(super) struct Bits {
    words: Vec<u64>,
    summary: Vec<u64>,
}

impl Bits {
    pub(super) fn empty(bound: usize) -> Bits {
        let words = bound.div_ceil(64);
        Bits { words: vec![0; words], summary: vec![0; words.div_ceil(64)] }
    }

    pub(super) fn full(bound: usize) -> Bits {
        let mut bits = Bits::empty(bound);
        (0..bound).for_each(|n| bits.set(n, true));
        bits
    }

    pub(super) fn set(&mut self, n: usize, member: bool) {
        let (word, bit) = (n / 64, 1u64 << (n % 64));
        if member {
            self.words[word] |= bit;
        } else {
            self.words[word] &= !bit;
        }
        let summary_bit = 1u64 << (word % 64);
        if self.words[word] != 0 {
            self.summary[word / 64] |= summary_bit;
        } else {
            self.summary[word / 64] &= !summary_bit;
        }
    }

    /// The first member at or behind `start`, else the first of all.
    pub(super) fn first_from(&self, start: usize) -> Option<usize> {
        self.first_at_or_after(start).or_else(|| self.first_at_or_after(0))
    }

    fn first_at_or_after(&self, start: usize) -> Option<usize> {
        let word = start / 64;
        let rest = self.words.get(word)? & (u64::MAX << (start % 64));
        if rest != 0 {
            return Some(word * 64 + rest.trailing_zeros() as usize);
        }
        let next = word + 1;
        let masked = *self.summary.get(next / 64)? & (u64::MAX << (next % 64));
        let summaries = self.summary[next / 64 + 1..].iter().copied();
        let (nth, summary) =
            std::iter::once(masked).chain(summaries).enumerate().find(|(_, s)| *s != 0)?;
        let word = (next / 64 + nth) * 64 + summary.trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_tree(
            bound in 1usize..9000,
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..300),
            starts in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
        ) {
            let (mut bits, mut tree) = (Bits::empty(bound), BTreeSet::new());
            for (n, member) in steps {
                let n = n.index(bound);
                bits.set(n, member);
                if member { tree.insert(n); } else { tree.remove(&n); }
            }
            for start in starts {
                let start = start.index(bound + 1);
                let expected = tree.range(start..).next().or_else(|| tree.first()).copied();
                prop_assert_eq!(bits.first_from(start), expected);
            }
        }
    }
}
