//! The index: which objects there are, and where their bytes lie.
//!
//! The segments are the truth; this is a memory of them that can be made again. All of it lies in a
//! table in memory, so that every question is answered at once and exactly, without the disk. So
//! that a start need not walk the whole log, checkpoints leave on disk what changed since the one
//! before, with the log position they reach to; now and then a new snapshot of the whole is begun:
//!
//! ```text
//!   insert, remove ──► table ──────────── parts ──────► 00000002.idx   a new base, now and then
//!                 └──► changes ── frozen (a job) ──────► appended to it, with each checkpoint
//! ```
//!
//! Files are written by jobs on a thread that may block, of what is handed to them. This module
//! knows nothing of files of data: it believes the log, and the log's readers check it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use ron_codec::address::Address;
use ron_io::ports::Job;

#[cfg(feature = "bench")]
pub mod bench;
mod entry;
mod findings;
mod open;
mod snapshot;
mod table;
mod view;

pub use entry::{Entry, Location, Position};
pub(super) use entry::{Tally, Totals};
pub(super) use findings::{Finding, Loss};
pub(super) use open::{Of, Opened, Slot as OpenSlot, open_job};
pub use snapshot::Unusable;
use snapshot::{Changes, Commit, Part, Snapshot};
use table::{Slot, Table};
pub use view::{Flaw, View, ViewError};

/// Slots that one job writes of a base: what one step of the shard copies, 256 KiB.
const PART_SLOTS: usize = 64 * snapshot::BLOCK_SLOTS;

/// The index of one partition.
#[derive(Debug)]
pub(super) struct Index {
    dir: PathBuf,
    table: Table,
    /// What changed since the last checkpoint began, in its order, while there is a file that it
    /// is to be appended to.
    changes: Vec<Slot>,
    /// Changes since the last checkpoint that is durable, and those of the one that runs.
    pending: usize,
    /// What a running checkpoint writes.
    frozen: Option<Frozen>,
    /// The file that changes are appended to; `None`: the next checkpoint begins another.
    file: Option<Snapshot>,
    /// The last generation that was begun, and the one that is kept when the next is durable.
    generation: u32,
    kept: u32,
    totals: Totals,
    /// What counts in each segment, and those whose tombstones changed since the last checkpoint.
    tallies: BTreeMap<u32, Tally>,
    changed: BTreeSet<u32>,
    /// Sum of what is live in all segments.
    live: u64,
    mark: Vec<u8>,
}

/// A checkpoint that runs.
#[derive(Debug)]
struct Frozen {
    /// How many changes it takes up.
    pending: usize,
    writing: Writing,
}

#[derive(Debug)]
enum Writing {
    /// They are appended to a file, which is this then.
    Changes(Snapshot),
    Base {
        /// What is written of it, and the last address.
        blocks: u32,
        slots: u64,
        after: Option<Address>,
        /// `None`: the last part is being written.
        commit: Option<Commit>,
    },
}

impl Index {
    pub(super) fn new(opened: Opened) -> Index {
        let Opened { dir, table, tallies, totals, commit, file, generation, kept, .. } = opened;
        Index {
            dir,
            table,
            changes: Vec::new(),
            pending: 0,
            frozen: None,
            file,
            generation,
            kept,
            totals,
            live: tallies.values().map(|tally| tally.live).sum(),
            tallies,
            changed: BTreeSet::new(),
            mark: commit.mark,
        }
    }

    /// What is known about an object, if it is there.
    pub(super) fn get(&self, address: &Address) -> Option<Entry> {
        self.table.get(address)
    }

    /// Up to `max` entries behind `after`, in the order of their addresses. Fewer only at the end.
    pub(super) fn page(&self, after: Option<&Address>, max: usize) -> Vec<(Address, Entry)> {
        let slots = self.table.page(after, max).into_iter();
        slots.filter_map(|slot| Some((table::address(&slot), table::decode(&slot)?))).collect()
    }

    /// The object is there now.
    pub(super) fn insert(&mut self, address: Address, entry: Entry) {
        let slot = table::encode(&address, &entry);
        let before = self.table.insert(slot);
        self.uncount(before.as_ref());
        self.note(slot);
        self.totals.add(&entry);
        let (segment, len) = entry.in_log();
        self.tally(segment, |tally| tally.live += len);
    }

    /// The object is no longer there.
    pub(super) fn remove(&mut self, address: Address) {
        let before = self.table.remove(&address);
        self.uncount(before.as_ref());
        self.note(table::gone(&address));
    }

    /// A tombstone is in a segment now.
    pub(super) fn count_tombstone(&mut self, segment: u32) {
        self.tally(segment, |tally| tally.tombstones += 1);
        self.changed.insert(segment);
    }

    /// A segment is gone, with all that was in it.
    pub(super) fn forget_segment(&mut self, segment: u32) {
        self.live -= self.tallies.remove(&segment).map_or(0, |tally| tally.live);
        self.changed.insert(segment);
    }

    /// What counts in a segment.
    pub(super) fn tally_of(&self, segment: u32) -> Tally {
        self.tallies.get(&segment).copied().unwrap_or_default()
    }

    /// Bytes of all records in segments that count.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Bytes of memory that the objects take here.
    pub(super) fn bytes(&self) -> u64 {
        self.table.bytes() as u64
    }

    /// What the scrub left here last; empty before the first time.
    pub(super) fn mark(&self) -> &[u8] {
        &self.mark
    }

