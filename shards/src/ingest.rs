//! An upload: bytes come in, are hashed as they come, and end as an object the store can keep.
//!
//! Up to 1 MiB stays in blocks of the arena and is handed to the object's owner with its digest.
//! What is, or grows, longer is written by this shard into a temporary record file, in the owner's
//! partition where the address is known, and the owner then gives it its place. Nobody sees either
//! before the owner has made it durable.
//!
//! A longer one whose address is known is first asked for: if it is there already, its bytes are
//! only hashed, and nothing is written.
//!
//! ```text
//!             over 1 MiB          opened           ended, all written              written
//!  Buffering ────────────► Opening ─────► Writing ───────────────────► WritingHeader ───► Syncing
//!   │  │                      ▲ it is not there                                             │
//!   │  └─ over 1 MiB and ─► Asking ─────────► AlreadyStored ─────► Confirming        synced │
//!   │     its address known          it is               ended          │ it is             │
//!   │ ended                                                             ▼                   ▼
//!   └──────► Putting ───────────────── stored ───────────────────────► Ended ◄─ stored ─ Adopting
//!
//!  from any: failed or aborted ───► Ended, the file closed and removed
//! ```
//!
//! Writes may complete in any order: the header is written when no other write is in progress, and
//! the sync follows the header. So a file whose header decodes was not necessarily whole before
//! the sync, and nothing depends on it: temporary files are swept at boot.
//!
//! This module refuses what is too long, too short, or hashes to another address, and what there
//! is no memory or no file for. It holds at most [`INGEST_BLOCKS_MAX`] blocks of an upload;
//! while the disk is behind, the peer waits. While the memory of uploads is short, each group
//! is written when it is whole, what is kept in memory goes into a file after all, and an
//! upload that has no block waits for one, but not for long: those whose peers are slowest are
//! ended for it, see [`Ingest::rate`].

use std::io;

use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, GROUP_LEN, OBJECT_LEN_MAX, SEGMENT_OBJECT_LEN_MAX},
    outboard::{Hashed, Hashing, Outboard, outboard_len},
    record::{RecordHeader, RecordPlace},
};
use ron_io::{
    arena::{Block, BlockMut, Class},
    limits::{BLOCK_LEN, DISK_OP_LEN_MAX},
    ports::{Act, DiskDone, DiskOp, OpenHow, Part, Slice, Ticket},
};
use thiserror::Error;

use crate::{
    cache::Purpose,
    flow::{Ask, Cx, Fault, Peer, Reply, StreamId, Waiter},
    limits::{
        INGEST_BLOCKS_MAX, INGEST_WRITE_GROUPS, UPLOAD_SHORT_LEN_MAX, UPLOAD_WAIT_NS,
        UPLOAD_WAITING_LEN,
    },
    machine::Machine,
    store::NotEnough,
};

mod spill;

pub(crate) use spill::discard;
use spill::{
    Spill, Tag, check_free_space, fault_of, file_len, not_opened, partition_for, remove_opened,
    tmp_path, upload_number,
};

const _: () = assert!(GROUP_LEN == BLOCK_LEN, "a group fits a block exactly");
// An upload that turns out too long to be kept is in memory as a whole when that is found out.
const _: () = assert!(SEGMENT_OBJECT_LEN_MAX as usize <= INGEST_BLOCKS_MAX * BLOCK_LEN);
const _: () = assert!(INGEST_BLOCKS_MAX.is_multiple_of(INGEST_WRITE_GROUPS));
const _: () = assert!(INGEST_WRITE_GROUPS * BLOCK_LEN <= DISK_OP_LEN_MAX);
const _: () = assert!(DISK_OP_LEN_MAX.is_multiple_of(DISK_BLOCK_LEN));

/// Why an upload came to nothing. All but `NotEnough` and `Failed` are the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IngestError {
    /// The object has, or would have, `len` bytes or more.
    #[error("object of {len} bytes is longer than {max}")]
    TooLarge { len: u64, max: u64 },
    /// `len` bytes came and no more than `announced` should.
    #[error("{len} bytes came of {announced} announced")]
    Excess { len: u64, announced: u64 },
    /// The body ended after `len` bytes.
    #[error("{len} bytes came of {announced} announced")]
    Truncated { len: u64, announced: u64 },
    /// The bytes hash to `found`, not to the address they were sent for.
    #[error("bytes hash to {found}")]
    BadDigest { found: Address },
    /// The disk has no free space for it.
    #[error("{asked} bytes are to be written, and there is room for {free}")]
    NotEnough { asked: u64, free: u64 },
    /// The node could not take it.
    #[error("upload failed: {0:?}")]
    Failed(Fault),
}

