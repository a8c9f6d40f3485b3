//! A partition of a shard, by how far it is.

use thiserror::Error;

use super::{
    boot::{Boot, BootError},
    partition::Partition,
};

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

/// Why a partition is absent.
#[derive(Debug, Error)]
pub(super) enum Absence {
    #[error(
        "partition {partition}: its folder is gone: restore it; one that is empty is taken for a \
         loss that is accepted"
    )]
    FolderGone { partition: u16 },
    #[error("it could not be used at the start")]
    Unusable,
    #[error(transparent)]
    Boot(BootError),
}
