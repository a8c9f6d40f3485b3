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
    arena::{Block, Class},
    ports::{Act, DiskDone, DiskOp, Report, Severity, ShardId},
};

use super::{
    files::Files,
    index::{Entry, Index, IndexError, Position},
    objects::Objects,
    reads::{Reads, Wanting},
    segments::{Append, Log, Outcome, What},
};
use crate::{
    flow::{Ask, Asker, Cx, Fault, Reply, Verified, Waiter},
    limits,
};

/// Which partition this is, and how its acts find back to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// Among those of its shard.
    pub(super) place: u16,
    /// Among all.
    pub(super) number: u16,
}

/// What an act of a partition was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Boot,
    Log,
    Checkpoint,
    File { slot: usize },
    Outboard { slot: usize, piece: u8 },
    Read { slot: usize },
    Adopt { slot: usize },
}

impl Tag {
    fn pack(self) -> u64 {
        let (kind, piece, slot) = match self {
            Tag::Boot => (0, 0, 0),
            Tag::Log => (1, 0, 0),
            Tag::Checkpoint => (2, 0, 0),
            Tag::File { slot } => (3, 0, slot),
            Tag::Outboard { slot, piece } => (4, piece, slot),
            Tag::Read { slot } => (5, 0, slot),
            Tag::Adopt { slot } => (6, 0, slot),
        };
        let slot = u32::try_from(slot).expect("tables of a partition are far smaller");
        kind << 40 | u64::from(piece) << 32 | u64::from(slot)
    }

    pub(super) fn unpack(tag: u64) -> Tag {
        let slot = tag as u32 as usize;
        match tag >> 40 {
            0 => Tag::Boot,
            1 => Tag::Log,
            2 => Tag::Checkpoint,
            3 => Tag::File { slot },
            4 => Tag::Outboard { slot, piece: (tag >> 32) as u8 },
            5 => Tag::Read { slot },
            6 => Tag::Adopt { slot },
            other => unreachable!("tag of kind {other}"),
        }
    }
}

impl Site {
    pub(super) fn disk(self, cx: &mut Cx<'_>, tag: Tag, op: DiskOp) {
        cx.disk(Waiter::Partition { partition: self.place, tag: tag.pack() }, op);
    }

    pub(super) fn note(self, cx: &mut Cx<'_>, severity: Severity, text: &str) {
        let message = format!("partition {}: {text}", self.number);
        cx.acts.push(Act::Report(Report::Note { shard: cx.config.shard, severity, message }));
    }
}

/// What a disk error means to who asked for something.
pub(super) fn fault_of(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Full,
        _ => Fault::Disk,
    }
}

/// What a boot found, for the partition to go on from.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// The end of the log.
    pub(super) position: Position,
    /// Highest sequence of any record.
    pub(super) sequence: u64,
    /// Highest number of any segment.
    pub(super) segment_max: u32,
    /// Whether the last checkpoint is older than what was found.
    pub(super) dirty: bool,
}

/// A partition that serves.
#[derive(Debug)]
pub(super) struct Partition {
    site: Site,
    index: Index,
    log: Log,
    files: Files,
    reads: Reads,
    objects: Objects,
    /// Whether the log goes on behind the last checkpoint, and how far about.
    dirty: bool,
    tail_len: u64,
    /// Whether the last checkpoint failed; then the next waits for its time.
    checkpoint_failed: bool,
    /// What of the shard's counters is this partition's: objects and their bytes.
    counted: (u64, u64),
    stopping: bool,
    closed: bool,
}

impl Partition {
    pub(super) fn new(
        site: Site,
        recovered: Recovered,
        idle_files_max: usize,
        cx: &mut Cx<'_>,
    ) -> Self {
        let Recovered { index, position, sequence, segment_max, dirty } = recovered;
        let mut partition = Partition {
            site,
            index,
            log: Log::new(position, segment_max, sequence),
            files: Files::new(idle_files_max),
            reads: Reads::new(),
            objects: Objects::new(),
            dirty,
            tail_len: 0,
            checkpoint_failed: false,
            counted: (0, 0),
            stopping: false,
            closed: false,
        };
        partition.count(cx);
        partition
    }