impl From<NotEnough> for IngestError {
    fn from(NotEnough { asked, free }: NotEnough) -> IngestError {
        IngestError::NotEnough { asked, free }
    }
}

impl IngestError {
    /// What the node has to do with it: nothing, for most.
    fn fault(&self) -> Fault {
        match self {
            IngestError::Failed(fault) => *fault,
            IngestError::NotEnough { .. } => Fault::Full,
            _ => Fault::Busy,
        }
    }
}

/// What a completed disk act brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The upload goes on. It may want more now.
    Going,
    /// It has ended, and everything of it was discarded.
    Failed(Fault),
}

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is durable; `new` unless it was there before.
    Done { address: Address, size: u64, new: bool },
    /// It is not kept, and everything of it was discarded.
    Failed(Fault),
    /// The upload goes on. It may want more now.
    Going,
}

/// How far an upload is; the diagram stands above. The body may end in all up to `Writing` but
/// `Confirming`.
#[derive(Debug)]
enum State {
    /// All bytes are in memory.
    Buffering,
    /// The owner is asked whether it has the object; what comes meanwhile stays in memory.
    Asking,
    /// The object is there: its bytes are hashed and dropped.
    AlreadyStored,
    /// They were those of the object. Is it there still?
    Confirming,
    Opening {
        spill: Spill,
        ticket: Ticket,
    },
    /// Data are written while they come, and at their end the outboard.
    Writing(Spill),
    WritingHeader(Spill),
    Syncing(Spill),
    Putting,
    /// The file is the owner's business now.
    Adopting,
    /// Nothing is left. Later calls are answered with the fault.
    Ended(Fault),
}

/// The name and length of a complete object.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    address: Address,
    size: u64,
}

/// A group that is coming in.
#[derive(Debug)]
struct Filling {
    block: BlockMut,
    filled: usize,
}

/// One upload.
///
/// `push` takes the body; when it took less than it was given, the session stops reading, and
/// offers the rest again once `wants_more` says so, which changes in `on_disk`, `on_reply` and
/// `on_memory` only. Then `finish`, and `on_disk` for the disk acts of the upload until `on_reply`
/// tells the outcome. After an error of any of them nothing is left of the upload. `abort` may be
/// called at any time, and must be if the upload is dropped before its outcome.
#[derive(Debug)]
pub struct Ingest {
    stream: StreamId,
    /// Who sends it.
    peer: Peer,
    expected: Option<Address>,
    announced: Option<u64>,
    /// Longest object that is taken.
    max: u64,
    /// Has seen the whole groups.
    hashing: Hashing,
    filling: Option<Filling>,
    /// Whole groups, and after the end the last one, whose write was not started.
    groups: Vec<Block>,
    /// What the end of the body showed.
    sealed: Option<Sealed>,
    /// The outboard of a sealed object, until it is written.
    outboard: Option<Outboard>,
    /// Bytes were left at the last `push`, and no disk act has completed since.
    stalled: bool,
    /// Since when it has no block and there is none for it, in `Now::mono_ns`.
    waits_since: Option<u64>,
    /// Its place among those that wait for memory: since when, as it was put there.
    queued: Option<u64>,
    /// It is its turn to begin: who comes now waits behind those who do already.
    called: bool,
    /// When the group that is coming in, or came last, began.
    group_ns: u64,
    machine: Machine<State>,
}

impl Ingest {
    /// Starts an upload by `peer`, of exactly `len` bytes if that is known, for the address
    /// `expected` if that is known.
    ///
    /// # Errors
    /// `TooLarge` if `len` is more than the node takes.
    pub fn new(
        stream: StreamId,
        peer: Peer,
        expected: Option<Address>,
        len: Option<u64>,
        cx: &mut Cx<'_>,
    ) -> Result<Ingest, IngestError> {
        let max = cx.config.object_len_max.min(OBJECT_LEN_MAX);
        match len {
            Some(len) if len > max => Err(IngestError::TooLarge { len, max }),
            announced => {
                check_free_space(expected.as_ref(), announced, cx)?;
                Ok(Ingest {
                    stream,
                    peer,
                    expected,
                    announced,
                    max,
                    hashing: Hashing::new(),
                    filling: None,
                    groups: Vec::new(),
                    sealed: None,
                    outboard: None,
                    stalled: false,
                    waits_since: None,
                    queued: None,
                    called: false,
                    group_ns: cx.now.mono_ns,
                    machine: Machine::new("ingest", State::Buffering),
                })
            }
        }
    }

