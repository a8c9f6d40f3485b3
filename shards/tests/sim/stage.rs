//! What clients work with, and where every answer is judged.

use ron_io::sim::{Chance, Disk};

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
    /// A file could not be removed.
    pub kept: bool,
    /// A partition cannot be written, or not be read.
    pub crippled: bool,
    /// The last rebuild of a partition could not read everything, or its index is not the last.
    pub holes: bool,
    /// Reads, uploads or connections were refused, or readers and uploads cut, for lack of memory
    /// or places: time passes in leaps, and they may not wait for those.
    pub short: bool,
    /// Nothing is stored for a while.
    pub ebb: bool,
    /// The node does not learn what is wanted, and may be late: it drains, boots or time leaps.
    pub chaos: bool,
}

pub struct Stage<'a> {
    pub plan: &'a Plan,
    pub oracle: &'a mut Oracle,
    pub ledger: &'a mut Ledger,
    pub disk: &'a Disk,
    pub chance: &'a mut Chance,
    pub trace: &'a mut Trace,
    pub sky: Sky,
    /// Answers that ended a request.
    pub answers: &'a mut u64,
    /// Objects that the node reported as damaged since a read failed or was short.
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
        self.note(token, "is there");
        let broken = self.oracle.seen(token);
        self.check(broken, token);
        self.reckon(token.object, |ledger, disk| ledger.seen(token.object, disk));
    }

    /// Changes what is known of an object's records, after which rot may excuse it no more.
    fn reckon(&mut self, object: ObjectId, change: impl FnOnce(&mut Ledger, &Disk)) {
        let excused = self.ledger.excuses(object);
        change(self.ledger, self.disk);
        if excused && !self.ledger.excuses(object) {
            self.oracle.end_excuse(object);
        }
    }

    /// The object was not there.
    pub fn missed(&mut self, token: &Token) {
        self.note(token, "is not there");
        let broken = self.oracle.missed(token, self.is_sure(token.object));
        self.check(broken, token);
    }

    pub fn stored(&mut self, token: &Token, new: bool) {
        self.note(token, if new { "is stored" } else { "was there when it was put" });
        let broken = self.oracle.stored(token, new);
        // What a short read made look damaged is stored anew.
        let looked_damaged = new && self.sky.short_reads && self.oracle.had_trouble(token);
        let broken = broken.filter(|_| !looked_damaged);
        self.check(broken, token);
        if new {
            self.reckon(token.object, |ledger, disk| ledger.settled(token.object, false, disk));
        }
    }

    pub fn put_refused(&mut self, token: &Token) {
        self.oracle.put_refused(token, self.sky.kept || self.sky.crippled);
    }

    pub fn deleted(&mut self, token: &Token) {
        self.note(token, "is deleted");
        let broken = self.oracle.deleted(token);
        self.check(broken, token);
        self.reckon(token.object, |ledger, disk| ledger.settled(token.object, true, disk));
    }

    pub fn delete_missed(&mut self, token: &Token) {
        self.note(token, "was not there to be deleted");
        let sure = !self.sky.holes && !self.ledger.excuses(token.object);
        let broken = self.oracle.delete_missed(token, sure);
        self.check(broken, token);
    }

    pub fn delete_refused(&mut self, token: &Token) {
        *self.no_deletes = true;
        self.oracle.delete_refused(token);
    }

    /// The node answered that it could not. Memory is no reason not to do what needs none.
    pub fn failed(&mut self, status: u16, token: &Token, needs_memory: bool) {
        let object = token.object;
        let Sky { full, short, chaos, crippled, .. } = self.sky;
        // A failure of the disk excuses what was in progress when a shard got it.
        let troubled = crippled || self.oracle.had_trouble(token);
        let excused = self.is_excused(token);
        let short = short && (needs_memory || self.plan.is_crowd());
        // The bytes of a put are dropped when the object is there, which then may be deleted.
        let raced = needs_memory && self.oracle.may_be_gone(token);
        let allowed = match status {
            // A deletion does not wait for what heals the object.
            503 => chaos || short || excused || troubled || raced,
            // Where a step takes a second, a peer may be late that is not rude.
            408 => chaos || short || self.plan.pace_ns >= SECOND_NS,
            504 => chaos,
            500 => troubled,
            502 => excused || troubled || self.unreadable.contains(&object),
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
        let excused = self.is_excused(token) || self.oracle.may_be_gone(token);
        // Where a step takes a second, the node may have closed the connection as an idle one.
        let slow = self.plan.pace_ns >= SECOND_NS;
        if !self.sky.chaos && !self.sky.short && !slow && !excused {
            violation!("the answer about object {object} was cut");
        }
    }

    /// Whether rot may have hit the object before the request was answered.
    fn is_excused(&self, token: &Token) -> bool {
        self.ledger.excuses(token.object) || self.oracle.was_excused(token)
    }

    /// Whether what is missed is not there, and not only hidden.
    fn is_sure(&self, object: ObjectId) -> bool {
        !self.sky.crippled && !self.sky.holes && !self.ledger.excuses(object)
    }

    fn note(&mut self, token: &Token, what: &str) {
        self.trace.note(|| format!("  object {} {what}", token.object));
    }

    fn check(&mut self, broken: Broken, token: &Token) {
        let object = token.object;
        *self.answers += 1;
        if let Some(broken) = broken {
            // What could not be read is stored anew by who brings it.
            let heals = broken == NEW_AGAIN && self.unreadable.contains(&object);
            if self.is_excused(token) || heals || self.sky.holes {
                self.trace.note(|| format!("  excused: {broken}"));
            } else {
                violation!("object {object}: {broken}");
            }
        }
    }
}
