//! How long the segments of a log are, as far as they are committed.

use std::collections::BTreeMap;

use crate::store::index::Entry;

#[derive(Debug)]
pub(super) struct Table {
    /// By number.
    lens: BTreeMap<u32, u64>,
    /// Bytes of all of them.
    len: u64,
}

impl Table {
    pub(super) fn new(lens: BTreeMap<u32, u64>) -> Table {
        Table { len: lens.values().sum(), lens }
    }

    /// Numbers and lengths, rising.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.lens.iter().map(|(number, len)| (*number, *len))
    }

    /// How many there are, and their bytes.
    pub(super) fn extent(&self) -> (usize, u64) {
        (self.lens.len(), self.len)
    }

    /// Whether an entry's record lies where no segment reaches.
    pub(super) fn lacks(&self, entry: &Entry) -> bool {
        let (segment, len) = entry.in_log();
        let there = self.lens.get(&segment);
        segment > 0 && there.is_none_or(|there| entry.base() + len > *there)
    }

    /// So many bytes were committed to a segment, which may be a new one.
    pub(super) fn grow(&mut self, segment: u32, more: u64) {
        *self.lens.entry(segment).or_default() += more;
        self.len += more;
    }

    /// The segment was removed. Returns its length.
    pub(super) fn forget(&mut self, segment: u32) -> u64 {
        let len = self.lens.remove(&segment).unwrap_or(0);
        self.len -= len;
        len
    }
}
