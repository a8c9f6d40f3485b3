//! The log of a partition: records appended to segments, committed in groups.
//!
//! All appends that wait when a commit ends share the next one: one write, one sync. Only then is
//! any of them told to anyone. One commit is under way at a time, so everything before a batch was
//! synced before the batch was written.
//!
//! ```text
//!            ┌──────────────────────────── batch ───────────────────────────┐
//!   Idle ──► (Opening: the segment is full or there is none) ──► Writing ──► Syncing ──► Idle
//!                    │                                              │           │
//!                    │ fails: told so                       fails ▼           ▼ fails
//!                    └──► Idle                              Cutting ───► CutSyncing ──► Idle
//!                                                              │ fails
//!                                                              ▼
//!                                                           Broken: no more writes until a restart
//! ```
//!
//! After a failed write the segment is cut back to its last commit and used on, if the cut can be
//! synced. After a failed sync nobody knows what the disk holds, so the segment is cut and never
//! written again. Either cut is synced before anything else is written: what was refused must not
//! lie before what is committed later.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
};

use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, RECORD_ALIGN, RECORD_HEADER_LEN},
    outboard::{Outboard, outboard_len},
    record::{RecordHeader, record_len_max},
};
use ron_io::{
    arena::Block,
    limits::DISK_OP_LEN_MAX,
    ports::{DiskDone, DiskOp, FileId, OpenHow, Part, Severity, Slice},
};
use slab::Slab;

use super::{
    files::{FileKey, Files},
    index::{Entry, Index, Location, Position},
    site::{Site, Tag, fault_of},
};
use crate::{
    flow::{Asker, Cx, Fault},
    limits,
};

/// An object on its way into the log.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) address: Address,
    pub(super) size: u64,
    pub(super) what: What,
    /// Bytes of room that are promised for it.
    pub(super) promised: u64,
    /// Who waits for it. The first brought it.
    pub(super) askers: Vec<Asker>,
}

/// Bytes of memory of the most appends that wait in one partition, but for their blocks: each has a
/// list of askers and one of blocks, and the bytes of all are bounded, so outboards are few.
pub(super) const fn appends_bill() -> usize {
    let lists = 2 * (4 * size_of::<Asker>() + 2 * size_of::<usize>());
    let outboards = outboard_len(limits::APPENDS_LEN_MAX);
    limits::APPENDS_MAX * (2 * size_of::<Append>() + lists) + outboards
}

/// What is appended.
#[derive(Debug)]
pub(super) enum What {
    /// The object itself.
    Object { outboard: Outboard, blocks: Vec<Block> },
    /// That the object lies in a file of its own.
    File,
    /// That the object is no more.
    Tombstone,
}

/// A whole, verified record that is written anew at the end of the log, byte for byte. It keeps its
/// sequence, so it says no more than it said before, wherever it lies.
#[derive(Debug)]
pub(super) struct Relocation {
    pub(super) address: Address,
    pub(super) what: Moving,
    pub(super) record: Vec<u8>,
}

/// What a record that is moved stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moving {
    /// What the index knows about the object.
    Entry(Entry),
    Tombstone {
        sequence: u64,
    },
}

impl Relocation {
    /// A tombstone that is written again.
    pub(super) fn tombstone(address: Address, sequence: u64) -> Relocation {
        let record = RecordHeader::tombstone(address, sequence).encode().to_vec();
        Relocation { address, what: Moving::Tombstone { sequence }, record }
    }

    fn sequence(&self) -> u64 {
        match self.what {
            Moving::Entry(entry) => entry.sequence,
            Moving::Tombstone { sequence } => sequence,
        }
    }

