//! Walking a segment: from record to record by their lengths, as far as they are whole.
//!
//! A walk is fed the bytes of a segment in order, piece by piece, and says what it found and what
//! it wants next. Up to `verify_from` only headers are looked at; behind it data are hashed too,
//! because the last batch may be torn.
//!
//! A record behind `verify_from` whose data do not match is either torn, and then nothing in its
//! batch was ever acknowledged, or it was damaged later. A pad ends a batch and the next batch is
//! written only after the one before was synced, so the walk goes on in doubt: if a pad and then
//! another header follow, it was damage, and what was found counts; if the walk ends before, the
//! segment is torn at the first doubtful record, and nothing from there on counts. Where it is
//! known what was synced, there is no doubt up to there.

use ron_codec::{
    address::Address,
    limits::RECORD_HEADER_LEN,
    outboard::Hashing,
    record::{RecordError, RecordHeader, RecordKind, RecordPlace},
};

use thiserror::Error;

use crate::limits::{SCAN_LEN, SKIM_LEN};

/// A record that a walk passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: RecordKind,
    pub digest: Address,
    /// Bytes of the object.
    pub size: u64,
    pub sequence: u64,
    /// Where it starts in its segment, and how long it is.
    pub offset: u64,
    pub record_len: u64,
    /// Its data are not what was stored, though they were synced.
    pub damaged: bool,
}

/// What a walk does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It wants the bytes from `at` on, up to `len`.
    Read { at: u64, len: u32 },
    /// All records up to `end` count. Less than the whole segment is `torn` or damaged.
    End { end: u64, torn: Option<Break> },
}

/// Why the records of a segment end before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Break {
    #[error("a cut header")]
    CutHeader,
    #[error("a blank header")]
    BlankHeader,
    #[error("no valid header")]
    NoHeader,
    #[error("the header of an object file")]
    FileHeader,
    #[error("a record beyond the end")]
    BeyondEnd,
    #[error("data that do not match")]
    Data,
    /// As a rebuild of the index finds it, which cannot tell it from a batch that a crash tore.
    #[error("damage in its last batch")]
    LastBatch,
    #[error("the file is too short")]
    TooShort,
    #[error("longer than any segment is made")]
    TooLong,
}

/// The walk through one segment.
///
/// `start` says what to read first; then `feed` takes what was read and says what to read next,
/// until one of them says `End`. `take` may be called after each, and must be after the last.
#[derive(Debug)]
pub struct Walk {
    at: u64,
    len: u64,
    verify_from: u64,
    /// Everything before was synced.
    synced_to: u64,
    /// What was found, ready to be taken.
    found: Vec<Found>,
    /// From the first doubtful record on: what counts only if a later batch is met.
    doubt: Option<Vec<Found>>,
    /// Whether the record before was a pad.
    after_pad: bool,
}

impl Walk {
    /// A walk from `at`, where a batch starts, through a segment of `len` bytes. Data of records
    /// from `verify_from` on are hashed.
    pub fn new(at: u64, len: u64, verify_from: u64) -> Walk {
        let (found, doubt) = (Vec::new(), None);
        Walk { at, len, verify_from, synced_to: 0, found, doubt, after_pad: true }
    }

    /// The same walk where it is known that everything before `offset` was synced: data there that
    /// do not match are damaged, and never torn.
    #[must_use]
    pub fn synced_to(self, offset: u64) -> Walk {
        Walk { synced_to: offset, ..self }
    }

    /// What to read first, or that there is nothing.
    pub fn start(&self) -> Next {
        self.next(None)
    }

