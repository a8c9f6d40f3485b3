//! Records that are to be moved to the end of the log.
//!
//! A moved record keeps its bytes and its sequence, so it says no more than it said before,
//! wherever it lies.

use std::collections::VecDeque;

use ron_codec::{address::Address, record::RecordHeader};

use crate::{
    limits,
    store::index::{Entry, Index},
};

/// A whole, verified record that is written anew at the end of the log, byte for byte.
#[derive(Debug)]
pub(in crate::store) struct Relocation {
    pub(in crate::store) address: Address,
    pub(in crate::store) what: Moving,
    pub(in crate::store) record: Vec<u8>,
}

/// What a record that is moved stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Moving {
    /// What the index knows about the object.
    Entry(Entry),
    Tombstone {
        sequence: u64,
    },
}

impl Relocation {
    /// A tombstone that is written again.
    pub(in crate::store) fn tombstone(address: Address, sequence: u64) -> Relocation {
        let record = RecordHeader::tombstone(address, sequence).encode().to_vec();
        Relocation { address, what: Moving::Tombstone { sequence }, record }
    }

    pub(super) fn sequence(&self) -> u64 {
        match self.what {
            Moving::Entry(entry) => entry.sequence,
            Moving::Tombstone { sequence } => sequence,
        }
    }

    /// Whether the record still counts: nothing that came since says otherwise. `None` when the
    /// index cannot say, so that it must be neither dropped nor written anew.
    pub(in crate::store) fn counts(&self, index: &Index) -> Option<bool> {
        let known = index.get(&self.address);
        Some(match self.what {
            Moving::Entry(entry) => known == Some(entry),
            Moving::Tombstone { sequence } => known.is_none_or(|known| known.sequence < sequence),
        })
    }
}

/// The records of one log that wait to be moved.
#[derive(Debug, Default)]
pub(super) struct Moves {
    queue: VecDeque<Relocation>,
    /// Bytes of their records.
    len: usize,
    /// Records that were queued to be moved, and were not.
    unmoved: u64,
}

impl Moves {
    /// Whether one more may be queued.
    pub(super) fn takes_more(&self) -> bool {
        self.len < limits::RELOCATIONS_LEN_MAX
    }

    pub(super) fn push(&mut self, relocation: Relocation) {
        self.len += relocation.record.len();
        self.queue.push_back(relocation);
    }

    /// Bytes of the next record.
    pub(super) fn next_len(&self) -> Option<u64> {
        self.queue.front().map(|relocation| relocation.record.len() as u64)
    }

    pub(super) fn pop(&mut self) -> Option<Relocation> {
        let relocation = self.queue.pop_front()?;
        self.len -= relocation.record.len();
        Some(relocation)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// One that was taken stays where it was.
    pub(super) fn count_unmoved(&mut self) {
        self.unmoved += 1;
    }

    /// All that wait stay where they are.
    pub(super) fn drop_all(&mut self) {
        self.unmoved += self.queue.len() as u64;
        (self.queue, self.len) = (VecDeque::new(), 0);
    }

    /// How many records were queued to be moved, and were not.
    pub(super) fn unmoved(&self) -> u64 {
        self.unmoved
    }
}
