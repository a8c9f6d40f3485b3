//! Saving the index of a partition, when [`Checkpoints`](super::checkpoints::Checkpoints) say so.

use std::io;

use ron_io::ports::{DiskDone, DiskOp, JobError};

use super::Partition;
use crate::{
    flow::Cx,
    limits,
    store::{
        notes::{Note, Writes},
        site::Tag,
    },
};

impl Partition {
    pub(super) fn is_checkpoint_urgent(&self) -> bool {
        !self.index.is_frozen() && self.checkpoints.is_urgent(self.index.changes())
    }

    /// Whether the index takes no more changes before it was saved.
    pub(super) fn is_index_full(&self) -> bool {
        self.index.changes() >= limits::MEMTABLE_MAX
    }

    pub(super) fn checkpoint(&mut self, cx: &mut Cx<'_>) {
        self.checkpoints.begin();
        self.compaction.on_checkpoint_begun(&self.log);
        let job = self.index.checkpoint(self.log.reached());
        self.site.disk(cx, Tag::Checkpoint, DiskOp::Run(job));
    }

    pub(super) fn on_checkpoint(&mut self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let outcome = match done {
            Ok(done) => done.into_ran(),
            Err(error) => Err(JobError::Unanswered(error)),
        };
        if let Some(next) = self.index.written(outcome.is_ok()) {
            return self.site.disk(cx, Tag::Checkpoint, DiskOp::Run(next));
        }
        self.checkpoints.end(outcome.is_ok(), self.stopping);
        self.look_at_checkpoints(outcome.as_ref().err(), cx);
        let books = (&self.log, &self.index, &self.deletes);
        self.compaction.on_checkpointed(outcome.is_ok(), books, self.site, cx);
        if let Err(error) = outcome {
            self.site.note(cx, &Note::CheckpointFailed(&error));
            self.compaction.on_failed(cx.now.mono_ns);
        }
    }

    /// Takes no more objects and deletions while its index cannot be saved, and takes them again
    /// when it could be.
    fn look_at_checkpoints(&mut self, error: Option<&JobError>, cx: &mut Cx<'_>) {
        match error {
            Some(error) if self.checkpoints.has_failed_too_often() => {
                self.set_read_only(true, &Writes::IndexNotSaved(error), cx);
            }
            _ => self.look_at_log(cx),
        }
    }
}
