//! Questions to other shards: how many are open with each, and those that wait for a place.
//!
//! A lane between two shards has a fixed length. Places are split by kind: questions that may need
//! memory at the owner ([`Place::Read`]), and others, which so never wait behind them. What finds
//! no place waits here, bounded as well; beyond that it is refused.
//!
//! ```text
//!   asked ──► open ──────────────────────── reply ──► answered
//!              └── Short: its place is free ──► parked ── reply ──┘
//! ```
//!
//! Each question is answered by exactly one reply. A read that has to wait for memory is told so
//! first, by one `Short`, and gives its place back; its owner bounds how many wait so. The lane
//! that leads here therefore never holds more than two messages for each open question, and one for
//! each that is parked: a reply to a parked one stands behind all that was said before it, so when
//! the last `Short` was said, those parked here were all parked there.

use std::collections::VecDeque;

use ron_io::ports::{Act, Acts, ShardId};

use crate::{
    flow::{Ask, Asker, Body, Mail, Place, Reply},
    limits::{
        MESH_OTHERS_MAX, MESH_OTHERS_WAITING_MAX, MESH_PARKED_MAX, MESH_READS_MAX,
        MESH_READS_WAITING_MAX,
    },
};

/// This shard's side of the mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    own: ShardId,
    peers: Vec<Peer>,
    /// Questions that may be open with one peer, by kind.
    open_max: [usize; KINDS.len()],
    /// Questions waiting, over all peers, by kind.
    waiting: [usize; KINDS.len()],
}

#[derive(Debug, Default)]
struct Peer {
    /// By kind.
    open: [usize; KINDS.len()],
    waiting: [VecDeque<(Asker, Ask)>; KINDS.len()],
    /// Reads that wait there for memory.
    parked: usize,
    /// It was asked to relieve this shard, and has not answered.
    relieving: bool,
    /// It will ask nothing more.
    drained: bool,
}

/// The kinds of places: how many there are, and how many questions may wait for them.
const KINDS: [(usize, usize); 2] =
    [(MESH_OTHERS_MAX, MESH_OTHERS_WAITING_MAX), (MESH_READS_MAX, MESH_READS_WAITING_MAX)];

/// Places to wait for that a queue keeps while it is empty.
const WAITING_KEPT: usize = 32;

const _: () = assert!(Place::Other as usize == 0 && Place::Read as usize == 1);

impl Mesh {
    /// The side of shard `own` among `shards`.
    pub(crate) fn new(own: ShardId, shards: u16) -> Mesh {
        assert!(own.0 < shards, "shard {} of {shards}", own.0);
        let peers = (0..shards).map(|_| Peer::default()).collect();
        Mesh {
            own,
            peers,
            open_max: KINDS.map(|(open_max, _)| open_max),
            waiting: [0; KINDS.len()],
        }
    }

    /// With fewer places for reads, or for others: a lane has room for no more than there are.
    pub(crate) fn with_places(mut self, reads: usize, others: usize) -> Mesh {
        assert!(reads > 0 && others > 0, "nothing could be asked");
        for (kind, places) in [(Place::Read, reads), (Place::Other, others)] {
            let most = &mut self.open_max[kind as usize];
            *most = places.min(*most);
        }
        self
    }

    /// Puts a question to another shard, now or when there is a place. Gives it back if there is
    /// no room to wait.
    pub(crate) fn ask(
        &mut self,
        to: ShardId,
        mut from: Asker,
        ask: Ask,
        acts: &mut Acts<Mail, Body>,
    ) -> Option<Ask> {
        from.place = ask.place();
        let kind = from.place as usize;
        let (open_max, waiting_max) = (self.open_max[kind], KINDS[kind].1);
        let peer = &mut self.peers[usize::from(to.0)];
        if peer.open[kind] < open_max && peer.waiting[kind].is_empty() {
            peer.open[kind] += 1;
            acts.push(Act::Mail { to, mail: Mail::Ask { from, ask } });
            return None;
        }
        if self.waiting[kind] >= waiting_max {
            return Some(ask);
        }
        self.waiting[kind] += 1;
        peer.waiting[kind].push_back((from, ask));
        None
    }

    /// A shard said something about a question that has this place.
    pub(crate) fn heard(&mut self, from: ShardId, place: Place, reply: &Reply) {
        let peer = &mut self.peers[usize::from(from.0)];
        let count = match place {
            Place::Parked => &mut peer.parked,
            open => &mut peer.open[open as usize],
        };
        let left = count.checked_sub(1);
        *count = left.unwrap_or_else(|| panic!("shard {} answered what was not asked", from.0));
        if matches!(reply, Reply::Short) {
            peer.parked += 1;
            assert!(peer.parked <= MESH_PARKED_MAX, "shard {} parks too many", from.0);
        }
    }

    /// Asks all others to cut readers that take nothing and hold memory of this shard.
    pub(crate) fn ask_relief(&mut self, acts: &mut Acts<Mail, Body>) {
        for (to, peer) in self.peers.iter_mut().enumerate() {
            let to = ShardId(to as u16);
            if to != self.own && !peer.drained && !std::mem::replace(&mut peer.relieving, true) {
                acts.push(Act::Mail { to, mail: Mail::Relieve { from: self.own } });
            }
        }
    }

