//! What becomes of a commit: the index learns of it, caches forget, and who waits is answered.
//!
//! ```text
//!   appends, moves ──► commit ──► durable ──► index, answers
//!                        └──► refused: files are removed, then answers
//! ```

use ron_codec::{address::Address, limits::OBJECT_LEN_MAX};

use super::Partition;
use crate::{
    flow::{Cx, Fault, Reply},
    store::{
        damage,
        files::FileKey,
        hits::keep,
        index::{Entry, Location},
        log::{Append, Moving, Outcome, What},
    },
};

impl Partition {
    pub(super) fn commit(&mut self, cx: &mut Cx<'_>) {
        let rotate =
            self.compaction.needs_rotation(&self.log, cx.now.mono_ns) && self.log.is_idle();
        // A checkpoint must not come between a tombstone and the removal of its file: commits
        // wait until those are over.
        let held = self.checkpoints.due && self.deletes.owes_removal();
        // What is committed while one is tried again would come on top of what waits already.
        let held = held || (self.checkpoints.failures > 0 && self.index.is_frozen());
        if (self.log.wants_commit() || rotate) && !held && !self.is_index_full() {
            self.log.commit((&self.index, rotate), self.site, &mut self.files, cx);
        }
    }

    /// Answers what waits for a commit that does not come: the log is broken, or the index cannot
    /// be saved and takes no more.
    pub(super) fn refuse_waiting(&mut self, cx: &mut Cx<'_>) {
        let is_last = self.stopping && self.checkpoints.failures > 0 && self.is_index_full();
        let ends = self.log.is_broken() || is_last;
        if ends || self.takes_nothing() {
            for append in self.log.refuse_waiting(ends) {
                self.not_stored(append, Fault::Disk, true, cx);
            }
        }
    }

    pub(super) fn on_commit(&mut self, outcome: Outcome, cx: &mut Cx<'_>) {
        match outcome {
            Outcome::Failed { appends, fault, cut } => {
                self.compaction.on_failed(cx.now.mono_ns);
                for append in appends {
                    self.not_stored(append, fault, cut, cx);
                }
            }
            Outcome::Committed { appended, moved } => {
                self.checkpoints.dirty = true;
                for (append, entry) in appended {
                    cx.free_space.wrote(self.volume, append.promised, append.promised);
                    self.committed(append, entry, cx);
                }
                for (address, what, entry) in moved {
                    self.moved(address, what, entry);
                }
                self.count(cx);
            }
        }
    }

    fn committed(&mut self, append: Append, entry: Entry, cx: &mut Cx<'_>) {
        let Append { address, size, what, askers, .. } = append;
        match &what {
            What::Object { blocks, .. } => {
                self.checkpoints.tail_len += size;
                if let [block] = blocks.as_slice() {
                    keep(&address, block, askers[0].shard, cx);
                }
            }
            What::File => {}
            What::Tombstone => {
                if let Location::Segment { segment, .. } = entry.location {
                    self.index.count_tombstone(segment);
                }
                let before = self.index.get(&address);
                self.index.remove(address);
                damage::healed(&address, cx);
                self.compaction.rescan();
                // Of what is not known there may be a file and any number of groups.
                let before = before.unwrap_or(Entry {
                    location: Location::File { segment: 0 },
                    size: OBJECT_LEN_MAX,
                    sequence: 0,
                });
                return self.deletes.begin(address, &before, askers);
            }
        }
        if cx.damage.doubts(&address) && self.has_file(&address) {
            // It may be damaged. Another file has its name now, or the log has the object.
            self.files.forget(FileKey::Object(address), cx);
            if matches!(what, What::Object { .. }) {
                self.deletes.take_back(address, Vec::new(), Fault::Disk);
            }
        }
        self.index.insert(address, entry);
        damage::healed(&address, cx);
        for (nth, asker) in askers.into_iter().enumerate() {
            cx.replies.push_back((asker, Reply::Stored { new: nth == 0 }));
        }
    }

    /// A record has another place, unless it stopped counting in the same commit.
    fn moved(&mut self, address: Address, what: Moving, now: Entry) {
        match (what, now.location) {
            (Moving::Tombstone { .. }, Location::Segment { segment, .. }) => {
                self.index.count_tombstone(segment);
            }
            (Moving::Entry(before), _) if self.index.get(&address) == Some(before) => {
                self.index.insert(address, now);
            }
            _ => {}
        }
    }

    /// An append is not in the log. If it stands for a file, that has or may have its place: it is
    /// removed before anyone is answered, or a later rebuild would show what was refused. Unless a
    /// boot may find its record, which without `cut` is not known to be gone; or it was to replace
    /// a damaged one: the object is there, and this file is no worse.
    pub(super) fn not_stored(&mut self, append: Append, fault: Fault, cut: bool, cx: &mut Cx<'_>) {
        cx.free_space.release(self.volume, append.promised);
        match append.what {
            What::File if cut && !self.has_file(&append.address) => {
                self.deletes.take_back(append.address, append.askers, fault);
            }
            _ => answer(append, fault, cx),
        }
    }

    fn has_file(&self, address: &Address) -> bool {
        let known = self.index.get(address);
        known.is_some_and(|known| matches!(known.location, Location::File { .. }))
    }
}

fn answer(append: Append, fault: Fault, cx: &mut Cx<'_>) {
    for asker in append.askers {
        cx.replies.push_back((asker, Reply::Failed(fault)));
    }
}
