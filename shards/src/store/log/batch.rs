//! One batch: the records that are written at once, synced at once, and committed or refused at
//! once.
//!
//! ```text
//!   record │ record │ … │ moved record │ … │ pad to a whole block
//!   appends, in order     moved records behind them
//! ```

use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, RECORD_HEADER_LEN},
    record::{RecordHeader, record_len_max},
};
use ron_io::{limits::DISK_OP_LEN_MAX, ports::Part};

use super::{
    append::{Append, Appends, What, push_zeros},
    moves::{Moves, Moving, Relocation},
};
use crate::{
    limits,
    store::index::{Entry, Index, Location},
};

/// Most bytes of the pad that ends a batch.
const PAD_MAX: u64 = DISK_BLOCK_LEN as u64;
const _: () = assert!(record_len_max() + PAD_MAX <= DISK_OP_LEN_MAX as u64);

#[derive(Debug)]
struct Member {
    what: Source,
    offset: u64,
    sequence: u64,
}

/// Where the record of a member comes from.
#[derive(Debug)]
enum Source {
    Append(usize),
    Relocation(Relocation),
}

/// An append that is committed, with what the index is to say of it.
pub(super) type Appended = (Append, Entry);

/// A record that was moved: what it stood for, and what it stands for now.
pub(super) type Moved = (Address, Moving, Entry);

/// The batch that is being committed; empty if none is.
#[derive(Debug, Default)]
pub(super) struct Batch {
    members: Vec<Member>,
    len: u64,
}

impl Batch {
    /// Moves appends into the batch, and behind them records that are to be moved and count by the
    /// index, as far as one write takes them. `sequence` is the next.
    pub(super) fn fill(
        &mut self,
        appends: &mut Appends,
        moves: &mut Moves,
        index: &Index,
        sequence: &mut u64,
    ) {
        assert!(self.members.is_empty());
        let len = self.take_appends(appends, sequence);
        let len = self.take_moves(len, moves, index);
        // A pad always ends a batch: recovery tells by it what was synced before what.
        self.len = (len + RECORD_HEADER_LEN as u64).next_multiple_of(PAD_MAX);
    }

    /// Returns the length of their records.
    fn take_appends(&mut self, appends: &mut Appends, sequence: &mut u64) -> u64 {
        let mut len = 0;
        while let Some((append, record_len)) = appends.next() {
            if !self.fits(len, record_len) {
                break;
            }
            appends.take_next();
            let what = Source::Append(append);
            self.members.push(Member { what, offset: len, sequence: *sequence });
            *sequence += 1;
            len += record_len;
        }
        len
    }

    /// Returns the length of all records.
    fn take_moves(&mut self, start: u64, moves: &mut Moves, index: &Index) -> u64 {
        let mut len = start;
        while let Some(record_len) = moves.next_len() {
            let full = len - start >= limits::RELOCATE_BATCH_LEN || !self.fits(len, record_len);
            if full {
                break;
            }
            let Some(relocation) = moves.pop() else { break };
            // What a tombstone of an earlier batch removed must not come behind that tombstone.
            match relocation.counts(index) {
                Some(true) => {}
                Some(false) => continue,
                None => {
                    moves.count_unmoved();
                    continue;
                }
            }
            let sequence = relocation.sequence();
            let what = Source::Relocation(relocation);
            self.members.push(Member { what, offset: len, sequence });
            len += record_len;
        }
        len
    }

    /// Whether a record of so many bytes fits behind `len` bytes.
    fn fits(&self, len: u64, record_len: u64) -> bool {
        let fits = len + record_len + PAD_MAX <= DISK_OP_LEN_MAX as u64;
        fits && self.members.len() < limits::BATCH_RECORDS_MAX
    }

    /// Bytes of all of it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many records are in it.
    pub(super) fn records(&self) -> usize {
        self.members.len()
    }

    /// Whether there is nothing in it but a pad.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a record is in it that is moved.
    pub(super) fn is_moving(&self) -> bool {
        self.members.iter().any(|member| matches!(member.what, Source::Relocation(_)))
    }

    /// What is written.
    pub(super) fn parts(&self, appends: &Appends) -> Vec<Part> {
        let mut parts = Vec::with_capacity(4 * self.members.len() + 2);
        let mut len = 0;
        for member in &self.members {
            assert_eq!(member.offset, len, "records lie back to back");
            len += match &member.what {
                Source::Append(append) => appends.put_parts(*append, member.sequence, &mut parts),
                Source::Relocation(relocation) => {
                    parts.push(Part::Bytes(relocation.record.clone()));
                    relocation.record.len() as u64
                }
            };
        }
        let pad = self.len - len;
        parts.push(Part::Bytes(RecordHeader::pad(pad).encode().to_vec()));
        push_zeros(&mut parts, pad - RECORD_HEADER_LEN as u64);
        let written: usize = parts.iter().map(Part::len).sum();
        assert_eq!(written as u64, self.len);
        parts
    }

    /// It is durable at `start` of this segment.
    pub(super) fn committed(
        &mut self,
        (segment, start): (u32, u64),
        appends: &mut Appends,
    ) -> (Vec<Appended>, Vec<Moved>) {
        let (mut appended, mut moved) = (Vec::new(), Vec::new());
        for member in std::mem::take(&mut self.members) {
            let offset = u32::try_from(start + member.offset);
            let offset = offset.expect("a segment's offsets fit 32 bits");
            let sequence = member.sequence;
            let in_segment = Location::Segment { segment, offset };
            match member.what {
                Source::Append(append) => {
                    let append = appends.remove(append);
                    let location = match append.what {
                        What::Object { .. } | What::Tombstone => in_segment,
                        What::File => Location::File { segment },
                    };
                    let size = append.size;
                    appended.push((append, Entry { location, size, sequence }));
                }
                Source::Relocation(Relocation { address, what, .. }) => {
                    let (location, size) = match what {
                        Moving::Entry(Entry { location: Location::File { .. }, size, .. }) => {
                            (Location::File { segment }, size)
                        }
                        Moving::Entry(Entry { size, .. }) => (in_segment, size),
                        Moving::Tombstone { .. } => (in_segment, 0),
                    };
                    moved.push((address, what, Entry { location, size, sequence }));
                }
            }
        }
        (appended, moved)
    }

    /// It is not committed. Returns its appends; what was to be moved stays where it was.
    pub(super) fn refused(&mut self, appends: &mut Appends, moves: &mut Moves) -> Vec<Append> {
        let mut refused = Vec::new();
        for member in std::mem::take(&mut self.members) {
            match member.what {
                Source::Append(append) => refused.push(appends.remove(append)),
                Source::Relocation(_) => moves.count_unmoved(),
            }
        }
        refused
    }
}
