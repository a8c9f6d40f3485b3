//! One round of the scrub through one partition: the folders of files, all segments, then all that
//! the index knows.
//!
//! ```text
//!   Searching ⇄ Listing                          folders, for files that the index does not know
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
//! complete: `Listing`, `Opening` and `Reading` wait for one. The work is in a file for each of its
//! subjects.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
};

use ron_codec::address::Address;
use ron_io::ports::{DiskDone, Urgency};

use super::{
    Parts,
    check::Window,
    mark::Reached,
    probe::Probe,
    repair::FileRepair,
    sweep::{Orphans, Sweep},
};
use crate::{
    flow::Cx,
    machine::{Machine, Turn, answer_name},
    store::{
        flaw::Unverified,
        handle::{Handle, Opening},
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
    /// An act is in progress that reads so many bytes.
    Started(u64),
    /// One that reads none, and costs a step.
    Asked,
    /// Something was looked at in memory.
    Did,
    /// The log is busy: it is to be tried again after the next event.
    Blocked,
    /// The patrol has ended.
    Over,
    /// It cannot go on in this partition.
    Failed(Unverified),
}

/// What was found, in objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) checked: u64,
    pub(super) damaged: u64,
    pub(super) repaired: u64,
    pub(super) moved: u64,
    /// Files without an object that were removed.
    pub(super) freed: u64,
}

