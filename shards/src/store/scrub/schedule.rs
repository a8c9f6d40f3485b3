//! When the shard begins a round of the scrub, and what earlier processes left of theirs.
//!
//! ```text
//!   recall ──► a round was not finished ──► due now ───────────┐
//!      └─────► the last one was ──► due one period later ──────┴──► begin ──► the round ──► finish
//!                                      ▲      (or ordered)                                    │
//!                                      └──────────────────────────────────────────────────────┘
//! ```
//!
//! The schedule has no timer: the shard asks it when the next round is due. A round that could not
//! look at everything comes again before long. The marks in the indexes of the partitions carry the
//! schedule from one process to the next.

use super::{
    mark::{Mark, Reached},
    round::Todo,
};
use crate::{
    flow::Cx,
    limits,
    store::{pace::Pace, partition::Partition, place::Place},
};

const MS_NS: u64 = 1_000_000;

/// When rounds are due, and what is known of those that were.
#[derive(Debug)]
pub(super) struct Schedule {
    every_ms: u64,
    /// Whether a round is wanted now.
    ordered: bool,
    /// When the next round is due; `None`: only when ordered.
    due_ns: Option<u64>,
    /// A round of an earlier process that is to go on, and where.
    unfinished: Option<(u64, Todo)>,
    last_round_unix_ms: u64,
    finished_unix_ms: u64,
}

impl Schedule {
    pub(super) fn new(every_ms: u64) -> Schedule {
        Schedule {
            every_ms,
            ordered: false,
            due_ns: None,
            unfinished: None,
            last_round_unix_ms: 0,
            finished_unix_ms: 0,
        }
    }

    /// When the next round is due; `None`: only when ordered.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// A round is wanted now.
    pub(super) fn order(&mut self) {
        self.ordered = true;
    }

    /// Finds out what earlier processes did.
    pub(super) fn recall(&mut self, pace: &Pace, places: &mut [Place], cx: &mut Cx<'_>) {
        let marks: Vec<(u16, Mark)> = serving(places)
            .map(|(place, partition)| {
                (place, Mark::decode(partition.parts().index.mark()).unwrap_or_default())
            })
            .collect();
        self.last_round_unix_ms =
            marks.iter().map(|(_, mark)| mark.round_unix_ms).max().unwrap_or(0);
        self.finished_unix_ms =
            marks.iter().map(|(_, mark)| mark.finished_unix_ms).max().unwrap_or(0);
        if self.last_round_unix_ms > 0 {
            cx.stats.scrub_finished_unix_s.set(self.finished_unix_ms / 1000);
        }
        if pace.is_never() {
            return;
        }
        let last = self.last_round_unix_ms;
        let todo: Todo = marks
            .into_iter()
            .filter_map(|(place, mark)| match mark.reached {
                Reached::All if mark.round_unix_ms == last => None,
                reached => Some((place, (mark.round_unix_ms == last).then_some(reached))),
            })
            .collect();
        if last > 0 && !todo.is_empty() {
            self.unfinished = Some((last, todo));
            self.due_ns = Some(cx.now.mono_ns);
        } else {
            self.schedule(places, cx);
        }
    }

    /// Says when the next round is due.
    fn schedule(&mut self, places: &mut [Place], cx: &mut Cx<'_>) {
        if self.every_ms == 0 {
            self.due_ns = None;
            return;
        }
        if self.finished_unix_ms == 0 {
            if serving(places).any(|(_, partition)| partition.parts().index.totals().objects > 0) {
                // Nobody knows when these were looked at, if ever.
                self.due_ns = Some(cx.now.mono_ns);
                return;
            }
            // A new directory counts as verified. It is carried over with what is first stored.
            self.finished_unix_ms = cx.now.unix_ms.max(1);
            for (_, partition) in serving(places) {
                self.leave(partition, Reached::All, self.last_round_unix_ms, false);
            }
        }
        // Whatever a clock that was set says, the next round is not further than one period.
        let next = self.finished_unix_ms.saturating_add(self.every_ms);
        let wait_ms = next.saturating_sub(cx.now.unix_ms).min(self.every_ms);
        self.due_ns = Some(cx.now.mono_ns.saturating_add(wait_ms.saturating_mul(MS_NS)));
    }

    /// Begins a round, or goes on with one, if it is time. Returns when it began, and what is to be
    /// gone through.
    pub(super) fn begin(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> Option<(u64, Todo)> {
        if !self.ordered && self.due_ns.is_none_or(|due| due > cx.now.mono_ns) {
            return None;
        }
        self.ordered = false;
        let (began_unix_ms, todo) = self.unfinished.take().unwrap_or_else(|| {
            // Rounds are identified by when they began.
            let began = cx.now.unix_ms.max(self.last_round_unix_ms + 1);
            (began, serving(places).map(|(place, _)| (place, None)).collect())
        });
        self.last_round_unix_ms = began_unix_ms;
        Some((began_unix_ms, todo))
    }

    /// The round that began then has ended.
    pub(super) fn finish(
        &mut self,
        began_unix_ms: u64,
        failed: bool,
        places: &mut [Place],
        cx: &mut Cx<'_>,
    ) {
        if failed {
            // What was not looked at is looked at before long, and is not said to have been.
            let wait_ns = self.every_ms.saturating_mul(MS_NS).min(limits::SCRUB_AGAIN_NS);
            self.due_ns = (self.every_ms > 0).then(|| cx.now.mono_ns.saturating_add(wait_ns));
            return;
        }
        self.finished_unix_ms = cx.now.unix_ms.max(1);
        cx.stats.scrub_rounds.add(1);
        cx.stats.scrub_finished_unix_s.set(self.finished_unix_ms / 1000);
        for (_, partition) in serving(places) {
            self.leave(partition, Reached::All, began_unix_ms, true);
        }
        self.schedule(places, cx);
    }

    /// Leaves in the index of a partition how far a round came there.
    pub(super) fn leave(
        &self,
        partition: &mut Partition,
        reached: Reached,
        round_unix_ms: u64,
        soon: bool,
    ) {
        let finished_unix_ms = self.finished_unix_ms;
        let mark = Mark { round_unix_ms, finished_unix_ms, reached };
        partition.set_mark(mark.encode(), soon);
    }
}

/// The partitions that serve, with their places.
pub(super) fn serving(places: &mut [Place]) -> impl Iterator<Item = (u16, &mut Partition)> {
    places.iter_mut().enumerate().filter_map(|(place, it)| match it {
        Place::Serving(partition) => Some((place as u16, &mut **partition)),
        _ => None,
    })
}
