//! Compaction: gives the space of deleted objects back, a segment at a time.
//!
//! ```text
//!   Renewing ──► Idle ◄─────────────────────────────────────────── Removing
//!                 │                                                    ▲ durable
//!                 ├──► Searching ⇄ Listing   (it is the oldest)   Checkpointing
//!                 ▼        ▼                                         ▲   │ fails
//!              Opening ◄───┘                                         │   ▼
//!                 └──► Walking ⇄ Moving ⇄ Reading ── all is moved ─► Moved
//! ```
//!
//! A segment with which something goes wrong leads back to `Idle`, and is tried again later or left
//! alone.
//!
//! A moved record keeps its bytes and its sequence, so whichever copy a rebuild meets says the
//! same. The segment is removed only when everything in it that counts is durable elsewhere and a
//! checkpoint points there. A tombstone is moved too while an older segment could hold what it
//! removes; in the oldest it has done its work, once no file is left of what it removed. So before
//! the oldest is walked its partition's folders are looked through for files without an object, and
//! those whose tombstones are met are removed.
//!
//! A record that was moved while its tombstone was hidden by damage lies behind it, and would
//! outlive it. A rebuild that can read both finds such tombstones, and they are written again at
//! the end of the log before any segment is looked at and before any checkpoint.
//!
//! While others want much of the disk it goes at a pace, and else as fast as it can.
//!
//! A segment with a damaged header, or with a damaged object that counts, is left alone: what is
//! in it may still be of use to who looks after the damage.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ron_codec::address::Address;
use ron_io::ports::{DiskDone, DiskOp, OpenHow};

use super::{
    deletes::Deletes,
    files::{FileKey, Files},
    index::{Entry, Index},
    log::{Log, Relocation},
    notes::{NotCompacted, Note},
    orphans::{Known, Search},
    pace::Pace,
    scan::Found,
    site::{Site, Tag},
};
use crate::{
    flow::Cx,
    limits,
    machine::{Machine, Turn, answer_name},
};

mod choose;
mod moves;
mod removal;
mod walker;

use walker::{Victim, Walker};

/// Segments up to which each deletion makes them all be looked at; with more it happens no more
/// often than this.
const OFTEN_SEGMENTS_MAX: usize = 256;
const LOOK_EVERY_NS: u64 = 1_000_000_000;

/// No act of its own is in progress.
#[derive(Debug)]
enum Ready {
    /// Tombstones are written again: those that are left, and `Log::unmoved` when it was begun.
    Renewing(Vec<(Address, u64)>, u64),
    Idle,
    /// The oldest segment has tombstones: files are looked for that they may stand for.
    Searching(u32, Search),
    /// Records that were found wait for their turn, or for space in the log's queue.
    Moving(Walker),
    /// Everything was moved, or is about to be committed.
    Moved(Victim),
    /// A checkpoint that knows of it runs.
    Checkpointing(Victim),
}

/// An act is in progress.
#[derive(Debug)]
enum Waiting {
    /// One of the search.
    Listing(u32, Search),
    Opening(Victim),
    /// A piece of the segment is being read.
    Walking(Walker),
    /// One record is being read that was not whole in its piece.
    Reading(Walker, Found, Entry),
    Removing(Victim),
}

type State = Turn<Ready, Waiting>;

/// The compaction of one partition.
#[derive(Debug)]
pub(super) struct Compaction {
    machine: Machine<State>,
    /// Whether something changed that could make a segment worth it.
    look: bool,
    looked_ns: u64,
    /// After a failure, when it is tried again, and while it yields, when it goes on, in
    /// `Now::mono_ns`.
    not_before_ns: u64,
    /// How fast it goes while it yields to what others want of the disk.
    pace: Pace,
    /// Segments that were tried in vain, and what of them counted then.
    stuck: BTreeMap<u32, u64>,
    /// Files without an object that were found for the segment in hand, and whether there are more
    /// of them than that.
    orphans: (BTreeSet<Address>, bool),
    /// Tombstones that are to be written again before all else.
    overtaken: Vec<(Address, u64)>,
    /// Records are hidden, and what a tombstone hides may be among them, in whatever segment: no
    /// tombstone is dropped.
    has_hidden: bool,
}

