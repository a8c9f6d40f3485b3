//! What clients work with, and where every answer is judged.

use ron_io::sim::Chance;

use std::collections::BTreeSet;

use super::{
    ledger::Ledger,
    objects::ObjectId,
    oracle::{Broken, NEW_AGAIN, Oracle, Token},
    plan::Plan,
    trace::{Trace, violation},
};

const SECOND_NS: u64 = 1_000_000_000;

/// What the node has had to bear since it was started, and so may answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sky {
    pub errors: bool,
    pub short_reads: bool,
    pub full: bool,
    /// Reads, uploads or connections were refused, or readers and uploads cut, for want of memory
    /// or places: time passes in leaps, which none of them may wait for.
    pub short: bool,
    /// The node is not told what is wanted, and may be late: it drains, boots or time leaps.
    pub chaos: bool,
}

pub struct Stage<'a> {
    pub plan: &'a Plan,
    pub oracle: &'a mut Oracle,
    pub ledger: &'a Ledger,
    pub chance: &'a mut Chance,
    pub trace: &'a mut Trace,
    pub sky: Sky,
    /// Answers that ended a request.
    pub answers: &'a mut u64,
    /// Objects that the node reported as damaged since one of its reads failed.
    pub unreadable: &'a BTreeSet<ObjectId>,
    /// Whether deletes are refused by the node altogether.
    pub no_deletes: &'a mut bool,
}

impl Stage<'_> {
    /// The same for a client that may be refused and cut, if it is `rude`.
    pub fn excusing(&mut self, rude: bool) -> &mut Self {
        self.sky.chaos |= rude;
        self
    }

    /// The object was there.
    pub fn seen(&mut self, token: &Token) {
        let broken = self.oracle.seen(token);
        self.check(broken, token.object);
    }

    /// The object was not there.
    pub fn missed(&mut self, token: &Token) {
        let broken = self.oracle.missed(token);
        self.check(broken, token.object);
    }

    pub fn stored(&mut self, token: &Token, new: bool) {
        let broken = self.oracle.stored(token, new);
        // What a short read made look damaged is stored anew.
        let broken = broken.filter(|_| !(new && self.sky.short_reads));
        self.check(broken, token.object);
    }

    pub fn deleted(&mut self, token: &Token) {
        let broken = self.oracle.deleted(token);
        self.check(broken, token.object);
    }

    pub fn delete_missed(&mut self, token: &Token) {
        let broken = self.oracle.delete_missed(token);
        self.check(broken, token.object);
    }

    pub fn delete_refused(&mut self, token: &Token) {
        *self.no_deletes = true;
        self.oracle.delete_refused(token);
    }

    /// The node answered that it could not. Memory is no reason not to do what needs none.
    pub fn failed(&mut self, status: u16, token: &Token, needs_memory: bool) {
        let object = token.object;
        let Sky { errors, short_reads, full, short, chaos } = self.sky;
        let excused = self.ledger.excuses(object);
        let short = short && (needs_memory || self.plan.is_crowd());
        // The bytes of a put are dropped when the object is there, which then may be deleted.
        let raced = needs_memory && self.oracle.may_be_gone(token);
        let allowed = match status {
            // A deletion does not wait for what heals the object.
            503 => chaos || short || excused || short_reads || raced,
            // Where a step takes a second, a peer may be late that is not rude.
            408 => chaos || short || self.plan.pace_ns >= SECOND_NS,
            504 => chaos,
            500 => errors,
            502 => excused || short_reads || self.unreadable.contains(&object),
            507 => full || self.plan.storage.max_bytes.is_some(),
            _ => false,
        };
        if !allowed {
            violation!("object {object} was answered {status} under {:?}", self.sky);
        }
    }

    /// The connection ended before the answer did.
    pub fn cut(&mut self, token: &Token) {
        let object = token.object;
        let excused = self.ledger.excuses(object) || self.oracle.may_be_gone(token);
        // Where a step takes a second, the node may have closed the connection as an idle one.
        let slow = self.plan.pace_ns >= SECOND_NS;
        if !self.sky.chaos && !self.sky.short && !slow && !excused {
            violation!("the answer about object {object} was cut");
        }
    }

    fn check(&mut self, broken: Broken, object: ObjectId) {
        *self.answers += 1;
        if let Some(broken) = broken {
            // What could not be read is stored anew by who brings it.
            let heals = broken == NEW_AGAIN && self.unreadable.contains(&object);
            if self.ledger.excuses(object) || heals {
                self.trace.note(|| format!("  excused: {broken}"));
            } else {
                violation!("object {object}: {broken}");
            }
        }
    }
}