    /// Takes as many bytes as there is memory for, and returns how many that was.
    ///
    /// # Errors
    /// `TooLarge`, `Excess`, or `Failed`.
    pub fn push(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Result<usize, IngestError> {
        let result = self.take_in(data, cx);
        self.settle(result, cx)
    }

    /// Whether the owner is asked if it has the object, while bytes of it may still come.
    pub fn is_asking(&self) -> bool {
        matches!(self.machine.get(), State::Asking)
    }

    /// Whose upload it is.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Whether `push` can take something.
    pub fn wants_more(&self) -> bool {
        !self.stalled && self.sealed.is_none() && !self.is_ended()
    }

    fn is_ended(&self) -> bool {
        matches!(self.machine.get(), State::Ended(_))
    }

    /// Whether bytes came that there is no memory for, and no disk is waited for.
    pub fn waits_for_memory(&self) -> bool {
        self.stalled && !self.awaits()
    }

    /// Whether that is so and no byte was taken.
    pub fn waits_to_begin(&self) -> bool {
        self.waits_for_memory() && self.size() == 0
    }

    /// Whether it holds blocks.
    pub fn holds_blocks(&self) -> bool {
        self.filling.is_some() || !self.groups.is_empty() || self.lent() > 0
    }

    /// The body has ended. The outcome comes with `on_reply`.
    ///
    /// # Errors
    /// `Truncated`, `BadDigest`, or `Failed`.
    pub fn finish(&mut self, cx: &mut Cx<'_>) -> Result<(), IngestError> {
        let result = self.seal(cx);
        self.settle(result, cx)
    }

    /// A disk act of this upload is complete.
    pub fn on_disk(&mut self, tag: u32, done: io::Result<DiskDone>, cx: &mut Cx<'_>) -> Progress {
        if self.is_ended() {
            return Progress::Going;
        }
        if let Err(error) = done {
            return self.disk_failed(&error, cx);
        }
        self.stalled = false;
        self.step(Tag::of_number(tag), cx);
        self.advance(cx);
        Progress::Going
    }

    fn disk_failed(&mut self, error: &io::Error, cx: &mut Cx<'_>) -> Progress {
        let fault = fault_of(error);
        match self.machine.take("failed") {
            State::Opening { spill, .. } => {
                spill.release(cx);
                self.machine.put(State::Ended(fault));
                not_opened(spill.file, spill.upload, error, cx);
            }
            other => {
                self.machine.keep(other);
                self.discard(fault, cx);
            }
        }
        Progress::Failed(fault)
    }

    /// It waits for memory no longer: there is some, or it has waited too long.
    pub fn on_memory(&mut self, cx: &mut Cx<'_>) -> Progress {
        self.queued = None;
        let Some(since) = self.waits_since else { return Progress::Going };
        let is_late = cx.now.mono_ns >= since.saturating_add(UPLOAD_WAIT_NS);
        if is_late && !cx.memory.admits_upload(self.is_short()) {
            cx.stats.memory_refusals.add(1);
            self.discard(Fault::Busy, cx);
            return Progress::Failed(Fault::Busy);
        }
        self.stalled = false;
        self.called = true;
        Progress::Going
    }

    /// The owner has answered.
    ///
    /// # Panics
    /// If nothing was asked, or this is no answer to it.
    pub fn on_reply(&mut self, reply: Reply, cx: &mut Cx<'_>) -> Outcome {
        let state = self.machine.take("answered");
        let (next, outcome) = self.answered(state, reply, cx);
        self.machine.put(next);
        outcome
    }

    fn answered(&mut self, state: State, reply: Reply, cx: &mut Cx<'_>) -> (State, Outcome) {
        let ended = |outcome| (State::Ended(Fault::Busy), outcome);
        match (state, self.sealed, reply) {
            (State::Asking | State::Confirming, Some(sealed), Reply::Opened { .. }) => {
                ended(Outcome::Done { address: sealed.address, size: sealed.size, new: false })
            }
            (State::Asking, None, Reply::Opened { .. }) => {
                self.groups.clear();
                self.stalled = false;
                (State::AlreadyStored, Outcome::Going)
            }
            // What is damaged there is stored anew.
            (State::Asking, _, Reply::Missing | Reply::Failed(Fault::Integrity)) => {
                self.stalled = false;
                match self.open_file(cx) {
                    Ok(opening) => (opening, Outcome::Going),
                    Err(error) => {
                        self.release_memory(cx);
                        ended(Outcome::Failed(error.fault()))
                    }
                }
            }
            // It was deleted, or found damaged, while it came again, and its bytes were dropped as
            // they came: only the client has them, and can send them once more.
            (State::Confirming, _, Reply::Missing | Reply::Failed(Fault::Integrity)) => {
                ended(Outcome::Failed(Fault::Raced))
            }
            (State::Asking | State::Confirming, _, Reply::Failed(fault)) => {
                self.release_memory(cx);
                ended(Outcome::Failed(fault))
            }
            (State::Putting | State::Adopting, Some(sealed), Reply::Stored { new }) => {
                ended(Outcome::Done { address: sealed.address, size: sealed.size, new })
            }
            (State::Putting | State::Adopting, _, Reply::Failed(fault)) => {
                ended(Outcome::Failed(fault))
            }
            (State::Ended(fault), ..) => ended(Outcome::Failed(fault)),
            (state, _, reply) => panic!("an upload in {state:?} was answered {reply:?}"),
        }
    }

    /// Gives the upload up: closes and removes its file, drops its blocks. An object that is with
    /// its owner already may still be kept.
    pub fn abort(&mut self, cx: &mut Cx<'_>) {
        self.discard(Fault::Busy, cx);
    }

    /// Bytes of memory that are kept besides the value itself and its blocks: the hashes of its
    /// groups, and the outboard they become, until that is written; and its place among those that
    /// wait.
    pub fn heap(&self) -> usize {
        let spilled = matches!(
            self.machine.get(),
            State::Opening { .. } | State::Writing(_) | State::WritingHeader(_) | State::Syncing(_)
        );
        let sealed = self.sealed.filter(|_| spilled);
        let outboard = sealed.map_or(0, |sealed| outboard_len(sealed.size));
        let waiting = if self.queued.is_some() { UPLOAD_WAITING_LEN } else { 0 };
        self.hashing.heap() + outboard + waiting + self.groups.capacity() * size_of::<Block>()
    }

    /// Bytes a second that its peer brought of the group that it has memory for, or of the last:
    /// of one that waits for its peer since before `before_ns`, in `Now::mono_ns`.
    pub fn rate(&self, before_ns: u64, now_ns: u64) -> Option<u64> {
        const SECOND_NS: u64 = 1_000_000_000;
        let keeps = self.filling.is_some() || (!self.groups.is_empty() && !self.awaits());
        if !keeps || self.stalled || self.sealed.is_some() || self.group_ns > before_ns {
            return None;
        }
        let came = self.filling.as_ref().map_or(GROUP_LEN, |filling| filling.filled) as u64;
        Some(came * SECOND_NS / now_ns.saturating_sub(self.group_ns).max(1))
    }

    fn is_short(&self) -> bool {
        self.announced.is_some_and(|len| len <= UPLOAD_SHORT_LEN_MAX)
    }

    /// Bytes taken so far.
    fn size(&self) -> u64 {
        self.hashing.size() + self.filling.as_ref().map_or(0, |filling| filling.filled as u64)
    }

    /// Leaves nothing of an upload that failed.
    fn settle<T>(
        &mut self,
        result: Result<T, IngestError>,
        cx: &mut Cx<'_>,
    ) -> Result<T, IngestError> {
        if let Err(error) = &result {
            self.discard(error.fault(), cx);
        }
        result
    }

    fn take_in(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Result<usize, IngestError> {
        self.check_receiving()?;
        let len = self.size().saturating_add(data.len() as u64);
        match self.announced {
            Some(announced) if len > announced => {
                return Err(IngestError::Excess { len, announced });
            }
            _ if len > self.max => return Err(IngestError::TooLarge { len, max: self.max }),
            _ => {}
        }
        if let State::Opening { spill, .. } | State::Writing(spill) = self.machine.get_mut() {
            spill.promise(len, self.announced, cx)?;
        }
        let mut rest = data;
        while !rest.is_empty() && self.has_filling(cx)? {
            rest = self.fill(rest)?;
        }
        if rest.len() < data.len() {
            self.waits_since = None;
        }
        self.write_groups(!rest.is_empty(), cx);
        if !rest.is_empty() {
            self.stall(cx)?;
        }
        Ok(data.len() - rest.len())
    }

    /// There is no block for bytes that came. Where the upload has some, they are written first.
    fn stall(&mut self, cx: &mut Cx<'_>) -> Result<(), IngestError> {
        if matches!(self.machine.get(), State::Buffering) && !self.groups.is_empty() {
            self.outgrow(cx)?;
        }
        self.stalled = true;
        if !self.awaits() {
            if self.waits_since.is_none() {
                cx.stats.memory_waits.add(1);
            }
            let since = *self.waits_since.get_or_insert(cx.now.mono_ns);
            if self.queued.is_none() {
                self.queued = Some(since);
                cx.memory.queue_upload(self.peer, self.stream, since, self.is_short());
            }
        }
        Ok(())
    }

    fn check_receiving(&self) -> Result<(), IngestError> {
        if let State::Ended(fault) = self.machine.get() {
            return Err(IngestError::Failed(*fault));
        }
        assert!(self.sealed.is_none(), "an upload that has ended gets bytes or another end");
        Ok(())
    }

    /// Whether there is memory for the next byte, which is known to come.
    fn has_filling(&mut self, cx: &mut Cx<'_>) -> Result<bool, IngestError> {
        if self.filling.is_some() {
            return Ok(true);
        }
        let size = self.hashing.size();
        let announced_long = self.announced.is_some_and(|len| len > SEGMENT_OBJECT_LEN_MAX);
        // The file of a long upload waits for the first group: a peer that only announces one
        // costs nothing.
        let outgrown = size >= SEGMENT_OBJECT_LEN_MAX || (announced_long && size > 0);
        if outgrown && matches!(self.machine.get(), State::Buffering) {
            self.outgrow(cx)?;
        }
        if self.groups.len() + self.lent() >= INGEST_BLOCKS_MAX {
            return Ok(false);
        }
        let rest = self.announced.map_or(u64::MAX, |announced| announced - size);
        let len = rest.min(GROUP_LEN as u64) as usize;
        let holds = !self.groups.is_empty() || self.lent() > 0;
        let block = match holds {
            true => cx.memory.alloc_for(Purpose::UploadMore, len, self.groups.last()),
            // Who began goes on: it has sent what its memory was for.
            false if size == 0 && !self.called && cx.memory.has_line(self.is_short()) => None,
            false => cx.memory.alloc_upload(self.is_short(), len),
        };
        self.called = false;
        self.filling = block.map(|block| Filling { block, filled: 0 });
        self.group_ns = cx.now.mono_ns;
        Ok(self.filling.is_some())
    }

    /// Copies what fits into the group that is coming in, and returns the rest.
    fn fill<'a>(&mut self, data: &'a [u8]) -> Result<&'a [u8], IngestError> {
        let Some(Filling { block, filled }) = &mut self.filling else { return Ok(data) };
        let (now, later) = data.split_at(data.len().min(block.len() - *filled));
        block.bytes_mut()[*filled..][..now.len()].copy_from_slice(now);
        *filled += now.len();
        if *filled == block.len() {
            self.close_group()?;
        }
        Ok(later)
    }

