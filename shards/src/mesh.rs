//! Questions to other shards: how many are open with each, and those that wait for a place.
//!
//! A lane between two shards has a fixed length. Places are split by kind: questions that may need
//! memory at the owner ([`Place::Read`]), and others, which so never wait behind them. What finds
//! no place waits here, each client's questions in a line of their own, and the clients take turns.
//! That is bounded as well: beyond it the newest question of the longest line is refused.
//!
//! ```text
//!   asked ──► open ──────────────────────── reply ──► answered
//!              └── Short: its place is free ──► parked ── reply ──┘
//! ```
//!
//! Each question is answered by exactly one reply. A read that has to wait for memory gets
//! one `Short` first, and gives its place back; its owner bounds how many wait so. The lane
//! that leads here therefore never holds more than two messages for each open question, and one for
//! each that is parked: a reply to a parked one stands behind all that was said before it, so when
//! the last `Short` was said, those parked here were all parked there.

use ron_io::ports::{Act, Acts, ShardId};

use crate::{
    flow::{Ask, Asker, Body, Mail, Place, Reply},
    limits::{
        MESH_OTHERS_MAX, MESH_OTHERS_WAITING_MAX, MESH_PARKED_MAX, MESH_READS_MAX,
        MESH_READS_WAITING_MAX,
    },
    turns::Turns,
};

/// Bytes of memory of the most questions that may wait.
pub(crate) const fn bill() -> usize {
    let each = 2 * size_of::<(Asker, Ask)>() + Turns::<(Asker, Ask)>::bill();
    (MESH_READS_WAITING_MAX + MESH_OTHERS_WAITING_MAX) * each
}

/// This shard's side of the mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    own: ShardId,
    others: Vec<Other>,
    /// Questions that may be open with one shard, by kind.
    open_max: [usize; KINDS.len()],
    /// Questions waiting, over all shards, by kind.
    waiting: [usize; KINDS.len()],
}

/// What there is with another shard.
#[derive(Debug, Default)]
struct Other {
    /// By kind.
    open: [usize; KINDS.len()],
    waiting: [Turns<(Asker, Ask)>; KINDS.len()],
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

const _: () = assert!(Place::Other as usize == 0 && Place::Read as usize == 1);

impl Mesh {
    /// The side of shard `own` among `shards`.
    pub(crate) fn new(own: ShardId, shards: u16) -> Mesh {
        assert!(own.0 < shards, "shard {} of {shards}", own.0);
        let others = (0..shards).map(|_| Other::default()).collect();
        Mesh {
            own,
            others,
            open_max: KINDS.map(|(open_max, _)| open_max),
            waiting: [0; KINDS.len()],
        }
    }

    /// With fewer places for reads, or for others: a lane holds no more than there are.
    pub(crate) fn with_places(mut self, reads: usize, others: usize) -> Mesh {
        assert!(reads > 0 && others > 0, "nothing could be asked");
        for (kind, places) in [(Place::Read, reads), (Place::Other, others)] {
            let most = &mut self.open_max[kind as usize];
            *most = places.min(*most);
        }
        self
    }

    /// Puts a question of a client to another shard, now or when there is a place. Gives back a
    /// question that finds no place to wait: this one, or where another client has more of
    /// them, the newest of the one that has most.
    pub(crate) fn ask(
        &mut self,
        to: ShardId,
        mut from: Asker,
        ask: Ask,
        acts: &mut Acts<Mail, Body>,
    ) -> Option<(Asker, Ask)> {
        from.place = ask.place();
        let kind = from.place as usize;
        let (open_max, waiting_max) = (self.open_max[kind], KINDS[kind].1);
        let other = &mut self.others[usize::from(to.0)];
        if other.open[kind] < open_max && other.waiting[kind].is_empty() {
            other.open[kind] += 1;
            acts.push(Act::Mail { to, mail: Mail::Ask { from, ask } });
            return None;
        }
        // What is ahead of its turn leaves half of the places to what is not, and takes no place of
        // those.
        let ahead = matches!(ask, Ask::Group { ahead: true, .. });
        if ahead && self.waiting[kind] >= waiting_max / 2 {
            return Some((from, ask));
        }
        let own = other.waiting[kind].len_of(from.peer);
        let refused = if self.waiting[kind] < waiting_max {
            self.waiting[kind] += 1;
            None
        } else if let Some(longer) = self.longest(kind, own + 1) {
            Some(longer)
        } else {
            return Some((from, ask));
        };
        self.others[usize::from(to.0)].waiting[kind].push(from.peer, (from, ask));
        refused
    }

