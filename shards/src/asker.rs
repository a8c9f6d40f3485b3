//! Who asks: a stream of a connection, and the peer that the connection is of.

use std::net::IpAddr;

use ron_io::ports::{ConnId, ShardId};

/// One request or transfer of one connection. The session chooses `stream` and never uses a
/// number again while replies to it may be pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    pub conn: ConnId,
    pub stream: u32,
}

/// Who connects: an IPv4 address, or the network of an IPv6 address, as one host has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(u64);

impl Peer {
    #[cfg(test)]
    pub(crate) const LOCALHOST: Peer = Peer(0x7F00_0001);

    pub fn of(address: IpAddr) -> Peer {
        match address.to_canonical() {
            // No IPv6 network begins with 96 zeros but those that are none.
            IpAddr::V4(address) => Peer(u64::from(u32::from(address))),
            IpAddr::V6(address) => Peer((u128::from(address) >> 64) as u64),
        }
    }
}

/// Who asked, so that the reply finds its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    pub shard: ShardId,
    pub stream: StreamId,
    /// Whose connection it is.
    pub peer: Option<Peer>,
    pub place: Place,
}

/// Which place a question to another shard has among those that are open, see `mesh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// That of a question which needs no memory of its owner.
    Other,
    /// That of a question which may need a group to be read.
    Read,
    /// None any more: it waits for memory, and its owner counts it.
    Parked,
}
