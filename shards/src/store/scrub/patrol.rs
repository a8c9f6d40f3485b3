//! One round of the scrub through one partition: the folders of files, all segments, then all that
//! the index knows.
//!
//! ```text
//!   Searching ⇄ Looking                          folders, for files that the index does not know
//!      ▼
//!   Between ──► Opening ──► Sweeping ⇄ Reading        each segment, as far as it was committed
//!      ▲                        │                     when the round came here
//!      └────────────────────────┘ its end, or where it is broken
//!      │ no more segments
//!      ▼
//!   Paging: object files, and what lies in segments behind where they are broken
//!      ▼
//!   Freeing: files that neither the index nor the log knows ──► Over
//! ```
//!
//! What is suspect, a file of its own, or behind a broken header, is probed: read anew, one object
//! at a time, with a fresh look at the index. The verdict decides: data that are wrong are
//! reported; what is wrong beside data that are right is repaired; a record that a rebuild of the
//! index would not find is written anew at the end of the log.
//!
//! A step starts one act or does a bounded piece of work. No step comes before that act is
//! complete. The work of each stage is in a file of its own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
};

use ron_codec::address::Address;
use ron_io::ports::{DiskDone, FileId, Urgency};

use super::{
    Parts,
    check::Window,
    mark::Reached,
    mend::Mend,
    probe::Probe,
    sweep::{Orphans, Sweep},
};
use crate::{
    flow::Cx,
    store::{
        flaw::Unverified,
        index::{Entry, Position},
        notes::SegmentEnd,
        orphans::Search,
        site::Tag,
    },
};

mod files;
mod moves;
mod objects;
mod segments;
mod verdicts;

/// What the acts of a patrol are for.
const PATROL_TAG: Tag = Tag::Scrub { slot: 0 };

/// What became of a step.
#[derive(Debug)]
pub(super) enum Step {
    /// An act is under way that reads so many bytes.
    Started(u64),
    /// One that reads none, and costs a step.
    Asked,
    /// Something was looked at in memory.
    Did,
    /// The log is busy: it is to be tried again after the next event.
    Blocked,
    /// The patrol is over.
    Over,
    /// It cannot go on in this partition.
    Failed(Unverified),
}

/// What was found, in objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) checked: u64,
    pub(super) damaged: u64,
    pub(super) mended: u64,
    pub(super) moved: u64,
    /// Files without an object that were removed.
    pub(super) freed: u64,
}

#[derive(Debug)]
enum Stage {
    Searching(Search),
    /// An act of the search is under way.
    Looking(Search),
    /// All segments up to `after` are done.
    Between {
        after: u32,
    },
    Opening {
        file: FileId,
        sweep: Sweep,
    },
    Sweeping {
        file: FileId,
        sweep: Sweep,
        window: Window,
    },
    Reading {
        file: FileId,
        sweep: Sweep,
        at: u64,
        asked: u32,
    },
    /// All entries up to `after` are done, and up to `at` when nothing is probed; those in `page`
    /// come next.
    Paging {
        after: Option<Address>,
        at: Option<Address>,
        page: VecDeque<(Address, Entry)>,
    },
    /// Files that nothing stands for are removed.
    Freeing,
    Over,
}

/// Where a segment is broken.
#[derive(Debug)]
struct Broken {
    from: u64,
    why: SegmentEnd,
    /// Whether it was noted that something counts there.
    told: bool,
}

/// A round through one partition.
#[derive(Debug)]
pub(super) struct Patrol {
    /// What was committed when it began.
    until: Position,
    stage: Stage,
    broken: BTreeMap<u32, Broken>,
    /// Objects that were found wrong in a segment: each is dealt with once a round.
    settled: BTreeSet<Address>,
    probe: Option<Probe>,
    mend: Option<Mend>,
    /// The object file that was mended last.
    mended: Option<Address>,
    /// Files without an object, if this round sees all that the log says about them.
    orphans: Option<Orphans>,
    /// Objects in a row that could not be checked.
    failures: u32,
    tally: Tally,
}

