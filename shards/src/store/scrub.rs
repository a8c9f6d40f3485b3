//! The scrub: reading everything again, now and then, to find what rotted before somebody needs it.
//!
//! ```text
//!                    due, or ordered
//!        Idle ──────────────────────────► Round: a patrol through each partition, one by one
//!         ▲                                  │  step ──► read under way ──► step ──► …
//!         └──────────── all done ────────────┘     (pace)
//! ```
//!
//! It is one reader of the shard, in the background: one read under way at most, at a pace, and
//! none is started while others keep the disk busy. Between rounds it costs one timer. Beside it
//! objects are verified because somebody asked, by the same machinery and at once.
//!
//! It refuses to change what it cannot prove: an object is written anew only from data that hash
//! to its address, and what is damaged stays where it is, is reported, and answers `integrity`.

use std::{collections::VecDeque, io};

use ron_codec::{
    address::Address,
    limits::{OUTBOARD_LEN_MAX, SEGMENT_OBJECT_LEN_MAX},
};
use ron_io::ports::{Act, DiskDone, Report, Severity, Urgency, VerifyOutcome};
use slab::Slab;

use super::{
    damage,
    pace::Pace,
    partition::{Partition, Parts},
    place::Place,
    site::Tag,
};
use crate::{
    config::Config,
    flow::Cx,
    limits::{
        self, SCRUB_ASK_LEN, SCRUB_MARK_LEN, SCRUB_READ_LEN, SCRUB_STEP_LEN, SCRUB_UNDER_WAY_MAX,
        VERIFIES_MAX,
    },
};

mod check;
mod finding;
mod mark;
mod mend;
mod patrol;
mod probe;
mod sweep;
#[cfg(test)]
mod tests;

use finding::{Found, report_damage};
use mark::{Mark, Reached};
use patrol::{Patrol, Step, Tally};
use probe::{Probe, Verdict};

const MS_NS: u64 = 1_000_000;

/// Places that are still to be gone through, the present one first, and how far earlier processes
/// came there.
type Todo = VecDeque<(u16, Option<Reached>)>;

/// Bytes of memory that one shard may take for the objects it looks at again: of each its hashes,
/// its bytes if the record may have to be made again, and what is read at once. One is the round's.
pub(super) const fn bill() -> usize {
    let one = OUTBOARD_LEN_MAX + SEGMENT_OBJECT_LEN_MAX as usize + SCRUB_READ_LEN as usize;
    (1 + VERIFIES_MAX) * one
}

/// A round through the partitions of the shard.
#[derive(Debug)]
struct Round {
    began_unix_ms: u64,
    todo: Todo,
    patrol: Option<Patrol>,
    /// Bytes read since the position was last left in the index.
    unmarked: u64,
    tally: Tally,
    /// Whether some partition was not gone through to its end.
    failed: bool,
}

#[derive(Debug)]
struct Verify {
    /// Who asked; `None`: a read has found it damaged, and was told so.
    id: Option<u64>,
    probe: Probe,
}

/// The scrub of one shard, and what is verified because somebody asked.
#[derive(Debug)]
pub(super) struct Scrub {
    pace: Pace,
    every_ms: u64,
    /// Whether the partitions were asked how far an earlier process came.
    begun: bool,
    /// Whether a round is wanted now.
    ordered: bool,
    /// When the next round is due; `None`: only when ordered.
    due_ns: Option<u64>,
    /// A round of an earlier process that is to go on, and where.
    unfinished: Option<(u64, Todo)>,
    last_round_unix_ms: u64,
    finished_unix_ms: u64,
    round: Option<Round>,
    /// Whether an act of the round is under way.
    under_way: bool,
    /// Whether the shard was too busy to start one; its next event is waited for.
    blocked: bool,
    /// When the next step may be taken.
    next_ns: u64,
    verifies: Slab<Verify>,
    stopping: bool,
}

impl Scrub {
    pub(super) fn new(config: &Config) -> Scrub {
        let storage = &config.storage;
        Scrub {
            pace: Pace::new(storage.scrub_bytes_per_s),
            every_ms: storage.scrub_every_ms,
            begun: false,
            ordered: false,
            due_ns: None,
            unfinished: None,
            last_round_unix_ms: 0,
            finished_unix_ms: 0,
            round: None,
            under_way: false,
            blocked: false,
            next_ns: 0,
            verifies: Slab::new(),
            stopping: false,
        }
    }

