//! One round of the scrub: a patrol through each partition of the shard, one by one.
//!
//! ```text
//!   todo ──► its first place ──► Patrol ──► its end, or it cannot go on ──► the place is off todo
//!     ▲                                                                            │
//!     └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The round ends when no place is left. A place whose partition does not serve any more is
//! passed over. What the patrols found is added up.

use std::collections::VecDeque;

use super::{
    mark::Reached,
    patrol::{Patrol, Tally},
};
use crate::{
    flow::Cx,
    limits::SCRUB_MARK_LEN,
    store::notes::{RoundFound, ScrubNote},
};

/// Places that are still to be gone through, the present one first, and how far earlier processes
/// came there.
pub(super) type Todo = VecDeque<(u16, Option<Reached>)>;

/// A round through the partitions of the shard.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) began_unix_ms: u64,
    pub(super) todo: Todo,
    /// Bytes read since the position was last left in the index.
    unmarked: u64,
    tally: Tally,
    /// Whether some partition was not gone through to its end.
    pub(super) failed: bool,
}

impl Round {
    pub(super) fn new(began_unix_ms: u64, todo: Todo) -> Round {
        Round { began_unix_ms, todo, unmarked: 0, tally: Tally::default(), failed: false }
    }

    /// Bytes are read. Whether how far the patrol is is to be left in the index now.
    pub(super) fn read(&mut self, bytes: u64) -> bool {
        self.unmarked += bytes;
        let marks = self.unmarked >= SCRUB_MARK_LEN;
        if marks {
            self.unmarked = 0;
        }
        marks
    }

    /// Where the round is, and how far the patrol came there.
    pub(super) fn reached(&self, patrol: &Patrol) -> Option<(u16, Reached)> {
        let (place, _) = self.todo.front()?;
        Some((*place, patrol.reached()))
    }

    /// The patrol of the first place has ended.
    pub(super) fn through(&mut self, patrol: Patrol, whole: bool, cx: &mut Cx<'_>) {
        self.todo.pop_front();
        self.tally.add(patrol.tally());
        patrol.close(cx);
        self.failed |= !whole;
    }

    /// What it came to.
    pub(super) fn outcome(&self) -> ScrubNote {
        let Tally { checked, damaged, repaired, moved, freed } = self.tally;
        let found = RoundFound { checked, damaged, repaired, moved, freed };
        ScrubNote::Ended { failed: self.failed, found }
    }
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.checked += other.checked;
        self.damaged += other.damaged;
        self.repaired += other.repaired;
        self.moved += other.moved;
        self.freed += other.freed;
    }
}
