//! Storage records: how an object lies on disk and says so itself.
//!
//! A record is a header of `RECORD_HEADER_LEN` bytes, the object's data, and its outboard, each
//! part at a multiple of the record's unit and filled up with zeros to the next one:
//!
//! ```text
//! in a segment, unit 128          | header | data … | outboard |
//! in a file of its own, unit 4096 | header | data … | outboard |
//!                                 0        data_offset        record_len
//!                                                  outboard_offset
//! ```
//!
//! The data come first because the length of a chunked upload, and so its outboard, is known only
//! when it ends. The layout of every field is chapter "Records" of `docs/STORAGE.md`.
//!
//! This module writes and reads headers. Every length follows from kind, unit and size, so a header
//! whose lengths say anything else is refused before anyone computes with them. It does not look
//! at data: that is checked against the digest, by `outboard`.

use thiserror::Error;

use crate::address::Address;
use crate::limits::{
    DISK_BLOCK_LEN, OBJECT_LEN_MAX, RECORD_ALIGN, RECORD_HEADER_LEN, RECORD_SEQUENCE_MAX,
    SEGMENT_LEN_MAX, SEGMENT_OBJECT_LEN_MAX,
};
use crate::outboard::outboard_len;

/// The first bytes of every record. Its first byte is no ASCII and its last a line end, so that
/// neither text nor a copy that translated line ends passes for a record.
pub const RECORD_MAGIC: [u8; 8] = *b"\xb3ronrec\n";

/// The only version of the layout so far.
pub const RECORD_VERSION: u16 = 1;

const FIELDS_LEN: usize = 88;
const CHECKED_LEN: usize = 112;
const CHECKSUM_LEN: usize = RECORD_HEADER_LEN - CHECKED_LEN;

const _: () = assert!(FIELDS_LEN < CHECKED_LEN && CHECKSUM_LEN == 16);
const _: () = assert!(record_len_max() < SEGMENT_LEN_MAX);

/// What a record is for. The numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Holds an object.
    Object = 1,
    /// Fills the rest of a commit; holds nothing.
    Pad = 2,
    /// Says that the object of this digest is deleted.
    Tombstone = 3,
    /// Says that the object of this digest lies in a file of its own.
    File = 4,
}

/// Where a record lies, which decides its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordPlace {
    /// In a segment, packed between others, at a multiple of `RECORD_ALIGN`.
    Segment,
    /// Alone in a file, from its first byte, each part at a multiple of `DISK_BLOCK_LEN`.
    File,
}

/// Why bytes are not the header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// There are `len` bytes, fewer than `RECORD_HEADER_LEN`.
    #[error("record header of {len} bytes instead of {RECORD_HEADER_LEN}")]
    Short { len: usize },
    /// All bytes are zero: nothing was ever written here.
    #[error("blank record header")]
    Blank,
    /// The bytes do not start with `RECORD_MAGIC`.
    #[error("no record magic")]
    Magic,
    /// The checksum is wrong: the header is torn or damaged.
    #[error("record header checksum mismatch")]
    Checksum,
    /// The header is whole and of a layout that this program does not know.
    #[error("record version {found}, known is {RECORD_VERSION}")]
    Version { found: u16 },
    /// The header is whole, yet of no known kind.
    #[error("record kind {found}")]
    Kind { found: u8 },
    /// Bytes that are zero in this version are not.
    #[error("reserved bytes of the record header are in use")]
    Reserved,
    /// The record would hold `len` bytes of data; its place takes `max`.
    #[error("record of {len} data bytes, at most {max}")]
    Size { len: u64, max: u64 },
    /// Offsets and lengths contradict kind and size, or no record of the kind has such a digest or
    /// sequence.
    #[error("record geometry is inconsistent")]
    Geometry,
}

/// The header of one record. Made by its constructors or by `decode`, so that its geometry is
/// consistent always and its ends never overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    kind: RecordKind,
    digest: Address,
    size: u64,
    data_offset: u32,
    outboard_len: u32,
    outboard_offset: u64,
    record_len: u64,
    sequence: u64,
}

/// Bytes of the longest record in a segment: a scanner's buffer need not be larger.
#[must_use]
pub const fn record_len_max() -> u64 {
    let outboard = outboard_len(SEGMENT_OBJECT_LEN_MAX) as u64;
    let parts = RECORD_HEADER_LEN as u64 + SEGMENT_OBJECT_LEN_MAX + outboard;
    parts.next_multiple_of(RECORD_ALIGN as u64)
}