    /// Leaves something to be found after a restart, once the next checkpoint took it up.
    pub(super) fn set_mark(&mut self, mark: Vec<u8>) {
        self.mark = mark;
    }

    /// Changes that are in no durable checkpoint.
    pub(super) fn changes(&self) -> usize {
        self.pending + self.frozen.as_ref().map_or(0, |frozen| frozen.pending)
    }

    /// Whether the next checkpoint writes all of it.
    pub(super) fn wants_base(&self) -> bool {
        let grown = |file: &Snapshot| snapshot::is_outgrown(file.base_blocks, file.blocks);
        self.file.as_ref().is_none_or(grown)
    }

    /// The boot has ended. What it took up is in the log, and in no checkpoint's way.
    pub(super) fn serve(&mut self) {
        if self.file.is_none() {
            self.pending = 0;
        }
    }

    /// Whether a checkpoint runs.
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Begins a checkpoint that reaches to a position of the log and the sequence there, and
    /// returns its first job.
    ///
    /// # Panics
    /// If a checkpoint runs.
    pub(super) fn checkpoint(&mut self, reached: (Position, u64)) -> Job {
        assert!(self.frozen.is_none(), "one checkpoint at a time");
        let base = self.wants_base();
        let pending = std::mem::take(&mut self.pending);
        let slots = std::mem::take(&mut self.changes);
        let changed = std::mem::take(&mut self.changed).into_iter();
        let tombstones = match base {
            true => self.tombstone_counts(),
            false => changed.map(|segment| (segment, self.tally_of(segment).tombstones)).collect(),
        };
        let (position, sequence) = reached;
        assert!(position.is_in_a_log(), "{position:?} would not be believed at the next start");
        let mark = self.mark.clone();
        let commit = Commit { position, sequence, tombstones, mark, previous: self.kept };
        if base {
            self.file = None;
            self.generation += 1;
            let commit = Some(commit);
            let writing = Writing::Base { blocks: 0, slots: 0, after: None, commit };
            self.frozen = Some(Frozen { pending, writing });
            return self.part().expect("a base has a first part");
        }
        let file = self.file.expect("there is one, or a base were begun");
        let number = file.blocks;
        let blocks = number + snapshot::blocks_of(slots.len()) + snapshot::blocks_of_end(&commit);
        let then = Snapshot { blocks, ..file };
        self.frozen = Some(Frozen { pending, writing: Writing::Changes(then) });
        let (dir, generation) = (self.dir.clone(), file.generation);
        let changes = Changes { dir, generation, number, slots, commit };
        Box::new(move || changes.append())
    }

    /// A job of the checkpoint is done. Returns the next; `None`: the checkpoint is durable, or
    /// with `false` failed, and the next writes all anew.
    pub(super) fn written(&mut self, done: bool) -> Option<Job> {
        if done && let Some(job) = self.part() {
            return Some(job);
        }
        let Frozen { pending, writing } = self.frozen.take().expect("a checkpoint runs");
        match writing {
            _ if !done => {
                self.file = None;
                self.pending += pending;
                // A base takes everything up.
                self.changes = Vec::new();
            }
            Writing::Changes(then) => self.file = Some(then),
            Writing::Base { blocks, .. } => {
                let generation = self.generation;
                self.file = Some(Snapshot { generation, base_blocks: blocks, blocks });
                self.kept = generation;
            }
        }
        None
    }

    /// The job that writes the next part of a base, if there is another.
    fn part(&mut self) -> Option<Job> {
        let writing = &mut self.frozen.as_mut()?.writing;
        let Writing::Base { blocks, slots, after, commit } = writing else { return None };
        let page = commit.is_some().then(|| self.table.page(after.as_ref(), PART_SLOTS))?;
        let last = page.len() < PART_SLOTS;
        let part = Part {
            dir: self.dir.clone(),
            generation: self.generation,
            number: *blocks,
            before: *slots,
            commit: if last { commit.take() } else { None },
            slots: page,
        };
        *slots += part.slots.len() as u64;
        *blocks += snapshot::blocks_of(part.slots.len());
        *blocks += part.commit.as_ref().map_or(0, snapshot::blocks_of_end);
        *after = part.slots.last().map(table::address).or(*after);
        Some(Box::new(move || part.write()))
    }

    /// The tombstones of all segments that have some.
    fn tombstone_counts(&self) -> Vec<(u32, u64)> {
        let counted = self.tallies.iter().filter(|(_, tally)| tally.tombstones > 0);
        counted.map(|(segment, tally)| (*segment, tally.tombstones)).collect()
    }

    /// Notes a change for the next checkpoint. While there is no file the next is a base anyway.
    fn note(&mut self, slot: Slot) {
        self.pending += 1;
        let base = self
            .frozen
            .as_ref()
            .is_some_and(|frozen| matches!(frozen.writing, Writing::Base { .. }));
        if self.file.is_some() || base {
            self.changes.push(slot);
        }
    }

    /// Takes what was known about an object out of the counts.
    fn uncount(&mut self, before: Option<&Slot>) {
        let Some(before) = before.and_then(table::decode) else { return };
        self.totals.sub(&before);
        let (segment, len) = before.in_log();
        self.tally(segment, |tally| tally.live = tally.live.saturating_sub(len));
    }

    fn tally(&mut self, segment: u32, change: impl FnOnce(&mut Tally)) {
        if segment > 0 {
            let tally = self.tallies.entry(segment).or_default();
            let before = tally.live;
            change(tally);
            self.live = self.live + tally.live - before;
        }
    }
}

#[cfg(test)]
mod tests;
