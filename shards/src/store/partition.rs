//! One partition that serves: its index, log, files and readers, and what ties them together.
//!
//! ```text
//!   Open, Group ──► index ──► reads ──► (verified) ──► cache, answers
//!   Put ──────────────────► log ──► (synced) ──► index, answers
//!   Adopt ──► objects ──────┘                      └──► checkpoint, now and then
//! ```
//!
//! Nothing is visible before its commit is durable: the index learns of it only then.

use std::io;

use ron_codec::limits::{OBJECT_LEN_MAX, SEGMENT_OBJECT_LEN_MAX};
use ron_io::{arena::Block, ports::DiskDone};

use super::{
    boot::Recovered,
    compact::{Books, Compaction},
    deletes::Deletes,
    files::{FileKey, Files},
    index::Index,
    log::{Log, What},
    marks::Marks,
    objects::Objects,
    reads::{Reads, Wanting},
    site::{Site, Tag},
};
use crate::flow::{Ask, Asker, Cx, Fault};

mod checkpoints;
mod commits;
mod count;
mod listing;
mod requests;
mod saving;
mod space;
mod state;

use checkpoints::Checkpoints;
use count::Counted;

/// A partition that serves.
#[derive(Debug)]
pub(super) struct Partition {
    site: Site,
    index: Index,
    log: Log,
    files: Files,
    reads: Reads,
    objects: Objects,
    deletes: Deletes,
    compaction: Compaction,
    marks: Marks,
    /// The volume it lies on, and the most bytes it may take there.
    volume: usize,
    bytes_max: u64,
    /// Most bytes of memory of its index, and whether the operator was warned of them.
    index_max: u64,
    index_warned: bool,
    /// Whether objects were refused for lack of space when that was last looked at.
    full: bool,
    read_only: bool,
    checkpoints: Checkpoints,
    /// What of the shard's counters is this partition's.
    counted: Counted,
    stopping: bool,
    closed: bool,
}

/// What the scrub sees of a partition.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) site: Site,
    pub(super) index: &'a Index,
    pub(super) log: &'a mut Log,
    pub(super) deletes: &'a mut Deletes,
    pub(super) files: &'a mut Files,
    /// Whether the index is to be saved as soon as it can be.
    pub(super) checkpoint_due: &'a mut bool,
}

impl Partition {
    pub(super) fn new(
        site: Site,
        recovered: Recovered,
        idle_files_max: usize,
        cx: &mut Cx<'_>,
    ) -> Self {
        let Recovered { mut index, position, segments, lost, mut hidden, dirty, .. } = recovered;
        let next = (recovered.sequence, recovered.next_segment);
        let overtaken = recovered.overtaken.into_iter().collect();
        let lossy = !lost.is_empty();
        hidden.extend(lost);
        index.serve();
        let layout = &cx.config.layout;
        let share = |all: u64| all / u64::from(layout.partitions);
        let mut partition = Partition {
            site,
            index,
            log: Log::new(position, segments, next, lossy),
            files: Files::new(idle_files_max),
            reads: Reads::new(),
            objects: Objects::new(),
            deletes: Deletes::default(),
            compaction: Compaction::new(&hidden, overtaken),
            marks: Marks::new(recovered.owed_marks, recovered.sequence),
            volume: layout.volume_number(site.number),
            bytes_max: cx.config.storage.max_bytes.map_or(u64::MAX, share),
            index_max: cx.config.storage.index_len / u64::from(layout.partitions),
            index_warned: false,
            full: false,
            read_only: false,
            checkpoints: Checkpoints::new(dirty),
            counted: Counted::default(),
            stopping: false,
            closed: false,
        };
        cx.stats.index_limit_bytes.add(partition.index_max);
        partition.count(cx);
        partition
    }