impl RecordHeader {
    /// The header of an object of `size` bytes in a segment.
    ///
    /// # Errors
    ///
    /// `Size` when the object is longer than `SEGMENT_OBJECT_LEN_MAX`.
    pub fn for_segment(digest: Address, size: u64, sequence: u64) -> Result<Self, RecordError> {
        Self::object(RecordPlace::Segment, digest, size, sequence)
    }

    /// The header of an object of `size` bytes in a file of its own. Any object may have one: when
    /// an upload of unknown length starts, nobody knows how long it becomes.
    ///
    /// # Errors
    ///
    /// `Size` when the object is longer than `OBJECT_LEN_MAX`.
    pub fn for_file(digest: Address, size: u64, sequence: u64) -> Result<Self, RecordError> {
        Self::object(RecordPlace::File, digest, size, sequence)
    }

    /// A pad of `len` bytes, this header included.
    ///
    /// # Panics
    ///
    /// When `len` is not a multiple of `RECORD_ALIGN` between one header and `SEGMENT_LEN_MAX`:
    /// gaps between records and the ends of commits always are.
    #[must_use]
    pub fn pad(len: u64) -> Self {
        assert!(is_pad_len(len), "pad of {len} bytes");
        let nobody = Address::from_bytes([0; 32]);
        Self { record_len: len, ..Self::bare(RecordKind::Pad, nobody, 0) }
    }

    /// The record that deletes the object `digest`; one header long, always in a segment.
    #[must_use]
    pub fn tombstone(digest: Address, sequence: u64) -> Self {
        Self::bare(RecordKind::Tombstone, digest, sequence)
    }

    /// The record that says that the object `digest` of `size` bytes lies in a file of its own;
    /// one header long, always in a segment.
    ///
    /// # Errors
    ///
    /// `Size` when the object is longer than `OBJECT_LEN_MAX`.
    pub fn file(digest: Address, size: u64, sequence: u64) -> Result<Self, RecordError> {
        if size > OBJECT_LEN_MAX {
            return Err(RecordError::Size { len: size, max: OBJECT_LEN_MAX });
        }
        Ok(Self { size, ..Self::bare(RecordKind::File, digest, sequence) })
    }

    /// What the record is for.
    #[must_use]
    pub const fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Where the record lies. Only the records of objects are ever in a file.
    #[must_use]
    pub const fn place(&self) -> RecordPlace {
        if self.data_offset == RecordPlace::File.unit() {
            RecordPlace::File
        } else {
            RecordPlace::Segment
        }
    }

    /// The object that is held, deleted or elsewhere; zeros for a pad.
    #[must_use]
    pub const fn digest(&self) -> Address {
        self.digest
    }

    /// Bytes of the object; zero for pads and tombstones.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where the data start, counted from the start of the record.
    #[must_use]
    pub const fn data_offset(&self) -> u32 {
        self.data_offset
    }

    /// Where the outboard starts, counted from the start of the record.
    #[must_use]
    pub const fn outboard_offset(&self) -> u64 {
        self.outboard_offset
    }

    /// Bytes of the outboard; zero for an object of at most one group.
    #[must_use]
    pub const fn outboard_len(&self) -> u32 {
        self.outboard_len
    }

    /// Bytes of the whole record, from its header to the next record or the end of its file.
    #[must_use]
    pub const fn record_len(&self) -> u64 {
        self.record_len
    }