    pub(super) fn on_ask(&mut self, asker: Asker, ask: Ask, cx: &mut Cx<'_>) {
        let reply = match ask {
            _ if self.stopping => Some(Reply::Failed(Fault::Busy)),
            Ask::Open { address, first } => self.open(asker, address, first, cx),
            Ask::Group { address, index } => self.group(asker, address, index, cx),
            Ask::Put { address, size, outboard, blocks } => {
                let len: usize = blocks.iter().map(Block::len).sum();
                assert!(len as u64 == size && outboard.size() == size, "{len} bytes of {size}");
                assert!(size <= SEGMENT_OBJECT_LEN_MAX, "{size} bytes do not go into a segment");
                self.put(asker, address, size, What::Object { outboard, blocks }, None, cx)
            }
            Ask::Delete { .. } => Some(Reply::Failed(Fault::Busy)),
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
            Tag::Log => {
                if let Some(outcome) = self.log.on_disk(done, site, files, cx) {
                    self.on_commit(outcome, cx);
                }
            }
            Tag::Checkpoint => self.on_checkpoint(done, cx),
            Tag::File { slot } => {
                let arrival = files.on_opened(slot, done, cx);
                self.reads.on_opened(arrival, files, site, cx);
            }
            Tag::Outboard { slot, piece } => {
                self.reads.on_scanned((slot, piece), done, files, site, cx);
            }
            Tag::Read { slot } => self.reads.on_read(slot, done, files, site, cx),
            Tag::Adopt { slot } => {
                if let Some((append, outcome)) = self.objects.on_disk(slot, done, site, cx) {
                    self.on_adopted(append, outcome, cx);
                }
            }
        }
    }

    /// Finishes what is under way, makes a last checkpoint and closes all files.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether `settle` could do something.
    pub(super) fn is_restless(&self) -> bool {
        self.log.wants_commit()
            || self.reads.is_waiting()
            || self.is_checkpoint_urgent()
            || (self.stopping && !self.closed)
    }

    /// Whether there is something for a checkpoint to take up.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Starts what can be started. With `checkpoint`, it is time for one.
    pub(super) fn settle(&mut self, checkpoint: bool, cx: &mut Cx<'_>) {
        for append in self.log.refused() {
            answer(append, Fault::Disk, cx);
        }
        if self.log.wants_commit() && self.index.changes() < limits::MEMTABLE_MAX {
            self.log.commit(self.site, &mut self.files, cx);
        }
        self.reads.retry(&mut self.files, self.site, cx);
        let quiet = self.log.is_quiet() && self.reads.is_quiet() && self.objects.is_quiet();
        let last = self.stopping && quiet;
        if self.dirty
            && !self.index.is_frozen()
            && (checkpoint || last || self.is_checkpoint_urgent())
        {
            self.checkpoint(cx);
        }
        if last && !self.dirty && !self.index.is_frozen() && !self.closed {
            self.log.end(&mut self.files);
            self.files.close_all(cx);
            self.closed = true;
        }
    }