    pub(super) fn on_ask(&mut self, asker: Asker, ask: Ask, cx: &mut Cx<'_>) {
        if self.stopping && !matches!(ask, Ask::Cancel { .. }) {
            return ask.refuse(asker, Fault::Busy, cx);
        }
        let reply = match ask {
            Ask::Open { address, first } => self.open(asker, address, first, cx),
            Ask::Whole { address } => self.open(asker, address, None, cx),
            Ask::Group { address, index, begins, ahead } => {
                self.group(Wanting::group(asker, begins, ahead), address, index, cx)
            }
            Ask::Put { address, size, outboard, blocks } => {
                let len: usize = blocks.iter().map(Block::len).sum();
                assert!(len as u64 == size && outboard.size() == size, "{len} bytes of {size}");
                assert!(size <= SEGMENT_OBJECT_LEN_MAX, "{size} bytes do not go into a segment");
                self.put(asker, address, size, What::Object { outboard, blocks }, None, cx)
            }
            Ask::Delete { address } => self.delete(asker, address),
            Ask::Cancel { address, index } => {
                self.reads.cancel(asker.stream, address, index, cx);
                None
            }
            Ask::Adopt { address, size, path } => {
                assert!(size <= OBJECT_LEN_MAX, "{size} bytes are no object");
                self.put(asker, address, size, What::File, Some(path), cx)
            }
        };
        if let Some(reply) = reply {
            cx.replies.push_back((asker, reply));
        }
    }

    pub(super) fn on_disk(&mut self, tag: Tag, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let (site, files) = (self.site, &mut self.files);
        match tag {
            Tag::Boot => unreachable!("the boot has ended"),
            Tag::Mark => self.marks.on_disk(done, site, cx),
            Tag::Scrub { .. } => unreachable!("the shard's scrub takes its own"),
            Tag::Log => {
                if let Some(outcome) = self.log.on_disk(done, site, files, cx) {
                    self.on_commit(outcome, cx);
                }
                self.look_at_log(cx);
            }
            Tag::Checkpoint => self.on_checkpoint(done, cx),
            Tag::File { slot } => {
                let arrival = files.on_opened(slot, done, cx);
                self.reads.on_opened(arrival, (&self.index, files), site, cx);
            }
            Tag::Outboard { slot, piece } => {
                self.reads.on_scanned((slot, piece), done, (&self.index, files), site, cx);
            }
            Tag::Read { slot } => self.reads.on_read(slot, done, (&self.index, files), site, cx),
            Tag::Adopt { slot } => {
                if let Some((append, outcome)) = self.objects.on_disk(slot, done, site, cx) {
                    self.on_adopted(append, outcome, cx);
                }
            }
            Tag::Delete { slot } => {
                let (address, adoptions) = self.deletes.on_removed(slot, done, site, cx);
                // An open file keeps its disk space.
                files.forget(FileKey::Object(address), cx);
                for (append, path) in adoptions {
                    self.begin(append, address, Some(path), cx);
                }
            }
            Tag::Compact => {
                let (log, index, deletes) = (&mut self.log, &mut self.index, &mut self.deletes);
                let books = &mut Books { log, index, deletes };
                self.compaction.on_disk(done, books, files, site, cx);
                self.checkpoints.dirty |= self.compaction.is_quiet();
                self.count(cx);
            }
        }
    }

