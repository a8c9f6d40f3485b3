//! The sessions of a shard, and what they hold: where they are, how much memory each keeps, and
//! how many there are of one peer.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use ron_io::ports::ConnId;

use crate::{
    cache::Memory,
    flow::{Peer, StreamId},
    limits::READER_STALE_NS,
    session::Session,
};

/// The sessions by slot of their connection.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    places: Vec<Option<Place>>,
    /// Connections that are served, and those that only get a refusal.
    open: usize,
    refused: usize,
    /// Bytes that all sessions keep, as last counted.
    held: usize,
    /// Connections of each peer that are served.
    peers: HashMap<Peer, usize>,
}

#[derive(Debug)]
struct Place {
    session: Session,
    /// Bytes that the session keeps, as last counted.
    counted: usize,
    /// Absent for a connection that is refused.
    peer: Option<Peer>,
}

impl Sessions {
    pub(crate) fn get(&mut self, conn: ConnId) -> Option<&mut Session> {
        let place = self.places.get_mut(conn.slot as usize)?.as_mut()?;
        (place.session.conn() == conn).then_some(&mut place.session)
    }

    /// Takes a session up. One without a peer is refused: it counts neither among those that are
    /// served nor for its peer.
    pub(crate) fn insert(&mut self, conn: ConnId, peer: Option<Peer>, session: Session) {
        let at = conn.slot as usize;
        if at >= self.places.len() {
            self.places.resize_with(at + 1, || None);
        }
        let before = self.places[at].replace(Place { session, counted: 0, peer });
        assert!(before.is_none(), "slot {at} was given to two connections");
        match peer {
            Some(peer) => {
                self.open += 1;
                *self.peers.entry(peer).or_default() += 1;
            }
            None => self.refused += 1,
        }
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Session> {
        self.get(conn)?;
        let Place { session, counted, peer } = self.places[conn.slot as usize].take()?;
        self.held -= counted;
        let Some(peer) = peer else {
            self.refused -= 1;
            return Some(session);
        };
        self.open -= 1;
        if let Some(count) = self.peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
        Some(session)
    }

    /// Counts again what a session keeps. To be called after each of its events.
    pub(crate) fn recount(&mut self, conn: ConnId) {
        if let Some(place) = self.places.get_mut(conn.slot as usize).and_then(Option::as_mut) {
            let now = place.session.held();
            self.held = self.held - place.counted + now;
            place.counted = now;
        }
    }

    /// Bytes that all sessions keep.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Connections that are served.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Connections that are getting a refusal.
    pub(crate) fn refused(&self) -> usize {
        self.refused
    }

    /// Whether there is no connection at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.open + self.refused == 0
    }

    /// Connections of this peer that are served.
    pub(crate) fn of_peer(&self, peer: Peer) -> usize {
        self.peers.get(&peer).copied().unwrap_or_default()
    }

    /// Who has this connection.
    pub(crate) fn peer(&self, conn: ConnId) -> Option<Peer> {
        let place = self.places.get(conn.slot as usize)?.as_ref()?;
        (place.session.conn() == conn).then_some(place.peer)?
    }

    /// The connection that has this slot.
    pub(crate) fn at(&self, slot: u32) -> Option<ConnId> {
        let place = self.places.get(slot as usize)?.as_ref()?;
        Some(place.session.conn())
    }

    pub(crate) fn all(&self) -> Vec<ConnId> {
        self.places.iter().flatten().map(|place| place.session.conn()).collect()
    }

    /// The connections that took too little since `before_ns` and for which blocks are held, of
    /// this shard's memory or of others', and since when.
    pub(crate) fn stale(&self, own: bool, memory: &Memory, before_ns: u64) -> Vec<(u64, ConnId)> {
        let places = self.places.iter().flatten();
        let stale = places.filter_map(|Place { session, .. }| {
            let since = session.stale_since(own, memory)?;
            (since <= before_ns).then(|| (since, session.conn()))
        });
        stale.collect()
    }