    fn open(
        &mut self,
        asker: Asker,
        address: Address,
        first: Option<u64>,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        let entry = match self.index.get(&address) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Some(Reply::Missing),
            Err(error) => return Some(self.index_failed(&error, cx)),
        };
        match first {
            Some(byte) if byte < entry.size => {
                cx.stats.cache_misses.add(1);
                let wanting = Wanting { asker, open: true };
                let group = (address, byte / GROUP_LEN as u64, entry);
                self.reads.want(group, wanting, &mut self.files, self.site, cx);
                None
            }
            _ => Some(Reply::Opened { size: entry.size, first: None }),
        }
    }

    fn group(
        &mut self,
        asker: Asker,
        address: Address,
        index: u64,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        match self.index.get(&address) {
            Ok(Some(entry)) if index < group_count(entry.size) => {
                cx.stats.cache_misses.add(1);
                let wanting = Wanting { asker, open: false };
                let group = (address, index, entry);
                self.reads.want(group, wanting, &mut self.files, self.site, cx);
                None
            }
            Ok(_) => Some(Reply::Missing),
            Err(error) => Some(self.index_failed(&error, cx)),
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
                Ok(Some(_)) => Some(Reply::Stored { new: false }),
                Err(error) => Some(self.index_failed(&error, cx)),
                Ok(None) => {
                    let append = Append { address, size, what, askers: vec![asker] };
                    match self.log.take_up(append) {
                        Some(append) => {
                            self.begin(append, address, upload, cx);
                            return None;
                        }
                        None => Some(Reply::Failed(Fault::Busy)),
                    }
                }
            }
        };
        if let Some(path) = upload {
            cx.disk(Waiter::Nobody, DiskOp::Remove { path, durable: false });
        }
        reply
    }

    fn begin(&mut self, append: usize, address: Address, upload: Option<PathBuf>, cx: &mut Cx<'_>) {
        match upload {
            Some(path) => self.objects.adopt(append, address, path, self.site, cx),
            None => self.log.enqueue(append),
        }
    }

    fn on_adopted(&mut self, append: usize, outcome: io::Result<()>, cx: &mut Cx<'_>) {
        match outcome {
            Ok(()) => self.log.enqueue(append),
            Err(error) => {
                let append = self.log.let_go(append);
                let text = format!("{} cannot get its place: {error}", append.address);
                self.site.note(cx, Severity::Error, &text);
                answer(append, fault_of(&error), cx);
            }
        }
    }

    fn on_commit(&mut self, outcome: Outcome, cx: &mut Cx<'_>) {
        match outcome {
            Outcome::Failed(appends, fault) => {
                for append in appends {
                    answer(append, fault, cx);
                }
            }
            Outcome::Committed(committed) => {
                self.dirty = true;
                for (append, entry) in committed {
                    self.committed(append, entry, cx);
                }
                self.count(cx);
            }
        }
    }

    fn committed(&mut self, append: Append, entry: Entry, cx: &mut Cx<'_>) {
        let Append { address, size, what, askers } = append;
        if let What::Object { blocks, .. } = &what {
            self.tail_len += size;
            if let [block] = blocks.as_slice() {
                keep(&address, block, askers[0].shard, cx);
            }
        }
        self.index.insert(address, entry);
        for (nth, asker) in askers.into_iter().enumerate() {
            cx.replies.push_back((asker, Reply::Stored { new: nth == 0 }));
        }
    }

    fn is_checkpoint_urgent(&self) -> bool {
        self.dirty
            && !self.checkpoint_failed
            && !self.index.is_frozen()
            && (self.index.changes() >= limits::MEMTABLE_CHECKPOINT
                || self.tail_len >= limits::CHECKPOINT_TAIL_LEN)
    }

    fn checkpoint(&mut self, cx: &mut Cx<'_>) {
        self.dirty = false;
        self.tail_len = 0;
        let job = self.index.checkpoint(Some(self.log.reached()));
        self.site.disk(cx, Tag::Checkpoint, DiskOp::Run(job));
    }

    fn on_checkpoint(&mut self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        let outcome = match done {
            Ok(DiskDone::Ran(outcome)) => outcome,
            Ok(other) => unreachable!("a job brought {other:?}"),
            Err(error) => Err(error.to_string()),
        };
        self.index.checkpointed(outcome.is_ok());
        self.checkpoint_failed = outcome.is_err();
        if let Err(error) = outcome {
            self.site.note(cx, Severity::Error, &format!("checkpoint: {error}"));
            // While stopping it is not tried again: the next boot reads the log instead.
            self.dirty = !self.stopping;
        }
    }

    fn index_failed(&self, error: &IndexError, cx: &mut Cx<'_>) -> Reply {
        self.site.note(cx, Severity::Error, &error.to_string());
        Reply::Failed(Fault::Disk)
    }

    fn count(&mut self, cx: &mut Cx<'_>) {
        let (objects, bytes) = self.index.objects();
        // Counters wrap, so a difference may be negative.
        cx.stats.objects.add(objects.wrapping_sub(self.counted.0));
        cx.stats.object_bytes.add(bytes.wrapping_sub(self.counted.1));
        self.counted = (objects, bytes);
    }
}

fn answer(append: Append, fault: Fault, cx: &mut Cx<'_>) {
    for asker in append.askers {
        cx.replies.push_back((asker, Reply::Failed(fault)));
    }
}

/// Keeps the only group of an object in the cache: it was hashed as it came in. A block of another
/// shard's arena, or one larger than the group needs, is copied: the cache could not evict the one
/// and would waste the other.
fn keep(address: &Address, block: &Block, from: ShardId, cx: &mut Cx<'_>) {
    let len = block.len();
    if len == 0 {
        return;
    }
    let own = from == cx.config.shard && block.footprint() == Class::holding(len).bytes();
    let kept = if own {
        Some(block.clone())
    } else {
        cx.memory.alloc(len).map(|mut copy| {
            copy.bytes_mut().copy_from_slice(block.bytes());
            copy.freeze(len)
        })
    };
    if let Some(block) = kept {
        cx.memory.insert(address, 0, len as u64, block);
    }
}

/// The answer to a question whose group is in the cache.
pub(super) fn cached_answer(ask: &Ask, cx: &mut Cx<'_>) -> Option<Reply> {
    match ask {
        Ask::Open { address, first: Some(byte) } => {
            let index = byte / GROUP_LEN as u64;
            let cached = cx.memory.get(address, index)?;
            let within = *byte < cached.size;
            let first = within.then(|| Verified::vouch(index, cached.block, cached.hot));
            Some(Reply::Opened { size: cached.size, first })
        }
        Ask::Group { address, index } => {
            let cached = cx.memory.get(address, *index)?;
            Some(Reply::Group(Verified::vouch(*index, cached.block, cached.hot)))
        }
        Ask::Open { first: None, .. }
        | Ask::Put { .. }
        | Ask::Adopt { .. }
        | Ask::Delete { .. } => None,
    }
}
