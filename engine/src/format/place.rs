//! A directory's node and its number among the node's volumes: the name that all volumes of a node
//! share, and the place among them.

use std::fmt;

use crate::random::{self, NoRandom};

const ID_LEN: usize = 16;

/// What all volumes of a node have in common, and no other node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId(pub(super) [u8; ID_LEN]);

/// A volume among those of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: NodeId,
    /// 2 to `VOLUMES_MAX`.
    pub volumes: u16,
    /// Counted from 0.
    pub volume: u16,
}

impl NodeId {
    pub(super) fn random() -> Result<NodeId, NoRandom> {
        random::bytes().map(NodeId)
    }

    /// A name as it is written: lowercase hex digits.
    pub(super) fn parse(hex: &str) -> Option<NodeId> {
        let digits: Option<Vec<u8>> = hex
            .bytes()
            .map(|byte| match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            })
            .collect();
        let (pairs, []) = digits.as_ref()?.as_chunks::<2>() else { return None };
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().ok().map(NodeId)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { id, volumes, volume } = self;
        write!(f, "volume {volume} of {volumes} (counted from 0) of the node {id}")
    }
}
