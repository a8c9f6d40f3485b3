//! Snapshots: what the index remembers of itself across starts, as files.
//!
//! A file is blocks of 4096 bytes, each with a checksum. They form *frames*. The first, the base,
//! has every object in the order of addresses; each of the others what changed since the one
//! before. The last block of a frame commits it, and says up to where the log is known:
//!
//! ```text
//!   | slots … | tallies | commit | slots | tallies | commit | …
//!   '--------- base ------------''--- changes -------------'
//! ```
//!
//! The base is taken while the partition goes on, some slots at a time, so that a slot may be newer
//! than the position of its commit, and never older. That is as good: the log behind the position
//! is walked, and of an object's records the highest sequence decides, however often one is met.
//!
//! Changes are appended. When they are as long as the base, a new file is begun; it gets its name
//! when it is durable to its end, and the one before it is kept. Layouts are in docs/STORAGE.md.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ron_codec::limits::DISK_BLOCK_LEN;
use ron_io::ports::JobError;

use super::{
    entry::{Position, array},
    table::{SLOT_LEN, Slot},
};
use crate::{limits, store::layout::snapshot_number};

mod read;

pub use read::Unusable;
pub(super) use read::{Loaded, load};

/// Bytes of a block, of its header, and what the rest holds.
const BLOCK_LEN: usize = DISK_BLOCK_LEN;
const HEAD_LEN: usize = 32;
const BODY_LEN: usize = BLOCK_LEN - HEAD_LEN;
pub(super) const BLOCK_SLOTS: usize = BODY_LEN / SLOT_LEN;
const TALLY_LEN: usize = 12;
const BLOCK_TALLIES: usize = BODY_LEN / TALLY_LEN;

/// Bytes of a commit before the mark.
const COMMIT_LEN: usize = 40;

/// Every block begins so, behind its checksum: the name of the format and its version.
const MAGIC: [u8; 4] = *b"rix\x01";

const SLOTS: u8 = 1;
const TALLIES: u8 = 2;
const COMMIT: u8 = 3;

/// Blocks that are written or read at once.
const BATCH_BLOCKS: usize = 64;

/// A file whose frames are all whole, and how long they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) generation: u32,
    pub(super) base_blocks: u32,
    pub(super) blocks: u32,
}

/// What ends a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commit {
    /// The log is known up to here, and this is the highest sequence before.
    pub(super) position: Position,
    pub(super) sequence: u64,
    /// Tombstones of segments: in a base of all that have some, else of those that changed.
    pub(super) tombstones: Vec<(u32, u64)>,
    pub(super) mark: Vec<u8>,
    /// The file that is kept beside this one, by its generation; 0 for none.
    pub(super) previous: u32,
}

/// Blocks that slots take.
pub(super) fn blocks_of(slots: usize) -> u32 {
    slots.div_ceil(BLOCK_SLOTS) as u32
}

/// Blocks of a frame's end.
pub(super) fn blocks_of_end(commit: &Commit) -> u32 {
    commit.tombstones.len().div_ceil(BLOCK_TALLIES) as u32 + 1
}

pub(super) fn path(dir: &Path, generation: u32) -> PathBuf {
    dir.join(format!("{generation:08}.idx"))
}

fn path_of_part(dir: &Path, generation: u32) -> PathBuf {
    dir.join(format!("{generation:08}.tmp"))
}

