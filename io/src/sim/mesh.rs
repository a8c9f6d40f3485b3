//! Lanes between shards: bounded, in order, and one for each direction of each pair.

use std::collections::VecDeque;

/// What the shards left for each other.
#[derive(Debug)]
pub struct Mesh<M> {
    lanes: Vec<VecDeque<M>>,
    shards: usize,
    lane_len: usize,
}

impl<M> Mesh<M> {
    /// Lanes of `lane_len` messages between `shards` shards.
    pub fn new(shards: usize, lane_len: usize) -> Mesh<M> {
        let lanes = (0..shards * shards).map(|_| VecDeque::new()).collect();
        Mesh { lanes, shards, lane_len }
    }

    /// Leaves a message. A shard's lane to itself carries what the control plane orders.
    ///
    /// # Panics
    /// If the lane is full: the sender must know that it is not.
    pub fn send(&mut self, from: usize, to: usize, mail: M) {
        let lane = &mut self.lanes[from * self.shards + to];
        assert!(lane.len() < self.lane_len, "the lane from shard {from} to {to} overflowed");
        lane.push_back(mail);
    }

    /// The oldest message of a lane.
    pub fn take(&mut self, from: usize, to: usize) -> Option<M> {
        self.lanes[from * self.shards + to].pop_front()
    }

    /// All messages that lie in lanes.
    pub fn mails(&self) -> impl Iterator<Item = &M> {
        self.lanes.iter().flatten()
    }

    /// The lanes that hold something, as sender and receiver.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, usize)> {
        let full = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.is_empty());
        full.map(|(at, _)| (at / self.shards, at % self.shards))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_keep_their_order_and_their_ends() {
        let mut mesh = Mesh::new(3, 2);
        mesh.send(0, 1, 'a');
        mesh.send(0, 1, 'b');
        mesh.send(2, 0, 'c');
        assert_eq!(mesh.waiting().collect::<Vec<_>>(), [(0, 1), (2, 0)]);
        assert_eq!(
            (mesh.take(0, 1), mesh.take(0, 1), mesh.take(0, 1)),
            (Some('a'), Some('b'), None)
        );
        assert_eq!(mesh.take(1, 0), None);
        assert_eq!(mesh.take(2, 0), Some('c'));
    }

    #[test]
    #[should_panic(expected = "overflowed")]
    fn a_full_lane_stops_the_run() {
        let mut mesh = Mesh::new(2, 1);
        mesh.send(0, 1, ());
        mesh.send(0, 1, ());
    }
}
