//! The deadlines of a shard's connections: one wheel for all, no timer for each.
//!
//! Moving a deadline costs a store. The wheel remembers for each slot only the turn it will be
//! looked at; when that turn comes, a deadline that was moved on in the meantime is put where it
//! belongs now, and one that has passed is reported. So a busy connection whose deadline moves
//! with every request is touched by the wheel once a period and not once a request.

/// Nanoseconds of one turn: deadlines are kept to a tenth of a second.
const TURN_NS: u64 = 100_000_000;

/// Turns of one round of the wheel; a deadline further away is looked at once a round.
const TURNS: usize = 1024;

/// A table of deadlines by slot, small dense numbers.
#[derive(Debug)]
pub struct Wheel {
    buckets: Vec<Vec<u32>>,
    slots: Vec<Slot>,
    /// The first turn that was not looked at yet.
    turn: u64,
    /// Slots that lie in some bucket.
    filed: usize,
    /// The first turn whose bucket holds any, while some does.
    soonest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// When the slot is due; 0 for never.
    due_ns: u64,
    /// The turn whose bucket holds the slot, if any does.
    filed_at: Option<u64>,
}

impl Default for Wheel {
    fn default() -> Self {
        let buckets = (0..TURNS).map(|_| Vec::new()).collect();
        Wheel { buckets, slots: Vec::new(), turn: 0, filed: 0, soonest: 0 }
    }
}

impl Wheel {
    /// Sets or moves the deadline of a slot.
    pub fn set(&mut self, slot: u32, due_ns: u64) {
        let at = slot as usize;
        if at >= self.slots.len() {
            self.slots.resize(at + 1, Slot::default());
        }
        self.slots[at].due_ns = due_ns.max(1);
        // A bucket that comes no later than the deadline will look and file it anew.
        let turn = self.turn_of(due_ns);
        if self.slots[at].filed_at.is_none_or(|filed| filed > turn) {
            self.file(slot, turn);
        }
    }

    /// The slot has no deadline any more.
    pub fn clear(&mut self, slot: u32) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.due_ns = 0;
        }
    }

    /// When to call `expire` next; `None` when no slot has a deadline or had one of late.
    pub fn wake_at(&self) -> Option<u64> {
        (self.filed > 0).then_some((self.soonest + 1) * TURN_NS)
    }

    /// Appends to `due` each slot whose deadline has passed, and forgets those deadlines.
    pub fn expire(&mut self, now_ns: u64, due: &mut Vec<u32>) {
        let end = now_ns / TURN_NS;
        // After a long sleep one round looks at every bucket there is.
        self.turn = self.turn.max(end.saturating_sub(TURNS as u64));
        while self.turn < end {
            let turn = self.turn;
            self.turn += 1;
            let mut bucket = std::mem::take(&mut self.buckets[turn as usize % TURNS]);
            self.filed -= bucket.len();
            for slot in bucket.drain(..) {
                self.look_at(slot, turn, now_ns, due);
            }
            // Keep the memory unless the bucket was filled anew meanwhile.
            let place = &mut self.buckets[turn as usize % TURNS];
            if place.is_empty() {
                *place = bucket;
            }
        }
        if self.filed > 0 && self.soonest < self.turn {
            let is_held = |turn: &u64| !self.buckets[*turn as usize % TURNS].is_empty();
            let held = (self.turn..self.turn + TURNS as u64).find(is_held);
            self.soonest = held.expect("a slot that is filed lies in a bucket");
        }
    }

    fn look_at(&mut self, slot: u32, turn: u64, now_ns: u64, due: &mut Vec<u32>) {
        let entry = &mut self.slots[slot as usize];
        if entry.filed_at.is_some_and(|filed| filed % TURNS as u64 != turn % TURNS as u64) {
            return; // filed anew for an earlier turn: this is the stale trace of the later one
        }
        entry.filed_at = None;
        if entry.due_ns == 0 {
            return;
        }
        if entry.due_ns <= now_ns {
            entry.due_ns = 0;
            due.push(slot);
        } else {
            let turn = self.turn_of(self.slots[slot as usize].due_ns);
            self.file(slot, turn);
        }
    }

    fn file(&mut self, slot: u32, turn: u64) {
        self.slots[slot as usize].filed_at = Some(turn);
        self.buckets[turn as usize % TURNS].push(slot);
        self.soonest = if self.filed == 0 { turn } else { self.soonest.min(turn) };
        self.filed += 1;
    }

    /// The turn a deadline is looked at: never one that is past, never more than a round away.
    fn turn_of(&self, due_ns: u64) -> u64 {
        (due_ns / TURN_NS).clamp(self.turn, self.turn + TURNS as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_empty_wheel_never_wakes() {
        let mut wheel = Wheel::default();
        assert_eq!(wheel.wake_at(), None);
        wheel.set(3, 5 * TURN_NS);
        assert!(wheel.wake_at().unwrap() >= 5 * TURN_NS);
        let mut due = Vec::new();
        wheel.expire(7 * TURN_NS, &mut due);
        assert_eq!(due, [3]);
        assert_eq!(wheel.wake_at(), None);
    }

    proptest! {
        /// Every deadline is reported once, never early, and at most two turns late.
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec(
            (0u32..20, 0u64..3 * TURNS as u64, 0u64..40, any::<bool>()), 1..200),
        ) {
            let (mut wheel, mut map) = (Wheel::default(), BTreeMap::new());
            let mut now = 0;
            for (slot, ahead, advance, clear) in steps {
                if clear {
                    wheel.clear(slot);
                    map.remove(&slot);
                } else {
                    let due = now + ahead * TURN_NS / 2;
                    wheel.set(slot, due);
                    map.insert(slot, due.max(1));
                }
                now += advance * TURN_NS * if advance > 35 { 50 } else { 1 } / 3;
                let mut due = Vec::new();
                wheel.expire(now, &mut due);
                for slot in due {
                    let at = map.remove(&slot);
                    prop_assert!(at.is_some_and(|at| at <= now), "{slot} {at:?} at {now}");
                }
                prop_assert!(wheel.wake_at().is_none_or(|at| at > now), "it was just looked at");
                for (slot, at) in &map {
                    prop_assert!(*at + 2 * TURN_NS > now, "{slot} due {at} is late at {now}");
                }
                if let Some(first) = map.values().min() {
                    let wake = wheel.wake_at();
                    let soon = wake.is_some_and(|wake| wake <= first + 2 * TURN_NS);
                    prop_assert!(soon, "{wake:?} {first}");
                }
            }
        }
    }
}
