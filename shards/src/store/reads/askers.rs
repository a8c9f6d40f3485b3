//! The askers of a group: what each needs, and how it is answered or refused.
//!
//! Askers are counted by what they need and by client. A quarter of the places is kept for answers
//! that have begun, and half of it for groups that are needed next. So neither new answers nor
//! groups that are read ahead can take all of it.

use std::collections::{BTreeMap, btree_map};

use ron_io::ports::ShardId;

use crate::{
    flow::{Asker, Cx, Fault, Place, Reply},
    turns::Client,
};

/// Who waits for a group.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Wanting {
    pub(super) asker: Asker,
    /// Whether the question was about the object, and the group comes with the answer.
    pub(super) open: bool,
    pub(super) need: Need,
    /// Whether it knows that the group waits for memory.
    pub(super) notified: bool,
}

impl Wanting {
    /// Wants an object, and a group of it with the answer.
    pub(in crate::store) fn open(asker: Asker) -> Wanting {
        Wanting { asker, open: true, need: Need { begins: true, ahead: false }, notified: false }
    }

    /// Wants a group of an object that was opened.
    pub(in crate::store) fn group(asker: Asker, begins: bool, ahead: bool) -> Wanting {
        Wanting { asker, open: false, need: Need { begins, ahead }, notified: false }
    }

    pub(super) fn answer(self, reply: Reply, cx: &mut Cx<'_>) {
        if self.asker.place == Place::Parked {
            cx.memory.unpark(self.asker.shard);
        }
        cx.replies.push_back((self.asker, reply));
    }

    /// There is no memory for group `index`, or no place to wait for it.
    pub(super) fn refuse(self, index: u64, cx: &mut Cx<'_>) {
        cx.stats.memory_refusals.add(1);
        let late = Reply::Late { index, ahead: self.need.ahead };
        self.answer(if self.open { Reply::Failed(Fault::Busy) } else { late }, cx);
    }

    /// Tells, once, that memory is short: it may be held by downloads that wait here for one group
    /// and keep those behind it, and if no download dropped them, all would wait. A question of
    /// another shard gives its place back. False when too many of that shard wait already: it is
    /// refused.
    pub(super) fn wait(&mut self, index: u64, cx: &mut Cx<'_>) -> bool {
        if std::mem::replace(&mut self.notified, true) {
            return true;
        }
        if self.asker.shard == cx.config.shard {
            if !self.open {
                cx.replies.push_back((self.asker, Reply::MemoryPressure));
            }
            return true;
        }
        if !cx.memory.park(self.asker.shard, self.need.begins) {
            self.refuse(index, cx);
            return false;
        }
        cx.replies.push_back((self.asker, Reply::MemoryPressure));
        self.asker.place = Place::Parked;
        true
    }
}

/// What an answer needs something for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// The answer begins with it.
    pub(super) begins: bool,
    /// Others come before it.
    pub(super) ahead: bool,
}

/// What somebody has to find to wait here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// A fetch of its own.
    Fetch,
    /// A place among all who wait.
    Asker,
    /// One among those of another shard that wait for memory.
    Place(ShardId),
}

/// Of all, of those that answers begin with, and of those that are ahead of their turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    all: usize,
    begins: usize,
    ahead: usize,
}

impl Count {
    pub(super) fn add(&mut self, need: Need) {
        self.all += 1;
        self.begins += usize::from(need.begins);
        self.ahead += usize::from(need.ahead);
    }

    pub(super) fn take(&mut self, need: Need) {
        self.all -= 1;
        self.begins -= usize::from(need.begins);
        self.ahead -= usize::from(need.ahead);
    }

    /// Whether there is a place for one more, of `most`: some is kept for answers that began, and
    /// half for what is needed next.
    pub(super) fn has_capacity(self, most: usize, need: Need) -> bool {
        let begins = !need.begins || self.begins < most / 4 * 3;
        self.all < most && begins && (!need.ahead || self.ahead < most / 2)
    }
}

/// Those who want something.
#[derive(Debug, Default)]
pub(super) struct Askers {
    pub(super) count: Count,
    /// How many of each client there are.
    of: BTreeMap<Client, usize>,
}

impl Askers {
    pub(super) fn add(&mut self, wanting: &Wanting) {
        self.count.add(wanting.need);
        *self.of.entry(wanting.asker.peer).or_default() += 1;
    }

    pub(super) fn take(&mut self, wanting: &Wanting) {
        self.count.take(wanting.need);
        let btree_map::Entry::Occupied(mut of) = self.of.entry(wanting.asker.peer) else {
            unreachable!("who goes had come");
        };
        *of.get_mut() -= 1;
        if *of.get() == 0 {
            of.remove();
        }
    }

    pub(super) fn of(&self, client: Client) -> usize {
        self.of.get(&client).copied().unwrap_or(0)
    }

    /// The client that has most.
    pub(super) fn most(&self) -> Option<(usize, Client)> {
        self.of.iter().map(|(client, count)| (*count, *client)).max()
    }
}
