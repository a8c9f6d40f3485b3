//! Checkpoints: the index is saved now and then, so that a start reads little of the log.
//!
//! ```text
//!   clean ──► dirty ──► due, or urgent ──► a job writes (the index is frozen) ──► clean
//!     ▲                      ▲                        │ fails
//!     │                      └── its time comes ◄─────┤
//!     └── read-only until one succeeds ◄── too often ─┘
//! ```

use std::io;

use ron_io::ports::{DiskDone, DiskOp, Severity};

use super::Partition;
use crate::{flow::Cx, limits, store::site::Tag};

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
}

impl Partition {
    pub(super) fn is_checkpoint_urgent(&self) -> bool {
        self.checkpoints.dirty
            && self.checkpoints.failures == 0
            && !self.index.is_frozen()
            && (self.index.changes() >= limits::MEMTABLE_CHECKPOINT
                || self.checkpoints.tail_len >= limits::CHECKPOINT_TAIL_LEN)
    }

    /// Whether the index takes no more changes before it was saved.
    pub(super) fn is_index_full(&self) -> bool {
        self.index.changes() >= limits::MEMTABLE_MAX
    }

    pub(super) fn checkpoint(&mut self, cx: &mut Cx<'_>) {
        self.checkpoints.dirty = false;
        self.checkpoints.due = false;
        self.checkpoints.tail_len = 0;
        self.compaction.on_checkpoint_begun(&self.log);
        let job = self.index.checkpoint(self.log.reached());
        self.site.disk(cx, Tag::Checkpoint, DiskOp::Run(job));
    }

    pub(super) fn on_checkpoint(&mut self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let outcome = match done {
            Ok(DiskDone::Ran(outcome)) => outcome,
            Ok(other) => unreachable!("a job brought {other:?}"),
            Err(error) => Err(error.to_string()),
        };
        if let Some(next) = self.index.written(outcome.is_ok()) {
            return self.site.disk(cx, Tag::Checkpoint, DiskOp::Run(next));
        }
        self.checkpoints.failures = if outcome.is_ok() { 0 } else { self.checkpoints.failures + 1 };
        self.look_at_checkpoints(outcome.as_ref().err(), cx);
        let books = (&self.log, &self.index, &self.deletes);
        self.compaction.on_checkpointed(outcome.is_ok(), books, self.site, cx);
        if let Err(error) = outcome {
            self.site.note(cx, Severity::Error, &format!("checkpoint: {error}"));
            self.compaction.on_failed(cx.now.mono_ns);
            // While stopping it is not tried again: the next boot reads the log instead.
            self.checkpoints.dirty = !self.stopping;
        }
    }

    /// Takes no more objects and deletions while its index cannot be saved, and takes them again
    /// when it could be.
    fn look_at_checkpoints(&mut self, error: Option<&String>, cx: &mut Cx<'_>) {
        match error {
            Some(error) if self.checkpoints.failures >= limits::CHECKPOINT_FAILURES_MAX => {
                let why = format!("its index cannot be saved: {error}");
                self.set_read_only(true, &why, cx);
            }
            _ => self.look_at_log(cx),
        }
    }
}
