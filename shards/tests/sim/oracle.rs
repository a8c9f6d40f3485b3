//! What must be true of each object, from nothing but the answers that clients got.
//!
//! ```text
//!              put begins                 put acknowledged, alone
//!   Absent ────────────────► Unknown ────────────────────────────► Present
//!      ▲                        │  ▲                                  │
//!      └────────────────────────┘  └──────────────────────────────────┘
//!        delete acknowledged, alone             delete begins
//! ```
//!
//! A put or delete whose end is not known, because it failed or its connection was cut, may still
//! take effect until the node has come to rest or its process ended. What was once seen stays, too:
//! a client that got an object may rely on it. What was missed behind that end stays away until
//! somebody puts it: then it is `Absent`, not `Unknown`. Only a file that a process left behind in
//! the midst of a put may be taken up when the index is lost.

use super::objects::{self, ObjectId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Absent,
    Present,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct State {
    known: Known,
    /// Counts the changes of `known`.
    changes: u64,
    /// Puts and deletes that may still take effect, and those that ever began.
    puts: u32,
    deletes: u32,
    puts_begun: u64,
    deletes_begun: u64,
    /// A file may be there of a put that did not come to its end.
    left: bool,
    /// How often rot no longer excused it: a put or delete of it was acknowledged.
    excuses_ended: u64,
}

/// How things stood when a request began.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub object: ObjectId,
    before: State,
    life: u64,
    /// `Oracle::trouble` then.
    trouble: u64,
}

/// A promise that the node broke, in words.
pub type Broken = Option<&'static str>;

/// A put was new of an object that should have been there.
pub const NEW_AGAIN: &str = "an object was new that had been acknowledged";

#[derive(Debug)]
pub struct Oracle {
    states: Vec<State>,
    life: u64,
    /// Counts the failures of the disk that a shard got.
    pub trouble: u64,
    /// Part of a log is hidden, a deletion maybe: what is shown may go when it is found again.
    pub holes: bool,
}

impl Oracle {
    pub fn new() -> Oracle {
        let state = State {
            known: Known::Absent,
            changes: 0,
            puts: 0,
            deletes: 0,
            puts_begun: 0,
            deletes_begun: 0,
            left: false,
            excuses_ended: 0,
        };
        Oracle { states: vec![state; objects::all().len()], life: 0, trouble: 0, holes: false }
    }

    pub fn known(&self, object: ObjectId) -> Known {
        self.states[object].known
    }

    pub fn begin_read(&mut self, object: ObjectId) -> Token {
        Token { object, before: self.states[object], life: self.life, trouble: self.trouble }
    }

    pub fn begin_put(&mut self, object: ObjectId) -> Token {
        let token = self.begin_read(object);
        let state = &mut self.states[object];
        state.puts += 1;
        state.puts_begun += 1;
        if state.known == Known::Absent {
            state.become_known(Known::Unknown);
        }
        token
    }

    pub fn begin_delete(&mut self, object: ObjectId) -> Token {
        let token = self.begin_read(object);
        let state = &mut self.states[object];
        state.deletes += 1;
        state.deletes_begun += 1;
        if state.known == Known::Present {
            state.become_known(Known::Unknown);
        }
        token
    }

    /// A put was acknowledged.
    pub fn stored(&mut self, token: &Token, new: bool) -> Broken {
        let (before, life) = (token.before, self.life);
        let state = &mut self.states[token.object];
        if token.life == life {
            state.puts -= 1;
        }
        let alone = before.puts == 0 && state.puts_begun == before.puts_begun + 1;
        let undeleted = before.deletes == 0 && state.deletes_begun == before.deletes_begun;
        if !new && before.known == Known::Absent && alone {
            return Some("an object was there that nobody had put");
        }
        if new && before.known == Known::Present && undeleted {
            return Some(NEW_AGAIN);
        }
        if undeleted {
            state.become_present(!new && self.holes);
            state.left = false;
        }
        None
    }

    /// A put was refused by who keeps the object. It takes no effect any more, or with `leaves`
    /// only in a later process, which may find its file.
    pub fn put_refused(&mut self, token: &Token, leaves: bool) {
        let state = &mut self.states[token.object];
        if token.life == self.life {
            state.puts -= 1;
            state.left |= leaves && objects::all()[token.object].may_be_file();
        }
    }

