//! What the cache remembers of blocks it evicted: hashes only, no bytes.
//!
//! A key that comes back soon after it left the small queue has earned the main queue. "Soon" is
//! counted in departures: a key is remembered while it is among the last `n` that left, where the
//! caller says `n` each time it asks. So nothing has to be taken out when `n` shrinks, and the
//! memory is one array: each departure notes its number in a bucket of its hash, over the oldest
//! note there. A bucket that overflows forgets a key early, and two keys with the same hash pass
//! for one; either costs a poorer choice of queue and nothing else.

/// Notes of one bucket: one cache line of them.
const BUCKET_NOTES: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Note {
    fingerprint: u32,
    /// Number of the departure, counted from one; 0 where nothing was noted.
    number: u32,
}

type Bucket = [Note; BUCKET_NOTES];

/// The keys that left last.
#[derive(Debug)]
pub(super) struct Ghost {
    buckets: Box<[Bucket]>,
    /// Departures so far. It wraps, and an old note may then pass for a new one: see above.
    departures: u32,
}

impl Ghost {
    /// Space for the last `pages` departures.
    pub(super) fn new(pages: usize) -> Ghost {
        let buckets = vec![Bucket::default(); buckets_for(pages)].into_boxed_slice();
        Ghost { buckets, departures: 0 }
    }

    /// Bytes of a ghost with space for `pages` departures.
    pub(super) const fn bytes_for(pages: usize) -> usize {
        buckets_for(pages) * size_of::<Bucket>()
    }

    /// Remembers a key that leaves.
    pub(super) fn remember(&mut self, hash: u64) {
        self.departures = self.departures.wrapping_add(1);
        let (number, fingerprint) = (self.departures, fingerprint(hash));
        let bucket = self.bucket(hash);
        let age = |note: &Note| match note {
            _ if note.fingerprint == fingerprint => u32::MAX,
            _ if note.number == 0 => u32::MAX - 1,
            _ => number.wrapping_sub(note.number),
        };
        if let Some(note) = bucket.iter_mut().max_by_key(|note| age(note)) {
            *note = Note { fingerprint, number };
        }
    }

    /// Whether a key is among the last `n` that left. It is forgotten.
    pub(super) fn recall(&mut self, hash: u64, n: usize) -> bool {
        let departures = self.departures;
        let known = |note: &&mut Note| {
            let age = departures.wrapping_sub(note.number) as usize;
            note.number != 0 && note.fingerprint == fingerprint(hash) && age < n
        };
        match self.bucket(hash).iter_mut().find(known) {
            Some(note) => {
                *note = Note::default();
                true
            }
            None => false,
        }
    }

    fn bucket(&mut self, hash: u64) -> &mut Bucket {
        let at = hash as usize & (self.buckets.len() - 1);
        &mut self.buckets[at]
    }
}

/// The bits of a hash that do not choose its bucket.
fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32
}

const fn buckets_for(pages: usize) -> usize {
    pages.div_ceil(BUCKET_NOTES).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        ron_io::splitmix::SplitMix64::new(key).next_u64()
    }

    #[test]
    fn remembers_the_last_departures_and_no_others() {
        let mut ghost = Ghost::new(1000);
        (0..100).for_each(|key| ghost.remember(hash(key)));
        assert!(!ghost.recall(hash(89), 10), "ten keys left after it");
        assert!(ghost.recall(hash(90), 10));
        assert!(!ghost.recall(hash(90), 10), "a key is recalled once");
        assert!(ghost.recall(hash(99), 1));
        assert!(!ghost.recall(hash(98), 0));
        assert!(!ghost.recall(hash(100), 1000), "it never left");
    }

    #[test]
    fn a_key_that_leaves_again_is_as_good_as_new() {
        let mut ghost = Ghost::new(64);
        ghost.remember(hash(1));
        (2..12).for_each(|key| ghost.remember(hash(key)));
        ghost.remember(hash(1));
        assert!(ghost.recall(hash(1), 1));
        assert!(!ghost.recall(hash(1), 64), "the first note is gone too");
    }

    #[test]
    fn a_full_bucket_forgets_the_oldest() {
        let mut ghost = Ghost::new(1);
        let in_one_bucket = |key: u64| key << 32;
        (1..=9).for_each(|key| ghost.remember(in_one_bucket(key)));
        assert!(!ghost.recall(in_one_bucket(1), 100));
        assert!((2..=9).all(|key| ghost.recall(in_one_bucket(key), 100)));
    }
}
