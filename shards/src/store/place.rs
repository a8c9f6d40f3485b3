//! A partition of a shard, by how far it is.

use super::{boot::Boot, partition::Partition};

/// A partition, by how far it is.
#[derive(Debug)]
pub(super) enum Place {
    Cold,
    Booting(Box<Boot>),
    Serving(Box<Partition>),
    /// Its volume cannot be used.
    Absent,
    Failed,
}