    /// Hashes the group that came in, in one go, while it is warm.
    fn close_group(&mut self) -> Result<(), IngestError> {
        let Some(Filling { block, filled }) = self.filling.take() else { return Ok(()) };
        let block = block.freeze(filled);
        let too_large = |_| IngestError::TooLarge { len: self.max + 1, max: self.max };
        self.hashing.update(block.bytes()).map_err(too_large)?;
        if !matches!(self.machine.get(), State::AlreadyStored) {
            self.groups.push(block);
        }
        Ok(())
    }

    fn lent(&self) -> usize {
        if let State::Writing(spill) = self.machine.get() { spill.lent } else { 0 }
    }

    /// Whether something is pending that `on_disk` or `on_reply` will get.
    fn awaits(&self) -> bool {
        match self.machine.get() {
            State::Opening { .. } | State::Asking => true,
            State::Writing(spill) => spill.writes > 0,
            _ => false,
        }
    }

    /// The object is too long for memory.
    fn outgrow(&mut self, cx: &mut Cx<'_>) -> Result<(), IngestError> {
        let next = match self.expected {
            None => self.open_file(cx)?,
            Some(address) => {
                cx.asks.push_back((self.stream, Ask::Whole { address }));
                State::Asking
            }
        };
        self.machine.go("outgrown", next);
        Ok(())
    }