    /// A delete was acknowledged.
    pub fn deleted(&mut self, token: &Token) -> Broken {
        let (before, life) = (token.before, self.life);
        let state = &mut self.states[token.object];
        if token.life == life {
            state.deletes -= 1;
        }
        let no_put = before.puts == 0 && state.puts_begun == before.puts_begun;
        if no_put && before.known == Known::Absent {
            return Some("an object was deleted that was not there");
        }
        if no_put {
            state.become_known(Known::Absent);
            state.left = false;
        }
        None
    }

    /// There was nothing to delete, and that was `sure` if nothing hid it: also in a process that
    /// cannot know what its log shows the next one.
    pub fn delete_missed(&mut self, token: &Token, sure: bool) -> Broken {
        let (before, life) = (token.before, self.life);
        let state = &mut self.states[token.object];
        if token.life == life {
            state.deletes -= 1;
        }
        let alone = before.deletes == 0 && state.deletes_begun == before.deletes_begun + 1;
        let broken = alone && before.known == Known::Present;
        self.miss(token, sure);
        broken.then_some("an acknowledged object is missing")
    }

    /// A delete was refused, and changed nothing.
    pub fn delete_refused(&mut self, token: &Token) {
        let (before, life) = (token.before, self.life);
        let state = &mut self.states[token.object];
        if token.life != life {
            return;
        }
        state.deletes -= 1;
        if before.known == Known::Present && state.changes == before.changes + 1 {
            state.become_known(Known::Present);
        }
    }

    /// The object was there.
    pub fn seen(&mut self, token: &Token) -> Broken {
        let before = token.before;
        let state = &mut self.states[token.object];
        if before.known == Known::Absent && state.changes == before.changes {
            return Some("an object is there that was not put, or was deleted");
        }
        if before.deletes == 0 && state.deletes_begun == before.deletes_begun {
            state.become_present(self.holes);
        }
        None
    }

    /// The object was not there, and that was `sure` if nothing hid it.
    pub fn missed(&mut self, token: &Token, sure: bool) -> Broken {
        let state = &self.states[token.object];
        let lasted = state.changes == token.before.changes;
        let broken = lasted && token.before.known == Known::Present;
        self.miss(token, sure);
        broken.then_some("an acknowledged object is missing")
    }

    /// What was not there, and that nobody is putting, comes back by nothing but a put.
    fn miss(&mut self, token: &Token, sure: bool) {
        let (before, life) = (token.before, self.life);
        let state = &mut self.states[token.object];
        let unput = before.puts == 0 && state.puts_begun == before.puts_begun;
        if sure && unput && token.life == life && !state.left {
            state.become_known(Known::Absent);
        }
    }

    /// An object may be gone, and come back: its file may not have been durable.
    pub fn doubt(&mut self, object: ObjectId) {
        let state = &mut self.states[object];
        if state.known == Known::Present {
            state.become_known(Known::Unknown);
            state.left = true;
        }
    }

    /// Whether a shard got a failure of the disk since the request began.
    pub fn had_trouble(&self, token: &Token) -> bool {
        self.trouble > token.trouble
    }

    /// Rot excuses the object no longer.
    pub fn end_excuse(&mut self, object: ObjectId) {
        self.states[object].excuses_ended += 1;
    }

    /// Whether rot excused the object while the request was in progress, and does not any more.
    pub fn was_excused(&self, token: &Token) -> bool {
        self.states[token.object].excuses_ended != token.before.excuses_ended
    }

    /// Whether the object may have been deleted while the request was in progress.
    pub fn may_be_gone(&self, token: &Token) -> bool {
        let state = &self.states[token.object];
        token.before.deletes > 0 || state.deletes_begun != token.before.deletes_begun
    }

    /// The node has come to rest, or its process ended: nothing that began before takes effect.
    /// With `leaves` a put that did not come to its end may have left its file.
    pub fn settle(&mut self, leaves: bool) {
        self.life += 1;
        for (state, object) in self.states.iter_mut().zip(objects::all()) {
            state.left |= leaves && state.puts > 0 && object.may_be_file();
            (state.puts, state.deletes) = (0, 0);
        }
    }
}

impl State {
    fn become_present(&mut self, doubtful: bool) {
        match self.known {
            Known::Absent if doubtful => self.become_known(Known::Unknown),
            Known::Unknown if doubtful => {}
            _ => self.become_known(Known::Present),
        }
    }

    fn become_known(&mut self, known: Known) {
        if self.known != known {
            self.known = known;
            self.changes += 1;
        }
    }
}