    /// The record's place in the history of its partition; zero for a pad.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[0..8].copy_from_slice(&RECORD_MAGIC);
        bytes[8..10].copy_from_slice(&RECORD_VERSION.to_le_bytes());
        bytes[10] = self.kind as u8;
        bytes[16..48].copy_from_slice(self.digest.as_bytes());
        bytes[48..56].copy_from_slice(&self.size.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.data_offset.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.outboard_len.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.outboard_offset.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.record_len.to_le_bytes());
        bytes[80..88].copy_from_slice(&self.sequence.to_le_bytes());
        let checksum = checksum(&bytes);
        bytes[CHECKED_LEN..].copy_from_slice(&checksum);
        bytes
    }

    /// Reads the header at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    ///
    /// `RecordError`. The checksum is compared before the version, because magic, version and
    /// checksum keep their places in every version: so `Version` means a record that a newer
    /// program wrote, and never a damaged one.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some(bytes) = bytes.first_chunk::<RECORD_HEADER_LEN>() else {
            return Err(RecordError::Short { len: bytes.len() });
        };
        if bytes == &[0; RECORD_HEADER_LEN] {
            return Err(RecordError::Blank);
        }
        if !bytes.starts_with(&RECORD_MAGIC) {
            return Err(RecordError::Magic);
        }
        if bytes[CHECKED_LEN..] != checksum(bytes) {
            return Err(RecordError::Checksum);
        }
        let version = u16::from_le_bytes(array(bytes, 8));
        if version != RECORD_VERSION {
            return Err(RecordError::Version { found: version });
        }
        // Byte 11 holds flags and 12..16 nothing; this version knows no use of either.
        if bytes[11..16] != [0; 5] || bytes[FIELDS_LEN..CHECKED_LEN].iter().any(|byte| *byte != 0) {
            return Err(RecordError::Reserved);
        }
        let found = Self {
            kind: RecordKind::from_byte(bytes[10])?,
            digest: Address::from_bytes(array(bytes, 16)),
            size: u64::from_le_bytes(array(bytes, 48)),
            data_offset: u32::from_le_bytes(array(bytes, 56)),
            outboard_len: u32::from_le_bytes(array(bytes, 60)),
            outboard_offset: u64::from_le_bytes(array(bytes, 64)),
            record_len: u64::from_le_bytes(array(bytes, 72)),
            sequence: u64::from_le_bytes(array(bytes, 80)),
        };
        // Nothing was computed from these fields yet. What they must be follows from few of them.
        let is_as_made = found.rebuilt()? == found;
        // In a file of its own the sequence means nothing; in a log the next one follows from it.
        let follows = found.place() == RecordPlace::File || found.sequence <= RECORD_SEQUENCE_MAX;
        if is_as_made && follows { Ok(found) } else { Err(RecordError::Geometry) }
    }

    /// The only header that may have this one's kind, unit, digest, size and sequence.
    fn rebuilt(&self) -> Result<Self, RecordError> {
        match self.kind {
            RecordKind::Object => Self::object(self.place(), self.digest, self.size, self.sequence),
            RecordKind::Pad if is_pad_len(self.record_len) => Ok(Self::pad(self.record_len)),
            RecordKind::Pad => Err(RecordError::Geometry),
            RecordKind::Tombstone => Ok(Self::tombstone(self.digest, self.sequence)),
            RecordKind::File => Self::file(self.digest, self.size, self.sequence),
        }
    }

    fn object(
        place: RecordPlace,
        digest: Address,
        size: u64,
        sequence: u64,
    ) -> Result<Self, RecordError> {
        let max = place.object_len_max();
        if size > max {
            return Err(RecordError::Size { len: size, max });
        }
        // Bounded by `OBJECT_LEN_MAX`, none of these sums comes near the end of its type.
        let unit = u64::from(place.unit());
        let outboard_len = outboard_len(size);
        let outboard_offset = (unit + size).next_multiple_of(unit);
        Ok(Self {
            kind: RecordKind::Object,
            digest,
            size,
            data_offset: place.unit(),
            outboard_len: outboard_len as u32,
            outboard_offset,
            record_len: (outboard_offset + outboard_len as u64).next_multiple_of(unit),
            sequence,
        })
    }

    /// A record in a segment that is nothing but its header.
    fn bare(kind: RecordKind, digest: Address, sequence: u64) -> Self {
        let data_offset = RecordPlace::Segment.unit();
        let end = u64::from(data_offset);
        Self {
            kind,
            digest,
            size: 0,
            data_offset,
            outboard_len: 0,
            outboard_offset: end,
            record_len: end,
            sequence,
        }
    }
}

impl RecordKind {
    fn from_byte(byte: u8) -> Result<Self, RecordError> {
        match byte {
            1 => Ok(Self::Object),
            2 => Ok(Self::Pad),
            3 => Ok(Self::Tombstone),
            4 => Ok(Self::File),
            found => Err(RecordError::Kind { found }),
        }
    }
}

impl RecordPlace {
    /// The multiple at which the parts of a record lie; the first of them holds the header.
    #[must_use]
    pub const fn unit(self) -> u32 {
        match self {
            Self::Segment => RECORD_ALIGN as u32,
            Self::File => DISK_BLOCK_LEN as u32,
        }
    }

    const fn object_len_max(self) -> u64 {
        match self {
            Self::Segment => SEGMENT_OBJECT_LEN_MAX,
            Self::File => OBJECT_LEN_MAX,
        }
    }
}

fn is_pad_len(len: u64) -> bool {
    len >= RECORD_HEADER_LEN as u64
        && len <= SEGMENT_LEN_MAX
        && len.is_multiple_of(RECORD_ALIGN as u64)
}