    fn open_file(&self, cx: &mut Cx<'_>) -> Result<State, IngestError> {
        let partition = partition_for(self.expected.as_ref(), cx);
        let partition = partition.ok_or(IngestError::Failed(Fault::Disk))?;
        // One more than there are descriptors for would take those of reads and connections.
        let file = cx.tickets.upload_file(self.peer, cx.config.upload_files_max);
        let file = file.map_err(IngestError::Failed)?;
        // What came is set aside, and the rest in steps: who only announces much keeps no space.
        let least = self.announced.unwrap_or(u64::MAX).min(SEGMENT_OBJECT_LEN_MAX);
        let promised = file_len(self.size().max(least));
        if let Err(error) =
            cx.free_space.promise(cx.config.layout.volume_number(partition), promised)
        {
            cx.tickets.forget_file(file);
            return Err(error.into());
        }
        let upload = upload_number(cx.entropy.next_u64(), partition);
        let ticket = cx.tickets.issue(Tag::Open.waiter(self.stream));
        let path = tmp_path(upload, cx);
        cx.acts
            .push(Act::Disk { ticket, op: DiskOp::Open { file, path, how: OpenHow::CreateNew } });
        let spill = Spill { file, upload, promised, spent: 0, started: 0, lent: 0, writes: 0 };
        Ok(State::Opening { spill, ticket })
    }

