//! Words that belong together, written by one thread and read whole by any.
//!
//! A sequence lock: the version is odd while the words are being written, and a reader that finds
//! it odd, or other than before, reads again. Writing never waits, and neither does reading: it
//! gives up after a few attempts.
//!
//! ```text
//!   writer   version 1 ── fence ── words ──────────── version 2
//!   reader   version? ─────────── words ── fence ── version the same?
//! ```

use crate::sync::{AtomicU64, Ordering, fence};

/// Attempts at reading. A writer that is busy all the time is not worth waiting for.
const READS_MAX: usize = 4;

/// `N` words with one writer.
#[derive(Debug)]
pub(crate) struct SeqLock<const N: usize> {
    /// Odd while the words are being written.
    version: AtomicU64,
    words: [AtomicU64; N],
}

impl<const N: usize> Default for SeqLock<N> {
    fn default() -> Self {
        SeqLock { version: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl<const N: usize> SeqLock<N> {
    /// Replaces all words, by the one writer.
    #[inline]
    pub(crate) fn set(&self, words: [u64; N]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // A reader of one of the words below finds the version odd, or later.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// All words as they were at one moment, by the writer.
    #[inline]
    pub(crate) fn own(&self) -> [u64; N] {
        std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed))
    }

    /// All words as they were at one moment; `None` when they are replaced all the time.
    pub(crate) fn get(&self) -> Option<[u64; N]> {
        (0..READS_MAX).find_map(|_| {
            let before = self.version.load(Ordering::Acquire);
            let words = self.own();
            fence(Ordering::Acquire);
            let whole = before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before;
            whole.then_some(words)
        })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_never_torn() {
        let pair = SeqLock::<2>::default();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut read = 0u64;
                // Once at least, even where this thread runs only when the writer is done.
                while read == 0 || !done.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Some([one, other]) = pair.get() {
                        assert_eq!(other, one * 3, "torn after {read} reads");
                        read += 1;
                    }
                }
            });
            for n in 0..2_000_000 {
                pair.set([n, n * 3]);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(pair.get(), Some([1_999_999, 5_999_997]));
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models {
    use super::*;
    use loom::{sync::Arc, thread};

    #[test]
    fn a_pair_is_never_torn() {
        loom::model(|| {
            let pair = Arc::new(SeqLock::<2>::default());
            let writer = {
                let pair = Arc::clone(&pair);
                thread::spawn(move || (1..3).for_each(|n| pair.set([n, n * 3])))
            };
            if let Some([one, other]) = pair.get() {
                assert_eq!(other, one * 3);
            }
            writer.join().unwrap();
            assert_eq!(pair.get(), Some([2, 6]));
        });
    }
}
