//! Uploads that wait for memory: one of each peer in turn, and those that have waited too long.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::{
    asker::{Peer, StreamId},
    limits::UPLOAD_WAIT_NS,
};

/// A line for each peer. The peer whose turn is longest ago is next, so that many uploads of one
/// keep those of another waiting no longer than one does.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    of: HashMap<Peer, Line>,
    /// The upload of each peer that waits longest: since when, in `Now::mono_ns`.
    longest: BTreeSet<(u64, Peer)>,
    /// The peers by when it is their turn.
    turns: BTreeMap<u64, Peer>,
    last_turn: u64,
    len: usize,
}

/// What waits of one peer, the longest first. Never empty.
#[derive(Debug)]
struct Line {
    uploads: VecDeque<(u64, StreamId)>,
    turn: u64,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// An upload of `peer` waits since `since_ns`.
    pub(super) fn add(&mut self, peer: Peer, stream: StreamId, since_ns: u64) {
        let line = self.of.entry(peer).or_insert_with(|| {
            self.last_turn += 1;
            self.turns.insert(self.last_turn, peer);
            Line { uploads: VecDeque::new(), turn: self.last_turn }
        });
        if let Some((longest, _)) = line.uploads.front() {
            self.longest.remove(&(*longest, peer));
        }
        let at = line.uploads.partition_point(|(since, _)| *since <= since_ns);
        line.uploads.insert(at, (since_ns, stream));
        self.len += 1;
        self.settle(peer);
    }

    /// This upload of `peer`, which waits since `since_ns`, waits no more. It is found by its time:
    /// thousands may leave at once.
    pub(super) fn forget(&mut self, peer: Peer, stream: StreamId, since_ns: u64) {
        self.change(peer, |uploads| {
            let first = uploads.partition_point(|(since, _)| *since < since_ns);
            let same = uploads.range(first..).take_while(|(since, _)| *since == since_ns);
            let at = same.into_iter().position(|(_, waiting)| *waiting == stream)?;
            uploads.remove(first + at)
        });
    }

    /// Takes out the upload that waits longest if that is too long.
    pub(super) fn take_late(&mut self, now_ns: u64) -> Option<StreamId> {
        let (since, peer) = *self.longest.first()?;
        let is_late = now_ns >= since.saturating_add(UPLOAD_WAIT_NS);
        is_late.then(|| self.change(peer, VecDeque::pop_front)).flatten()
    }

    /// Takes out the upload that is next, and puts its peer behind all others.
    pub(super) fn take_next(&mut self) -> Option<StreamId> {
        let (_, peer) = self.turns.pop_first()?;
        self.last_turn += 1;
        self.turns.insert(self.last_turn, peer);
        self.of.get_mut(&peer)?.turn = self.last_turn;
        self.change(peer, VecDeque::pop_front)
    }

    /// Takes an upload out of a peer's line.
    fn change(
        &mut self,
        peer: Peer,
        take: impl FnOnce(&mut VecDeque<(u64, StreamId)>) -> Option<(u64, StreamId)>,
    ) -> Option<StreamId> {
        let line = self.of.get_mut(&peer)?;
        let (longest, _) = *line.uploads.front()?;
        let (_, stream) = take(&mut line.uploads)?;
        self.len -= 1;
        self.longest.remove(&(longest, peer));
        self.settle(peer);
        Some(stream)
    }

    /// Files a peer by what its line is now.
    fn settle(&mut self, peer: Peer) {
        let Some(line) = self.of.get(&peer) else { return };
        if let Some((longest, _)) = line.uploads.front() {
            self.longest.insert((*longest, peer));
            return;
        }
        self.turns.remove(&line.turn);
        self.of.remove(&peer);
        if self.of.is_empty() {
            // What a flood left is given back.
            *self = Waiting { last_turn: self.last_turn, ..Waiting::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use ron_io::ports::ConnId;

    use super::*;

    fn peer(number: u8) -> Peer {
        Peer::of([10, 0, 0, number].into())
    }

    fn stream(number: u32) -> StreamId {
        StreamId { conn: ConnId { slot: number, generation: 0 }, stream: 0 }
    }

    #[test]
    fn many_uploads_of_one_peer_do_not_stand_before_those_of_another() {
        let mut waiting = Waiting::default();
        for number in 0..1000 {
            waiting.add(peer(1), stream(number), 5);
        }
        waiting.add(peer(2), stream(2000), 6);
        waiting.add(peer(2), stream(2001), 6);
        let order: Vec<u32> = (0..5).map(|_| waiting.take_next().unwrap().conn.slot).collect();
        assert_eq!(order, [0, 2000, 1, 2001, 2]);
        assert_eq!(waiting.len(), 997);
        assert_eq!(waiting.take_late(5 + UPLOAD_WAIT_NS - 1), None);
        assert_eq!(waiting.take_late(5 + UPLOAD_WAIT_NS), Some(stream(3)));
    }

    proptest! {
        /// The same as a list that is looked through.
        #[test]
        fn as_a_list_would(acts in vec((0u8..4, 0u8..4, 0u64..20), 0..200)) {
            let mut waiting = Waiting::default();
            let mut list: Vec<(Peer, StreamId, u64)> = Vec::new();
            let mut turns: Vec<Peer> = Vec::new();
            for (number, (act, who, since)) in (0..).zip(acts) {
                let who = peer(who);
                let found = match act {
                    0 | 1 => {
                        waiting.add(who, stream(number), since);
                        list.push((who, stream(number), since));
                        if !turns.contains(&who) {
                            turns.push(who);
                        }
                        continue;
                    }
                    2 => {
                        let now = since + UPLOAD_WAIT_NS;
                        let found = waiting.take_late(now);
                        let oldest = list.iter().map(|(_, _, since)| *since).min();
                        prop_assert_eq!(found.is_some(), oldest.is_some_and(|old| old <= since));
                        let place = |found| list.iter().position(|it| it.1 == found).unwrap();
                        let at = found.map(place);
                        prop_assert!(at.is_none_or(|at| Some(list[at].2) == oldest));
                        at
                    }
                    _ if since.is_multiple_of(2) => {
                        let at = list.iter().position(|it| it.0 == who);
                        if let Some(at) = at {
                            waiting.forget(who, list[at].1, list[at].2);
                        }
                        at
                    }
                    _ => {
                        let found = waiting.take_next();
                        prop_assert_eq!(found.is_some(), !list.is_empty());
                        found.map(|found| {
                            let at = list.iter().position(|it| it.1 == found).unwrap();
                            let (of, _, since) = list[at];
                            assert_eq!(of, turns[0], "it is another's turn");
                            assert!(list.iter().all(|it| it.0 != of || it.2 >= since));
                            turns.rotate_left(1);
                            at
                        })
                    }
                };
                if let Some(at) = found {
                    let (of, ..) = list.remove(at);
                    if list.iter().all(|it| it.0 != of) {
                        turns.retain(|peer| *peer != of);
                    }
                }
                prop_assert_eq!(waiting.len(), list.len());
                prop_assert_eq!(waiting.turns.len(), turns.len());
                prop_assert_eq!(waiting.longest.len(), turns.len());
            }
        }
    }
}
