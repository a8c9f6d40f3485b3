//! One round of the scrub: a patrol through each partition of the shard, one by one.
//!
//! ```text
//!   todo ──► its first place ──► Patrol ──► its end, or it cannot go on ──► the place is off todo
//!     ▲                                                                            │
//!     └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The round is over when no place is left. A place whose partition does not serve any more is
//! passed over. What the patrols found is added up.

use std::{collections::VecDeque, io};

use ron_io::ports::DiskDone;

use super::{
    mark::Reached,
    patrol::{Patrol, Step, Tally},
};
use crate::{
    flow::Cx,
    limits::SCRUB_MARK_LEN,
    store::{
        notes::{RoundFound, ScrubNote},
        partition::Partition,
    },
};

/// Places that are still to be gone through, the present one first, and how far earlier processes
/// came there.
pub(super) type Todo = VecDeque<(u16, Option<Reached>)>;

/// A round through the partitions of the shard.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) began_unix_ms: u64,
    pub(super) todo: Todo,
    patrol: Option<Patrol>,
    /// Bytes read since the position was last left in the index.
    unmarked: u64,
    tally: Tally,
    /// Whether some partition was not gone through to its end.
    pub(super) failed: bool,
}

impl Round {
    pub(super) fn new(began_unix_ms: u64, todo: Todo) -> Round {
        let (patrol, tally) = (None, Tally::default());
        Round { began_unix_ms, todo, patrol, unmarked: 0, tally, failed: false }
    }

    /// Takes the next step in the partition of the first place, which came so far before.
    pub(super) fn step(
        &mut self,
        reached: Option<Reached>,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) -> Step {
        let mut parts = partition.parts();
        let patrol = self.patrol.get_or_insert_with(|| Patrol::new(reached, &parts));
        patrol.step(&mut parts, cx)
    }

    /// The act of the patrol is complete. `Some` if it led to more than the next step.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) -> Option<Step> {
        let Some(patrol) = &mut self.patrol else { unreachable!("an act without a patrol") };
        patrol.on_disk(done, &mut partition.parts(), cx)
    }

    /// Bytes are read. Returns how far the round is, if that is to be left in the index now.
    pub(super) fn read(&mut self, bytes: u64) -> Option<Reached> {
        self.unmarked += bytes;
        let patrol = self.patrol.as_ref().filter(|_| self.unmarked >= SCRUB_MARK_LEN)?;
        self.unmarked = 0;
        Some(patrol.reached())
    }

    /// Where the round is, and how far it came there.
    pub(super) fn reached(&self) -> Option<(u16, Reached)> {
        let ((place, _), patrol) = (self.todo.front()?, self.patrol.as_ref()?);
        Some((*place, patrol.reached()))
    }

    /// The patrol of the first place is over.
    pub(super) fn through(&mut self, whole: bool, cx: &mut Cx<'_>) {
        self.todo.pop_front();
        if let Some(patrol) = self.patrol.take() {
            self.tally.add(patrol.tally());
            patrol.close(cx);
        }
        self.failed |= !whole;
    }

    /// The act of the patrol is complete, and nothing more is to come of it.
    pub(super) fn abandon(self, done: &io::Result<DiskDone>, cx: &mut Cx<'_>) {
        if let Some(patrol) = self.patrol {
            patrol.abandon(done, cx);
        }
    }

    /// Closes what is open. No act may be waited for.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        if let Some(patrol) = self.patrol {
            patrol.close(cx);
        }
    }

    /// What it came to.
    pub(super) fn outcome(&self) -> ScrubNote {
        let Tally { checked, damaged, mended, moved, freed } = self.tally;
        let found = RoundFound { checked, damaged, mended, moved, freed };
        ScrubNote::Ended { failed: self.failed, found }
    }
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.checked += other.checked;
        self.damaged += other.damaged;
        self.mended += other.mended;
        self.moved += other.moved;
        self.freed += other.freed;
    }
}
