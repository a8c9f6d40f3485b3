//! The scrub: reading everything again, now and then, to find what rotted before somebody needs it.
//!
//! ```text
//!           due, or ordered         step (pace)               starts an act
//!   Idle ────────────────────► Between ──────► Patrolling ──────────────────────► Acting
//!    ▲                          │   ▲          │   ▲      its answer                 │
//!    └──── no partition left ───┘   └──────────┘   └─────────────────────────────────┘
//!                                   the patrol has ended
//! ```
//!
//! It is one reader of the shard, in the background: it waits for one read at most, at a pace, and
//! starts none while others keep the disk busy. Between rounds it costs one timer. Beside it
//! objects are verified because somebody asked, by the same machinery and at once.
//!
//! It refuses to change what it cannot prove: an object is written anew only from data that hash
//! to its address, and what is damaged stays where it is, is reported, and answers `integrity`.

use std::io;

use ron_codec::{
    address::Address,
    limits::{OUTBOARD_LEN_MAX, SEGMENT_OBJECT_LEN_MAX},
};
use ron_io::ports::{Act, DiskDone, Report, Urgency, VerifyOutcome};
use slab::Slab;

use super::{
    damage,
    flaw::{Flaw, Unverified},
    notes::{Note, ScrubNote},
    pace::Pace,
    partition::{Partition, Parts},
    place::Place,
    site::Tag,
};
use crate::{
    config::Config,
    flow::Cx,
    limits::{SCRUB_ASK_LEN, SCRUB_IN_PROGRESS_MAX, SCRUB_READ_LEN, SCRUB_STEP_LEN, VERIFIES_MAX},
    machine::{Machine, Turn, answer_name},
};

mod check;
mod finding;
mod mark;
mod patrol;
mod probe;
mod repair;
mod round;
mod schedule;
mod sweep;
#[cfg(test)]
mod tests;

use finding::report_damage;
use mark::Reached;
use patrol::{Patrol, Step};
use probe::{Probe, Verdict};
use round::Round;
use schedule::{Schedule, serving};

/// Bytes of memory that one shard may take for the objects it looks at again: of each its hashes,
/// its bytes if the record may have to be made again, and what is read at once. One is the round's.
pub(super) const fn bill() -> usize {
    let one = OUTBOARD_LEN_MAX + SEGMENT_OBJECT_LEN_MAX as usize + SCRUB_READ_LEN as usize;
    (1 + VERIFIES_MAX) * one
}

#[derive(Debug)]
struct Verify {
    /// Who asked; `None`: a read has found it damaged, and its client knows.
    id: Option<u64>,
    probe: Probe,
}

/// No act of the round is in progress.
#[derive(Debug)]
enum Ready {
    Idle,
    /// The next step is the first in the next partition.
    Between(Round),
    Patrolling(Round, Box<Patrol>),
}

/// An act of the patrol is in progress.
#[derive(Debug)]
struct Acting {
    round: Round,
    patrol: Box<Patrol>,
}

type State = Turn<Ready, Acting>;