/// It can take its next step, unless it waits for what is done with one object.
#[derive(Debug)]
enum Ready {
    Searching(Search),
    /// All segments up to `after` are done.
    Between {
        after: u32,
    },
    Sweeping {
        file: Handle,
        sweep: Sweep,
        window: Window,
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

/// An act of its own is in progress.
#[derive(Debug)]
enum Waiting {
    /// One of the search.
    Listing(Search),
    Opening {
        opening: Opening,
        sweep: Sweep,
    },
    Reading {
        file: Handle,
        sweep: Sweep,
        at: u64,
        asked: u32,
    },
}

type State = Turn<Ready, Waiting>;

/// Where a segment is broken.
#[derive(Debug)]
struct Broken {
    from: u64,
    why: SegmentEnd,
    /// Whether it was noted that something counts there.
    reported: bool,
}

/// A round through one partition.
#[derive(Debug)]
pub(super) struct Patrol {
    /// What was committed when it began.
    until: Position,
    machine: Machine<State>,
    broken: BTreeMap<u32, Broken>,
    /// Objects that were found wrong in a segment: each is dealt with once a round.
    settled: BTreeSet<Address>,
    /// The object that is probed, or the one that is repaired. Until that has ended, each step
    /// belongs to it.
    probe: Option<Probe>,
    repair: Option<FileRepair>,
    /// The object file that was repaired last.
    repaired: Option<Address>,
    /// Files without an object, if this round sees all that the log says about them.
    orphans: Option<Orphans>,
    /// Objects in a row that could not be checked.
    failures: u32,
    tally: Tally,
}

impl Patrol {
    /// Goes on from where an earlier one came; `None`: from the start.
    pub(super) fn new(reached: Option<Reached>, parts: &Parts<'_>) -> Patrol {
        let ready = match reached {
            // The patrol that stopped there may not have come to the end of its search.
            None | Some(Reached::All | Reached::Segment(0)) => {
                Ready::Searching(Search::new(parts.deletes))
            }
            Some(Reached::Segment(after)) => Ready::Between { after },
            Some(Reached::Address(after)) => paging(after),
        };
        let (until, _) = parts.log.reached();
        let (broken, settled, tally) = (BTreeMap::new(), BTreeSet::new(), Tally::default());
        Patrol {
            until,
            machine: Machine::new("patrol", Turn::Ready(ready)),
            broken,
            settled,
            probe: None,
            repair: None,
            repaired: None,
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
        let through = match self.machine.get() {
            Turn::Ready(Ready::Searching(_)) | Turn::Waiting(Waiting::Listing(_)) => {
                Reached::Segment(0)
            }
            Turn::Ready(Ready::Between { after }) => Reached::Segment(*after),
            Turn::Ready(Ready::Sweeping { sweep, .. })
            | Turn::Waiting(Waiting::Opening { sweep, .. } | Waiting::Reading { sweep, .. }) => {
                Reached::Segment(sweep.segment() - 1)
            }
            Turn::Ready(Ready::Paging { after, .. }) => Reached::Address(*after),
            Turn::Ready(Ready::Freeing | Ready::Over) => Reached::All,
        };
        match (self.broken.first_key_value(), through) {
            (_, Reached::All) | (None, _) => through,
            (Some((broken, _)), Reached::Segment(after)) => Reached::Segment(after.min(broken - 1)),
            (Some((broken, _)), Reached::Address(_)) => Reached::Segment(broken - 1),
        }
    }

    /// Does the next piece of work. No act may be in progress.
    pub(super) fn step(&mut self, parts: &mut Parts<'_>, cx: &mut Cx<'_>) -> Step {
        if let Some(probe) = &mut self.probe {
            if probe.is_new() && !parts.log.can_move() && !parts.log.is_broken() {
                return Step::Blocked;
            }
            return match probe.go(parts, cx) {
                Ok(bytes) => Step::Started(bytes),
                Err(verdict) => {
                    let address = probe.address();
                    self.conclude(address, verdict, parts, cx)
                }
            };
        }
        if let Some(repair) = &mut self.repair {
            return Step::Started(repair.go(parts, cx));
        }
        let (next, step) = match self.machine.take_ready("step") {
            Ready::Searching(search) => self.search(search, parts, cx),
            Ready::Between { after } => self.next_segment(after, parts, cx),
            Ready::Sweeping { file, sweep, window } => self.sweep(file, sweep, window, parts, cx),
            Ready::Paging { at, page, .. } => self.page(at, page, parts),
            Ready::Freeing => self.free(parts, cx),
            Ready::Over => (Turn::Ready(Ready::Over), Step::Over),
        };
        self.machine.put(next);
        step
    }

    /// The act in progress is complete. `Some` if it led to more than the next step.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Option<Step> {
        if let Some(probe) = &mut self.probe {
            let verdict = probe.on_disk(done, parts, cx)?;
            let address = probe.address();
            return Some(self.conclude(address, verdict, parts, cx));
        }
        if let Some(repair) = &mut self.repair {
            let outcome = repair.on_disk(done, cx)?;
            let of = (repair.address(), repair.flaw());
            return Some(self.repaired(of, outcome, parts.site, cx));
        }
        let ready = match self.machine.take_waiting(answer_name(&done)) {
            Waiting::Listing(search) => self.listed(search, done, parts, cx),
            Waiting::Opening { opening, sweep } => {
                let opened = opening.opened(done, cx);
                self.opened(opened, sweep, parts)
            }
            Waiting::Reading { file, sweep, at, asked } => match done {
                Ok(done) => {
                    let window = Window::new(at, done.into_scanned(), asked);
                    Ready::Sweeping { file, sweep, window }
                }
                Err(error) => {
                    file.close(cx);
                    let why = SegmentEnd::Unread(error);
                    self.break_off(sweep.segment(), sweep.safe(), why, parts)
                }
            },
        };
        self.machine.put(Turn::Ready(ready));
        None
    }

    /// The act in progress is complete, and nothing more is to come of it.
    pub(super) fn abandon(self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let Patrol { machine, probe, repair, .. } = self;
        match (probe, repair) {
            (Some(probe), _) => {
                machine.into_ready("abandoned").close(cx);
                probe.abandon(done, cx);
            }
            (None, Some(repair)) => {
                machine.into_ready("abandoned").close(cx);
                repair.abandon(done, cx);
            }
            (None, None) => machine.into_waiting("abandoned").abandon(done, cx),
        }
    }

    /// Closes what is open. No act may be in progress.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        if let Some(probe) = self.probe {
            probe.close(cx);
        }
        if let Some(repair) = self.repair {
            repair.close(cx);
        }
        self.machine.into_ready("closed").close(cx);
    }

    fn probe(&mut self, address: Address) {
        self.probe = Some(Probe::new(address, true, Urgency::Background, PATROL_TAG));
    }
}

impl Ready {
    /// A suspect is probed while the file of its segment is open.
    fn close(self, cx: &mut Cx<'_>) {
        if let Ready::Sweeping { file, .. } = self {
            file.close(cx);
        }
    }
}

impl Waiting {
    fn abandon(self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        match self {
            Waiting::Listing(_) => {}
            Waiting::Opening { opening, .. } => opening.abandon(done, cx),
            Waiting::Reading { file, .. } => file.close(cx),
        }
    }
}

fn paging(after: Option<Address>) -> Ready {
    Ready::Paging { after, at: after, page: VecDeque::new() }
}