    /// A shard has done so.
    pub(crate) fn relieved(&mut self, from: ShardId) {
        let was = std::mem::take(&mut self.peers[usize::from(from.0)].relieving);
        assert!(was, "shard {} was not asked for relief", from.0);
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

    /// Whether questions wait for a place.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| *waiting > 0)
    }

    /// Sends what waits and has a place now.
    pub(crate) fn send_waiting(&mut self, acts: &mut Acts<Mail, Body>) {
        for (kind, open_max) in self.open_max.into_iter().enumerate() {
            if self.waiting[kind] == 0 {
                continue;
            }
            for (to, peer) in self.peers.iter_mut().enumerate() {
                while peer.open[kind] < open_max {
                    let Some((from, ask)) = peer.waiting[kind].pop_front() else { break };
                    self.waiting[kind] -= 1;
                    peer.open[kind] += 1;
                    acts.push(Act::Mail { to: ShardId(to as u16), mail: Mail::Ask { from, ask } });
                }
                // What waited for one peer is not kept beside what waits for the next.
                if peer.waiting[kind].is_empty() {
                    peer.waiting[kind].shrink_to(WAITING_KEPT);
                }
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

    const PEER: ShardId = ShardId(1);

    /// Whether a question found a place, or room to wait for one.
    fn ask(mesh: &mut Mesh, first: Option<u64>, acts: &mut Acts<Mail, Body>) -> bool {
        let conn = ConnId { slot: 0, generation: 0 };
        let stream = StreamId { conn, stream: 0 };
        let from = Asker { shard: ShardId(0), stream, place: Place::Other };
        let address = Address::of(b"");
        mesh.ask(PEER, from, Ask::Open { address, first }, acts).is_none()
    }

    #[test]
    fn a_lane_never_holds_more_than_it_is_long() {
        for (first, (open_max, waiting_max)) in [None, Some(0)].into_iter().zip(KINDS) {
            let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 2), Acts::default());
            for _ in 0..open_max + waiting_max {
                assert!(ask(&mut mesh, first, &mut acts));
            }
            assert!(!ask(&mut mesh, first, &mut acts));
            assert_eq!(acts.len(), open_max);
            assert!(mesh.has_waiting());
            let place = if first.is_some() { Place::Read } else { Place::Other };
            mesh.heard(PEER, place, &Reply::Missing);
            mesh.heard(PEER, place, &Reply::Missing);
            mesh.send_waiting(&mut acts);
            assert_eq!(acts.len(), open_max + 2);
            assert!(ask(&mut mesh, first, &mut acts));
            assert_eq!(acts.len(), open_max + 2, "it waits behind the others");
        }
    }

    #[test]
    fn there_are_as_many_places_as_configured() {
        for (first, places) in [(Some(0), 2), (None, 3)] {
            let mesh = Mesh::new(ShardId(0), 2);
            let (mut mesh, mut acts) = (mesh.with_places(2, 3), Acts::default());
            for _ in 0..5 {
                assert!(ask(&mut mesh, first, &mut acts));
            }
            assert_eq!(acts.len(), places);
        }
    }

    #[test]
    fn a_queue_that_is_empty_keeps_little_memory() {
        let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 2), Acts::default());
        while ask(&mut mesh, Some(0), &mut acts) {}
        let kept = |mesh: &Mesh| mesh.peers[1].waiting[Place::Read as usize].capacity();
        assert!(kept(&mesh) >= MESH_READS_WAITING_MAX);
        for _ in 0..MESH_READS_WAITING_MAX {
            mesh.heard(PEER, Place::Read, &Reply::Missing);
            mesh.send_waiting(&mut acts);
        }
        assert_eq!(mesh.waiting[Place::Read as usize], 0);
        assert!(kept(&mesh) <= 2 * WAITING_KEPT, "{}", kept(&mesh));
    }

    #[test]
    fn a_question_that_needs_no_memory_does_not_wait_behind_reads() {
        let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 2), Acts::default());
        while ask(&mut mesh, Some(0), &mut acts) {}
        let before = acts.len();
        assert!(ask(&mut mesh, None, &mut acts));
        assert_eq!(acts.len(), before + 1, "it was sent at once");
    }

    #[test]
    fn a_read_that_waits_for_memory_gives_its_place_back() {
        let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 2), Acts::default());
        (0..MESH_READS_MAX).for_each(|_| assert!(ask(&mut mesh, Some(0), &mut acts)));
        mesh.heard(PEER, Place::Read, &Reply::Short);
        let before = acts.len();
        assert!(ask(&mut mesh, Some(0), &mut acts));
        assert_eq!(acts.len(), before + 1);
        mesh.heard(PEER, Place::Parked, &Reply::Missing);
        assert_eq!(mesh.peers[1].parked, 0);
        assert!(ask(&mut mesh, Some(0), &mut acts));
        assert_eq!(acts.len(), before + 1, "the parked one had no place to give back");
    }

    #[test]
    fn relief_is_asked_for_once_at_a_time() {
        let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 3), Acts::default());
        (0..3).for_each(|_| mesh.ask_relief(&mut acts));
        assert_eq!(acts.len(), 2);
        mesh.relieved(PEER);
        mesh.ask_relief(&mut acts);
        assert_eq!(acts.len(), 3);
    }
}
