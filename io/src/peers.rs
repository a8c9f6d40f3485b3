//! How many requests came from which peers, and what was turned away of each.
//!
//! Peers are distinguished by a few bits of a keyed hash of their address: enough to see whether
//! many are turned away or one is, again and again. Where there are more peers than buckets,
//! several share one. The key is of this process, so nobody chooses with whom.

use std::{
    array,
    hash::{BuildHasher, Hash, RandomState},
    sync::LazyLock,
};

use crate::counter::Counter;

/// Peers that are distinguished at most.
pub const PEER_BUCKETS: usize = 256;

/// What a peer is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerBucket(u8);

/// What was counted of the peers in one bucket.
#[derive(Debug, Default)]
struct Bucket {
    asked: Counter,
    turned_away: Counter,
    unconnected: Counter,
}

/// What the peers in one bucket did since the node began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerWork {
    /// Requests that were answered, whatever with.
    pub asked: u64,
    /// Those of them that were turned away for lack of memory or of space in a queue.
    pub turned_away: u64,
    /// Connections that were refused because there were too many.
    pub unconnected: u64,
}

/// The peers of one shard. Written by its thread alone, and read by any.
#[derive(Debug)]
pub struct PeerCounts {
    buckets: [Bucket; PEER_BUCKETS],
}

/// One for all shards: a peer is counted under the same number by each.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Default for PeerCounts {
    fn default() -> PeerCounts {
        let buckets = array::from_fn(|_| Bucket::default());
        PeerCounts { buckets }
    }
}

impl PeerCounts {
    /// What this peer is counted under, for as long as the node runs.
    pub fn bucket(&self, peer: impl Hash) -> PeerBucket {
        PeerBucket(KEYS.hash_one(peer) as u8)
    }

    /// A request was answered, whatever with.
    #[inline]
    pub(crate) fn asked(&self, peer: PeerBucket) {
        self.buckets[usize::from(peer.0)].asked.add(1);
    }

    /// A request was turned away for lack of memory or of space in a queue.
    pub(crate) fn turned_away(&self, peer: PeerBucket) {
        self.buckets[usize::from(peer.0)].turned_away.add(1);
    }

    /// A connection was refused because there were too many.
    pub(crate) fn unconnected(&self, peer: PeerBucket) {
        self.buckets[usize::from(peer.0)].unconnected.add(1);
    }

    /// What was counted of each bucket.
    pub fn all(&self) -> impl Iterator<Item = PeerWork> {
        self.buckets.iter().map(|bucket| PeerWork {
            asked: bucket.asked.get(),
            turned_away: bucket.turned_away.get(),
            unconnected: bucket.unconnected.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_known_again_and_others_are_told_apart() {
        let peers = PeerCounts::default();
        for peer in 0..100 {
            assert_eq!(peers.bucket(peer), PeerCounts::default().bucket(peer), "on any shard");
            peers.asked(peers.bucket(peer));
        }
        peers.turned_away(peers.bucket(7));
        let used = peers.all().filter(|work| work.asked > 0).count();
        // 83 are to be expected of 100.
        assert!((60..=100).contains(&used), "{used} buckets");
        assert_eq!(peers.all().map(|work| work.asked).sum::<u64>(), 100);
        assert_eq!(peers.all().filter(|work| work.turned_away == 1).count(), 1);
    }
}