    /// Takes the newest question out of the longest line, if that has more than so many.
    fn longest(&mut self, kind: usize, more_than: usize) -> Option<(Asker, Ask)> {
        let waiting = || self.others.iter().map(|other| &other.waiting[kind]);
        let lines: usize = waiting().map(Turns::clients).sum();
        // Where nobody has more than an equal part, all have one.
        if more_than > KINDS[kind].1.div_ceil(lines.max(1)) {
            return None;
        }
        let longest = waiting().enumerate().filter_map(|(at, turns)| Some((turns.longest()?, at)));
        let ((len, client), at) = longest.max()?;
        if len <= more_than {
            return None;
        }
        let waiting = &mut self.others[at].waiting[kind];
        let is_ahead = |(_, ask): &(Asker, Ask)| matches!(ask, Ask::Group { ahead: true, .. });
        let ahead = waiting.pop_newest(client, is_ahead);
        ahead.or_else(|| waiting.pop_newest(client, |_| true))
    }

    /// A shard said something about a question that has this place.
    pub(crate) fn answered(&mut self, from: ShardId, place: Place, reply: &Reply) {
        let other = &mut self.others[usize::from(from.0)];
        let count = match place {
            Place::Parked => &mut other.parked,
            open => &mut other.open[open as usize],
        };
        let left = count.checked_sub(1);
        *count = left.unwrap_or_else(|| panic!("shard {} answered what was not asked", from.0));
        if matches!(reply, Reply::MemoryPressure) {
            other.parked += 1;
            assert!(other.parked <= MESH_PARKED_MAX, "shard {} parks too many", from.0);
        }
    }

    /// Asks all others to cut readers that take nothing and hold memory of this shard.
    pub(crate) fn ask_relief(&mut self, acts: &mut Acts<Mail, Body>) {
        for (to, other) in self.others.iter_mut().enumerate() {
            let to = ShardId(to as u16);
            if to != self.own && !other.drained && !std::mem::replace(&mut other.relieving, true) {
                acts.push(Act::Mail { to, mail: Mail::Relieve { from: self.own } });
            }
        }
    }

    /// A shard has done so.
    pub(crate) fn relieved(&mut self, from: ShardId) {
        let was = std::mem::take(&mut self.others[usize::from(from.0)].relieving);
        assert!(was, "shard {} was not asked for relief", from.0);
    }

    /// Tells all others that this shard will ask nothing more.
    pub(crate) fn tell_drained(&mut self, acts: &mut Acts<Mail, Body>) {
        self.drained(self.own);
        for to in (0..self.others.len() as u16).map(ShardId).filter(|to| *to != self.own) {
            acts.push(Act::Mail { to, mail: Mail::Drained { from: self.own } });
        }
    }

    /// A shard will ask nothing more.
    pub(crate) fn drained(&mut self, shard: ShardId) {
        self.others[usize::from(shard.0)].drained = true;
    }