    /// Whether the record still counts: nothing that came since says otherwise. `None` when the
    /// index cannot say, so that it must be neither dropped nor written anew.
    pub(super) fn counts(&self, index: &Index) -> Option<bool> {
        let known = index.get(&self.address);
        Some(match self.what {
            Moving::Entry(entry) => known == Some(entry),
            Moving::Tombstone { sequence } => known.is_none_or(|known| known.sequence < sequence),
        })
    }
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    Committed {
        appended: Vec<(Append, Entry)>,
        /// Records that were moved, with what they stand for now.
        moved: Vec<(Address, Moving, Entry)>,
    },
    /// Records that were to be moved are where they were. With `cut`, nothing of the batch is in
    /// the log, and never will be; without, a boot may find any of it.
    Failed { appends: Vec<Append>, fault: Fault, cut: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Opening { file: FileId },
    Writing,
    Syncing,
    Cutting { reuse: bool },
    CutSyncing { reuse: bool },
    Broken,
}

/// The segment that is being written.
#[derive(Debug)]
struct Current {
    segment: u32,
    /// Its place among the open files.
    slot: usize,
    /// Where the next batch goes: what lies before is committed.
    end: u64,
}

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

/// The log of one partition.
#[derive(Debug)]
pub(super) struct Log {
    phase: Phase,
    current: Option<Current>,
    next_segment: u32,
    /// Of the next record.
    sequence: u64,
    /// The highest that is committed.
    committed_sequence: u64,
    appends: Slab<Append>,
    /// Objects on their way, and tombstones.
    by_address: HashMap<Address, usize>,
    burials: HashMap<Address, usize>,
    pending: VecDeque<usize>,
    /// Bytes of all appends that are not committed, wherever they are; and of those of them that
    /// lie in files.
    appends_len: u64,
    files_len: u64,
    relocations: VecDeque<Relocation>,
    relocations_len: usize,
    /// Records that were taken up to be moved, and were not.
    unmoved: u64,
    batch: Vec<Member>,
    batch_len: u64,
    /// How often in a row a segment could not be begun, though the disk has room.
    begin_failures: u32,
    /// Why the batch failed that is being cut off.
    fault: Fault,
    position: Position,
    /// Length of every segment, as far as it is committed.
    segments: BTreeMap<u32, u64>,
    segments_len: u64,
    /// Whether part of it is lost, so that it does not name all that was stored.
    lossy: bool,
}

impl Log {
    /// A log of these segments (number and length) that ends at `position`, where `sequence` is the
    /// highest of any record. The segment `next_segment` is begun. With `lossy`, part of it is
    /// lost.
    pub(super) fn new(
        position: Position,
        segments: BTreeMap<u32, u64>,
        (sequence, next_segment): (u64, u32),
        lossy: bool,
    ) -> Log {
        Log {
            phase: Phase::Idle,
            current: None,
            next_segment,
            sequence: sequence + 1,
            committed_sequence: sequence,
            appends: Slab::new(),
            by_address: HashMap::new(),
            burials: HashMap::new(),
            pending: VecDeque::new(),
            appends_len: 0,
            files_len: 0,
            relocations: VecDeque::new(),
            relocations_len: 0,
            unmoved: 0,
            batch: Vec::new(),
            batch_len: 0,
            begin_failures: 0,
            fault: Fault::Disk,
            position,
            segments_len: segments.values().sum(),
            segments,
            lossy,
        }
    }

    /// The end of what is committed, and the highest sequence before it.
    pub(super) fn reached(&self) -> (Position, u64) {
        (self.position, self.committed_sequence)
    }

    /// Numbers and lengths of the segments, rising, as far as they are committed.
    pub(super) fn segments(&self) -> impl Iterator<Item = (u32, u64)> {
        self.segments.iter().map(|(number, len)| (*number, *len))
    }

    /// Whether part of the log was found to be lost when it was opened.
    pub(super) fn is_lossy(&self) -> bool {
        self.lossy
    }

    /// How often in a row a segment could not be begun, though the disk has room.
    pub(super) fn begin_failures(&self) -> u32 {
        self.begin_failures
    }

    /// Whether an entry's record lies where the log does not reach.
    pub(super) fn lacks(&self, entry: &Entry) -> bool {
        let (segment, len) = entry.in_log();
        let there = self.segments.get(&segment);
        segment > 0 && there.is_none_or(|there| entry.base() + len > *there)
    }

    /// How many segments there are, and their bytes.
    pub(super) fn extent(&self) -> (usize, u64) {
        (self.segments.len(), self.segments_len)
    }

    /// Whether nothing will be written into a segment any more, nor is the end of the log in it.
    pub(super) fn is_sealed(&self, segment: u32) -> bool {
        segment < self.position.segment
            && self.current.as_ref().is_none_or(|current| current.segment != segment)
    }

