//! One partition that serves: its index, log, files and readers, and what ties them together.
//!
//! ```text
//!   Open, Group ──► index ──► reads ──► (verified) ──► cache, answers
//!   Put ──────────────────► log ──► (synced) ──► index, answers
//!   Adopt ──► objects ──────┘                      └──► checkpoint, now and then
//! ```
//!
//! Nothing is visible before its commit is durable: the index is told only then.

use std::{io, path::PathBuf};

use ron_codec::{
    address::Address,
    limits::{GROUP_LEN, OBJECT_LEN_MAX, SEGMENT_OBJECT_LEN_MAX},
    outboard::group_count,
};
use ron_io::{
    arena::Block,
    ports::{Act, DiskDone, DiskOp, PartitionState, Report, Severity},
};

use super::{
    boot::Recovered,
    compact::{Books, Compaction},
    damage,
    deletes::Deletes,
    files::{FileKey, Files},
    hits::keep,
    index::{Entry, Index, Location},
    marks::Marks,
    objects::Objects,
    reads::{Reads, Wanting},
    segments::{Append, Log, Moving, Outcome, What},
    site::{Site, Tag, fault_of},
};
use crate::{
    flow::{Ask, Asker, Cx, Fault, Reply, Waiter},
    limits,
};

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
    /// Whether objects were refused for want of room when that was last looked at.
    full: bool,
    read_only: bool,
    /// A checkpoint is wanted, and waits until nothing stands in its way.
    checkpoint_due: bool,
    /// Whether the log goes on behind the last checkpoint, and how far about.
    dirty: bool,
    tail_len: u64,
    /// Checkpoints in a row that failed: the next waits for its time, and after some of them no
    /// more is taken that would have to wait for one.
    checkpoint_failures: u32,
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
            checkpoint_due: false,
            dirty,
            tail_len: 0,
            checkpoint_failures: 0,
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
            Tag::Boot => unreachable!("the boot is over"),
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
                // An open file keeps its room.
                files.forget(FileKey::Object(address), cx);
                for (append, path) in adoptions {
                    self.begin(append, address, Some(path), cx);
                }
            }
            Tag::Compact => {
                let (log, index, deletes) = (&mut self.log, &mut self.index, &mut self.deletes);
                let books = &mut Books { log, index, deletes };
                self.compaction.on_disk(done, books, files, site, cx);
                self.dirty |= self.compaction.is_quiet();
                self.count(cx);
            }
        }
    }

    /// What the scrub works with.
    pub(super) fn parts(&mut self) -> Parts<'_> {
        let (index, log, files) = (&self.index, &mut self.log, &mut self.files);
        let (deletes, checkpoint_due) = (&mut self.deletes, &mut self.checkpoint_due);
        Parts { site: self.site, index, log, deletes, files, checkpoint_due }
    }

    /// Leaves something of the scrub's in the index: with the next checkpoint, and with `soon`
    /// that is one of the next seconds.
    pub(super) fn set_mark(&mut self, mark: Vec<u8>, soon: bool) {
        self.index.set_mark(mark);
        self.dirty |= soon;
    }

    /// Finishes what is under way, makes a last checkpoint and closes all files.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether `settle` could do something.
    pub(super) fn is_restless(&self, cx: &Cx<'_>) -> bool {
        self.log.wants_commit()
            || self.reads.is_waiting()
            || self.deletes.is_forgetting()
            || self.is_checkpoint_urgent()
            || self.wants_turn(cx)
            || self.retry_at(cx).is_some()
            || (self.stopping && !self.closed)
    }

    /// Whether `settle` has work to do that waits for nothing but its next turn.
    pub(super) fn wants_turn(&self, cx: &Cx<'_>) -> bool {
        let now_ns = cx.now.mono_ns;
        let compacting = !self.stopping && self.compaction.is_restless(&self.log, now_ns);
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

    /// The room of the partition's volume was told.
    pub(super) fn on_room(&mut self, cx: &mut Cx<'_>) {
        self.refuses(true, 0, cx);
    }

    /// Whether there is something for a checkpoint to take up.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
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
        self.checkpoint_due |= checkpoint || urgent;
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
            self.dirty = false;
        }
        if (self.dirty || self.compaction.wants_checkpoint(&self.log, cx.now.mono_ns))
            && !self.index.is_frozen()
            && may_save
            && (self.checkpoint_due || last)
        {
            self.checkpoint(cx);
        }
        if last && !self.dirty && !self.index.is_frozen() && !self.closed {
            self.log.end(&mut self.files);
            self.files.close_all(cx);
            self.closed = true;
        }
    }

    /// Answers what waits for a commit that does not come: the log is broken, or the index cannot
    /// be saved and takes no more.
    fn refuse_waiting(&mut self, cx: &mut Cx<'_>) {
        let is_last = self.stopping && self.checkpoint_failures > 0 && self.is_index_full();
        let ends = self.log.is_broken() || is_last;
        if ends || self.takes_nothing() {
            for append in self.log.refuse_waiting(ends) {
                self.not_stored(append, Fault::Disk, true, cx);
            }
        }
    }

    /// Whether the index takes no more changes before it was saved.
    fn is_index_full(&self) -> bool {
        self.index.changes() >= limits::MEMTABLE_MAX
    }

    fn is_quiet(&self) -> bool {
        self.log.is_quiet()
            && self.reads.is_quiet()
            && self.objects.is_quiet()
            && self.deletes.is_quiet()
            && self.marks.is_quiet()
            && self.compaction.is_quiet()
    }

    fn commit(&mut self, cx: &mut Cx<'_>) {
        let turn = self.compaction.wants_turn(&self.log, cx.now.mono_ns) && self.log.is_idle();
        // A checkpoint must not come between a tombstone and the removal of its file: commits
        // wait until those are over.
        let held = self.checkpoint_due && self.deletes.owes_removal();
        // What is committed while one is tried again would come on top of what waits already.
        let held = held || (self.checkpoint_failures > 0 && self.index.is_frozen());
        if (self.log.wants_commit() || turn) && !held && !self.is_index_full() {
            self.log.commit((&self.index, turn), self.site, &mut self.files, cx);
        }
    }

    /// Whether the partition has no room for an object of `len` bytes more, by its shares or on its
    /// volume.
    fn is_full_for(&self, len: u64, cx: &Cx<'_>) -> bool {
        let taken = self.log.extent().1 + self.index.totals().file_bytes + self.log.waiting_len();
        taken.saturating_add(len) > self.bytes_max
            || self.index.bytes() >= self.index_max
            || !cx.room.takes(self.volume, len)
    }

    fn look_at_log(&mut self, cx: &mut Cx<'_>) {
        if self.log.is_broken() {
            self.set_read_only(true, "a write or sync of its log failed", cx);
        } else if self.log.begin_failures() >= limits::BEGIN_FAILURES_MAX {
            self.set_read_only(true, "its log cannot go on in another segment", cx);
        } else if self.log.begin_failures() == 0 && !self.takes_nothing() {
            self.set_read_only(false, "serves again", cx);
        }
    }

    /// Whether puts and deletes are refused at once. Where a segment cannot be begun they are not:
    /// the next one tries again.
    fn takes_nothing(&self) -> bool {
        self.log.is_broken() || self.checkpoint_failures >= limits::CHECKPOINT_FAILURES_MAX
    }

    /// Takes no more objects and deletions while its index cannot be saved, and takes them again
    /// when it could be.
    fn look_at_checkpoints(&mut self, error: Option<&String>, cx: &mut Cx<'_>) {
        match error {
            Some(error) if self.checkpoint_failures >= limits::CHECKPOINT_FAILURES_MAX => {
                let why = format!("its index cannot be saved: {error}");
                self.set_read_only(true, &why, cx);
            }
            _ => self.look_at_log(cx),
        }
    }

    fn set_read_only(&mut self, read_only: bool, why: &str, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.read_only, read_only) == read_only {
            return;
        }
        match read_only {
            true => cx.stats.partitions_read_only.add(1),
            false => cx.stats.partitions_read_only.sub(1),
        }
        let state = if read_only { PartitionState::ReadOnly } else { PartitionState::Serving };
        let reason = format!("{}: {why}", cx.config.layout.volume(self.site.number).display());
        let (shard, partition) = (cx.config.shard, self.site.number);
        cx.acts.push(Act::Report(Report::Partition { shard, partition, state, reason }));
    }

    fn open(
        &mut self,
        asker: Asker,
        address: Address,
        first: Option<u64>,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        let Some(entry) = self.index.get(&address) else { return Some(Reply::Missing) };
        if self.is_lost(&entry) {
            damage::report_read(&address, "the part of the log that had it is gone", cx);
            return Some(Reply::Failed(Fault::Integrity));
        }
        match first {
            Some(byte) if byte < entry.size => {
                cx.stats.cache_misses.add(1);
                let wanting = Wanting::open(asker);
                let group = (address, byte / GROUP_LEN as u64, entry);
                self.reads.want(group, wanting, &mut self.files, self.site, cx);
                None
            }
            _ => Some(Reply::Opened { size: entry.size, first: None }),
        }
    }

    fn group(
        &mut self,
        wanting: Wanting,
        address: Address,
        index: u64,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        match self.index.get(&address) {
            Some(entry) if index < group_count(entry.size) => {
                cx.stats.cache_misses.add(1);
                let group = (address, index, entry);
                self.reads.want(group, wanting, &mut self.files, self.site, cx);
                None
            }
            _ => Some(Reply::Missing),
        }
    }

    /// Keeps an object; `upload` is the file it came in, if it is to lie in one.
    fn put(
        &mut self,
        asker: Asker,
        address: Address,
        size: u64,
        what: What,
        upload: Option<PathBuf>,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        let reply = if self.log.join(&address, asker) {
            None
        } else {
            match self.index.get(&address) {
                Some(known) if !cx.damage.doubts(&address) && !self.is_lost(&known) => {
                    Some(Reply::Stored { new: false })
                }
                // A file that is stored anew must not be taken for the one that is removed.
                Some(_)
                    if self.log.is_deleting(&address) || self.deletes.is_under_way(&address) =>
                {
                    Some(Reply::Failed(Fault::Busy))
                }
                _ if self.takes_nothing() => Some(Reply::Failed(Fault::Disk)),
                _ if self.refuses(upload.is_none(), size, cx) => Some(Reply::Failed(Fault::Full)),
                // What is damaged is stored anew: who brings its bytes heals it.
                _ => {
                    let promised = self.to_be_written(upload.as_ref(), size, cx);
                    let append = Append { address, size, what, promised, askers: vec![asker] };
                    match self.take_up(append, cx) {
                        Ok(append) => {
                            self.begin(append, address, upload, cx);
                            return None;
                        }
                        Err(fault) => Some(Reply::Failed(fault)),
                    }
                }
            }
        };
        if let Some(path) = upload {
            cx.disk(Waiter::Nobody, DiskOp::Remove { path, durable: false });
        }
        reply
    }

    /// Sets room for an append aside and takes it up.
    fn take_up(&mut self, append: Append, cx: &mut Cx<'_>) -> Result<usize, Fault> {
        let promised = append.promised;
        cx.room.promise(self.volume, promised).map_err(|_| Fault::Full)?;
        self.log.register(append).ok_or_else(|| {
            cx.room.release(self.volume, promised);
            Fault::Busy
        })
    }

    /// Bytes that an object is still to take on this volume: an upload to it has written its own.
    fn to_be_written(&self, upload: Option<&PathBuf>, size: u64, cx: &Cx<'_>) -> u64 {
        let volume = cx.config.layout.volume(self.site.number);
        if upload.is_some_and(|path| path.starts_with(volume)) { 0 } else { size }
    }

    /// Whether an object cannot be taken for want of room. The bytes of an upload are on the disk
    /// already.
    fn refuses(&mut self, to_be_written: bool, size: u64, cx: &mut Cx<'_>) -> bool {
        let len = if to_be_written { size } else { 0 };
        let full = self.is_full_for(len, cx) || (!to_be_written && self.is_over(size));
        if full != std::mem::replace(&mut self.full, full) {
            let count = &cx.stats.partitions_full;
            if full { count.add(1) } else { count.sub(1) }
        }
        full
    }

    fn is_over(&self, more: u64) -> bool {
        let (_, segments_len) = self.log.extent();
        let taken = segments_len + self.index.totals().file_bytes + self.log.waiting_len();
        taken.saturating_add(more) > self.bytes_max
    }

    fn delete(&mut self, asker: Asker, address: Address) -> Option<Reply> {
        if self.log.join_delete(&address, asker) {
            return None;
        }
        match self.index.get(&address) {
            // What is not there may come back with a record that could not be cut off.
            known if self.log.is_broken() || (self.takes_nothing() && known.is_some()) => {
                Some(Reply::Failed(Fault::Disk))
            }
            None => Some(Reply::Missing),
            // It was damaged and is being stored anew: its new file must not go with the old one.
            Some(_) if self.log.is_storing(&address) || self.deletes.is_taking_back(&address) => {
                Some(Reply::Failed(Fault::Busy))
            }
            Some(_) => {
                let (size, what, askers) = (0, What::Tombstone, vec![asker]);
                let append = Append { address, size, what, promised: 0, askers };
                let taken = self.log.register(append).map(|append| self.log.enqueue(append));
                taken.is_none().then_some(Reply::Failed(Fault::Busy))
            }
        }
    }

    fn begin(&mut self, append: usize, address: Address, upload: Option<PathBuf>, cx: &mut Cx<'_>) {
        let Some(path) = upload else { return self.log.enqueue(append) };
        self.deletes.makes(address.as_bytes()[0]);
        if let Some((append, path)) = self.deletes.defer(&address, (append, path)) {
            self.objects.adopt(append, address, path, self.site, cx);
        }
    }

    fn on_adopted(&mut self, append: usize, outcome: io::Result<()>, cx: &mut Cx<'_>) {
        match outcome {
            Ok(()) => self.log.enqueue(append),
            Err(error) => {
                let append = self.log.withdraw(append);
                let text = format!("{} cannot get its place: {error}", append.address);
                self.site.note(cx, Severity::Error, &text);
                self.not_stored(append, fault_of(&error), true, cx);
            }
        }
    }

    /// An append is not in the log. If it stands for a file, that has or may have its place: it is
    /// removed before anyone is answered, or a later rebuild would show what was refused. Unless a
    /// boot may find its record, which without `cut` is not known to be gone; or it was to replace
    /// a damaged one: the object is there, and this file is no worse.
    fn not_stored(&mut self, append: Append, fault: Fault, cut: bool, cx: &mut Cx<'_>) {
        cx.room.release(self.volume, append.promised);
        match append.what {
            What::File if cut && !self.has_file(&append.address) => {
                self.deletes.take_back(append.address, append.askers, fault);
            }
            _ => answer(append, fault, cx),
        }
    }

    /// Whether the part of the log is gone that had the object.
    fn is_lost(&self, entry: &Entry) -> bool {
        let in_segment = matches!(entry.location, Location::Segment { .. });
        in_segment && self.log.is_lossy() && self.log.lacks(entry)
    }

    fn has_file(&self, address: &Address) -> bool {
        let known = self.index.get(address);
        known.is_some_and(|known| matches!(known.location, Location::File { .. }))
    }

    fn on_commit(&mut self, outcome: Outcome, cx: &mut Cx<'_>) {
        match outcome {
            Outcome::Failed { appends, fault, cut } => {
                self.compaction.on_failed(cx.now.mono_ns);
                for append in appends {
                    self.not_stored(append, fault, cut, cx);
                }
            }
            Outcome::Committed { appended, moved } => {
                self.dirty = true;
                for (append, entry) in appended {
                    cx.room.wrote(self.volume, append.promised, append.promised);
                    self.committed(append, entry, cx);
                }
                for (address, what, entry) in moved {
                    self.moved(address, what, entry);
                }
                self.count(cx);
            }
        }
    }

    fn committed(&mut self, append: Append, entry: Entry, cx: &mut Cx<'_>) {
        let Append { address, size, what, askers, .. } = append;
        match &what {
            What::Object { blocks, .. } => {
                self.tail_len += size;
                if let [block] = blocks.as_slice() {
                    keep(&address, block, askers[0].shard, cx);
                }
            }
            What::File => {}
            What::Tombstone => {
                if let Location::Segment { segment, .. } = entry.location {
                    self.index.bury(segment);
                }
                let before = self.index.get(&address);
                self.index.remove(address);
                damage::healed(&address, cx);
                self.compaction.look_again();
                // Of what is not known there may be a file and any number of groups.
                let before = before.unwrap_or(Entry {
                    location: Location::File { segment: 0 },
                    size: OBJECT_LEN_MAX,
                    sequence: 0,
                });
                return self.deletes.begin(address, &before, askers);
            }
        }
        if cx.damage.doubts(&address) && self.has_file(&address) {
            // It may be damaged. Another file has its name now, or the log has the object.
            self.files.forget(FileKey::Object(address), cx);
            if matches!(what, What::Object { .. }) {
                self.deletes.take_back(address, Vec::new(), Fault::Disk);
            }
        }
        self.index.insert(address, entry);
        damage::healed(&address, cx);
        for (nth, asker) in askers.into_iter().enumerate() {
            cx.replies.push_back((asker, Reply::Stored { new: nth == 0 }));
        }
    }

    /// A record has another place, unless it stopped counting in the same commit.
    fn moved(&mut self, address: Address, what: Moving, now: Entry) {
        match (what, now.location) {
            (Moving::Tombstone { .. }, Location::Segment { segment, .. }) => {
                self.index.bury(segment);
            }
            (Moving::Entry(before), _) if self.index.get(&address) == Some(before) => {
                self.index.insert(address, now);
            }
            _ => {}
        }
    }

    fn is_checkpoint_urgent(&self) -> bool {
        self.dirty
            && self.checkpoint_failures == 0
            && !self.index.is_frozen()
            && (self.index.changes() >= limits::MEMTABLE_CHECKPOINT
                || self.tail_len >= limits::CHECKPOINT_TAIL_LEN)
    }

    fn checkpoint(&mut self, cx: &mut Cx<'_>) {
        self.dirty = false;
        self.checkpoint_due = false;
        self.tail_len = 0;
        self.compaction.on_checkpoint_begun(&self.log);
        let job = self.index.checkpoint(self.log.reached());
        self.site.disk(cx, Tag::Checkpoint, DiskOp::Run(job));
    }

    fn on_checkpoint(&mut self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let outcome = match done {
            Ok(DiskDone::Ran(outcome)) => outcome,
            Ok(other) => unreachable!("a job brought {other:?}"),
            Err(error) => Err(error.to_string()),
        };
        if let Some(next) = self.index.written(outcome.is_ok()) {
            return self.site.disk(cx, Tag::Checkpoint, DiskOp::Run(next));
        }
        self.checkpoint_failures = if outcome.is_ok() { 0 } else { self.checkpoint_failures + 1 };
        self.look_at_checkpoints(outcome.as_ref().err(), cx);
        let books = (&self.log, &self.index, &self.deletes);
        self.compaction.on_checkpointed(outcome.is_ok(), books, self.site, cx);
        if let Err(error) = outcome {
            self.site.note(cx, Severity::Error, &format!("checkpoint: {error}"));
            self.compaction.on_failed(cx.now.mono_ns);
            // While stopping it is not tried again: the next boot reads the log instead.
            self.dirty = !self.stopping;
        }
    }

    fn count(&mut self, cx: &mut Cx<'_>) {
        let totals = self.index.totals();
        let (segments, segment_bytes) = self.log.extent();
        let counted = Counted([
            totals.objects,
            totals.object_bytes,
            totals.file_bytes,
            segments as u64,
            segment_bytes,
            self.index.live_bytes(),
            self.index.bytes(),
        ]);
        let stats = cx.stats;
        let counters = [
            &stats.objects,
            &stats.object_bytes,
            &stats.file_bytes,
            &stats.segments,
            &stats.segment_bytes,
            &stats.segment_live_bytes,
            &stats.index_bytes,
        ];
        for (counter, (now, before)) in counters.iter().zip(counted.0.iter().zip(self.counted.0)) {
            // Counters wrap, so a difference may be negative.
            counter.add(now.wrapping_sub(before));
        }
        self.counted = counted;
        self.look_at_index(cx);
    }

    /// Warns before the memory for the index is used up.
    fn look_at_index(&mut self, cx: &mut Cx<'_>) {
        let (bytes, max) = (self.index.bytes(), self.index_max);
        let is_beyond =
            |percent: u64| u128::from(bytes) * 100 > u128::from(max) * u128::from(percent);
        if is_beyond(limits::INDEX_WARN_PERCENT) && !self.index_warned {
            self.index_warned = true;
            let text = format!(
                "the index takes {bytes} bytes of its {max}: objects are refused beyond; raise \
                 storage.index_memory"
            );
            self.site.note(cx, Severity::Warn, &text);
        }
        self.index_warned &= is_beyond(limits::INDEX_CALM_PERCENT);
    }
}

/// What one partition has added to the counters of its shard, in the order of `count`.
#[derive(Clone, Copy, Debug, Default)]
struct Counted([u64; 7]);

fn answer(append: Append, fault: Fault, cx: &mut Cx<'_>) {
    for asker in append.askers {
        cx.replies.push_back((asker, Reply::Failed(fault)));
    }
}