    /// Starts writes of the groups that wait, as many as make long ones, or all.
    fn write_groups(&mut self, all: bool, cx: &mut Cx<'_>) {
        let State::Writing(spill) = self.machine.get_mut() else { return };
        let all = all || cx.memory.left(Purpose::UploadMore) < INGEST_BLOCKS_MAX / 2;
        while self.groups.len() >= INGEST_WRITE_GROUPS || (all && !self.groups.is_empty()) {
            let count = self.groups.len().min(INGEST_WRITE_GROUPS);
            let at = u64::from(RecordPlace::File.unit()) + spill.started * GROUP_LEN as u64;
            let blocks = self.groups.drain(..count);
            let parts = blocks.map(|block| Part::Block(Slice::whole(block))).collect();
            spill.write(at, parts, Tag::Write { groups: count }, self.stream, cx);
            spill.started += count as u64;
            spill.lent += count;
        }
    }

    /// The body has ended: names the object, then has it kept.
    fn seal(&mut self, cx: &mut Cx<'_>) -> Result<(), IngestError> {
        self.check_receiving()?;
        let len = self.size();
        if let Some(announced) = self.announced.filter(|announced| *announced != len) {
            return Err(IngestError::Truncated { len, announced });
        }
        self.shrink_filling(cx);
        self.close_group()?;
        let Hashed { address, size, outboard } = std::mem::take(&mut self.hashing).finish();
        if self.expected.is_some_and(|expected| expected != address) {
            return Err(IngestError::BadDigest { found: address });
        }
        self.sealed = Some(Sealed { address, size });
        let next = match self.machine.get() {
            State::Buffering => {
                let blocks = std::mem::take(&mut self.groups);
                cx.asks.push_back((self.stream, Ask::Put { address, size, outboard, blocks }));
                State::Putting
            }
            State::AlreadyStored => {
                cx.asks.push_back((self.stream, Ask::Whole { address }));
                State::Confirming
            }
            _ => {
                self.outboard = Some(outboard);
                self.advance(cx);
                return Ok(());
            }
        };
        self.machine.go("sealed", next);
        Ok(())
    }

    /// Moves the last group of an upload of unknown length to a piece of its size: it may stay in
    /// a cache for long. Where there is no memory for that, it stays where it is.
    fn shrink_filling(&mut self, cx: &mut Cx<'_>) {
        let Some(Filling { block, filled }) = &mut self.filling else { return };
        if Class::holding(*filled) == Class::holding(block.len()) {
            return;
        }
        if let Some(mut smaller) = cx.memory.alloc_for(Purpose::UploadFirst, *filled, None) {
            smaller.bytes_mut().copy_from_slice(&block.bytes_mut()[..*filled]);
            *block = smaller;
        }
    }