/// What compaction works with.
#[derive(Debug)]
pub(super) struct Books<'a> {
    pub(super) log: &'a mut Log,
    pub(super) index: &'a mut Index,
    pub(super) deletes: &'a mut Deletes,
}

impl Books<'_> {
    fn known(&self) -> Known<'_> {
        Known { log: self.log, index: self.index, deletes: self.deletes }
    }
}

impl Compaction {
    /// With segments that it must not touch, because records may be hidden in them, and tombstones
    /// that an older record of their object follows in a later segment.
    pub(super) fn new(hidden: &BTreeSet<u32>, overtaken: Vec<(Address, u64)>) -> Compaction {
        let ready = match overtaken.is_empty() {
            true => Ready::Idle,
            false => Ready::Renewing(overtaken.clone(), 0),
        };
        Compaction {
            machine: Machine::new("compaction", Turn::Ready(ready)),
            look: true,
            looked_ns: 0,
            not_before_ns: 0,
            pace: Pace::new(limits::COMPACT_YIELDING_BYTES_PER_S),
            stuck: hidden.iter().map(|segment| (*segment, 0)).collect(),
            orphans: Default::default(),
            overtaken,
            has_hidden: !hidden.is_empty(),
        }
    }

    /// Whether tombstones are still to be written again, without which no index must be saved.
    pub(super) fn is_renewing(&self) -> bool {
        !self.overtaken.is_empty()
    }

    /// Something was deleted, written or removed.
    pub(super) fn rescan(&mut self) {
        self.look = true;
    }