fn checksum(header: &[u8; RECORD_HEADER_LEN]) -> [u8; CHECKSUM_LEN] {
    array(blake3::hash(&header[..CHECKED_LEN]).as_bytes(), 0)
}

/// The `N` bytes from `at`, which the callers' fixed offsets keep within `bytes`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::GROUP_LEN;
    use proptest::prelude::*;

    const GOLDEN: &str = include_str!("../vectors/record1.json");

    fn digest() -> Address {
        Address::of(b"an object")
    }

    /// The slow twin: the table of the document, one field after the other.
    fn slow_encode(
        (kind, digest, sequence): (u8, Address, u64),
        (size, data_offset, outboard_len): (u64, u32, u32),
        (outboard_offset, record_len): (u64, u64),
    ) -> Vec<u8> {
        let mut bytes = vec![0xb3, b'r', b'o', b'n', b'r', b'e', b'c', 0x0a];
        bytes.extend([1, 0]);
        bytes.push(kind);
        bytes.extend([0; 5]);
        bytes.extend(digest.as_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(data_offset.to_le_bytes());
        bytes.extend(outboard_len.to_le_bytes());
        bytes.extend(outboard_offset.to_le_bytes());
        bytes.extend(record_len.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        bytes.resize(112, 0);
        let checksum = blake3::hash(&bytes);
        bytes.extend(&checksum.as_bytes()[..16]);
        bytes
    }

    fn round_up(value: u64, unit: u64) -> u64 {
        value.div_ceil(unit) * unit
    }

    /// `header` with bytes replaced from `at` and a checksum that agrees with them.
    fn forged(header: RecordHeader, at: usize, bytes: &[u8]) -> [u8; RECORD_HEADER_LEN] {
        let mut forged = header.encode();
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        let checksum = checksum(&forged);
        forged[CHECKED_LEN..].copy_from_slice(&checksum);
        forged
    }

    fn samples() -> Vec<RecordHeader> {
        let group = GROUP_LEN as u64;
        let sizes = [0, 1, 127, 128, 129, 4095, 4096, 4097, group, group + 1];
        let small = sizes.into_iter().chain([SEGMENT_OBJECT_LEN_MAX]);
        let large = sizes.into_iter().chain([SEGMENT_OBJECT_LEN_MAX + 1, OBJECT_LEN_MAX]);
        let segment = small.map(|size| RecordHeader::for_segment(digest(), size, 7).unwrap());
        let file = large.map(|size| RecordHeader::for_file(digest(), size, u64::MAX).unwrap());
        let others = [
            RecordHeader::pad(128),
            RecordHeader::pad(3968),
            RecordHeader::pad(SEGMENT_LEN_MAX),
            RecordHeader::tombstone(digest(), 9),
            RecordHeader::file(digest(), 0, 10).unwrap(),
            RecordHeader::file(digest(), OBJECT_LEN_MAX, 11).unwrap(),
        ];
        segment.chain(file).chain(others).collect()
    }

    #[test]
    fn golden_vectors_are_pinned() {
        let file: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        let cases = file["headers"].as_array().unwrap();
        assert_eq!(cases.len(), 9);
        for case in cases {
            let number = |key: &str| case[key].as_str().unwrap().parse::<u64>().unwrap();
            let digest = || case["digest"].as_str().unwrap().parse::<Address>().unwrap();
            let made = match case["kind"].as_str().unwrap() {
                "pad" => RecordHeader::pad(number("record_len")),
                "tombstone" => RecordHeader::tombstone(digest(), number("sequence")),
                "file" => RecordHeader::file(digest(), number("size"), number("sequence")).unwrap(),
                kind => {
                    let object = match kind {
                        "segment_object" => RecordHeader::for_segment,
                        "file_object" => RecordHeader::for_file,
                        other => panic!("unknown kind {other}"),
                    };
                    object(digest(), number("size"), number("sequence")).unwrap()
                }
            };
            let hex: String = made.encode().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, case["hex"].as_str().unwrap(), "{}", case["name"]);
            assert_eq!(made.record_len(), number("record_len"));
            assert_eq!(made.outboard_offset(), number("outboard_offset"));
        }
    }

    #[test]
    fn headers_come_back_as_they_went() {
        for header in samples() {
            let bytes = header.encode();
            assert_eq!(RecordHeader::decode(&bytes), Ok(header));
            let mut longer = bytes.to_vec();
            longer.extend([0xee; 100]);
            assert_eq!(RecordHeader::decode(&longer), Ok(header));
            let slow = slow_encode(
                (header.kind() as u8, header.digest(), header.sequence()),
                (header.size(), header.data_offset(), header.outboard_len()),
                (header.outboard_offset(), header.record_len()),
            );
            assert_eq!(bytes.as_slice(), slow);
        }
    }

    #[test]
    fn small_objects_take_no_more_than_they_need() {
        let of = |size| RecordHeader::for_segment(digest(), size, 1).unwrap();
        let lens = [(0, 128), (1, 256), (128, 256), (129, 384), (3968, 4096), (3969, 4224)];
        for (size, record_len) in lens {
            assert_eq!(of(size).record_len(), record_len, "size {size}");
        }
        let longest = of(SEGMENT_OBJECT_LEN_MAX);
        assert_eq!(longest.record_len(), 128 + 1024 * 1024 + 16 * 32);
        assert_eq!(longest.record_len(), record_len_max());
        let two_groups = of(GROUP_LEN as u64 + 1);
        assert_eq!(two_groups.outboard_offset(), 128 + 65536 + 128);
        assert_eq!(two_groups.outboard_len(), 64);
        assert_eq!(two_groups.record_len(), 128 + 65536 + 128 + 128);
    }

    #[test]
    fn objects_too_long_for_their_place_are_refused() {
        let segment = |size| RecordHeader::for_segment(digest(), size, 1);
        let max = SEGMENT_OBJECT_LEN_MAX;
        assert!(segment(max).is_ok());
        assert_eq!(segment(max + 1), Err(RecordError::Size { len: max + 1, max }));
        let file = |size| RecordHeader::for_file(digest(), size, 1);
        let max = OBJECT_LEN_MAX;
        assert_eq!(file(max).unwrap().outboard_len(), 8 * 1024 * 1024);
        assert_eq!(file(max + 1), Err(RecordError::Size { len: max + 1, max }));
        assert_eq!(file(u64::MAX), Err(RecordError::Size { len: u64::MAX, max }));
    }

    #[test]
    fn pads_fit_gaps_only() {
        for len in [128, 256, 4096, SEGMENT_LEN_MAX] {
            assert_eq!(RecordHeader::pad(len).record_len(), len);
        }
        for len in [0, 1, 64, 127, 129, SEGMENT_LEN_MAX + 128, u64::MAX - 127] {
            assert!(std::panic::catch_unwind(|| RecordHeader::pad(len)).is_err(), "{len}");
            let bytes = forged(RecordHeader::pad(128), 72, &len.to_le_bytes());
            assert_eq!(RecordHeader::decode(&bytes), Err(RecordError::Geometry), "{len}");
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let header = RecordHeader::for_segment(digest(), 1000, 5).unwrap();
        let bytes = header.encode();
        let decode = |bytes: &[u8]| RecordHeader::decode(bytes).unwrap_err();
        assert_eq!(decode(&[]), RecordError::Short { len: 0 });
        assert_eq!(decode(&bytes[..127]), RecordError::Short { len: 127 });
        assert_eq!(decode(&[0; 128]), RecordError::Blank);
        assert_eq!(decode(&[0; 4096]), RecordError::Blank);
        assert_eq!(decode(&[0xff; 128]), RecordError::Magic);
        let mut blank_but_one = [0; 128];
        blank_but_one[127] = 1;
        assert_eq!(decode(&blank_but_one), RecordError::Magic);
        // A newer record differs from a damaged version field by its checksum.
        assert_eq!(decode(&forged(header, 8, &[2, 0])), RecordError::Version { found: 2 });
        assert_eq!(decode(&forged(header, 8, &[0, 0])), RecordError::Version { found: 0 });
        let mut damaged = bytes;
        damaged[8] = 2;
        assert_eq!(decode(&damaged), RecordError::Checksum);
        for kind in [0, 5, 255] {
            let refused = decode(&forged(header, 10, &[kind]));
            assert_eq!(refused, RecordError::Kind { found: kind });
        }
        for at in (11..16).chain(88..112) {
            assert_eq!(decode(&forged(header, at, &[1])), RecordError::Reserved, "byte {at}");
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for header in samples() {
            let mut bytes = header.encode();
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let expected = if bit < 64 { RecordError::Magic } else { RecordError::Checksum };
                assert_eq!(RecordHeader::decode(&bytes), Err(expected), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn kinds_do_not_borrow_each_others_fields() {
        let decode = |bytes: &[u8]| RecordHeader::decode(bytes).unwrap_err();
        let pad = RecordHeader::pad(256);
        let tombstone = RecordHeader::tombstone(digest(), 3);
        let file = RecordHeader::file(digest(), 70_000, 3).unwrap();
        assert_eq!(decode(&forged(file, 72, &256_u64.to_le_bytes())), RecordError::Geometry);
        assert_eq!(decode(&forged(file, 60, &64_u32.to_le_bytes())), RecordError::Geometry);
        let (len, max) = (OBJECT_LEN_MAX + 1, OBJECT_LEN_MAX);
        assert_eq!(RecordHeader::file(digest(), len, 3), Err(RecordError::Size { len, max }));
        assert_eq!(decode(&forged(file, 48, &len.to_le_bytes())), RecordError::Size { len, max });
        assert_eq!(decode(&forged(pad, 16, &[1])), RecordError::Geometry);
        assert_eq!(decode(&forged(pad, 80, &[1])), RecordError::Geometry);
        assert_eq!(decode(&forged(pad, 48, &[1])), RecordError::Geometry);
        assert_eq!(decode(&forged(tombstone, 48, &[1])), RecordError::Geometry);
        assert_eq!(decode(&forged(tombstone, 72, &256_u64.to_le_bytes())), RecordError::Geometry);
        assert_eq!(decode(&forged(tombstone, 56, &4096_u32.to_le_bytes())), RecordError::Geometry);
        let last = RECORD_SEQUENCE_MAX.to_le_bytes();
        assert!(RecordHeader::decode(&forged(tombstone, 80, &last)).is_ok());
        let beyond = (RECORD_SEQUENCE_MAX + 1).to_le_bytes();
        assert_eq!(decode(&forged(tombstone, 80, &beyond)), RecordError::Geometry);
        // An object in a file may be small, but its parts then lie at blocks.
        let segment = RecordHeader::for_segment(digest(), 100, 3).unwrap();
        assert_eq!(decode(&forged(segment, 56, &4096_u32.to_le_bytes())), RecordError::Geometry);
        assert_eq!(decode(&forged(segment, 56, &256_u32.to_le_bytes())), RecordError::Geometry);
    }

    proptest! {
        #[test]
        fn geometry_agrees_with_the_slow_way(
            size in prop_oneof![0..=SEGMENT_OBJECT_LEN_MAX, 0..=OBJECT_LEN_MAX],
            digest: [u8; 32], sequence in 0..=RECORD_SEQUENCE_MAX
        ) {
            let digest = Address::from_bytes(digest);
            for (place, unit) in [(RecordPlace::Segment, 128), (RecordPlace::File, 4096)] {
                let made = match place {
                    RecordPlace::Segment => RecordHeader::for_segment(digest, size, sequence),
                    RecordPlace::File => RecordHeader::for_file(digest, size, sequence),
                };
                let Ok(header) = made else {
                    prop_assert!(place == RecordPlace::Segment && size > SEGMENT_OBJECT_LEN_MAX);
                    continue;
                };
                let groups = round_up(size, 65536) / 65536;
                let outboard_len = if groups > 1 { groups * 32 } else { 0 };
                let outboard_offset = unit + round_up(size, unit);
                let record_len = outboard_offset + round_up(outboard_len, unit);
                let slow = slow_encode(
                    (1, digest, sequence),
                    (size, unit as u32, outboard_len as u32),
                    (outboard_offset, record_len),
                );
                prop_assert_eq!(&header.encode()[..], &slow[..]);
                prop_assert_eq!(RecordHeader::decode(&slow), Ok(header));
                prop_assert_eq!(header.place(), place);
            }
        }

        #[test]
        fn hostile_fields_with_a_good_checksum_never_pass(
            kind in 1..=4_u8,
            size in prop_oneof![any::<u64>(), 0..200_000_u64],
            data_offset in prop_oneof![any::<u32>(), Just(128), Just(4096)],
            outboard_len in prop_oneof![any::<u32>(), Just(0)],
            ends: (u64, u64),
        ) {
            let bytes = slow_encode(
                (kind, digest(), 1),
                (size, data_offset, outboard_len),
                ends,
            );
            let refused = RecordHeader::decode(&bytes).unwrap_err();
            let by_geometry = matches!(refused, RecordError::Geometry | RecordError::Size { .. });
            prop_assert!(by_geometry, "{:?}", refused);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(RecordHeader::decode(&bytes).is_err());
        }
    }
}