    /// The segment was removed.
    pub(super) fn forget_segment(&mut self, segment: u32) -> u64 {
        let len = self.segments.remove(&segment).unwrap_or(0);
        self.segments_len -= len;
        len
    }

    /// Joins an object that is on its way already. `false` if it is not.
    pub(super) fn join(&mut self, address: &Address, asker: Asker) -> bool {
        let Some(append) = self.by_address.get(address) else { return false };
        self.appends[*append].askers.push(asker);
        true
    }

    /// Joins a deletion that is on its way already. `false` if there is none.
    pub(super) fn join_burial(&mut self, address: &Address, asker: Asker) -> bool {
        let Some(append) = self.burials.get(address) else { return false };
        self.appends[*append].askers.push(asker);
        true
    }

    /// Whether the object is on its way into the log.
    pub(super) fn is_storing(&self, address: &Address) -> bool {
        self.by_address.contains_key(address)
    }

    /// Whether a tombstone of it is.
    pub(super) fn is_burying(&self, address: &Address) -> bool {
        self.burials.contains_key(address)
    }

    /// Takes a record up to be moved. `false` if too many wait already.
    pub(super) fn relocate(&mut self, relocation: Relocation) -> bool {
        if !self.has_room_to_move() {
            return false;
        }
        self.relocations_len += relocation.record.len();
        self.relocations.push_back(relocation);
        true
    }

    /// Whether `relocate` would take a record up.
    pub(super) fn has_room_to_move(&self) -> bool {
        self.relocations_len < limits::RELOCATIONS_LEN_MAX && self.phase != Phase::Broken
    }

    /// Whether records that are to be moved are not committed yet.
    pub(super) fn is_moving(&self) -> bool {
        let moving = |member: &Member| matches!(member.what, Source::Relocation(_));
        !self.relocations.is_empty() || self.batch.iter().any(moving)
    }

    /// Counts the records that were taken up to be moved and are still only where they were: who
    /// moves must not remove a segment when this changed meanwhile.
    pub(super) fn unmoved(&self) -> u64 {
        self.unmoved
    }

    /// Whether the log goes on behind a segment.
    pub(super) fn is_behind(&self, segment: u32) -> bool {
        segment < self.position.segment
    }

    /// Ends a segment before it is full. `false` while a commit is under way.
    pub(super) fn seal(&mut self, segment: u32, files: &mut Files) -> bool {
        if self.phase != Phase::Idle {
            return self.phase == Phase::Broken;
        }
        if self.current.as_ref().is_some_and(|current| current.segment == segment) {
            self.end(files);
        }
        true
    }

    /// Whether the log takes nothing more until a restart.
    pub(super) fn is_broken(&self) -> bool {
        self.phase == Phase::Broken
    }

    /// Takes an object up, so that others can join it. `None` if there is no room.
    pub(super) fn take_up(&mut self, append: Append) -> Option<usize> {
        if self.appends.len() >= limits::APPENDS_MAX
            || self.appends_len + append.memory_len() > limits::APPENDS_LEN_MAX
        {
            return None;
        }
        self.appends_len += append.memory_len();
        self.files_len += append.file_len();
        let (address, burial) = (append.address, matches!(append.what, What::Tombstone));
        let key = self.appends.insert(append);
        let under_way = if burial { &mut self.burials } else { &mut self.by_address };
        let before = under_way.insert(address, key);
        assert!(before.is_none(), "{address} is on its way twice");
        Some(key)
    }

    /// The object may be committed now.
    pub(super) fn enqueue(&mut self, key: usize) {
        self.pending.push_back(key);
    }

    /// The object is not to be committed after all.
    pub(super) fn let_go(&mut self, key: usize) -> Append {
        let append = self.appends.remove(key);
        match append.what {
            What::Tombstone => self.burials.remove(&append.address),
            What::Object { .. } | What::File => self.by_address.remove(&append.address),
        };
        self.appends_len -= append.memory_len();
        self.files_len -= append.file_len();
        append
    }

    /// Bytes of objects that are taken up and not committed.
    pub(super) fn waiting_len(&self) -> u64 {
        self.appends_len + self.files_len
    }