    /// Whether no segment is in hand.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.machine.ready(), Some(Ready::Idle))
    }

    /// Whether `settle` could do something at once.
    pub(super) fn is_runnable(&self, log: &Log, now_ns: u64) -> bool {
        if now_ns < self.not_before_ns {
            return false;
        }
        match self.machine.ready() {
            Some(Ready::Idle) => self.look && log.is_idle() && log.extent().0 <= OFTEN_SEGMENTS_MAX,
            Some(Ready::Renewing(left, _)) => !left.is_empty() && log.can_move(),
            Some(Ready::Searching(..)) => true,
            Some(Ready::Moving(_)) => log.can_move() || log.is_broken(),
            Some(Ready::Moved(_)) => log.is_broken(),
            Some(Ready::Checkpointing(_)) | None => false,
        }
    }

    /// When it goes on after a failure, in `Now::mono_ns`, if it waits for that.
    pub(super) fn retry_at(&self, now_ns: u64) -> Option<u64> {
        let waits = match self.machine.ready()? {
            Ready::Idle => self.look,
            Ready::Renewing(..) | Ready::Moving(_) | Ready::Moved(_) => true,
            Ready::Searching(..) | Ready::Checkpointing(_) => false,
        };
        (waits && now_ns < self.not_before_ns).then_some(self.not_before_ns)
    }

    /// A commit or a checkpoint failed: the next try of the same comes later.
    pub(super) fn on_failed(&mut self, now_ns: u64) {
        self.not_before_ns = now_ns + limits::CHECKPOINT_AFTER_NS;
    }

    /// Gives up a segment that is to be walked from the start again, later.
    fn restart(&mut self, victim: Victim, cx: &mut Cx<'_>) -> Ready {
        self.look = true;
        self.on_failed(cx.now.mono_ns);
        cx.close_file(victim.file);
        Ready::Idle
    }

    /// Ends what can be ended, so that the partition can be closed. An act that is in progress is
    /// answered first.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        self.look = false;
        match self.machine.ready() {
            Some(Ready::Moving(Walker { victim, .. }) | Ready::Moved(victim)) => {
                cx.close_file(victim.file);
            }
            Some(Ready::Searching(..) | Ready::Renewing(..)) => {}
            Some(Ready::Idle | Ready::Checkpointing(_)) | None => return,
        }
        self.machine.go("stop", Turn::Ready(Ready::Idle));
    }

    /// Chooses a segment if there is none in hand, or goes on with what was found.
    pub(super) fn settle(
        &mut self,
        books: &mut Books<'_>,
        files: &mut Files,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        if self.machine.is_waiting() {
            return;
        }
        let log = &mut *books.log;
        let next = match self.machine.take_ready("settle") {
            Ready::Renewing(left, unmoved) => Turn::Ready(self.renew(left, unmoved, log, cx)),
            // Nothing can be moved any more, so nothing is removed.
            Ready::Moving(Walker { victim, .. }) | Ready::Moved(victim) if log.is_broken() => {
                cx.close_file(victim.file);
                self.look = false;
                Turn::Ready(Ready::Idle)
            }
            Ready::Moving(Walker { victim, .. }) | Ready::Moved(victim)
                if log.unmoved() != victim.unmoved =>
            {
                Turn::Ready(self.restart(victim, cx))
            }
            Ready::Idle if self.look && self.may_look(log, cx) => {
                self.begin(books, files, site, cx)
            }
            Ready::Searching(segment, mut search) => {
                if search.go(books.deletes, site, Tag::Compact, cx) {
                    Turn::Waiting(Waiting::Listing(segment, search))
                } else {
                    // Files that were being removed then were passed over by the search.
                    let failed_before = search.failed_before();
                    self.orphans = search.found();
                    self.open(segment, Some(failed_before), books, site, cx)
                }
            }
            Ready::Moving(walker) if cx.now.mono_ns >= self.not_before_ns => {
                self.advance(walker, books, site, cx)
            }
            other => return self.machine.keep(Turn::Ready(other)),
        };
        self.machine.put(next);
    }

    /// Takes the segment in hand that is worth it most, if one is.
    fn begin(
        &mut self,
        books: &mut Books<'_>,
        files: &mut Files,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> State {
        self.look = false;
        self.looked_ns = cx.now.mono_ns;
        let log = &mut *books.log;
        let Some(segment) = self.choose(log, books.index, cx) else {
            return Turn::Ready(Ready::Idle);
        };
        if !log.is_sealed(segment) && !log.seal(segment, files) {
            self.look = true;
            return Turn::Ready(Ready::Idle);
        }
        let oldest = self.oldest(log) == Some(segment);
        if oldest && books.index.tally_of(segment).tombstones > 0 {
            return Turn::Ready(Ready::Searching(segment, Search::new(books.deletes)));
        }
        self.orphans = Default::default();
        self.open(segment, None, books, site, cx)
    }

    /// Writes tombstones again, as many as the log takes up, until all are committed.
    fn renew(
        &mut self,
        mut left: Vec<(Address, u64)>,
        unmoved: u64,
        log: &mut Log,
        cx: &mut Cx<'_>,
    ) -> Ready {
        if unmoved != log.unmoved() {
            // Some were not committed: all of them again, later.
            left = self.overtaken.clone();
            self.on_failed(cx.now.mono_ns);
        }
        while cx.now.mono_ns >= self.not_before_ns
            && log.can_move()
            && let Some((address, sequence)) = left.pop()
        {
            assert!(log.relocate(Relocation::tombstone(address, sequence)), "there was space");
        }
        if !left.is_empty() || log.is_moving() {
            return Ready::Renewing(left, log.unmoved());
        }
        self.overtaken = Vec::new();
        Ready::Idle
    }

    /// Begins to walk a segment. After a search its tombstones are dropped; `searched` is how many
    /// removals had failed before it.
    fn open(
        &mut self,
        segment: u32,
        searched: Option<u64>,
        books: &Books<'_>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> State {
        let file = cx.tickets.file();
        let path = cx.config.layout.segment_path(site.number, segment);
        let (oldest, unmoved) = (searched.is_some(), books.log.unmoved());
        let unremoved = searched.unwrap_or(books.deletes.failed());
        site.disk(cx, Tag::Compact, DiskOp::Open { file, path, how: OpenHow::Read });
        let victim = Victim { segment, file, oldest, unmoved, unremoved };
        Turn::Waiting(Waiting::Opening(victim))
    }

    /// Looking costs a moment for each segment, so with many of them it is not done all the time.
    fn may_look(&self, log: &Log, cx: &Cx<'_>) -> bool {
        let often = log.extent().0 <= OFTEN_SEGMENTS_MAX;
        let may = log.is_idle() && cx.now.mono_ns >= self.not_before_ns;
        may && (often || cx.now.mono_ns >= self.looked_ns + LOOK_EVERY_NS)
    }

    /// An act of the compaction is complete.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        books: &mut Books<'_>,
        files: &mut Files,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let (log, index) = (&mut *books.log, &mut *books.index);
        let next = match (self.machine.take_waiting(answer_name(&done)), done) {
            (Waiting::Listing(segment, search), done) => {
                Turn::Ready(self.listed((segment, search), done, books, site, cx))
            }
            (Waiting::Opening(victim), Ok(_)) => {
                self.advance(Walker::new(victim, log), books, site, cx)
            }
            (Waiting::Opening(victim), Err(error)) => {
                cx.tickets.forget_file(victim.file);
                self.look = true;
                self.stuck.insert(victim.segment, index.tally_of(victim.segment).live);
                let segment = victim.segment;
                site.note(cx, &Note::VictimNotOpened { segment, error: &error });
                Turn::Ready(Ready::Idle)
            }
            (Waiting::Walking(walker), Ok(done)) => {
                self.walked(walker, done.into_scanned(), books, site, cx)
            }
            (Waiting::Reading(walker, found, entry), Ok(done)) => {
                let record = done.into_scanned();
                Turn::Ready(self.read(walker, (found, entry), &record, books, site, cx))
            }
            (Waiting::Walking(walker) | Waiting::Reading(walker, ..), Err(error)) => {
                let why = NotCompacted::Unread(error);
                Turn::Ready(self.give_up(walker.victim, why, index, site, cx))
            }
            (Waiting::Removing(victim), Ok(_)) => {
                files.forget(FileKey::Segment(victim.segment), cx);
                index.forget_segment(victim.segment);
                let freed = log.forget_segment(victim.segment);
                cx.stats.compactions.add(1);
                cx.stats.compact_freed_bytes.add(freed);
                self.look = true;
                Turn::Ready(Ready::Idle)
            }
            (Waiting::Removing(victim), Err(error)) => {
                // Nothing points into it any more; it is tried again after a restart.
                self.look = true;
                self.stuck.insert(victim.segment, 0);
                let segment = victim.segment;
                site.note(cx, &Note::VictimNotRemoved { segment, error: &error });
                Turn::Ready(Ready::Idle)
            }
        };
        self.machine.put(next);
    }

    /// An act of the search is complete.
    fn listed(
        &mut self,
        (segment, mut search): (u32, Search),
        done: io::Result<DiskDone>,
        books: &mut Books<'_>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Ready {
        match search.on_disk(done, books.known(), site, cx) {
            Ok(learnt) => {
                if let Some(learnt) = learnt {
                    learnt.note(books.deletes);
                }
                Ready::Searching(segment, search)
            }
            Err(error) => {
                let why = NotCompacted::FilesUnlisted(error);
                site.note(cx, &Note::NotCompacted { segment, why });
                self.look = true;
                self.not_before_ns = cx.now.mono_ns + limits::REMOVE_AGAIN_NS;
                Ready::Idle
            }
        }
    }
}