/// The generations of the snapshots in a folder, rising; none if it is not there.
pub(super) fn generations(dir: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        // To open anything else might wait without an end. What cannot be looked at is a file that
        // cannot be read.
        if fs::metadata(entry.path()).map_or(true, |facts| facts.is_file()) {
            found.extend(entry.file_name().to_str().and_then(snapshot_number));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes what a process left that ended while it wrote a base.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let part = name.to_str().and_then(|name| name.strip_suffix(".tmp"));
        if part.is_some_and(|part| snapshot_number(&format!("{part}.idx")).is_some()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Blocks on their way to a file.
struct Writer {
    file: File,
    generation: u32,
    /// Number of the next block, and where those lie that are not written yet.
    number: u32,
    written: u64,
    waiting: Vec<u8>,
}

impl Writer {
    fn new(file: File, generation: u32, number: u32) -> Writer {
        let written = u64::from(number) * BLOCK_LEN as u64;
        Writer { file, generation, number, written, waiting: Vec::new() }
    }

    fn block(&mut self, kind: u8, count: usize, body: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let start = self.waiting.len();
        self.waiting.resize(start + BLOCK_LEN, 0);
        let block = &mut self.waiting[start..];
        block[16..20].copy_from_slice(&MAGIC);
        block[20] = kind;
        block[22..24].copy_from_slice(&(count as u16).to_le_bytes());
        block[24..28].copy_from_slice(&self.generation.to_le_bytes());
        block[28..32].copy_from_slice(&self.number.to_le_bytes());
        body(&mut block[HEAD_LEN..]);
        let checksum = checksum(block);
        block[..16].copy_from_slice(&checksum);
        self.number += 1;
        if self.waiting.len() >= BATCH_BLOCKS * BLOCK_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.waiting, self.written)?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    fn slots(&mut self, slots: &[Slot]) -> io::Result<()> {
        for slots in slots.chunks(BLOCK_SLOTS) {
            let bytes = slots.as_flattened();
            self.block(SLOTS, slots.len(), |body| body[..bytes.len()].copy_from_slice(bytes))?;
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit, slots: u64) -> io::Result<()> {
        for tallies in commit.tombstones.chunks(BLOCK_TALLIES) {
            self.block(TALLIES, tallies.len(), |body| {
                for (at, (segment, count)) in tallies.iter().enumerate() {
                    let bytes = &mut body[at * TALLY_LEN..][..TALLY_LEN];
                    bytes[..4].copy_from_slice(&segment.to_le_bytes());
                    bytes[4..].copy_from_slice(&count.to_le_bytes());
                }
            })?;
        }
        assert!(commit.mark.len() <= BODY_LEN - COMMIT_LEN, "{} bytes", commit.mark.len());
        self.block(COMMIT, commit.mark.len(), |body| {
            body[0..4].copy_from_slice(&commit.position.segment.to_le_bytes());
            body[4..12].copy_from_slice(&commit.position.offset.to_le_bytes());
            body[12..20].copy_from_slice(&commit.sequence.to_le_bytes());
            body[20..28].copy_from_slice(&slots.to_le_bytes());
            body[28..32].copy_from_slice(&(commit.tombstones.len() as u32).to_le_bytes());
            body[32..36].copy_from_slice(&commit.previous.to_le_bytes());
            body[COMMIT_LEN..][..commit.mark.len()].copy_from_slice(&commit.mark);
        })?;
        self.flush()
    }
}

fn checksum(block: &[u8]) -> [u8; 16] {
    array(blake3::hash(&block[16..]).as_bytes(), 0)
}

/// A part of a base: it is written in one piece after the other, each in a job of its own.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) dir: PathBuf,
    pub(super) generation: u32,
    /// Number of its first block.
    pub(super) number: u32,
    pub(super) slots: Vec<Slot>,
    /// Slots of the parts before.
    pub(super) before: u64,
    /// In the last part.
    pub(super) commit: Option<Commit>,
}

impl Part {
    /// Writes the part. With the last the file is durable, has its name, and those are gone that
    /// are needed no more. What cannot be written to its end is removed: on a full disk it would
    /// take the space that the next try needs.
    pub(super) fn write(&self) -> Result<(), JobError> {
        let part = path_of_part(&self.dir, self.generation);
        self.write_to(&part).inspect_err(|_| drop(fs::remove_file(&part)))
    }

    fn write_to(&self, part: &Path) -> Result<(), JobError> {
        if self.number == 0 {
            fs::create_dir_all(&self.dir).map_err(JobError::disk("making", &self.dir))?;
        }
        self.write_blocks(part).map_err(JobError::disk("writing", part))?;
        let Some(commit) = &self.commit else { return Ok(()) };
        let named = path(&self.dir, self.generation);
        fs::rename(part, &named).map_err(JobError::disk("naming", &named))?;
        for dir in [Some(self.dir.as_path()), self.dir.parent()].into_iter().flatten() {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(JobError::disk("syncing", dir))?;
        }
        self.tidy(commit.previous);
        Ok(())
    }

    /// Writes the slots and, if this is the last part, what commits them; that is durable then.
    fn write_blocks(&self, part: &Path) -> io::Result<()> {
        let mut options = File::options();
        let file = options.write(true).create(self.number == 0).truncate(self.number == 0);
        let mut writer = Writer::new(file.open(part)?, self.generation, self.number);
        writer.slots(&self.slots)?;
        let Some(commit) = &self.commit else { return writer.flush() };
        writer.commit(commit, self.before + self.slots.len() as u64)?;
        writer.file.sync_all()
    }

    /// Removes all but the new snapshot and the one before it: what earlier tries left, and the
    /// index of an older release. What stays takes space, and the next time removes it.
    fn tidy(&self, previous: u32) {
        let kept = [self.generation, previous].map(|generation| path(&self.dir, generation));
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            let ours = matches!(ending, Some("idx" | "tmp" | "mdb"));
            if ours && !kept.contains(&path) {
                drop(fs::remove_file(path));
            }
        }
    }
}

/// A frame of changes, to be appended to a file whose frames are all whole.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) dir: PathBuf,
    pub(super) generation: u32,
    pub(super) number: u32,
    pub(super) slots: Vec<Slot>,
    pub(super) commit: Commit,
}

impl Changes {
    pub(super) fn append(&self) -> Result<(), JobError> {
        let path = path(&self.dir, self.generation);
        let opened = File::options().write(true).open(&path);
        let file = opened.map_err(JobError::disk("opening", &path))?;
        let facts = file.metadata().map_err(JobError::disk("looking at", &path))?;
        let (found, expected) = (facts.len(), u64::from(self.number) * BLOCK_LEN as u64);
        if found != expected {
            return Err(JobError::Length { path, found, expected });
        }
        self.append_to(file).map_err(JobError::disk("writing", &path))
    }

    fn append_to(&self, file: File) -> io::Result<()> {
        let mut writer = Writer::new(file, self.generation, self.number);
        writer.slots(&self.slots)?;
        writer.commit(&self.commit, self.slots.len() as u64)?;
        writer.file.sync_data()
    }
}

/// Whether changes of so many blocks behind a base are enough for a new base.
pub(super) fn is_outgrown(base_blocks: u32, blocks: u32) -> bool {
    blocks - base_blocks >= base_blocks.max(limits::SNAPSHOT_CHANGES_BLOCKS_MIN)
}
