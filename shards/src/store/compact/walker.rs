//! The walk through a victim, the segment that is compacted, and what becomes of each record.
//!
//! An object's record counts if the index points to exactly that record. A tombstone counts until
//! its object is stored again; in the oldest segment it counts no more. A record that counts is
//! verified before it is moved.

use std::collections::VecDeque;

use ron_codec::record::{RecordHeader, RecordKind};
use ron_io::ports::FileId;

use crate::store::{
    index::{Entry, Index, Location},
    log::{Log, Moving, Relocation},
    scan::{Found, Next, Walk, is_whole},
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    pub(super) segment: u32,
    pub(super) file: FileId,
    /// No segment is older, and its files without an object are found: its tombstones are needed no
    /// more.
    pub(super) oldest: bool,
    /// `Log::unmoved` when it was opened.
    pub(super) unmoved: u64,
    /// `Deletes::failed` before files were looked for, or when it was opened.
    pub(super) unremoved: u64,
}

/// How far the walk through a victim is.
#[derive(Debug)]
pub(super) struct Walker {
    pub(super) victim: Victim,
    pub(super) walk: Walk,
    pub(super) found: VecDeque<Found>,
    /// The piece that was read last, and where it lies.
    pub(super) piece: Vec<u8>,
    pub(super) piece_at: u64,
    pub(super) next: Next,
    /// Tombstones that were met.
    pub(super) tombstones: u64,
}

/// What becomes of a record that was found.
pub(super) enum Fate {
    /// It counts no more.
    Dead,
    /// A tombstone that is needed no more, once the file is gone that it may speak of.
    Dropped,
    Relocate(Relocation),
    Read(Entry),
    Damaged,
}

impl Walker {
    /// A walk through all of a victim, as far as it was committed.
    pub(super) fn new(victim: Victim, log: &Log) -> Walker {
        let known = log.segments().find(|(number, _)| *number == victim.segment);
        let len = known.map_or(0, |(_, len)| len);
        let walk = Walk::new(0, len, len);
        let next = walk.start();
        let (found, piece, piece_at) = (VecDeque::new(), Vec::new(), 0);
        Walker { victim, walk, found, piece, piece_at, next, tombstones: 0 }
    }

    /// A piece of the segment was read.
    pub(super) fn take_piece(&mut self, piece: Vec<u8>, next: Next) {
        let found = self.walk.take();
        let is_tombstone = |found: &&Found| found.kind == RecordKind::Tombstone;
        self.tombstones += found.iter().filter(is_tombstone).count() as u64;
        self.found.extend(found);
        (self.piece, self.next) = (piece, next);
    }

    pub(super) fn fate(&self, found: &Found, index: &Index) -> Fate {
        let segment = self.victim.segment;
        match found.kind {
            RecordKind::Pad => Fate::Dead,
            RecordKind::Tombstone if self.victim.oldest => Fate::Dropped,
            RecordKind::Tombstone => {
                let relocation = Relocation::tombstone(found.digest, found.sequence);
                match relocation.counts(index) {
                    Some(true) => Fate::Relocate(relocation),
                    Some(false) => Fate::Dead,
                    None => Fate::Damaged,
                }
            }
            RecordKind::File | RecordKind::Object => match index.get(&found.digest) {
                Some(entry) if is_at(&entry, found, segment) => self.take(found, entry),
                _ => Fate::Dead,
            },
        }
    }

    fn take(&self, found: &Found, entry: Entry) -> Fate {
        let start = (found.offset - self.piece_at) as usize;
        match self.piece.get(start..start + found.record_len as usize) {
            Some(record) => relocation(found, entry, record).map_or(Fate::Damaged, Fate::Relocate),
            None => Fate::Read(entry),
        }
    }
}

/// Whether an entry points to exactly this record.
fn is_at(entry: &Entry, found: &Found, segment: u32) -> bool {
    let same_place = match (entry.location, found.kind) {
        (Location::Segment { segment: its, offset }, RecordKind::Object) => {
            (its, u64::from(offset)) == (segment, found.offset)
        }
        (Location::File { segment: its }, RecordKind::File) => its == segment,
        _ => false,
    };
    same_place && entry.sequence == found.sequence
}

/// The relocation of a record that counts, or `None` if it is not what it should be.
pub(super) fn relocation(found: &Found, entry: Entry, record: &[u8]) -> Option<Relocation> {
    let header = RecordHeader::decode(record).ok()?;
    let same = header.digest() == found.digest && header.sequence() == found.sequence;
    if !same || record.len() as u64 != header.record_len() || !is_whole(&header, record) {
        return None;
    }
    let (address, what) = (found.digest, Moving::Entry(entry));
    Some(Relocation { address, what, record: record.to_vec() })
}
