//! Objects that are being verified because somebody asked, and who waits for the outcome.
//!
//! The order goes to every shard, and the owner of the object answers with a report of the same
//! number. The waiting task receives it as an event. Who stops waiting is forgotten at once, and a
//! report that nobody waits for is nothing to worry about.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ron_codec::address::Address;
use ron_io::ports::VerifyOutcome;
use tokio::sync::oneshot;

use crate::limits::VERIFIES_MAX;

/// All verifications in progress.
#[derive(Debug, Default)]
pub(crate) struct Verifies {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    last: u64,
    waiting: BTreeMap<u64, (Address, oneshot::Sender<VerifyOutcome>)>,
}

/// One verification in progress; it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Verification<'a> {
    verifies: &'a Verifies,
    id: u64,
    outcome: oneshot::Receiver<VerifyOutcome>,
}

impl Verifies {
    /// Prepares to receive the outcome for an object, under a number that was never used before;
    /// `None` when [`VERIFIES_MAX`] wait already.
    pub(crate) fn begin(&self, addr: Address) -> Option<Verification<'_>> {
        let (tell, outcome) = oneshot::channel();
        let mut pending = self.pending();
        if pending.waiting.len() >= VERIFIES_MAX {
            return None;
        }
        pending.last += 1;
        let id = pending.last;
        pending.waiting.insert(id, (addr, tell));
        Some(Verification { verifies: self, id, outcome })
    }

    /// Hands on an outcome. Returns what it is about, if somebody still waited for it.
    pub(crate) fn deliver(&self, id: u64, outcome: VerifyOutcome) -> Option<Address> {
        let (addr, waiting) = self.pending().waiting.remove(&id)?;
        // The only error is that the waiting task is just leaving.
        let _ = waiting.send(outcome);
        Some(addr)
    }

    /// Ends all waits.
    pub(crate) fn give_up(&self) {
        self.pending().waiting.clear();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verification<'_> {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the outcome; `None` when there will be none.
    pub(crate) async fn outcome(&mut self) -> Option<VerifyOutcome> {
        (&mut self.outcome).await.ok()
    }
}

impl Drop for Verification<'_> {
    fn drop(&mut self) {
        self.verifies.pending().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(mut verification: Verification<'_>) -> Option<VerifyOutcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(verification.outcome())
    }

    #[test]
    fn each_hears_its_own_outcome() {
        let verifies = Verifies::default();
        let (a, b) = (Address::of(b"a"), Address::of(b"b"));
        let first = verifies.begin(a).unwrap();
        let second = verifies.begin(b).unwrap();
        assert_ne!(first.id(), second.id());
        assert_eq!(verifies.deliver(second.id(), VerifyOutcome::Missing), Some(b));
        assert_eq!(verifies.deliver(second.id(), VerifyOutcome::Missing), None, "only once");
        assert_eq!(verifies.deliver(first.id(), VerifyOutcome::Whole { size: 7 }), Some(a));
        assert_eq!(outcome_of(second), Some(VerifyOutcome::Missing));
        assert_eq!(outcome_of(first), Some(VerifyOutcome::Whole { size: 7 }));
    }

    #[test]
    fn only_so_many_wait_and_who_leaves_makes_room() {
        let verifies = Verifies::default();
        let mut waiting: Vec<_> =
            (0..VERIFIES_MAX).map(|_| verifies.begin(Address::of(b"a")).unwrap()).collect();
        assert!(verifies.begin(Address::of(b"a")).is_none());
        let left = waiting.pop().unwrap().id();
        assert_eq!(verifies.deliver(left, VerifyOutcome::Missing), None);
        let next = verifies.begin(Address::of(b"a")).unwrap();
        assert!(next.id() > left, "a late report about the one that left is not mistaken");
        verifies.give_up();
        assert_eq!(outcome_of(next), None);
    }
}