impl Patrol {
    /// Goes on from where an earlier one came; `None`: from the start.
    pub(super) fn new(reached: Option<Reached>, parts: &Parts<'_>) -> Patrol {
        let stage = match reached {
            // Whoever stopped there may not have come to the end of its search.
            None | Some(Reached::All | Reached::Segment(0)) => {
                Stage::Searching(Search::new(parts.deletes))
            }
            Some(Reached::Segment(after)) => Stage::Between { after },
            Some(Reached::Address(after)) => paging(after),
        };
        let (until, _) = parts.log.reached();
        let (broken, settled, tally) = (BTreeMap::new(), BTreeSet::new(), Tally::default());
        Patrol {
            until,
            stage,
            broken,
            settled,
            probe: None,
            mend: None,
            mended: None,
            orphans: None,
            failures: 0,
            tally,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// From where another one may go on. What is known about broken segments is not kept, so that
    /// is before the first of them.
    pub(super) fn reached(&self) -> Reached {
        let through = match &self.stage {
            Stage::Searching(_) | Stage::Looking(_) => Reached::Segment(0),
            Stage::Between { after } => Reached::Segment(*after),
            Stage::Opening { sweep, .. }
            | Stage::Sweeping { sweep, .. }
            | Stage::Reading { sweep, .. } => Reached::Segment(sweep.segment() - 1),
            Stage::Paging { after, .. } => Reached::Address(*after),
            Stage::Freeing | Stage::Over => Reached::All,
        };
        match (self.broken.first_key_value(), through) {
            (_, Reached::All) | (None, _) => through,
            (Some((broken, _)), Reached::Segment(after)) => Reached::Segment(after.min(broken - 1)),
            (Some((broken, _)), Reached::Address(_)) => Reached::Segment(broken - 1),
        }
    }

    /// Does the next piece of work. No act may be under way.
    pub(super) fn step(&mut self, parts: &mut Parts<'_>, cx: &mut Cx<'_>) -> Step {
        if let Some(probe) = &mut self.probe {
            if probe.is_new() && !parts.log.has_room_to_move() && !parts.log.is_broken() {
                return Step::Blocked;
            }
            return match probe.go(parts, cx) {
                Ok(bytes) => Step::Started(bytes),
                Err(verdict) => self.conclude(verdict, parts, cx),
            };
        }
        if let Some(mend) = &mut self.mend {
            return Step::Started(mend.go(parts, cx));
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Searching(search) => self.search(search, parts, cx),
            Stage::Between { after } => self.next_segment(after, parts, cx),
            Stage::Sweeping { file, sweep, window } => self.sweep(file, sweep, window, parts, cx),
            Stage::Paging { at, page, .. } => self.page(at, page, parts),
            Stage::Freeing => self.free(parts, cx),
            Stage::Over => Step::Over,
            stage => unreachable!("{stage:?} is under way"),
        }
    }

    /// The act under way is complete. `Some` if it led to more than the next step.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Step> {
        if let Some(probe) = &mut self.probe {
            let verdict = probe.on_disk(done, parts, cx)?;
            return Some(self.conclude(verdict, parts, cx));
        }
        if let Some(mend) = &mut self.mend {
            let outcome = mend.on_disk(done, cx)?;
            return Some(self.mended(outcome, parts.site, cx));
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Looking(search) => self.searched(search, done, parts, cx),
            Stage::Opening { file, sweep } => self.opened(file, sweep, done, parts, cx),
            Stage::Reading { file, sweep, at, asked } => match done {
                Ok(DiskDone::Scanned(bytes)) => {
                    let window = Window::new(at, bytes, asked);
                    self.stage = Stage::Sweeping { file, sweep, window };
                }
                Ok(other) => unreachable!("a scan brought {other:?}"),
                Err(error) => {
                    cx.close_file(file);
                    let why = SegmentEnd::Unread(error);
                    self.break_off(sweep.segment(), sweep.safe(), why, parts);
                }
            },
            stage => unreachable!("{stage:?} waits for nothing"),
        }
        None
    }

    /// The act under way is complete, and nothing more is to come of it.
    pub(super) fn abandon(self, done: &io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let Patrol { stage, probe, mend, .. } = self;
        // A suspect is probed while the file of its segment is open.
        if let Stage::Sweeping { file, .. } = stage {
            cx.close_file(file);
        }
        match (probe, mend, stage) {
            (Some(probe), ..) => probe.abandon(done, cx),
            (None, Some(mend), _) => mend.abandon(done, cx),
            (None, None, Stage::Opening { file, .. }) if done.is_err() => {
                cx.tickets.forget_file(file);
            }
            (None, None, Stage::Opening { file, .. } | Stage::Reading { file, .. }) => {
                cx.close_file(file);
            }
            (None, None, Stage::Looking(_)) => {}
            (None, None, stage) => unreachable!("{stage:?} waits for nothing"),
        }
    }

    /// Closes what is open. No act may be under way.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        if let Some(probe) = self.probe {
            probe.close(cx);
        }
        if let Some(mend) = self.mend {
            mend.close(cx);
        }
        if let Stage::Sweeping { file, .. } = self.stage {
            cx.close_file(file);
        }
    }

    fn probe(&mut self, address: Address) {
        self.probe = Some(Probe::new(address, true, Urgency::Background, PATROL_TAG));
    }
}

fn paging(after: Option<Address>) -> Stage {
    Stage::Paging { after, at: after, page: VecDeque::new() }
}
