//! The end of a compaction: a checkpoint that knows where everything was moved, then the removal.
//!
//! The segment is removed only if the checkpoint is durable, nothing in it counts any more, all
//! moves were committed, and no file is left that only its tombstones speak of. If the checkpoint
//! fails, it is made again. If anything else is missing, the segment is walked again, later.

use ron_io::ports::DiskOp;

use super::{Compaction, State};
use crate::{
    flow::Cx,
    limits,
    store::{
        deletes::Deletes,
        index::Index,
        log::Log,
        notes::Note,
        site::{Site, Tag},
    },
};

impl Compaction {
    /// Whether a checkpoint must come before the segment can go.
    pub(in crate::store) fn wants_checkpoint(&self, log: &Log, now_ns: u64) -> bool {
        match &self.state {
            State::Moved(victim) => {
                let moved = !log.is_moving() && log.is_behind(victim.segment);
                moved && now_ns >= self.not_before_ns
            }
            _ => false,
        }
    }

    /// Whether the log must go on elsewhere before the segment can go.
    pub(in crate::store) fn needs_rotation(&self, log: &Log, now_ns: u64) -> bool {
        match &self.state {
            State::Moved(victim) => {
                let moved = !log.is_moving() && !log.is_behind(victim.segment);
                moved && now_ns >= self.not_before_ns
            }
            _ => false,
        }
    }

    /// A checkpoint begins that takes up all that was committed.
    pub(in crate::store) fn on_checkpoint_begun(&mut self, log: &Log) {
        if let State::Moved(victim) = self.state
            && !log.is_moving()
            && log.is_behind(victim.segment)
        {
            self.state = State::Checkpointing(victim);
        }
    }

    /// The checkpoint is over.
    pub(in crate::store) fn on_checkpointed(
        &mut self,
        durable: bool,
        (log, index, deletes): (&Log, &Index, &Deletes),
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let State::Checkpointing(victim) = self.state else { return };
        if !durable {
            self.state = State::Moved(victim);
        } else if index.tally_of(victim.segment).live > 0 || log.unmoved() != victim.unmoved {
            // A commit failed in between: something that counts, perhaps a tombstone, which no
            // entry speaks for, is here and nowhere else.
            self.restart(victim, cx);
        } else if deletes.failed() != victim.unremoved || self.orphans.1 {
            // A file may be there that nothing but a tombstone in this segment speaks of.
            self.restart(victim, cx);
            self.not_before_ns = cx.now.mono_ns + limits::REMOVE_AGAIN_NS;
            if self.orphans.1 {
                site.note(cx, &Note::ManyOrphans { segment: victim.segment });
            }
        } else {
            self.state = State::Removing(victim);
            cx.close_file(victim.file);
            let path = cx.config.layout.segment_path(site.number, victim.segment);
            site.disk(cx, Tag::Compact, DiskOp::Remove { path, durable: true });
        }
    }
}