    /// What was found since the last time.
    pub fn take(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.found)
    }

    /// How far it is.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes that the read at hand brings unless the disk withheld some: fewer than this must not
    /// be taken for the end of the segment by who would cut or remove it there.
    pub fn expected(&self) -> u64 {
        self.want(self.at).min(self.len.saturating_sub(self.at))
    }

    /// Takes the bytes that were wanted; fewer only where the segment ends.
    ///
    /// # Errors
    /// The version of a record that a newer program wrote.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Next, u16> {
        let start = self.at;
        // A file shorter than it was said to be ends there.
        if (bytes.len() as u64) < self.want(start).min(self.len.saturating_sub(start)) {
            self.len = start + bytes.len() as u64;
        }
        loop {
            let rest = &bytes[(self.at - start).min(bytes.len() as u64) as usize..];
            if rest.len() < RECORD_HEADER_LEN {
                let ends_here = self.at + rest.len() as u64 >= self.len && !rest.is_empty();
                return Ok(self.next(ends_here.then_some(Break::CutHeader)));
            }
            let header = match RecordHeader::decode(rest) {
                Ok(header) if header.place() == RecordPlace::Segment => header,
                Err(RecordError::Version { found }) => return Err(found),
                Err(RecordError::Blank) => return Ok(self.end(Some(Break::BlankHeader))),
                Ok(_) | Err(_) => return Ok(self.end(Some(Break::NoHeader))),
            };
            if self.at + header.record_len() > self.len {
                return Ok(self.end(Some(Break::BeyondEnd)));
            }
            let verify = header.kind() == RecordKind::Object && self.at >= self.verify_from;
            if verify && (rest.len() as u64) < header.record_len() {
                assert!(self.at > start, "every record fits the read that starts with it");
                return Ok(self.next(None));
            }
            let damaged = verify && !is_whole(&header, rest);
            self.pass(&header, damaged);
        }
    }

    fn pass(&mut self, header: &RecordHeader, damaged: bool) {
        if self.after_pad
            && let Some(doubtful) = self.doubt.take()
        {
            self.found.extend(doubtful);
        }
        self.after_pad = header.kind() == RecordKind::Pad;
        if damaged && self.doubt.is_none() && self.at >= self.synced_to {
            self.doubt = Some(Vec::new());
        }
        let found = Found {
            kind: header.kind(),
            digest: header.digest(),
            size: header.size(),
            sequence: header.sequence(),
            offset: self.at,
            record_len: header.record_len(),
            damaged,
        };
        self.doubt.as_mut().unwrap_or(&mut self.found).push(found);
        self.at += header.record_len();
    }

    fn next(&self, cut: Option<Break>) -> Next {
        if cut.is_some() || self.at >= self.len {
            return self.end(cut);
        }
        Next::Read { at: self.at, len: self.want(self.at) as u32 }
    }

    fn want(&self, at: u64) -> u64 {
        if at + SKIM_LEN as u64 <= self.verify_from { SKIM_LEN as u64 } else { SCAN_LEN as u64 }
    }

    fn end(&self, why: Option<Break>) -> Next {
        match self.doubt.as_ref().and_then(|doubtful| doubtful.first()) {
            Some(first) => Next::End { end: first.offset, torn: Some(Break::Data) },
            None => Next::End { end: self.at, torn: why },
        }
    }
}

