//! Moving what counts out of a victim, a part of it a turn.
//!
//! A turn ends when the log's queue is full, or when it has hashed enough. While others want much
//! of the disk, the next turn waits for the pace. A victim in which something that counts is
//! damaged is given up, and stays.

use ron_io::ports::{DiskOp, Urgency};

use super::{
    Books, Compaction, Ready, State, Waiting,
    walker::{Fate, Victim, Walker, relocation},
};
use crate::{
    flow::{Cx, Fault},
    limits,
    machine::Turn,
    store::{
        index::{Entry, Index},
        notes::{NotCompacted, Note},
        orphans::Known,
        scan::{Found, Next},
        site::{Site, Tag},
    },
};

impl Compaction {
    /// Whether what others want of the disk comes first for now.
    fn yields(&mut self, cx: &Cx<'_>) -> bool {
        if cx.tickets.in_progress() <= limits::COMPACT_IN_PROGRESS_MAX {
            self.pace.forgive();
            return false;
        }
        let ready_ns = self.pace.ready_at(cx.now.mono_ns);
        self.not_before_ns = self.not_before_ns.max(ready_ns);
        ready_ns > cx.now.mono_ns
    }

    /// Moves what was found, a part of it a turn, then reads on.
    pub(super) fn advance(
        &mut self,
        mut walker: Walker,
        books: &mut Books<'_>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> State {
        if self.yields(cx) {
            return Turn::Ready(Ready::Moving(walker));
        }
        let (log, index) = (&mut *books.log, &*books.index);
        let mut hashed = 0;
        while let Some(found) = walker.found.pop_front() {
            if !log.can_move() || hashed >= limits::COMPACT_TURN_LEN {
                walker.found.push_front(found);
                return Turn::Ready(Ready::Moving(walker));
            }
            match walker.fate(&found, index) {
                Fate::Dropped if self.orphans.0.remove(&found.digest) => {
                    let known = Known { log, index, deletes: books.deletes };
                    if known.is_orphan(&found.digest) {
                        books.deletes.take_back(found.digest, Vec::new(), Fault::Disk);
                    }
                }
                Fate::Dead | Fate::Dropped => {}
                Fate::Relocate(relocation) => {
                    hashed += relocation.record.len();
                    self.pace.take(relocation.record.len() as u64);
                    cx.stats.compact_moved_bytes.add(relocation.record.len() as u64);
                    assert!(log.relocate(relocation), "there was space");
                }
                Fate::Read(entry) => {
                    let (file, at) = (walker.victim.file, found.offset);
                    let len = found.record_len as u32;
                    // It is moved as well.
                    self.pace.take(2 * found.record_len);
                    let op = DiskOp::Scan { file, at, len, urgency: Urgency::Background };
                    site.disk(cx, Tag::Compact, op);
                    return Turn::Waiting(Waiting::Reading(walker, found, entry));
                }
                Fate::Damaged => {
                    let why = NotCompacted::Damaged;
                    return Turn::Ready(self.give_up(walker.victim, why, index, site, cx));
                }
            }
        }
        match walker.next {
            Next::Read { at, len } => {
                let file = walker.victim.file;
                walker.piece_at = at;
                self.pace.take(len.into());
                let op = DiskOp::Scan { file, at, len, urgency: Urgency::Background };
                site.disk(cx, Tag::Compact, op);
                Turn::Waiting(Waiting::Walking(walker))
            }
            // The scrub moves away the objects that count behind the damage, and then the segment
            // may go; unless tombstones are there, for which nothing else speaks.
            Next::End { torn: Some(why), .. } if self.has_more(&walker, index) => {
                let why = NotCompacted::Broken(why);
                Turn::Ready(self.give_up(walker.victim, why, index, site, cx))
            }
            Next::End { .. } => Turn::Ready(Ready::Moved(walker.victim)),
        }
    }

    /// A piece of the segment came.
    pub(super) fn walked(
        &mut self,
        mut walker: Walker,
        bytes: Vec<u8>,
        books: &mut Books<'_>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> State {
        let why = if (bytes.len() as u64) < walker.walk.expected() {
            NotCompacted::ShortRead
        } else if let Ok(next) = walker.walk.feed(&bytes) {
            walker.take_piece(bytes, next);
            return self.advance(walker, books, site, cx);
        } else {
            NotCompacted::NewerRecords
        };
        Turn::Ready(self.give_up(walker.victim, why, books.index, site, cx))
    }

    /// A record came that was not whole in its piece.
    pub(super) fn read(
        &mut self,
        mut walker: Walker,
        (found, entry): (Found, Entry),
        record: &[u8],
        books: &mut Books<'_>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Ready {
        let Some(relocation) = relocation(&found, entry, record) else {
            let why = NotCompacted::Damaged;
            return self.give_up(walker.victim, why, books.index, site, cx);
        };
        cx.stats.compact_moved_bytes.add(record.len() as u64);
        if !books.log.relocate(relocation) {
            walker.found.push_front(found);
        }
        Ready::Moving(walker)
    }

    /// Whether something that counts, or a tombstone, lies where the walk did not come.
    fn has_more(&self, walker: &Walker, index: &Index) -> bool {
        let tally = index.tally_of(walker.victim.segment);
        tally.live > 0 || walker.tombstones < tally.tombstones
    }

    pub(super) fn give_up(
        &mut self,
        victim: Victim,
        why: NotCompacted,
        index: &Index,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Ready {
        self.look = true;
        self.stuck.insert(victim.segment, index.tally_of(victim.segment).live);
        cx.close_file(victim.file);
        site.note(cx, &Note::NotCompacted { segment: victim.segment, why });
        Ready::Idle
    }
}
