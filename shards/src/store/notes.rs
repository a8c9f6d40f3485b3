//! What a partition tells the operator: each note as facts, and here its severity and its words.
//!
//! Operators search for these words, and docs/OPERATING.md says what to do about some of them.

use std::{io, path::PathBuf};

use ron_codec::{address::Address, limits::SEGMENT_LEN_MAX};
use ron_io::ports::{JobError, Severity};
use thiserror::Error;

use super::{
    flaw::{Beside, Unverified},
    index,
    scan::Break,
};
use crate::limits;

/// Something that the operator should know of a partition.
#[derive(Debug, Error)]
pub(super) enum Note<'a> {
    // The start.
    #[error(transparent)]
    Index(&'a index::Finding),
    #[error(transparent)]
    IndexLoss(&'a index::Loss),
    #[error("rebuilding the index from {segments} segments, {bytes} bytes")]
    Rebuilding { segments: usize, bytes: u64 },
    #[error("{done} of {all} segments, {records} records")]
    RebuildAt { done: usize, all: usize, records: u64 },
    #[error("the index is rebuilt, {records} records")]
    Rebuilt { records: u64 },
    #[error("{address} is damaged in segment {segment} at {offset}")]
    RecordDamaged { address: Address, segment: u32, offset: u64 },
    #[error(
        "segment {segment} has records of partition {owner}, which are not taken up; are two \
         folders swapped?"
    )]
    Strangers { segment: u32, owner: u16 },
    #[error(
        "segment {segment} has {len} bytes of at most {SEGMENT_LEN_MAX}: it is damaged, and its \
         records are not known"
    )]
    SegmentTooLong { segment: u32, len: u64 },
    #[error("segment {segment} cannot be read from {from} on: {error}")]
    SegmentUnread { segment: u32, from: u64, error: &'a io::Error },
    #[error("segment {segment} ends at {end}: {why}")]
    SegmentTorn { segment: u32, end: u64, why: Break },
    #[error(
        "segment {segment} is damaged at {at}: {why}; the {hidden} bytes behind that are not known"
    )]
    SegmentDamaged { segment: u32, at: u64, why: Break, hidden: u64 },
    #[error("segment {segment}, which is damaged, cannot be marked: {error}")]
    NotMarked { segment: u32, error: &'a io::Error },
    #[error("the mark of a segment cannot be removed: {0}")]
    NotUnmarked(&'a io::Error),
    #[error("objects/{folder:02x} is no folder")]
    NoFolder { folder: u16 },
    #[error(
        "objects/{folder:02x} cannot be synced: {error}; objects there may be lost if the power \
         fails"
    )]
    FolderNotSynced { folder: u16, error: &'a io::Error },
    #[error("the file of {address} cannot be read, not taken up: {error}")]
    FileUnread { address: Address, error: &'a io::Error },
    #[error("the file of {0} is damaged and not taken up")]
    FileDamaged(Address),
    #[error("the file of {address}, which is deleted, cannot be removed: {error}")]
    FileNotUnlinked { address: Address, error: &'a io::Error },

    // The log and the index.
    #[error("{step}: {error}")]
    BatchFailed { step: LogStep, error: &'a io::Error },
    #[error("{step}, the partition is read-only: {error}")]
    LogBroken { step: LogStep, error: &'a io::Error },
    #[error("checkpoint: {0}")]
    CheckpointFailed(&'a JobError),
    #[error(
        "the index takes {bytes} bytes of its {max}: objects are refused beyond; raise \
         storage.index_memory"
    )]
    IndexNearlyFull { bytes: u64, max: u64 },

    // Reads, uploads, deletions.
    #[error("cannot open segment {segment}: {error}")]
    SegmentNotOpened { segment: u32, error: &'a io::Error },
    #[error("cannot open the file of {address}: {error}")]
    FileNotOpened { address: Address, error: &'a io::Error },
    #[error("cannot read {address}: {why}")]
    GroupUnread { address: Address, why: Unread<'a> },
    #[error("{address}: rename into objects/ failed: {error}")]
    NotAdopted { address: Address, error: &'a io::Error },
    #[error("{address} is deleted, but its file stays: {error}")]
    DeletedFileStays { address: Address, error: &'a io::Error },
    #[error("{address} is not stored, but its file stays: {error}")]
    RefusedFileStays { address: Address, error: &'a io::Error },

    // Compaction.
    #[error("segment {segment} cannot be compacted: {error}")]
    VictimNotOpened { segment: u32, error: &'a io::Error },
    #[error("segment {segment} is not compacted: {why}")]
    NotCompacted { segment: u32, why: NotCompacted },
    #[error("segment {segment} cannot be removed: {error}")]
    VictimNotRemoved { segment: u32, error: &'a io::Error },
    #[error(
        "segment {segment} stays: there are more than {max} files without an object, which a round \
         of the scrub frees", max = limits::ORPHANS_MAX
    )]
    ManyOrphans { segment: u32 },

    // The scrub.
    #[error("{address} cannot be checked: {why}")]
    NotChecked { address: Address, why: &'a Unverified },
    #[error("the scrub cannot go on: {0}")]
    ScrubStopped(&'a Unverified),
    #[error("{what} of {address} was damaged beside data that are right: repaired")]
    Repaired { address: Address, what: Beside },
    #[error("{0} is to be written anew, and the log does not take it")]
    NotWrittenAnew(Address),
    #[error("segment {segment} ends at {from}, {why}: what lies behind is moved")]
    BrokenSegmentMoved { segment: u32, from: u64, why: &'a SegmentEnd },
    #[error("its object files cannot be listed: {0}")]
    FilesUnlisted(&'a io::Error),
    #[error("the log says more of {0} than the index: its file stays")]
    LogKnowsMore(Address),
    #[error("the file of {0}, which is no object, is removed")]
    OrphanRemoved(Address),
}

impl Note<'_> {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Note::RebuildAt { .. } | Note::Rebuilt { .. } | Note::OrphanRemoved(_) => {
                Severity::Info
            }
            Note::Index(_)
            | Note::Rebuilding { .. }
            | Note::SegmentTorn { .. }
            | Note::NotMarked { .. }
            | Note::NotUnmarked(_)
            | Note::FileNotUnlinked { .. }
            | Note::IndexNearlyFull { .. }
            | Note::DeletedFileStays { .. }
            | Note::RefusedFileStays { .. }
            | Note::NotCompacted { .. }
            | Note::ManyOrphans { .. }
            | Note::Repaired { .. }
            | Note::BrokenSegmentMoved { .. } => Severity::Warn,
            _ => Severity::Error,
        }
    }
}

/// A step of the log that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum LogStep {
    #[error("a segment cannot be begun")]
    Begin,
    #[error("a commit cannot be written")]
    Write,
    #[error("a commit cannot be synced")]
    Sync,
    #[error("a segment cannot be cut")]
    Cut,
    #[error("the cut of a segment cannot be synced")]
    CutSync,
}

/// Why a group cannot be read, though it may be right.
#[derive(Debug, Error)]
pub(super) enum Unread<'a> {
    #[error("its file cannot be opened")]
    NotOpened,
    #[error("its header or outboard")]
    HeaderOrOutboard,
    #[error(transparent)]
    Disk(&'a io::Error),
}

/// Why a segment is not compacted.
#[derive(Debug, Error)]
pub(super) enum NotCompacted {
    #[error("an object in it is damaged")]
    Damaged,
    #[error("it has newer records")]
    NewerRecords,
    #[error("a short read")]
    ShortRead,
    #[error(transparent)]
    Unread(io::Error),
    /// Something that counts lies behind the place where its records end.
    #[error(transparent)]
    Broken(Break),
    #[error("its object files cannot be listed: {0}")]
    FilesUnlisted(io::Error),
}

/// Why the records of a segment end for the scrub before it does.
#[derive(Debug, Error)]
pub(super) enum SegmentEnd {
    #[error(transparent)]
    Broken(Break),
    #[error("it cannot be opened: {0}")]
    NotOpened(io::Error),
    #[error("it cannot be read: {0}")]
    Unread(io::Error),
}

/// What a scrub tells the operator of itself.
#[derive(Clone, Copy, Debug, Error)]
pub(super) enum ScrubNote {
    #[error("scrub: it is switched off, and was ordered")]
    SwitchedOff,
    #[error("scrub: a round begins")]
    Begins,
    #[error("scrub: a round {}: {found}", if *.failed { "ended early" } else { "finished" })]
    Ended { failed: bool, found: RoundFound },
}

/// What a round of the scrub came to, in objects.
#[derive(Clone, Copy, Debug, Error)]
#[error(
    "{checked} objects, {damaged} damaged, {repaired} repaired, {moved} moved, {freed} files freed"
)]
pub(super) struct RoundFound {
    pub(super) checked: u64,
    pub(super) damaged: u64,
    pub(super) repaired: u64,
    pub(super) moved: u64,
    pub(super) freed: u64,
}

impl ScrubNote {
    pub(super) fn severity(&self) -> Severity {
        match self {
            ScrubNote::Begins => Severity::Info,
            ScrubNote::Ended { failed: false, found } if found.damaged + found.repaired == 0 => {
                Severity::Info
            }
            ScrubNote::SwitchedOff | ScrubNote::Ended { .. } => Severity::Warn,
        }
    }
}

/// What changed about the free space of a volume.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum SpaceNote {
    #[error("{} is full: few of its inodes are free", volume.display())]
    FewInodes { volume: PathBuf },
    #[error("{} is full: {free} bytes are free, {reserve} are kept", volume.display())]
    Full { volume: PathBuf, free: u64, reserve: u64 },
    #[error("{} has free space again: {free} bytes", volume.display())]
    Recovered { volume: PathBuf, free: u64 },
}

impl SpaceNote {
    pub(super) fn severity(&self) -> Severity {
        match self {
            SpaceNote::FewInodes { .. } | SpaceNote::Full { .. } => Severity::Error,
            SpaceNote::Recovered { .. } => Severity::Info,
        }
    }
}

/// Why a partition takes writes, or takes none.
#[derive(Debug, Error)]
pub(super) enum Writes<'a> {
    #[error("serves again")]
    Taken,
    #[error("a write or sync of its log failed")]
    LogBroken,
    #[error("its log cannot go on in another segment")]
    NoSegment,
    #[error("its index cannot be saved: {0}")]
    IndexNotSaved(&'a JobError),
}

#[cfg(test)]
mod tests;
