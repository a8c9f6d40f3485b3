//! What the index knows: of an object, of a segment, of the log.

use ron_codec::{
    address::Address,
    limits::{RECORD_ALIGN, RECORD_HEADER_LEN, SEGMENT_LEN_MAX},
    record::{RecordError, RecordHeader},
};

/// A place in the log of a partition: everything before it is known. Segment 0 is before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub segment: u32,
    pub offset: u64,
}

impl Position {
    /// Whether a log can reach there. One whose torn end was cut ends behind any record.
    pub(super) fn is_in_a_log(self) -> bool {
        self.offset.is_multiple_of(RECORD_ALIGN as u64) && self.offset <= SEGMENT_LEN_MAX
    }
}

/// Where an object's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    Segment {
        segment: u32,
        offset: u32,
    },
    /// In a file of its own. Its record in the log is in `segment`; 0: there is none.
    File {
        segment: u32,
    },
}

/// What counts in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Tally {
    /// Bytes of the records that an entry points to.
    pub(in crate::store) live: u64,
    /// Tombstones, whether they are still needed or not.
    pub(in crate::store) tombstones: u64,
}

/// What the index knows about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub location: Location,
    /// Bytes of the object.
    pub size: u64,
    /// Of its record in the log.
    pub sequence: u64,
}

/// What there is of all objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Totals {
    pub(in crate::store) objects: u64,
    /// Bytes of the objects themselves.
    pub(in crate::store) object_bytes: u64,
    /// Bytes of the files of those that have their own.
    pub(in crate::store) file_bytes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, entry: &Entry) {
        self.objects += 1;
        self.object_bytes += entry.size;
        self.file_bytes += entry.file_len();
    }

    pub(super) fn sub(&mut self, entry: &Entry) {
        self.objects -= 1;
        self.object_bytes -= entry.size;
        self.file_bytes -= entry.file_len();
    }
}

impl Entry {
    /// The header that the object's record must have.
    ///
    /// # Errors
    /// `Size` if no record of the place can be that long: the entry is damaged.
    pub(in crate::store) fn header(&self, address: &Address) -> Result<RecordHeader, RecordError> {
        match self.location {
            Location::Segment { .. } => {
                RecordHeader::for_segment(*address, self.size, self.sequence)
            }
            Location::File { .. } => RecordHeader::for_file(*address, self.size, self.sequence),
        }
    }

    /// The segment that holds the entry's record in the log, 0 for none, and that record's length.
    pub(in crate::store) fn in_log(&self) -> (u32, u64) {
        let unit = Address::from_bytes([0; 32]);
        match self.location {
            Location::Segment { segment, .. } => {
                (segment, self.header(&unit).map_or(0, |header| header.record_len()))
            }
            Location::File { segment } => (segment, RECORD_HEADER_LEN as u64),
        }
    }

    /// Bytes of the object's own file, if it has one.
    pub(in crate::store) fn file_len(&self) -> u64 {
        let unit = Address::from_bytes([0; 32]);
        match self.location {
            Location::Segment { .. } => 0,
            Location::File { .. } => self.header(&unit).map_or(0, |header| header.record_len()),
        }
    }

    /// Where the record starts in its file.
    pub(in crate::store) fn base(&self) -> u64 {
        match self.location {
            Location::Segment { offset, .. } => u64::from(offset),
            Location::File { .. } => 0,
        }
    }
}

/// The `N` bytes from `at`, which the callers' fixed offsets keep within `bytes`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}