    /// Up to `max` connections that are idle since before `before_ns`: first those of the peers
    /// that have most connections, and of these who is idle longest.
    pub(crate) fn idlest(&self, before_ns: u64, max: usize) -> Vec<ConnId> {
        let places = self.places.iter().flatten();
        let mut idle: Vec<(Reverse<usize>, u64, u32, ConnId)> = places
            .filter_map(|Place { session, peer, .. }| {
                let (since, conn) = (session.idle_since()?, session.conn());
                let peers = Reverse(self.of_peer((*peer)?));
                (since <= before_ns).then_some((peers, since, conn.slot, conn))
            })
            .collect();
        idle.sort_unstable_by_key(|(peers, since, slot, _)| (*peers, *since, *slot));
        idle.truncate(max);
        idle.into_iter().map(|(.., conn)| conn).collect()
    }

    /// The uploads that are slow with a group that was begun before `before_ns`, and the bytes a
    /// second that come of it: only those of the peers that have most uploads in memory, or nearly.
    /// A peer with few would otherwise pay for those that come with many, which take turns at being
    /// slow.
    pub(crate) fn slow_uploads(&self, before_ns: u64, now_ns: u64) -> Vec<(u64, StreamId)> {
        let (mut found, mut of_peers) = (Vec::new(), HashMap::<Option<Peer>, usize>::new());
        let mut owners = Vec::new();
        for Place { session, peer, .. } in self.places.iter().flatten() {
            let before = found.len();
            let holding = session.slow_uploads(before_ns, now_ns, &mut found);
            if holding > 0 {
                *of_peers.entry(*peer).or_default() += holding;
            }
            if found.len() > before {
                owners.resize(found.len(), *peer);
            }
        }
        let most = of_peers.values().copied().max().unwrap_or_default();
        let found = found.into_iter().zip(owners);
        found.filter(|(_, peer)| 2 * of_peers[peer] > most).map(|(slow, _)| slow).collect()
    }

    /// The connections that keep memory, in the order in which they are to be dropped: each is of
    /// the peer whose connections then keep most, so that one with many pays before others do.
    pub(crate) fn greediest(&self, now_ns: u64) -> Vec<ConnId> {
        let mut of_peers = BTreeMap::<Option<Peer>, Vec<&Place>>::new();
        for place in self.places.iter().flatten().filter(|place| place.counted > 0) {
            of_peers.entry(place.peer).or_default().push(place);
        }
        let mut lines = BTreeMap::new();
        let mut sums = BinaryHeap::new();
        for (peer, places) in of_peers {
            let sum: usize = places.iter().map(|place| place.counted).sum();
            sums.push((sum, peer));
            lines.insert(peer, rank(&places, sum / places.len(), now_ns));
        }
        let mut found = Vec::new();
        while let Some((sum, peer)) = sums.pop() {
            let Some((counted, conn)) = lines.get_mut(&peer).and_then(Vec::pop) else { continue };
            found.push(conn);
            sums.push((sum - counted, peer));
        }
        found
    }
}

/// The connections of one peer and what each keeps, the last to be dropped first. Those go first
/// that took nothing for [`READER_STALE_NS`]; of these, those that keep more than most do; and of
/// these, who keeps most for longest.
fn rank(places: &[&Place], average: usize, now_ns: u64) -> Vec<(usize, ConnId)> {
    let rank = |place: &&Place| {
        let stale_ns = now_ns.saturating_sub(place.session.progress_ns(now_ns));
        let weight = (u128::from(stale_ns) + 1) * place.counted as u128;
        let slot = Reverse(place.session.conn().slot);
        (stale_ns >= READER_STALE_NS, place.counted >= average, weight, slot)
    };
    let mut ranked: Vec<_> = places.iter().map(|place| (rank(place), *place)).collect();
    ranked.sort_unstable_by_key(|(rank, _)| *rank);
    ranked.iter().map(|(_, place)| (place.counted, place.session.conn())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_an_ipv6_network() {
        let of = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
