//! The numbers every format of this crate is bounded by, each with its name and its reason. Those
//! of the OAP/1 protocol itself are in `oap/limits.rs`.

/// Bytes of an object that are read, verified, cached and streamed as one: 64 BLAKE3 chunks, which
/// is one whole subtree. A storage matter; never derived from the longest OAP frame.
pub const GROUP_LEN: usize = 64 * 1024;

/// Longest HTTP request head, request line and blank line included (431 beyond it).
pub const HEAD_LEN_MAX: usize = 16 * 1024;

/// Longest request target (414 beyond it).
pub const TARGET_LEN_MAX: usize = 8 * 1024;

/// Most header fields of one request head (431 beyond it).
pub const HEAD_FIELDS_MAX: usize = 64;

/// Most empty lines tolerated before a request line (400 beyond them).
pub const HEAD_EMPTY_LINES_MAX: usize = 4;

/// Longest line that announces a chunk of a chunked body, its extensions included.
pub const CHUNK_LINE_LEN_MAX: usize = 1024;

/// Bytes of chunk extensions that a chunked body may carry beyond one for each byte of payload, so
/// that nobody makes us read much and store little.
pub const CHUNK_EXTENSIONS_EXCESS_MAX: u64 = 16 * 1024;

/// Longest trailer section of a chunked body, its last blank line included.
pub const TRAILER_LEN_MAX: usize = 4 * 1024;

/// Longest correlation id, ours or a client's.
pub const CORR_ID_LEN_MAX: usize = 64;

/// Most raw bytes of an object in one OAP/1 data frame. A storage matter; never derived from
/// the longest frame.
pub const OAP_CHUNK_LEN_MAX: usize = 64 * 1024;

/// Parts of a representation that one request is answered with; one that asks for more is answered
/// with all of it.
pub const RANGES_MAX: usize = 16;

/// Ranges of one request before those that touch are joined; one that asks for more is answered
/// with all of it.
pub const RANGES_ASKED_MAX: usize = 64;

const _: () = assert!(RANGES_MAX <= RANGES_ASKED_MAX);
const _: () = assert!(TARGET_LEN_MAX < HEAD_LEN_MAX);
const _: () = assert!(GROUP_LEN.is_power_of_two() && GROUP_LEN.is_multiple_of(1024));

/// Longest suffix `.<tld>` of an address in a route, without its dot.
pub const TLD_LEN_MAX: usize = 16;

/// Longest path of an entry of a manifest, in bytes of UTF-8. Paths on a disk may be four times as
/// long; no URL of use is.
pub const MANIFEST_PATH_LEN_MAX: usize = 1024;

/// Longest path of a name, in bytes of UTF-8, its first slash included.
pub const NAME_PATH_LEN_MAX: usize = 1024;

/// Longest media type, parameters included.
pub const MEDIA_TYPE_LEN_MAX: usize = 127;

/// Longest text of the terms of payment in a manifest.
pub const PAYMENT_TEXT_LEN_MAX: usize = 128;

/// Longest line of an entry of a manifest, its end included.
pub const MANIFEST_LINE_LEN_MAX: usize = 4 * 1024;

/// Longest head of a manifest: all that stands before the first entry.
pub const MANIFEST_HEAD_LEN_MAX: usize = 4 * 1024;

/// Largest object: its outboard of 8 MiB still fits in memory while it is built and merged.
pub const OBJECT_LEN_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Bytes of one group's chaining value in an outboard.
pub const OUTBOARD_VALUE_LEN: usize = 32;

/// Largest outboard, that of an object of `OBJECT_LEN_MAX`.
pub const OUTBOARD_LEN_MAX: usize =
    (OBJECT_LEN_MAX / GROUP_LEN as u64) as usize * OUTBOARD_VALUE_LEN;

/// Unit of direct disk writes: commits to a segment and the parts of an object file start and end
/// at multiples of it.
pub const DISK_BLOCK_LEN: usize = 4096;

/// Largest object that is packed into a segment; a larger one has a file of its own.
pub const SEGMENT_OBJECT_LEN_MAX: u64 = 1024 * 1024;

/// Largest segment file. A log that would grow beyond it goes on in the next segment.
pub const SEGMENT_LEN_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of a storage record's header.
pub const RECORD_HEADER_LEN: usize = 128;

/// Highest sequence of a record in a segment: a log never comes near it, and one may always be
/// added to it.
pub const RECORD_SEQUENCE_MAX: u64 = u64::MAX >> 1;

/// Records in a segment start and end at multiples of this.
pub const RECORD_ALIGN: usize = 128;

const _: () = assert!(OBJECT_LEN_MAX.is_multiple_of(GROUP_LEN as u64));
const _: () = assert!(OUTBOARD_LEN_MAX == 8 * 1024 * 1024);
const _: () = assert!(SEGMENT_OBJECT_LEN_MAX < OBJECT_LEN_MAX);
const _: () = assert!(GROUP_LEN.is_multiple_of(DISK_BLOCK_LEN));
const _: () = assert!(SEGMENT_LEN_MAX.is_multiple_of(DISK_BLOCK_LEN as u64));
// A pad record must fit every gap that packed records leave before the end of a commit.
const _: () = assert!(RECORD_ALIGN.is_power_of_two() && RECORD_ALIGN >= RECORD_HEADER_LEN);
const _: () = assert!(DISK_BLOCK_LEN.is_multiple_of(RECORD_ALIGN));
// An empty segment takes any object that may go there, with its header, outboard and padding.
const _: () = assert!(2 * SEGMENT_OBJECT_LEN_MAX < SEGMENT_LEN_MAX);