    /// Does what a completed disk act leads to.
    fn step(&mut self, tag: Tag, cx: &mut Cx<'_>) {
        let next = match (self.machine.take("done"), tag) {
            (State::Opening { spill, .. }, Tag::Open) => State::Writing(spill),
            (State::Writing(mut spill), Tag::Write { groups }) => {
                spill.writes -= 1;
                spill.lent -= groups;
                State::Writing(spill)
            }
            (State::WritingHeader(spill), Tag::Header) => {
                cx.disk(Tag::Sync.waiter(self.stream), DiskOp::Sync { file: spill.file });
                State::Syncing(spill)
            }
            (State::Syncing(spill), Tag::Sync) => self.hand_over(&spill, cx),
            (state, tag) => panic!("{tag:?} is complete in {state:?}"),
        };
        self.machine.put(next);
    }

    /// Starts the writes that can start now: after the end of the body that is all of them.
    fn advance(&mut self, cx: &mut Cx<'_>) {
        self.write_groups(self.sealed.is_some(), cx);
        let Some(sealed) = self.sealed else { return };
        match self.machine.take("advance") {
            State::Writing(spill) => {
                let next = self.write_rest(spill, sealed, cx);
                self.machine.put(next);
            }
            other => self.machine.keep(other),
        }
    }

    /// Writes what follows the groups, the header last, when no other write is in progress.
    fn write_rest(&mut self, mut spill: Spill, sealed: Sealed, cx: &mut Cx<'_>) -> State {
        let Sealed { address, size } = sealed;
        // The file's own sequence means nothing: the owner's log says when the object came.
        let header =
            RecordHeader::for_file(address, size, 0).expect("no object is taken that long");
        if let Some(outboard) = self.outboard.take() {
            let mut at = header.outboard_offset();
            for bytes in outboard.as_bytes().chunks(DISK_OP_LEN_MAX) {
                let tag = Tag::Write { groups: 0 };
                spill.write(at, vec![Part::Bytes(bytes.to_vec())], tag, self.stream, cx);
                at += bytes.len() as u64;
            }
        }
        if spill.writes > 0 {
            return State::Writing(spill);
        }
        assert_eq!(spill.lent, 0, "groups are lent and no write is in progress");
        spill.write(0, vec![Part::Bytes(header.encode().to_vec())], Tag::Header, self.stream, cx);
        State::WritingHeader(spill)
    }

    /// The record is complete and durable: closes it, and asks the owner to give it its place.
    fn hand_over(&self, spill: &Spill, cx: &mut Cx<'_>) -> State {
        let Sealed { address, size } = self.sealed.expect("only sealed records are synced");
        let path = tmp_path(spill.upload, cx);
        spill.release(cx);
        cx.close_file(spill.file);
        let ask = Ask::Adopt { address, size, path };
        cx.asks.push_back((self.stream, ask));
        State::Adopting
    }

    /// Ends the upload and leaves nothing of it.
    fn discard(&mut self, fault: Fault, cx: &mut Cx<'_>) {
        self.release_memory(cx);
        match self.machine.take("discarded") {
            State::Buffering
            | State::Asking
            | State::AlreadyStored
            | State::Confirming
            | State::Putting
            | State::Adopting => {}
            State::Opening { spill, ticket } => {
                let Spill { file, upload, .. } = spill;
                spill.release(cx);
                // There is no file to close or to remove before it was opened.
                cx.tickets.readdress(ticket, Waiter::Discard { file, upload });
            }
            State::Writing(spill) | State::WritingHeader(spill) | State::Syncing(spill) => {
                spill.release(cx);
                remove_opened(spill.file, spill.upload, cx);
            }
            State::Ended(first) => return self.machine.keep(State::Ended(first)),
        }
        self.machine.put(State::Ended(fault));
    }

    /// Gives back its memory, and its place among those that wait for some.
    fn release_memory(&mut self, cx: &mut Cx<'_>) {
        if let Some(since) = self.queued.take() {
            cx.memory.forget_upload(self.peer, self.stream, since, self.is_short());
        }
        (self.filling, self.outboard) = (None, None);
        self.groups = Vec::new();
    }
}

#[cfg(test)]
mod tests;
