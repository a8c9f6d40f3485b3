//! The log of a partition: records appended to segments, committed in groups.
//!
//! All appends that wait when a commit ends share the next one: one write, one sync. Only then is
//! any of them answered. There is one commit at a time, so everything before a batch was
//! synced before the batch was written.
//!
//! ```text
//!            ┌──────────────────────────── batch ───────────────────────────┐
//!   Idle ──► (Opening: the segment is full, or absent) ──► Writing ──► Syncing ──► Idle
//!                    │                                              │           │
//!                    │ fails                                fails ▼           ▼ fails
//!                    └──► Idle                              Cutting ◄──► CutSyncing ──► Idle
//!                                                              │ fails     │ fails
//!                                                              ▼           ▼
//!                                                           Broken: no more writes until a restart
//! ```
//!
//! After a failed write the segment is cut back to its last commit and used on, if the cut can be
//! synced. After a failed sync nobody knows what the disk holds, so the segment is cut and never
//! written again. Either cut is synced before anything else is written: what was refused must not
//! lie before what is committed later.

use std::{collections::BTreeMap, io};

use ron_codec::{address::Address, limits::DISK_BLOCK_LEN};
use ron_io::ports::{DiskDone, DiskOp, FileId, OpenHow};

use super::{
    files::{FileKey, Files},
    index::{Entry, Index, Position},
    notes::LogStep,
    site::{Site, Tag},
};
use crate::{
    flow::{Asker, Cx, Fault},
    machine::{Machine, Turn, answer_name},
};

mod append;
mod batch;
mod failures;
mod moves;
mod table;

use append::Appends;
pub(super) use append::{Append, What, appends_bill};
use batch::{Appended, Batch, Moved};
use moves::Moves;
pub(super) use moves::{Moving, Relocation};
use table::Table;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    Committed {
        appended: Vec<Appended>,
        moved: Vec<Moved>,
    },
    /// Records that were to be moved are where they were. With `cut`, nothing of the batch is in
    /// the log, and never will be; without, a boot may find any of it.
    Failed {
        appends: Vec<Append>,
        fault: Fault,
        cut: bool,
    },
}

/// No commit is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Idle,
    Broken,
}

/// An act of a commit is in progress.
#[derive(Debug)]
enum Waiting {
    Opening { file: FileId },
    Writing,
    Syncing,
    Cutting { reuse: bool },
    CutSyncing { reuse: bool },
}

type Phase = Turn<Ready, Waiting>;

/// The segment that is being written.
#[derive(Debug)]
struct Current {
    segment: u32,
    /// Its place among the open files.
    slot: usize,
    /// Where the next batch goes: what lies before is committed.
    end: u64,
}