/// Whether data and outboard of a record, which `bytes` starts with, are those of its digest. One
/// of a header only is whole by its checksum.
///
/// # Panics
/// If there are fewer bytes than the record has.
pub fn is_whole(header: &RecordHeader, bytes: &[u8]) -> bool {
    if header.kind() != RecordKind::Object {
        return true;
    }
    let data_start = header.data_offset() as usize;
    let data = &bytes[data_start..data_start + header.size() as usize];
    let outboard_start = header.outboard_offset() as usize;
    let outboard = &bytes[outboard_start..outboard_start + header.outboard_len() as usize];
    let mut hashing = Hashing::new();
    if hashing.update(data).is_err() {
        return false;
    }
    let hashed = hashing.finish();
    hashed.address == header.digest() && hashed.outboard.as_bytes() == outboard
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(data: &[u8], sequence: u64) -> Vec<u8> {
        let mut hashing = Hashing::new();
        hashing.update(data).unwrap();
        let hashed = hashing.finish();
        let size = data.len() as u64;
        let header = RecordHeader::for_segment(hashed.address, size, sequence).unwrap();
        let mut record = header.encode().to_vec();
        record.extend(data);
        record.resize(header.outboard_offset() as usize, 0);
        record.extend(hashed.outboard.as_bytes());
        record.resize(header.record_len() as usize, 0);
        record
    }

    fn batch(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = records.concat();
        let len = (bytes.len() + 128).next_multiple_of(4096);
        bytes.extend(RecordHeader::pad((len - bytes.len()) as u64).encode());
        bytes.resize(len, 0);
        bytes
    }

    /// Walks through all of `segment`. Sequences found, those damaged, and how it ended.
    fn walk(segment: &[u8], verify_from: u64) -> (Vec<u64>, Vec<u64>, Next) {
        let mut walk = Walk::new(0, segment.len() as u64, verify_from);
        let mut next = walk.start();
        while let Next::Read { at, len } = next {
            let end = (at as usize + len as usize).min(segment.len());
            next = walk.feed(&segment[at as usize..end]).unwrap();
        }
        let found = walk.take();
        let objects = found.iter().filter(|found| found.kind != RecordKind::Pad);
        let damaged = found.iter().filter(|found| found.damaged);
        (
            objects.map(|found| found.sequence).collect(),
            damaged.map(|found| found.sequence).collect(),
            next,
        )
    }

    fn segment() -> (Vec<u8>, usize) {
        let first = batch(&[object(&[1; 5000], 1), object(&[2; 100_000], 2), object(b"", 3)]);
        let second = batch(&[object(&[4; 10], 4), object(&[5; 1024 * 1024], 5)]);
        let start = first.len();
        ([first, second].concat(), start)
    }

    #[test]
    fn a_whole_segment_is_walked_to_its_end() {
        let (segment, _) = segment();
        let end = segment.len() as u64;
        for verify_from in [0, 4096, end] {
            let (found, damaged, next) = walk(&segment, verify_from);
            assert_eq!(found, [1, 2, 3, 4, 5]);
            assert!(damaged.is_empty());
            assert_eq!(next, Next::End { end, torn: None });
        }
        assert_eq!(walk(&[], 0).2, Next::End { end: 0, torn: None });
    }

    #[test]
    fn a_torn_last_batch_does_not_count() {
        let (mut segment, start) = segment();
        segment[start + 128] ^= 1;
        let (found, _, next) = walk(&segment, 0);
        assert_eq!(found, [1, 2, 3], "the whole record behind the torn one does not count either");
        let torn = Some(Break::Data);
        assert_eq!(next, Next::End { end: start as u64, torn });
    }

    #[test]
    fn damage_before_a_later_batch_costs_only_itself() {
        let (mut segment, _) = segment();
        segment[200] ^= 1;
        let (found, damaged, next) = walk(&segment, 0);
        assert_eq!((found.as_slice(), damaged.as_slice()), (&[1, 2, 3, 4, 5][..], &[1][..]));
        assert_eq!(next, Next::End { end: segment.len() as u64, torn: None });
        let (_, damaged, _) = walk(&segment, segment.len() as u64);
        assert!(damaged.is_empty(), "only headers are looked at before the tail");
    }

    #[test]
    fn what_was_synced_is_damaged_and_not_torn() {
        let (mut segment, start) = segment();
        segment[start + 128] ^= 1;
        let len = segment.len() as u64;
        for (synced_to, whole) in [(0, false), (start as u64, false), (start as u64 + 1, true)] {
            let mut walk = Walk::new(0, len, 0).synced_to(synced_to);
            let Next::Read { at: 0, .. } = walk.start() else { panic!("it has a start") };
            let next = walk.feed(&segment).unwrap();
            let found = walk.take();
            let damaged = found.iter().filter(|found| found.damaged).count();
            assert_eq!(damaged, usize::from(whole), "{synced_to}");
            assert_eq!(next == Next::End { end: len, torn: None }, whole, "{synced_to}: {next:?}");
        }
    }

    #[test]
    fn every_cut_leaves_whole_records_only() {
        let (segment, start) = segment();
        for cut in (0..segment.len()).step_by(509).chain([start - 1, start, start + 1]) {
            let (found, _, next) = walk(&segment[..cut], 0);
            let Next::End { end, .. } = next else { panic!("{next:?}") };
            assert!(end <= cut as u64);
            assert!(found.len() == 5 || cut < segment.len());
            let mut zeroed = segment.clone();
            zeroed[cut..].fill(0);
            let (with_zeros, _, _) = walk(&zeroed, 0);
            assert!(with_zeros.iter().all(|sequence| *sequence <= 5));
            assert!(cut < start || with_zeros.starts_with(&[1, 2, 3]));
        }
    }

    #[test]
    fn a_newer_record_is_refused_and_not_cut() {
        let (mut segment, start) = segment();
        segment[start + 8] = 9;
        let checksum = blake3::hash(&segment[start..start + 112]);
        segment[start + 112..start + 128].copy_from_slice(&checksum.as_bytes()[..16]);
        let mut walk = Walk::new(0, segment.len() as u64, 0);
        assert_eq!(walk.feed(&segment), Err(9));
    }
}