    /// Whether no commit is under way, and one could be.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether a commit could start.
    pub(super) fn wants_commit(&self) -> bool {
        self.phase == Phase::Idle && !(self.pending.is_empty() && self.relocations.is_empty())
    }

    /// Whether nothing is on its way or under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.appends.is_empty()
            && self.relocations.is_empty()
            && matches!(self.phase, Phase::Idle | Phase::Broken)
    }

    /// If the log takes no more writes: the appends that wait.
    pub(super) fn refused(&mut self) -> Vec<Append> {
        if self.phase != Phase::Broken {
            return Vec::new();
        }
        self.unmoved += self.relocations.len() as u64;
        (self.relocations, self.relocations_len) = (VecDeque::new(), 0);
        let keys = std::mem::take(&mut self.pending);
        keys.into_iter().map(|key| self.let_go(key)).collect()
    }

    /// Lets go of the segment that is being written, so that it can be closed.
    pub(super) fn end(&mut self, files: &mut Files) {
        if let Some(current) = self.current.take() {
            files.release(current.slot);
        }
    }

    /// Starts a commit of what waits, and of records to be moved that count by the index.
    /// With `turn`, a lone pad is committed if there is nothing else: it begins another segment.
    pub(super) fn commit(
        &mut self,
        (index, turn): (&Index, bool),
        site: Site,
        files: &mut Files,
        cx: &mut Cx<'_>,
    ) {
        assert_eq!(self.phase, Phase::Idle, "one commit at a time");
        self.fill_batch(index);
        if self.batch.is_empty() && !turn {
            return;
        }
        let most = cx.config.segment_len_max;
        let full = |current: &Current| current.end + self.batch_len > most;
        match &self.current {
            Some(current) if !full(current) => self.write(site, files, cx),
            _ => {
                self.end(files);
                let file = cx.tickets.file();
                let path = cx.config.layout.segment_path(site.number, self.next_segment);
                self.phase = Phase::Opening { file };
                site.disk(cx, Tag::Log, DiskOp::Open { file, path, how: OpenHow::CreateNew });
            }
        }
    }