    /// What the scrub works with.
    pub(super) fn parts(&mut self) -> Parts<'_> {
        let (index, log, files) = (&self.index, &mut self.log, &mut self.files);
        let (deletes, checkpoint_due) = (&mut self.deletes, &mut self.checkpoints.due);
        Parts { site: self.site, index, log, deletes, files, checkpoint_due }
    }

    /// Leaves something of the scrub's in the index: with the next checkpoint, and with `soon`
    /// that is one of the next seconds.
    pub(super) fn set_mark(&mut self, mark: Vec<u8>, soon: bool) {
        self.index.set_mark(mark);
        self.checkpoints.dirty |= soon;
    }

    /// Finishes what is in progress, makes a last checkpoint and closes all files.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether `settle` could do something.
    pub(super) fn is_runnable(&self, cx: &Cx<'_>) -> bool {
        self.log.wants_commit()
            || self.reads.is_waiting()
            || self.deletes.is_forgetting()
            || self.is_checkpoint_urgent()
            || self.has_more_work(cx)
            || self.retry_at(cx).is_some()
            || (self.stopping && !self.closed)
    }

    /// Whether `settle` has work to do that waits for nothing but its next turn.
    pub(super) fn has_more_work(&self, cx: &Cx<'_>) -> bool {
        let now_ns = cx.now.mono_ns;
        let compacting = !self.stopping && self.compaction.is_runnable(&self.log, now_ns);
        self.deletes.is_forgetting() || compacting
    }

    /// When `settle` is to be called for something that failed and is tried again.
    pub(super) fn retry_at(&self, cx: &Cx<'_>) -> Option<u64> {
        let times = [self.compaction.retry_at(cx.now.mono_ns), self.marks.retry_at()];
        times.into_iter().flatten().min()
    }

    /// Whether reads wait, for memory among other things.
    pub(super) fn has_waiting_reads(&self) -> bool {
        self.reads.is_waiting()
    }

    /// A read of some partition needs a descriptor, and the shard has none left.
    pub(super) fn close_idle_file(&mut self, cx: &mut Cx<'_>) {
        self.files.close_oldest(cx);
    }

    /// Whether reads wait for memory.
    pub(super) fn awaits_memory(&self) -> bool {
        self.reads.awaits_memory()
    }

    /// The free space of the partition's volume is known.
    pub(super) fn on_free_space(&mut self, cx: &mut Cx<'_>) {
        self.refuses(true, 0, cx);
    }

    /// Whether there is something for a checkpoint to take up.
    pub(super) fn is_dirty(&self) -> bool {
        self.checkpoints.dirty
    }

    /// Starts what can be started. With `checkpoint`, it is time for one.
    pub(super) fn settle(&mut self, checkpoint: bool, cx: &mut Cx<'_>) {
        let site = self.site;
        self.refuse_waiting(cx);
        self.deletes.step(site, cx);
        if self.stopping {
            self.compaction.stop(cx);
        } else {
            let (log, index, deletes) = (&mut self.log, &mut self.index, &mut self.deletes);
            let books = &mut Books { log, index, deletes };
            self.compaction.settle(books, &mut self.files, site, cx);
        }
        let compacted = self.compaction.wants_checkpoint(&self.log, cx.now.mono_ns);
        let urgent = self.is_checkpoint_urgent() || compacted;
        self.checkpoints.due |= checkpoint || urgent;
        self.commit(cx);
        self.reads.retry(&mut self.files, site, cx);
        self.files.close_gone(cx);
        if !self.stopping {
            self.marks.settle(site, cx);
        }
        let last = self.stopping && self.is_quiet();
        // With an index the next boot would not see which tombstones are to be written again, nor
        // in which segments records are hidden.
        let owes = self.compaction.is_renewing() || self.marks.is_owing();
        let may_save = !self.deletes.owes_removal() && !owes;
        if last && owes {
            self.checkpoints.dirty = false;
        }
        if (self.checkpoints.dirty || self.compaction.wants_checkpoint(&self.log, cx.now.mono_ns))
            && !self.index.is_frozen()
            && may_save
            && (self.checkpoints.due || last)
        {
            self.checkpoint(cx);
        }
        if last && !self.checkpoints.dirty && !self.index.is_frozen() && !self.closed {
            self.log.end(&mut self.files);
            self.files.close_all(cx);
            self.closed = true;
        }
    }

    fn is_quiet(&self) -> bool {
        self.log.is_quiet()
            && self.reads.is_quiet()
            && self.objects.is_quiet()
            && self.deletes.is_quiet()
            && self.marks.is_quiet()
            && self.compaction.is_quiet()
    }
}