    /// A round is wanted now, if none is under way.
    pub(super) fn order(&mut self, cx: &mut Cx<'_>) {
        if self.pace.is_never() {
            note(Severity::Warn, "it is switched off, and was ordered", cx);
        } else if self.round.is_none() {
            self.ordered = true;
        }
    }

    /// When `settle` is to be called although nothing happened, in `Now::mono_ns`.
    pub(super) fn wake_at(&self) -> Option<u64> {
        match &self.round {
            _ if self.stopping || !self.begun => None,
            Some(_) if self.under_way || self.blocked => None,
            Some(_) => Some(self.next_ns),
            None => self.due_ns,
        }
    }

    /// Whether nothing is open or under way, after `stop`.
    pub(super) fn is_quiet(&self) -> bool {
        self.round.is_none() && self.verifies.is_empty()
    }

    /// Takes the next step if it may be taken: to be called after every event, once all partitions
    /// are open. Returns the place it was taken at, which may have something to commit now.
    pub(super) fn settle(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> Option<u16> {
        if self.stopping || self.under_way {
            return None;
        }
        if !self.begun {
            self.begun = true;
            self.recall(places, cx);
        }
        if self.round.is_none() && !self.begin(places, cx) {
            return None;
        }
        self.blocked = cx.tickets.under_way() > SCRUB_UNDER_WAY_MAX;
        if self.blocked || self.next_ns > cx.now.mono_ns {
            return None;
        }
        self.next_ns = self.pace.ready_at(cx.now.mono_ns);
        if self.next_ns > cx.now.mono_ns {
            return None;
        }
        self.step(places, cx)
    }

    /// The outcome of an act of the round or of a verification, at `place`.
    pub(super) fn on_disk(
        &mut self,
        slot: usize,
        done: io::Result<DiskDone>,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) {
        let Some(verify) = slot.checked_sub(1) else {
            return self.on_patrolled(done, partition, cx);
        };
        let parts = &partition.parts();
        let verdict = self.verifies[verify].probe.on_disk(done, parts, cx);
        match verdict {
            Some(verdict) => self.verified(verify, verdict, cx),
            None if self.stopping => self.give_up(verify, cx),
            None => self.go(verify, parts, cx),
        }
    }

    /// Reads an object of the partition at `place` again, and hashes all of it.
    pub(super) fn verify(
        &mut self,
        id: u64,
        address: Address,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) {
        if !self.has_room() {
            return refuse(id, "busy", cx);
        }
        self.probe(Some(id), address, partition, cx);
    }

    /// Whether another object can be looked at now.
    pub(super) fn has_room(&self) -> bool {
        !self.stopping && self.verifies.len() < VERIFIES_MAX
    }

    /// Reads an object again that a read has found damaged: if it is whole, it was an error that
    /// passed.
    pub(super) fn look_again(
        &mut self,
        address: Address,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) {
        self.probe(None, address, partition, cx);
    }

    fn probe(
        &mut self,
        id: Option<u64>,
        address: Address,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) {
        let entry = self.verifies.vacant_entry();
        let (slot, tag) = (entry.key(), Tag::Scrub { slot: entry.key() + 1 });
        let probe = Probe::new(address, false, Urgency::Foreground, tag);
        entry.insert(Verify { id, probe });
        self.go(slot, &partition.parts(), cx);
    }

    /// Starts nothing more. What is under way is finished, and how far the round came is left in
    /// the index, before the partitions make their last checkpoints.
    pub(super) fn stop(&mut self, places: &mut [Place], cx: &mut Cx<'_>) {
        self.stopping = true;
        cx.stats.scrub_running.set(0);
        self.mark(places);
        if !self.under_way
            && let Some(Round { patrol: Some(patrol), .. }) = self.round.take()
        {
            patrol.close(cx);
        }
    }

    /// Finds out what earlier processes did.
    fn recall(&mut self, places: &mut [Place], cx: &mut Cx<'_>) {
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
        if self.pace.is_never() {
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

    /// Begins a round, or goes on with one, if it is time. Whether one is under way now.
    fn begin(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> bool {
        if !self.ordered && self.due_ns.is_none_or(|due| due > cx.now.mono_ns) {
            return false;
        }
        self.ordered = false;
        let (began_unix_ms, todo) = self.unfinished.take().unwrap_or_else(|| {
            // Rounds are told apart by when they began.
            let began = cx.now.unix_ms.max(self.last_round_unix_ms + 1);
            (began, serving(places).map(|(place, _)| (place, None)).collect())
        });
        self.last_round_unix_ms = began_unix_ms;
        cx.stats.scrub_running.set(1);
        note(Severity::Info, "a round begins", cx);
        let (patrol, tally) = (None, Tally::default());
        self.round = Some(Round { began_unix_ms, todo, patrol, unmarked: 0, tally, failed: false });
        true
    }

    fn step(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> Option<u16> {
        let round = self.round.as_mut()?;
        let Some((place, reached)) = round.todo.front().copied() else {
            return self.finish(places, cx);
        };
        let Place::Serving(partition) = &mut places[usize::from(place)] else {
            round.todo.pop_front();
            return None;
        };
        let mut parts = partition.parts();
        let patrol = round.patrol.get_or_insert_with(|| Patrol::new(reached, &parts));
        let step = patrol.step(&mut parts, cx);
        self.stepped(step, partition, cx);
        Some(place)
    }

    fn on_patrolled(
        &mut self,
        done: io::Result<DiskDone>,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) {
        self.under_way = false;
        if self.stopping {
            // The partition may be closed already: what was read leads to nothing.
            if let Some(Round { patrol: Some(patrol), .. }) = self.round.take() {
                patrol.abandon(&done, cx);
            }
            return;
        }
        let Some(round) = &mut self.round else { unreachable!("an act without a round") };
        let Some(patrol) = &mut round.patrol else { unreachable!("an act without a patrol") };
        let step = patrol.on_disk(done, &mut partition.parts(), cx);
        if let Some(step) = step {
            self.stepped(step, partition, cx);
        }
    }

    /// Settles what a step came to.
    fn stepped(&mut self, step: Step, partition: &mut Partition, cx: &mut Cx<'_>) {
        let Some(round) = &mut self.round else { return };
        match step {
            Step::Started(bytes) => {
                self.under_way = true;
                self.pace.take(bytes);
                cx.stats.scrub_bytes.add(bytes);
                round.unmarked += bytes;
                if round.unmarked >= SCRUB_MARK_LEN
                    && let Some(patrol) = &round.patrol
                {
                    round.unmarked = 0;
                    let (reached, began) = (patrol.reached(), round.began_unix_ms);
                    self.leave(partition, reached, began, true);
                }
            }
            Step::Asked => {
                self.under_way = true;
                self.pace.take(SCRUB_ASK_LEN);
            }
            Step::Did => self.pace.take(SCRUB_STEP_LEN),
            Step::Blocked => self.blocked = true,
            Step::Over => self.through(partition, true, cx),
            Step::Failed(why) => {
                let site = partition.parts().site;
                site.note(cx, Severity::Error, &format!("the scrub cannot go on: {why}"));
                self.through(partition, false, cx);
            }
        }
    }

    /// The patrol of a partition is over.
    fn through(&mut self, partition: &mut Partition, whole: bool, cx: &mut Cx<'_>) {
        let Some(round) = &mut self.round else { return };
        round.todo.pop_front();
        let began = round.began_unix_ms;
        if let Some(patrol) = round.patrol.take() {
            round.tally.add(patrol.tally());
            patrol.close(cx);
        }
        round.failed |= !whole;
        if whole {
            self.leave(partition, Reached::All, began, true);
        }
    }

    /// The round is over. Returns a place that has something for a checkpoint, which is made for
    /// all.
    fn finish(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> Option<u16> {
        let Round { tally, began_unix_ms, failed, .. } = self.round.take()?;
        cx.stats.scrub_running.set(0);
        if failed {
            // What was not looked at is looked at before long, and is not said to have been.
            let wait_ns = self.every_ms.saturating_mul(MS_NS).min(limits::SCRUB_AGAIN_NS);
            self.due_ns = (self.every_ms > 0).then(|| cx.now.mono_ns.saturating_add(wait_ns));
        } else {
            self.finished_unix_ms = cx.now.unix_ms.max(1);
            cx.stats.scrub_rounds.add(1);
            cx.stats.scrub_finished_unix_s.set(self.finished_unix_ms / 1000);
            for (_, partition) in serving(places) {
                self.leave(partition, Reached::All, began_unix_ms, true);
            }
            self.schedule(places, cx);
        }
        let Tally { checked, damaged, mended, moved, freed } = tally;
        let is_well = damaged + mended == 0 && !failed;
        let severity = if is_well { Severity::Info } else { Severity::Warn };
        let how = if failed { "ended early" } else { "is over" };
        let text = format!(
            "a round {how}: {checked} objects, {damaged} damaged, {mended} mended, \
             {moved} moved, {freed} files freed"
        );
        note(severity, &text, cx);
        serving(places).next().map(|(place, _)| place)
    }

    /// Leaves in the index how far the round came.
    fn mark(&mut self, places: &mut [Place]) {
        let Some(round) = &self.round else { return };
        let (Some((place, _)), Some(patrol)) = (round.todo.front(), &round.patrol) else { return };
        if let Place::Serving(partition) = &mut places[usize::from(*place)] {
            self.leave(partition, patrol.reached(), round.began_unix_ms, true);
        }
    }

    fn leave(&self, partition: &mut Partition, reached: Reached, round_unix_ms: u64, soon: bool) {
        let finished_unix_ms = self.finished_unix_ms;
        let mark = Mark { round_unix_ms, finished_unix_ms, reached };
        partition.set_mark(mark.encode(), soon);
    }

    /// Takes a verification as far as its next act.
    fn go(&mut self, slot: usize, parts: &Parts<'_>, cx: &mut Cx<'_>) {
        if let Err(verdict) = self.verifies[slot].probe.go(parts, cx) {
            self.verified(slot, verdict, cx);
        }
    }

    fn verified(&mut self, slot: usize, verdict: Verdict, cx: &mut Cx<'_>) {
        let Verify { id, probe } = self.verifies.remove(slot);
        if matches!(verdict, Verdict::Missing | Verdict::Whole { .. }) {
            damage::healed(&probe.address(), cx);
        }
        let Some(id) = id else { return };
        let (what, found) = match verdict {
            Verdict::Missing => return answer(id, VerifyOutcome::Missing, cx),
            Verdict::Whole { entry, .. } => {
                return answer(id, VerifyOutcome::Whole { size: entry.size }, cx);
            }
            Verdict::Failed { what } => return answer(id, VerifyOutcome::Failed { what }, cx),
            Verdict::Flawed { what, .. } => {
                (format!("{what}, beside data that are right"), Found::Beside)
            }
            Verdict::Damaged { what } => (what.to_string(), Found::Wrong),
            Verdict::Unreadable { what } => (what, Found::Unreadable),
        };
        report_damage(&probe.address(), &what, found, cx);
        answer(id, VerifyOutcome::Damaged { what }, cx);
    }

    fn give_up(&mut self, slot: usize, cx: &mut Cx<'_>) {
        let Verify { id, probe } = self.verifies.remove(slot);
        probe.close(cx);
        if let Some(id) = id {
            refuse(id, "the shard is stopping", cx);
        }
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

/// The answer to who asks for a verification that cannot be done now.
pub(super) fn refuse(id: u64, why: &str, cx: &mut Cx<'_>) {
    answer(id, VerifyOutcome::Failed { what: why.to_string() }, cx);
}

fn answer(id: u64, outcome: VerifyOutcome, cx: &mut Cx<'_>) {
    cx.acts.push(Act::Report(Report::Verified { shard: cx.config.shard, id, outcome }));
}

fn note(severity: Severity, text: &str, cx: &mut Cx<'_>) {
    let message = format!("scrub: {text}");
    cx.acts.push(Act::Report(Report::Note { shard: cx.config.shard, severity, message }));
}

/// The partitions that serve, with their places.
fn serving(places: &mut [Place]) -> impl Iterator<Item = (u16, &mut Partition)> {
    places.iter_mut().enumerate().filter_map(|(place, it)| match it {
        Place::Serving(partition) => Some((place as u16, &mut **partition)),
        _ => None,
    })
}
