//! What opening the index finds to be wrong, for the operator.

use std::io;

use thiserror::Error;

use super::snapshot::Unusable;

/// A snapshot, or the folder of them, is not as it was left.
#[derive(Debug, Error)]
pub(in crate::store) enum Finding {
    #[error("the folder of the index cannot be made: {0}")]
    FolderNotMade(io::Error),
    #[error("what is left of a snapshot cannot be removed: {0}")]
    PartNotRemoved(io::Error),
    #[error("the index cannot be listed: {0}")]
    Unlisted(io::Error),
    #[error("the folder of the index cannot be synced: {0}")]
    FolderNotSynced(io::Error),
    #[error("snapshot {generation:08} of the index: {why}")]
    Unusable { generation: u32, why: Unusable },
    #[error("snapshot {generation:08} of the index: {why}; what is before is used")]
    Torn { generation: u32, why: Unusable },
    #[error("the index is of an older release, and is made anew")]
    OlderRelease,
    #[error("{entries} entries of segments that are gone are dropped")]
    Dropped { entries: usize },
}

/// Objects that the index names are lost.
#[derive(Debug, Error)]
pub(in crate::store) enum Loss {
    /// A segment ends before `synced_to`, at `len`, or is not there.
    #[error(
        "segment {segment} {}, and was synced to {synced_to} at least: {objects} objects there \
         are lost and answer with integrity errors until they are stored again; what was deleted \
         there only the index knows: do not rebuild it",
        rest(*.len)
    )]
    Segment { segment: u32, len: Option<u64>, synced_to: u64, objects: u64 },
    #[error("{objects} of its objects are of other partitions, as {owner}")]
    Strangers { objects: u64, owner: u16 },
}

/// What is left of a segment, by its length.
fn rest(len: Option<u64>) -> String {
    len.map_or_else(|| "is missing".to_owned(), |len| format!("ends at {len}"))
}
