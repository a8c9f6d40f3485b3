//! What a shard is asked to list, and what it answers: its part of one page of objects.
//!
//! Digests are in the order of their bytes, which is that of addresses. A shard looks at no more
//! than is asked for, so a page may end before its range does, and then says how far it came.

/// The objects behind `after`, up to `last` and including it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRange {
    /// `None`: from the lowest digest on.
    pub after: Option<[u8; 32]>,
    pub last: [u8; 32],
    /// Most entries that a shard looks at.
    pub max: u16,
}

/// What one shard has in a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// By rising digest.
    pub objects: Vec<ListEntry>,
    /// The digest up to which this is all; `None`: up to the end of the range.
    pub until: Option<[u8; 32]>,
    /// Partitions of the range that can be neither read nor written: what they hold is not known.
    pub absent: Vec<u16>,
}

/// An object that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    pub digest: [u8; 32],
    pub size: u64,
    /// It is known to be damaged, and not given out.
    pub damaged: bool,
}