/// The log of one partition.
#[derive(Debug)]
pub(super) struct Log {
    machine: Machine<Phase>,
    current: Option<Current>,
    next_segment: u32,
    /// Of the next record.
    sequence: u64,
    /// The highest that is committed.
    committed_sequence: u64,
    appends: Appends,
    moves: Moves,
    batch: Batch,
    /// How often in a row a segment could not be begun, though the disk has space.
    begin_failures: u32,
    /// Why the batch failed that is being cut off.
    fault: Fault,
    position: Position,
    table: Table,
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
            machine: Machine::new("log", Turn::Ready(Ready::Idle)),
            current: None,
            next_segment,
            sequence: sequence + 1,
            committed_sequence: sequence,
            appends: Appends::default(),
            moves: Moves::default(),
            batch: Batch::default(),
            begin_failures: 0,
            fault: Fault::Disk,
            position,
            table: Table::new(segments),
            lossy,
        }
    }

    /// The end of what is committed, and the highest sequence before it.
    pub(super) fn reached(&self) -> (Position, u64) {
        (self.position, self.committed_sequence)
    }

    /// Numbers and lengths of the segments, rising, as far as they are committed.
    pub(super) fn segments(&self) -> impl Iterator<Item = (u32, u64)> {
        self.table.iter()
    }

    /// Whether part of the log was found to be lost when it was opened.
    pub(super) fn is_lossy(&self) -> bool {
        self.lossy
    }

    /// How often in a row a segment could not be begun, though the disk has space.
    pub(super) fn begin_failures(&self) -> u32 {
        self.begin_failures
    }

    /// Whether an entry's record lies where the log does not reach.
    pub(super) fn lacks(&self, entry: &Entry) -> bool {
        self.table.lacks(entry)
    }

    /// How many segments there are, and their bytes.
    pub(super) fn extent(&self) -> (usize, u64) {
        self.table.extent()
    }

    /// Whether nothing will be written into a segment any more, nor is the end of the log in it.
    pub(super) fn is_sealed(&self, segment: u32) -> bool {
        segment < self.position.segment
            && self.current.as_ref().is_none_or(|current| current.segment != segment)
    }

    /// The segment was removed. Returns its length.
    pub(super) fn forget_segment(&mut self, segment: u32) -> u64 {
        self.table.forget(segment)
    }

    /// Joins an object that is on its way already. `false` if it is not.
    pub(super) fn join(&mut self, address: &Address, asker: Asker) -> bool {
        self.appends.join_object(address, asker)
    }

    /// Joins a deletion that is on its way already. `false` if it is not.
    pub(super) fn join_delete(&mut self, address: &Address, asker: Asker) -> bool {
        self.appends.join_delete(address, asker)
    }

    /// Whether the object is on its way into the log.
    pub(super) fn is_storing(&self, address: &Address) -> bool {
        self.appends.is_storing(address)
    }

    /// Whether a tombstone of it is.
    pub(super) fn is_deleting(&self, address: &Address) -> bool {
        self.appends.is_deleting(address)
    }

    /// Queues a record to be moved. `false` if too many wait already.
    pub(super) fn relocate(&mut self, relocation: Relocation) -> bool {
        let queued = self.can_move();
        if queued {
            self.moves.push(relocation);
        }
        queued
    }

    /// Whether `relocate` would queue a record.
    pub(super) fn can_move(&self) -> bool {
        self.moves.takes_more() && !self.is_broken()
    }

    /// Whether records that are to be moved are not committed yet.
    pub(super) fn is_moving(&self) -> bool {
        !self.moves.is_empty() || self.batch.is_moving()
    }

    /// Counts the records that were queued to be moved and are still only where they were: who
    /// moves must not remove a segment when this changed meanwhile.
    pub(super) fn unmoved(&self) -> u64 {
        self.moves.unmoved()
    }

    /// Whether the log goes on behind a segment.
    pub(super) fn is_behind(&self, segment: u32) -> bool {
        segment < self.position.segment
    }

    /// Ends a segment before it is full. `false` while a commit is in progress.
    pub(super) fn seal(&mut self, segment: u32, files: &mut Files) -> bool {
        if !self.is_idle() {
            return self.is_broken();
        }
        if self.current.as_ref().is_some_and(|current| current.segment == segment) {
            self.end(files);
        }
        true
    }

    /// Whether the log takes nothing more until a restart.
    pub(super) fn is_broken(&self) -> bool {
        self.machine.ready() == Some(&Ready::Broken)
    }

    /// Registers an append, so that others can join it. `None` if there are too many.
    pub(super) fn register(&mut self, append: Append) -> Option<usize> {
        self.appends.register(append)
    }

    /// The append may be committed now.
    pub(super) fn enqueue(&mut self, key: usize) {
        self.appends.enqueue(key);
    }

    /// The append is not to be committed after all.
    pub(super) fn withdraw(&mut self, key: usize) -> Append {
        self.appends.remove(key)
    }

    /// Bytes of objects that are registered and not committed.
    pub(super) fn waiting_len(&self) -> u64 {
        self.appends.len()
    }

    /// Whether no commit is in progress, and one could be.
    pub(super) fn is_idle(&self) -> bool {
        self.machine.ready() == Some(&Ready::Idle)
    }

    /// Whether a commit could start.
    pub(super) fn wants_commit(&self) -> bool {
        self.is_idle() && (self.appends.has_pending() || !self.moves.is_empty())
    }

    /// Whether nothing is queued or in progress.
    pub(super) fn is_quiet(&self) -> bool {
        self.appends.is_empty() && self.moves.is_empty() && !self.machine.is_waiting()
    }

    /// What waits to be committed will not be: removes the appends, and with `moves` the records
    /// that were to be moved.
    pub(super) fn refuse_waiting(&mut self, moves: bool) -> Vec<Append> {
        if moves {
            self.moves.drop_all();
        }
        self.appends.remove_pending()
    }

    /// Gives up the segment that is being written, so that it can be closed.
    pub(super) fn end(&mut self, files: &mut Files) {
        if let Some(current) = self.current.take() {
            files.release(current.slot);
        }
    }

    /// Starts a commit of what waits, and of records to be moved that count by the index.
    /// With `rotate`, a lone pad is committed if there is nothing else: it begins another segment.
    pub(super) fn commit(
        &mut self,
        (index, rotate): (&Index, bool),
        site: Site,
        files: &mut Files,
        cx: &mut Cx<'_>,
    ) {
        assert!(self.is_idle(), "one commit at a time");
        self.batch.fill(&mut self.appends, &mut self.moves, index, &mut self.sequence);
        if self.batch.is_empty() && !rotate {
            return;
        }
        let most = cx.config.segment_len_max;
        let full = |current: &Current| current.end + self.batch.len() > most;
        let waiting = match &self.current {
            Some(current) if !full(current) => self.write(site, files, cx),
            _ => {
                self.end(files);
                let file = cx.tickets.file();
                let path = cx.config.layout.segment_path(site.number, self.next_segment);
                site.disk(cx, Tag::Log, DiskOp::Open { file, path, how: OpenHow::CreateNew });
                Waiting::Opening { file }
            }
        };
        self.machine.go("commit", Turn::Waiting(waiting));
    }

    /// One of the commit's acts is complete. Returns what became of the batch, once it is known.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        site: Site,
        files: &mut Files,
        cx: &mut Cx<'_>,
    ) -> Option<Outcome> {
        let event = answer_name(&done);
        let (next, outcome) = match (self.machine.take_waiting(event), done) {
            (Waiting::Opening { file }, Ok(_)) => {
                self.begun(file, files);
                (Turn::Waiting(self.write(site, files, cx)), None)
            }
            (Waiting::Opening { file }, Err(error)) => {
                // Whether the file was made is not known, so its number is not used again.
                self.next_segment += 1;
                cx.tickets.forget_file(file);
                self.fails(LogStep::Begin, &error, site, cx);
                self.begin_failures += u32::from(self.fault == Fault::Disk);
                (Turn::Ready(Ready::Idle), Some(self.batch_failed(true)))
            }
            (Waiting::Writing, Ok(_)) => {
                let file = files.id(self.current().slot);
                site.disk(cx, Tag::Log, DiskOp::Sync { file });
                (Turn::Waiting(Waiting::Syncing), None)
            }
            (Waiting::Writing, Err(error)) => {
                self.fails(LogStep::Write, &error, site, cx);
                (Turn::Waiting(self.cut(true, site, files, cx)), None)
            }
            (Waiting::Syncing, Ok(_)) => (Turn::Ready(Ready::Idle), Some(self.committed(cx))),
            (Waiting::Syncing, Err(error)) => {
                self.fails(LogStep::Sync, &error, site, cx);
                (Turn::Waiting(self.cut(false, site, files, cx)), None)
            }
            (Waiting::Cutting { reuse }, Ok(_)) => {
                (Turn::Waiting(self.sync_cut(reuse, site, files, cx)), None)
            }
            (Waiting::Cutting { .. }, Err(error)) => {
                let outcome = self.breaks(LogStep::Cut, &error, site, cx);
                (Turn::Ready(Ready::Broken), Some(outcome))
            }
            (Waiting::CutSyncing { reuse }, Ok(_)) => {
                if !reuse {
                    self.end(files);
                }
                (Turn::Ready(Ready::Idle), Some(self.batch_failed(true)))
            }
            (Waiting::CutSyncing { reuse: true }, Err(_)) => {
                (Turn::Waiting(self.cut(false, site, files, cx)), None)
            }
            (Waiting::CutSyncing { reuse: false }, Err(error)) => {
                let outcome = self.breaks(LogStep::CutSync, &error, site, cx);
                (Turn::Ready(Ready::Broken), Some(outcome))
            }
        };
        self.machine.put(next);
        outcome
    }

    /// A segment is open, with nothing in it.
    fn begun(&mut self, file: FileId, files: &mut Files) {
        self.begin_failures = 0;
        let segment = self.next_segment;
        self.next_segment += 1;
        let slot = files.insert(FileKey::Segment(segment), file);
        self.current = Some(Current { segment, slot, end: 0 });
        self.table.grow(segment, 0);
    }

    fn current(&self) -> &Current {
        self.current.as_ref().expect("a commit has a segment")
    }

    fn write(&self, site: Site, files: &Files, cx: &mut Cx<'_>) -> Waiting {
        let parts = self.batch.parts(&self.appends);
        let current = self.current();
        assert!(current.end.is_multiple_of(DISK_BLOCK_LEN as u64));
        let (file, at) = (files.id(current.slot), current.end);
        site.disk(cx, Tag::Log, DiskOp::Write { file, at, parts });
        Waiting::Writing
    }

    fn committed(&mut self, cx: &mut Cx<'_>) -> Outcome {
        let batch_len = self.batch.len();
        let current = self.current.as_mut().expect("a commit has a segment");
        let (segment, start) = (current.segment, current.end);
        current.end += batch_len;
        self.position = Position { segment, offset: current.end };
        self.table.grow(segment, batch_len);
        self.committed_sequence = self.sequence - 1;
        cx.stats.syncs.add(1);
        cx.stats.sync_writes.add(self.batch.records() as u64);
        let (appended, moved) = self.batch.committed((segment, start), &mut self.appends);
        Outcome::Committed { appended, moved }
    }
}
