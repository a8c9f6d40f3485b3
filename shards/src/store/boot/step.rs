//! The steps of a boot, and what they work on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ron_codec::{address::Address, limits::DISK_BLOCK_LEN};
use ron_io::ports::{DiskOp, FileId, Urgency};
use thiserror::Error;

use crate::{
    limits,
    store::{
        index::{Index, Position},
        scan::Walk,
    },
};

/// What the boot waits for.
///
/// ```text
///   MakeDirs … ─► ListTmp ─► ListSegments ─► OpenIndex ──┐
///                                                        ▼
///   ┌─────────────────────────────────────────────► OpenSegment ─► Scan …
///   │                                                    │          │ │ damage, not given
///   │                                  already known     │      end │ └────────────┐
///   │                                                    ▼          ▼              ▼
///   ├──◄── (Unmark) ◄── Sync ◄── (Cut) ◄─────────────────┴──── ReadTail ⇄ WriteTail
///   │                    ▲                                                         │
///   │                    └─────────────────────────────────────────────────────────┘
///   │ no more segments
///   ▼
///   (Mark) … ─► (ListObjects ─► SyncObjects ─► OpenObject ─► ReadObject …) … ─► (Unlink) …
///                                                                                 └─► ready
/// ```
#[derive(Debug)]
pub(super) enum Step {
    /// Which of the folders is made, counted up.
    MakeDirs(usize),
    ListTmp,
    ListSegments,
    OpenIndex,
    OpenSegment(FileId),
    Scan(FileId, Walk),
    ReadTail(Tail),
    WriteTail(Tail),
    Cut(FileId),
    Sync(FileId),
    /// The mark of a segment in which records are hidden is made, or removed.
    Mark(FileId, u32),
    Unmark,
    ListObjects,
    /// The names of the candidates in a folder are made durable.
    SyncObjects,
    OpenObject(FileId, Candidate),
    ReadObject(FileId, Candidate),
    /// Files of deleted objects are removed one by one.
    Unlink(Address),
}

/// What comes after a step.
#[derive(Debug)]
pub(super) enum After {
    /// An act is in progress, and this waits for it.
    Wait(Step),
    Ready(Box<Recovered>),
}

/// How far a boot is.
#[derive(Debug)]
pub(in crate::store) enum Progress {
    Going,
    Ready(Box<Recovered>),
}

/// What a boot found, for the partition to go on from.
#[derive(Debug)]
pub(in crate::store) struct Recovered {
    pub(in crate::store) index: Index,
    /// The end of the log.
    pub(in crate::store) position: Position,
    /// The highest that a record may have.
    pub(in crate::store) sequence: u64,
    /// The number of the segment that is begun next.
    pub(in crate::store) next_segment: u32,
    /// Numbers and lengths of all segments.
    pub(in crate::store) segments: BTreeMap<u32, u64>,
    /// Those in which records may be hidden by damage.
    pub(in crate::store) hidden: BTreeSet<u32>,
    /// Tombstones that an older record of their object follows in a later segment.
    pub(in crate::store) overtaken: BTreeMap<Address, u64>,
    /// Those of them that could not be marked.
    pub(in crate::store) owed_marks: Vec<u32>,
    /// Those whose end, or all, is lost.
    pub(in crate::store) lost: BTreeSet<u32>,
    /// Whether the last checkpoint is older than what was found.
    pub(in crate::store) dirty: bool,
}

/// The end of the log, as far as it is still to be written again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) file: FileId,
    /// From where on it is still to be written, and where it ends.
    pub(super) at: u64,
    pub(super) end: u64,
    /// Whether the file goes on behind it, or may go on behind it once more.
    pub(super) cut: bool,
}

impl Tail {
    /// Bytes that are read at once.
    pub(super) fn next_len(&self) -> u64 {
        self.end.saturating_sub(self.at).min(limits::SCAN_LEN as u64)
    }
}

/// A file that may be an object which the log does not name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) address: Address,
    pub(super) len: u64,
}

impl Candidate {
    /// Bytes of the file that say what it is.
    pub(super) fn head_len(&self) -> u64 {
        self.len.min(DISK_BLOCK_LEN as u64)
    }
}

pub(super) fn scan(file: FileId, at: u64, len: u32) -> DiskOp {
    DiskOp::Scan { file, at, len, urgency: Urgency::Foreground }
}

/// The disk gave fewer bytes than it has.
#[derive(Debug, Error)]
#[error("short read, {found} of {expected} bytes")]
struct ShortRead {
    found: u64,
    expected: u64,
}

pub(super) fn short(found: u64, expected: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, ShortRead { found, expected })
}
