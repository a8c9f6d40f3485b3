//! Checkpoints: the index is saved now and then, so that a start reads little of the log.
//!
//! ```text
//!   clean ──► dirty ──► due, or urgent ──► a job writes (the index is frozen) ──► clean
//!     ▲                      ▲                        │ fails
//!     │                      └── its time comes ◄─────┤
//!     └── read-only until one succeeds ◄── too often ─┘
//! ```

use crate::limits;

/// When a partition saves its index.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// One is wanted, and waits until nothing stands in its way.
    pub(super) due: bool,
    /// Whether the log goes on behind the last one, and how far about.
    pub(super) dirty: bool,
    pub(super) tail_len: u64,
    /// How many in a row failed: the next waits for its time, and after some of them no more is
    /// taken that would have to wait for one.
    pub(super) failures: u32,
}

impl Checkpoints {
    pub(super) fn new(dirty: bool) -> Checkpoints {
        Checkpoints { due: false, dirty, tail_len: 0, failures: 0 }
    }

    /// Whether one must come soon, with so many changes in memory.
    pub(super) fn is_urgent(&self, changes: usize) -> bool {
        let many = changes >= limits::MEMTABLE_CHECKPOINT;
        let far = self.tail_len >= limits::CHECKPOINT_TAIL_LEN;
        self.dirty && self.failures == 0 && (many || far)
    }

    /// One begins.
    pub(super) fn begin(&mut self) {
        (self.due, self.dirty, self.tail_len) = (false, false, 0);
    }

    /// One has ended. One that failed is tried again, but not while the partition is `stopping`:
    /// the next start reads the log instead.
    pub(super) fn end(&mut self, durable: bool, stopping: bool) {
        if durable {
            self.failures = 0;
        } else {
            self.failures += 1;
            self.dirty = !stopping;
        }
    }

    /// Whether so many failed that nothing more is taken.
    pub(super) fn has_failed_too_often(&self) -> bool {
        self.failures >= limits::CHECKPOINT_FAILURES_MAX
    }
}
