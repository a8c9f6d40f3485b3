//! Questions to other shards: how many are open with each, and those that wait for a place.
//!
//! A lane between two shards has a fixed length. Each question is answered by exactly one reply,
//! before which it may be told once that memory is short; so bounding the questions a shard has
//! open with another bounds both lanes between them. What finds no place waits here, bounded as
//! well; beyond that it is refused.

use std::collections::VecDeque;

use ron_io::ports::{Act, Acts, ShardId};

use crate::{
    flow::{Ask, Asker, Body, Mail, Reply},
    limits::{MESH_ASKS_MAX, MESH_WAITING_MAX},
};

/// This shard's side of the mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    own: ShardId,
    peers: Vec<Peer>,
    /// Questions waiting, over all peers.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Peer {
    open: usize,
    waiting: VecDeque<(Asker, Ask)>,
    /// It will ask nothing more.
    drained: bool,
}

impl Mesh {
    /// The side of shard `own` among `shards`.
    pub(crate) fn new(own: ShardId, shards: u16) -> Mesh {
        assert!(own.0 < shards, "shard {} of {shards}", own.0);
        Mesh { own, peers: (0..shards).map(|_| Peer::default()).collect(), waiting: 0 }
    }

    /// Puts a question to another shard, now or when there is a place. Gives it back if there is
    /// no room to wait.
    pub(crate) fn ask(
        &mut self,
        to: ShardId,
        from: Asker,
        ask: Ask,
        acts: &mut Acts<Mail, Body>,
    ) -> Option<Ask> {
        let peer = &mut self.peers[usize::from(to.0)];
        if peer.open < MESH_ASKS_MAX && peer.waiting.is_empty() {
            peer.open += 1;
            acts.push(Act::Mail { to, mail: Mail::Ask { from, ask } });
            return None;
        }
        if self.waiting >= MESH_WAITING_MAX {
            return Some(ask);
        }
        self.waiting += 1;
        peer.waiting.push_back((from, ask));
        None
    }

    /// A shard said something about a question. Unless it only said that memory is short, the
    /// question is answered.
    pub(crate) fn heard(&mut self, from: ShardId, reply: &Reply) {
        let peer = &mut self.peers[usize::from(from.0)];
        assert!(peer.open > 0, "shard {} answered what was not asked", from.0);
        if !matches!(reply, Reply::Short) {
            peer.open -= 1;
        }
    }

    /// Tells all others that this shard will ask nothing more.
    pub(crate) fn tell_drained(&mut self, acts: &mut Acts<Mail, Body>) {
        self.drained(self.own);
        for to in (0..self.peers.len() as u16).map(ShardId).filter(|to| *to != self.own) {
            acts.push(Act::Mail { to, mail: Mail::Drained { from: self.own } });
        }
    }

    /// A shard will ask nothing more.
    pub(crate) fn drained(&mut self, shard: ShardId) {
        self.peers[usize::from(shard.0)].drained = true;
    }

    /// Whether no shard, this one included, will ask anything more.
    pub(crate) fn all_drained(&self) -> bool {
        self.peers.iter().all(|peer| peer.drained)
    }

    /// Sends what waits and has a place now.
    pub(crate) fn send_waiting(&mut self, acts: &mut Acts<Mail, Body>) {
        if self.waiting == 0 {
            return;
        }
        for (to, peer) in self.peers.iter_mut().enumerate() {
            while peer.open < MESH_ASKS_MAX {
                let Some((from, ask)) = peer.waiting.pop_front() else { break };
                self.waiting -= 1;
                peer.open += 1;
                acts.push(Act::Mail { to: ShardId(to as u16), mail: Mail::Ask { from, ask } });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::StreamId;
    use ron_codec::address::Address;
    use ron_io::ports::ConnId;

    /// Whether a question found a place.
    fn ask(mesh: &mut Mesh, acts: &mut Acts<Mail, Body>) -> bool {
        let conn = ConnId { slot: 0, generation: 0 };
        let from = Asker { shard: ShardId(0), stream: StreamId { conn, stream: 0 } };
        let address = Address::of(b"");
        mesh.ask(ShardId(1), from, Ask::Open { address, first: None }, acts).is_none()
    }

    #[test]
    fn a_lane_never_holds_more_than_it_is_long() {
        let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 2), Acts::default());
        for _ in 0..MESH_ASKS_MAX + MESH_WAITING_MAX {
            assert!(ask(&mut mesh, &mut acts));
        }
        assert!(!ask(&mut mesh, &mut acts));
        assert_eq!(acts.len(), MESH_ASKS_MAX);
        mesh.heard(ShardId(1), &Reply::Short);
        mesh.send_waiting(&mut acts);
        assert_eq!(acts.len(), MESH_ASKS_MAX, "a question that waits for memory keeps its place");
        mesh.heard(ShardId(1), &Reply::Missing);
        mesh.heard(ShardId(1), &Reply::Missing);
        mesh.send_waiting(&mut acts);
        assert_eq!(acts.len(), MESH_ASKS_MAX + 2);
        assert!(ask(&mut mesh, &mut acts));
        assert_eq!(acts.len(), MESH_ASKS_MAX + 2, "it waits behind the others");
    }
}
