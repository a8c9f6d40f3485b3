//! The end of a compaction: a checkpoint that knows where everything was moved, then the removal.
//!
//! The segment is removed only if the checkpoint is durable, nothing in it counts any more, all
//! moves were committed, and no file is left that only its tombstones speak of. If the checkpoint
//! fails, it is made again. If anything else is missing, the segment is walked again, later.

use ron_io::ports::DiskOp;

use super::{Compaction, Ready, Waiting, walker::Victim};
use crate::{
    flow::Cx,
    limits,
    machine::Turn,
    store::{
        deletes::Deletes,
        index::Index,
        log::Log,
        notes::Note,
        site::{Site, Tag},
    },
};

impl Compaction {
    /// The segment that everything was moved from, unless it has to wait.
    fn moved(&self, log: &Log, now_ns: u64) -> Option<Victim> {
        let Some(Ready::Moved(victim)) = self.machine.ready() else { return None };
        (!log.is_moving() && now_ns >= self.not_before_ns).then_some(*victim)
    }

    /// Whether a checkpoint must come before the segment can go.
    pub(in crate::store) fn wants_checkpoint(&self, log: &Log, now_ns: u64) -> bool {
        self.moved(log, now_ns).is_some_and(|victim| log.is_behind(victim.segment))
    }

    /// Whether the log must go on elsewhere before the segment can go.
    pub(in crate::store) fn needs_rotation(&self, log: &Log, now_ns: u64) -> bool {
        self.moved(log, now_ns).is_some_and(|victim| !log.is_behind(victim.segment))
    }

    /// A checkpoint begins that takes up all that was committed.
    pub(in crate::store) fn on_checkpoint_begun(&mut self, log: &Log) {
        if let Some(&Ready::Moved(victim)) = self.machine.ready()
            && !log.is_moving()
            && log.is_behind(victim.segment)
        {
            self.machine.go("checkpoint begun", Turn::Ready(Ready::Checkpointing(victim)));
        }
    }

    /// The checkpoint has ended.
    pub(in crate::store) fn on_checkpointed(
        &mut self,
        durable: bool,
        (log, index, deletes): (&Log, &Index, &Deletes),
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let Some(&Ready::Checkpointing(victim)) = self.machine.ready() else { return };
        let next = if !durable {
            Turn::Ready(Ready::Moved(victim))
        } else if index.tally_of(victim.segment).live > 0 || log.unmoved() != victim.unmoved {
            // A commit failed in between: something that counts, perhaps a tombstone, which no
            // entry speaks for, is here and nowhere else.
            Turn::Ready(self.restart(victim, cx))
        } else if deletes.failed() != victim.unremoved || self.orphans.1 {
            // A file may be there that nothing but a tombstone in this segment speaks of.
            let ready = self.restart(victim, cx);
            self.not_before_ns = cx.now.mono_ns + limits::REMOVE_AGAIN_NS;
            if self.orphans.1 {
                site.note(cx, &Note::ManyOrphans { segment: victim.segment });
            }
            Turn::Ready(ready)
        } else {
            cx.close_file(victim.file);
            let path = cx.config.layout.segment_path(site.number, victim.segment);
            site.disk(cx, Tag::Compact, DiskOp::Remove { path, durable: true });
            Turn::Waiting(Waiting::Removing(victim))
        };
        self.machine.go(if durable { "checkpointed" } else { "checkpoint failed" }, next);
    }
}