    /// One of the commit's acts is complete. Returns what became of the batch, once it is known.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        site: Site,
        files: &mut Files,
        cx: &mut Cx<'_>,
    ) -> Option<Outcome> {
        match (self.phase, done) {
            (Phase::Opening { file }, Ok(_)) => {
                self.begun(file, files);
                self.write(site, files, cx);
                None
            }
            (Phase::Opening { file }, Err(error)) => {
                // Whether the file was made is not known, so its number is not used again.
                self.next_segment += 1;
                cx.tickets.forget_file(file);
                self.phase = Phase::Idle;
                self.fails("a segment cannot be begun", &error, site, cx);
                self.begin_failures += u32::from(self.fault == Fault::Disk);
                Some(self.batch_failed(true))
            }
            (Phase::Writing, Ok(_)) => {
                self.phase = Phase::Syncing;
                let file = files.id(self.current().slot);
                site.disk(cx, Tag::Log, DiskOp::Sync { file });
                None
            }
            (Phase::Writing, Err(error)) => {
                self.fails("a commit cannot be written", &error, site, cx);
                self.cut(true, site, files, cx);
                None
            }
            (Phase::Syncing, Ok(_)) => Some(self.committed(cx)),
            (Phase::Syncing, Err(error)) => {
                self.fails("a commit cannot be synced", &error, site, cx);
                self.cut(false, site, files, cx);
                None
            }
            (Phase::Cutting { reuse }, Ok(_)) => {
                self.cut_done(reuse, site, files, cx);
                None
            }
            (Phase::Cutting { .. }, Err(error)) => {
                Some(self.breaks("a segment cannot be cut", &error, site, cx))
            }
            (Phase::CutSyncing { reuse }, Ok(_)) => {
                if !reuse {
                    self.end(files);
                }
                self.phase = Phase::Idle;
                Some(self.batch_failed(true))
            }
            (Phase::CutSyncing { reuse: true }, Err(_)) => {
                self.cut(false, site, files, cx);
                None
            }
            (Phase::CutSyncing { reuse: false }, Err(error)) => {
                Some(self.breaks("the cut of a segment cannot be synced", &error, site, cx))
            }
            (Phase::Idle | Phase::Broken, _) => unreachable!("no act of the log is under way"),
        }
    }

    /// A segment is open, with nothing in it.
    fn begun(&mut self, file: FileId, files: &mut Files) {
        self.begin_failures = 0;
        let segment = self.next_segment;
        self.next_segment += 1;
        let slot = files.insert(FileKey::Segment(segment), file);
        self.current = Some(Current { segment, slot, end: 0 });
        self.segments.insert(segment, 0);
    }

    /// What failed to be written may be read again, and nothing can change that.
    fn breaks(&mut self, what: &str, error: &io::Error, site: Site, cx: &mut Cx<'_>) -> Outcome {
        site.note(cx, Severity::Error, &format!("{what}, writing ends: {error}"));
        self.phase = Phase::Broken;
        self.batch_failed(false)
    }

    fn current(&self) -> &Current {
        self.current.as_ref().expect("a commit has a segment")
    }

    /// Moves appends into the batch, and behind them records that are to be moved, as far as one
    /// write takes them.
    fn fill_batch(&mut self, index: &Index) {
        const PAD_MAX: u64 = DISK_BLOCK_LEN as u64;
        const _: () = assert!(record_len_max() + PAD_MAX <= DISK_OP_LEN_MAX as u64);
        assert!(self.batch.is_empty());
        let mut len = 0;
        let fits = |len: u64, more: u64| len + more + PAD_MAX <= DISK_OP_LEN_MAX as u64;
        while let Some(append) = self.pending.front().copied() {
            let record_len = self.appends[append].header(0).record_len();
            if !fits(len, record_len) || self.batch.len() == limits::BATCH_RECORDS_MAX {
                break;
            }
            self.pending.pop_front();
            let what = Source::Append(append);
            self.batch.push(Member { what, offset: len, sequence: self.sequence });
            self.sequence += 1;
            len += record_len;
        }
        let start = len;
        while let Some(first) = self.relocations.front() {
            let record_len = first.record.len() as u64;
            let full = len - start >= limits::RELOCATE_BATCH_LEN || !fits(len, record_len);
            if full || self.batch.len() == limits::BATCH_RECORDS_MAX {
                break;
            }
            let Some(relocation) = self.relocations.pop_front() else { break };
            self.relocations_len -= relocation.record.len();
            // What a tombstone of an earlier batch removed must not come behind that tombstone.
            match relocation.counts(index) {
                Some(true) => {}
                Some(false) => continue,
                None => {
                    self.unmoved += 1;
                    continue;
                }
            }
            let sequence = relocation.sequence();
            let what = Source::Relocation(relocation);
            self.batch.push(Member { what, offset: len, sequence });
            len += record_len;
        }
        // A pad always ends a batch: recovery tells by it what was synced before what.
        self.batch_len = (len + RECORD_HEADER_LEN as u64).next_multiple_of(PAD_MAX);
    }

    fn write(&mut self, site: Site, files: &Files, cx: &mut Cx<'_>) {
        let mut parts = Vec::with_capacity(4 * self.batch.len() + 2);
        let mut len = 0;
        for member in &self.batch {
            assert_eq!(member.offset, len, "records lie back to back");
            len += match &member.what {
                Source::Append(append) => {
                    self.appends[*append].put_parts(member.sequence, &mut parts)
                }
                Source::Relocation(relocation) => {
                    parts.push(Part::Bytes(relocation.record.clone()));
                    relocation.record.len() as u64
                }
            };
        }
        let pad = self.batch_len - len;
        parts.push(Part::Bytes(RecordHeader::pad(pad).encode().to_vec()));
        push_zeros(&mut parts, pad - RECORD_HEADER_LEN as u64);
        let written: usize = parts.iter().map(Part::len).sum();
        assert_eq!(written as u64, self.batch_len);
        let current = self.current();
        assert!(current.end.is_multiple_of(DISK_BLOCK_LEN as u64));
        let (file, at) = (files.id(current.slot), current.end);
        self.phase = Phase::Writing;
        site.disk(cx, Tag::Log, DiskOp::Write { file, at, parts });
    }

    fn committed(&mut self, cx: &mut Cx<'_>) -> Outcome {
        let batch_len = self.batch_len;
        let current = self.current.as_mut().expect("a commit has a segment");
        let (segment, start) = (current.segment, current.end);
        current.end += batch_len;
        self.position = Position { segment, offset: current.end };
        self.segments.insert(segment, current.end);
        self.segments_len += batch_len;
        self.committed_sequence = self.sequence - 1;
        self.phase = Phase::Idle;
        cx.stats.syncs.add(1);
        cx.stats.sync_writes.add(self.batch.len() as u64);
        let (mut appended, mut moved) = (Vec::new(), Vec::new());
        for member in std::mem::take(&mut self.batch) {
            let offset = u32::try_from(start + member.offset);
            let offset = offset.expect("a segment's offsets fit 32 bits");
            let sequence = member.sequence;
            let in_segment = Location::Segment { segment, offset };
            match member.what {
                Source::Append(append) => {
                    let append = self.let_go(append);
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
        Outcome::Committed { appended, moved }
    }

    /// The batch cannot be committed. What becomes of its records is known after the cut.
    fn fails(&mut self, what: &str, error: &io::Error, site: Site, cx: &mut Cx<'_>) {
        self.fault = fault_of(error);
        site.note(cx, Severity::Error, &format!("{what}: {error}"));
    }

    fn batch_failed(&mut self, cut: bool) -> Outcome {
        let fault = self.fault;
        let mut appends = Vec::new();
        for member in std::mem::take(&mut self.batch) {
            match member.what {
                Source::Append(append) => appends.push(self.let_go(append)),
                Source::Relocation(_) => self.unmoved += 1,
            }
        }
        Outcome::Failed { appends, fault, cut }
    }

    /// Cuts the segment back to what is committed.
    fn cut(&mut self, reuse: bool, site: Site, files: &Files, cx: &mut Cx<'_>) {
        let Current { slot, end, .. } = *self.current();
        self.phase = Phase::Cutting { reuse };
        site.disk(cx, Tag::Log, DiskOp::Truncate { file: files.id(slot), len: end });
    }

    fn cut_done(&mut self, reuse: bool, site: Site, files: &Files, cx: &mut Cx<'_>) {
        let file = files.id(self.current().slot);
        self.phase = Phase::CutSyncing { reuse };
        site.disk(cx, Tag::Log, DiskOp::Sync { file });
    }
}

impl Append {
    /// Bytes of memory the append keeps until it is committed.
    fn memory_len(&self) -> u64 {
        match self.what {
            What::Object { .. } => self.size,
            What::File | What::Tombstone => 0,
        }
    }

    /// Bytes of the file that the object came in.
    fn file_len(&self) -> u64 {
        match self.what {
            What::File => self.size,
            What::Object { .. } | What::Tombstone => 0,
        }
    }

    fn header(&self, sequence: u64) -> RecordHeader {
        let header = match self.what {
            What::Object { .. } => RecordHeader::for_segment(self.address, self.size, sequence),
            What::File => RecordHeader::file(self.address, self.size, sequence),
            What::Tombstone => return RecordHeader::tombstone(self.address, sequence),
        };
        header.expect("sizes are checked before an object is taken up")
    }

    /// Adds the record's parts and returns its length.
    fn put_parts(&self, sequence: u64, parts: &mut Vec<Part>) -> u64 {
        let header = self.header(sequence);
        parts.push(Part::Bytes(header.encode().to_vec()));
        if let What::Object { outboard, blocks } = &self.what {
            for block in blocks {
                parts.push(Part::Block(Slice::whole(block.clone())));
            }
            let data_end = u64::from(header.data_offset()) + self.size;
            push_zeros(parts, header.outboard_offset() - data_end);
            if header.outboard_len() > 0 {
                parts.push(Part::Bytes(outboard.as_bytes().to_vec()));
                let outboard_end = header.outboard_offset() + u64::from(header.outboard_len());
                push_zeros(parts, header.record_len() - outboard_end);
            }
        }
        assert!(header.record_len().is_multiple_of(RECORD_ALIGN as u64));
        header.record_len()
    }
}

fn push_zeros(parts: &mut Vec<Part>, len: u64) {
    if len > 0 {
        parts.push(Part::Zeros(len as usize));
    }
}