/// The scrub of one shard, and what is verified because somebody asked.
#[derive(Debug)]
pub(super) struct Scrub {
    pace: Pace,
    schedule: Schedule,
    /// Whether the partitions were asked how far an earlier process came.
    begun: bool,
    machine: Machine<State>,
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
            schedule: Schedule::new(storage.scrub_every_ms),
            begun: false,
            machine: Machine::new("scrub", Turn::Ready(Ready::Idle)),
            blocked: false,
            next_ns: 0,
            verifies: Slab::new(),
            stopping: false,
        }
    }

    /// A round is wanted now, if none is running.
    pub(super) fn order(&mut self, cx: &mut Cx<'_>) {
        if self.pace.is_never() {
            note(ScrubNote::SwitchedOff, cx);
        } else if self.is_idle() {
            self.schedule.order();
        }
    }

    /// When `settle` is to be called although nothing happened, in `Now::mono_ns`.
    pub(super) fn wake_at(&self) -> Option<u64> {
        match self.machine.get() {
            _ if self.stopping || !self.begun => None,
            Turn::Ready(Ready::Idle) => self.schedule.due_ns(),
            Turn::Ready(_) if !self.blocked => Some(self.next_ns),
            Turn::Ready(_) | Turn::Waiting(_) => None,
        }
    }

    /// Whether nothing is open or in progress, after `stop`.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_idle() && self.verifies.is_empty()
    }

    fn is_idle(&self) -> bool {
        matches!(self.machine.ready(), Some(Ready::Idle))
    }

    /// Takes the next step if it may be taken: to be called after every event, once all partitions
    /// are open. Returns the place it was taken at, which may have something to commit now.
    pub(super) fn settle(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> Option<u16> {
        if self.stopping || self.machine.is_waiting() {
            return None;
        }
        if !self.begun {
            self.begun = true;
            self.schedule.recall(&self.pace, places, cx);
        }
        if self.is_idle() && !self.begin(places, cx) {
            return None;
        }
        self.blocked = cx.tickets.in_progress() > SCRUB_IN_PROGRESS_MAX;
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
        if !self.has_capacity() {
            return refuse(id, &Unverified::Busy, cx);
        }
        self.probe(Some(id), address, partition, cx);
    }

    /// Whether another object can be looked at now.
    pub(super) fn has_capacity(&self) -> bool {
        !self.stopping && self.verifies.len() < VERIFIES_MAX
    }

    /// Reads an object again that a read has found damaged: if it is whole, it was an error that
    /// passed.
    pub(super) fn recheck(&mut self, address: Address, partition: &mut Partition, cx: &mut Cx<'_>) {
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

    /// Starts nothing more. What is in progress is finished, and how far the round came is left in
    /// the index, before the partitions make their last checkpoints.
    pub(super) fn stop(&mut self, places: &mut [Place], cx: &mut Cx<'_>) {
        self.stopping = true;
        cx.stats.scrub_running.set(0);
        self.mark(places);
        if self.machine.is_waiting() {
            return;
        }
        if let Ready::Patrolling(_, patrol) = self.machine.take_ready("stop") {
            patrol.close(cx);
        }
        self.machine.put(Turn::Ready(Ready::Idle));
    }

    /// Begins a round, or goes on with one, if it is time. Whether it did.
    fn begin(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> bool {
        let Some((began_unix_ms, todo)) = self.schedule.begin(places, cx) else { return false };
        cx.stats.scrub_running.set(1);
        note(ScrubNote::Begins, cx);
        let round = Round::new(began_unix_ms, todo);
        self.machine.go("due", Turn::Ready(Ready::Between(round)));
        true
    }

    fn step(&mut self, places: &mut [Place], cx: &mut Cx<'_>) -> Option<u16> {
        let (mut round, patrol) = match self.machine.take_ready("step") {
            Ready::Idle => {
                self.machine.keep(Turn::Ready(Ready::Idle));
                return None;
            }
            Ready::Between(round) => (round, None),
            Ready::Patrolling(round, patrol) => (round, Some(patrol)),
        };
        let Some((place, reached)) = round.todo.front().copied() else {
            self.machine.put(Turn::Ready(Ready::Idle));
            return self.finish(&round, places, cx);
        };
        let Place::Serving(partition) = &mut places[usize::from(place)] else {
            round.todo.pop_front();
            if let Some(patrol) = patrol {
                patrol.close(cx);
            }
            self.machine.put(Turn::Ready(Ready::Between(round)));
            return None;
        };
        let mut parts = partition.parts();
        let mut patrol = patrol.unwrap_or_else(|| Box::new(Patrol::new(reached, &parts)));
        let step = patrol.step(&mut parts, cx);
        let next = self.stepped((round, patrol), step, partition, cx);
        self.machine.put(next);
        Some(place)
    }

    fn on_patrolled(
        &mut self,
        done: io::Result<DiskDone>,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) {
        let Acting { round, mut patrol } = self.machine.take_waiting(answer_name(&done));
        let next = if self.stopping {
            // The partition may be closed already: what was read leads to nothing.
            patrol.abandon(done, cx);
            Turn::Ready(Ready::Idle)
        } else if let Some(step) = patrol.on_disk(done, &mut partition.parts(), cx) {
            self.stepped((round, patrol), step, partition, cx)
        } else {
            Turn::Ready(Ready::Patrolling(round, patrol))
        };
        self.machine.put(next);
    }

    /// Settles what a step came to.
    fn stepped(
        &mut self,
        (mut round, patrol): (Round, Box<Patrol>),
        step: Step,
        partition: &mut Partition,
        cx: &mut Cx<'_>,
    ) -> State {
        match step {
            Step::Started(bytes) => {
                self.pace.take(bytes);
                cx.stats.scrub_bytes.add(bytes);
                if round.read(bytes) {
                    self.schedule.leave(partition, patrol.reached(), round.began_unix_ms, true);
                }
                return Turn::Waiting(Acting { round, patrol });
            }
            Step::Asked => {
                self.pace.take(SCRUB_ASK_LEN);
                return Turn::Waiting(Acting { round, patrol });
            }
            Step::Did => self.pace.take(SCRUB_STEP_LEN),
            Step::Blocked => self.blocked = true,
            Step::Over => {
                round.through(*patrol, true, cx);
                self.schedule.leave(partition, Reached::All, round.began_unix_ms, true);
                return Turn::Ready(Ready::Between(round));
            }
            Step::Failed(why) => {
                let site = partition.parts().site;
                site.note(cx, &Note::ScrubStopped(&why));
                round.through(*patrol, false, cx);
                return Turn::Ready(Ready::Between(round));
            }
        }
        Turn::Ready(Ready::Patrolling(round, patrol))
    }

    /// A round has come to its end. Returns a place that has something for a checkpoint, which is
    /// made for all.
    fn finish(&mut self, round: &Round, places: &mut [Place], cx: &mut Cx<'_>) -> Option<u16> {
        cx.stats.scrub_running.set(0);
        self.schedule.finish(round.began_unix_ms, round.failed, places, cx);
        note(round.outcome(), cx);
        serving(places).next().map(|(place, _)| place)
    }

    /// Leaves in the index how far the round came.
    fn mark(&mut self, places: &mut [Place]) {
        let (Turn::Ready(Ready::Patrolling(round, patrol))
        | Turn::Waiting(Acting { round, patrol })) = self.machine.get()
        else {
            return;
        };
        let Some((place, reached)) = round.reached(patrol) else { return };
        if let Place::Serving(partition) = &mut places[usize::from(place)] {
            self.schedule.leave(partition, reached, round.began_unix_ms, true);
        }
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
        let flaw = match verdict {
            Verdict::Missing => return answer(id, VerifyOutcome::Missing, cx),
            Verdict::Whole { entry, .. } => {
                return answer(id, VerifyOutcome::Whole { size: entry.size }, cx);
            }
            Verdict::Failed { why } => return refuse(id, &why, cx),
            Verdict::Flawed { what, .. } => Flaw::Beside(what),
            Verdict::Damaged { what } => Flaw::Wrong(what),
            Verdict::Unreadable { why } => Flaw::Withheld(why),
        };
        report_damage(&probe.address(), &flaw, cx);
        answer(id, VerifyOutcome::Damaged { what: flaw.to_string() }, cx);
    }

    fn give_up(&mut self, slot: usize, cx: &mut Cx<'_>) {
        let Verify { id, probe } = self.verifies.remove(slot);
        probe.close(cx);
        if let Some(id) = id {
            refuse(id, &Unverified::Stopping, cx);
        }
    }
}

/// The answer to who asks for a verification that cannot be done now.
pub(super) fn refuse(id: u64, why: &Unverified, cx: &mut Cx<'_>) {
    answer(id, VerifyOutcome::Failed { what: why.to_string() }, cx);
}

fn answer(id: u64, outcome: VerifyOutcome, cx: &mut Cx<'_>) {
    cx.acts.push(Act::Report(Report::Verified { shard: cx.config.shard, id, outcome }));
}

fn note(note: ScrubNote, cx: &mut Cx<'_>) {
    let (severity, message) = (note.severity(), note.to_string());
    cx.acts.push(Act::Report(Report::Note { shard: cx.config.shard, severity, message }));
}