    /// Whether no shard, this one included, will ask anything more.
    pub(crate) fn all_drained(&self) -> bool {
        self.others.iter().all(|other| other.drained)
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
            for (to, other) in self.others.iter_mut().enumerate() {
                while other.open[kind] < open_max {
                    let Some((_, (from, ask))) = other.waiting[kind].pop() else { break };
                    self.waiting[kind] -= 1;
                    other.open[kind] += 1;
                    acts.push(Act::Mail { to: ShardId(to as u16), mail: Mail::Ask { from, ask } });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Peer, StreamId};
    use ron_codec::address::Address;
    use ron_io::ports::ConnId;

    const PEER: ShardId = ShardId(1);

    /// Whether a question found a place, or one to wait in.
    fn ask(mesh: &mut Mesh, first: Option<u64>, acts: &mut Acts<Mail, Body>) -> bool {
        ask_for(mesh, 0, first, acts).is_none()
    }

    /// Asks for a client, with a connection of its own. Returns whose question was refused.
    fn ask_for(
        mesh: &mut Mesh,
        client: u8,
        first: Option<u64>,
        acts: &mut Acts<Mail, Body>,
    ) -> Option<u32> {
        let conn = ConnId { slot: client.into(), generation: 0 };
        let stream = StreamId { conn, stream: 0 };
        let peer = Some(Peer::of([192, 0, 2, client].into()));
        let from = Asker { shard: ShardId(0), stream, peer, place: Place::Other };
        let ask = Ask::Open { address: Address::of(b""), first };
        let (refused, _) = mesh.ask(PEER, from, ask, acts)?;
        Some(refused.stream.conn.slot)
    }

    /// Whose questions were sent.
    fn sent(acts: &mut Acts<Mail, Body>) -> Vec<u32> {
        let slot = |act| match act {
            Act::Mail { mail: Mail::Ask { from, .. }, .. } => from.stream.conn.slot,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| acts.pop()).map(slot).collect()
    }

    #[test]
    fn clients_take_turns_however_much_one_of_them_asks() {
        let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 3), Acts::default());
        while ask(&mut mesh, None, &mut acts) {}
        sent(&mut acts);
        for _ in 0..3 {
            assert_eq!(ask_for(&mut mesh, 1, None, &mut acts), Some(0), "of who has most");
            assert_eq!(ask_for(&mut mesh, 2, None, &mut acts), Some(0));
        }
        assert_eq!(ask_for(&mut mesh, 0, None, &mut acts), Some(0), "its own");
        for _ in 0..9 {
            mesh.answered(PEER, Place::Other, &Reply::Missing);
        }
        mesh.send_waiting(&mut acts);
        assert_eq!(sent(&mut acts), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        // Of clients that ask as much as they can each has an equal part.
        for _ in 0..MESH_OTHERS_WAITING_MAX {
            for client in 0..3 {
                ask_for(&mut mesh, client, None, &mut acts);
            }
        }
        let turns = &mesh.others[1].waiting[Place::Other as usize];
        let part = MESH_OTHERS_WAITING_MAX / 3;
        for client in 0..3 {
            let waiting = turns.len_of(Some(Peer::of([192, 0, 2, client].into())));
            assert!((part..part + 2).contains(&waiting), "{waiting}");
        }
        assert_eq!(mesh.waiting[Place::Other as usize], MESH_OTHERS_WAITING_MAX);
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
            mesh.answered(PEER, place, &Reply::Missing);
            mesh.answered(PEER, place, &Reply::Missing);
            mesh.send_waiting(&mut acts);
            assert_eq!(acts.len(), open_max + 2);
            assert!(ask(&mut mesh, first, &mut acts));
            assert_eq!(acts.len(), open_max + 2, "it waits behind the others");
        }
    }

    #[test]
    fn what_is_read_ahead_leaves_room_to_what_is_needed_next() {
        let (mut mesh, mut acts) = (Mesh::new(ShardId(0), 2), Acts::default());
        let mut ask = |client, ahead| {
            let stream = StreamId { conn: ConnId { slot: 0, generation: 0 }, stream: 0 };
            let peer = Some(Peer::of([192, 0, 2, client].into()));
            let from = Asker { shard: ShardId(0), stream, peer, place: Place::Other };
            let address = Address::of(b"");
            let ask = Ask::Group { address, index: 1, begins: false, ahead };
            match mesh.ask(PEER, from, ask, &mut acts) {
                None => None,
                Some((_, Ask::Group { ahead, .. })) => Some(ahead),
                other => panic!("{other:?}"),
            }
        };
        let half = MESH_READS_WAITING_MAX / 2;
        assert!((0..MESH_READS_MAX + half).all(|_| ask(0, true).is_none()));
        assert_eq!(ask(0, true), Some(true));
        assert!((0..half).all(|_| ask(0, false).is_none()));
        assert_eq!(ask(0, false), Some(false), "nobody else has more");
        assert_eq!(ask(1, false), Some(true), "what loses least comes first");
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
        let kept = |mesh: &Mesh| mesh.others[1].waiting[Place::Read as usize].kept();
        assert!(kept(&mesh) >= MESH_READS_WAITING_MAX);
        for left in (0..MESH_READS_WAITING_MAX).rev() {
            mesh.answered(PEER, Place::Read, &Reply::Missing);
            mesh.send_waiting(&mut acts);
            assert!(kept(&mesh) <= 3 * left + 64, "{}", kept(&mesh));
        }
        assert_eq!(mesh.waiting[Place::Read as usize], 0);
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
        mesh.answered(PEER, Place::Read, &Reply::MemoryPressure);
        let before = acts.len();
        assert!(ask(&mut mesh, Some(0), &mut acts));
        assert_eq!(acts.len(), before + 1);
        mesh.answered(PEER, Place::Parked, &Reply::Missing);
        assert_eq!(mesh.others[1].parked, 0);
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
