//! What passes between a shard and its driver: events in, acts out.
//!
//! A shard is a synchronous state machine. The driver tells it one [`Event`] at a time with the
//! time of day, then takes [`Act`]s from its queue until none is left, performs them, and tells
//! the shard later how they went. Neither side calls the other in any other way, so the same
//! shard runs on the real ring and in a simulation.
//!
//! ```text
//!            apply(event, now)                 acts().pop()
//!  driver ───────────────────────►  shard  ───────────────────────►  driver
//! ```
//!
//! Every act that carries a [`Ticket`] is answered by exactly one event with the same ticket.

use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    arena::{Block, BlockMut},
    listing::{ListPage, ListRange},
    names::NameTable,
    stats::{Op, Proto},
    work::Work,
};

/// The time an event happened, handed in because a shard has no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Nanoseconds since the driver started; never goes back.
    pub mono_ns: u64,
    /// Milliseconds since 1970-01-01 UTC; may jump.
    pub unix_ms: u64,
}

/// A shard's number: 0 to shards − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One connection for as long as it lives. A number is used again only with another generation,
/// so an id that outlives its connection names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Position in the driver's table of connections; small and dense.
    pub slot: u32,
    /// Counts the connections that had this slot.
    pub generation: u32,
}

/// Which of the listeners a connection came in by: its position in the driver's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// The shard's name for one disk act in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// The shard's name for an open file. The shard chooses it, and may use it again after `Close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// Something that happened, as a shard gets it.
#[derive(Debug)]
pub enum Event<'a, M> {
    /// A connection was accepted. On a TLS listener nothing follows but `Secured` or `Closed`.
    Opened { conn: ConnId, listener: ListenerId, peer: SocketAddr },
    /// The TLS handshake of a connection is complete.
    Secured { conn: ConnId },
    /// Bytes of the peer, decrypted. They are gone when `apply` returns.
    Bytes { conn: ConnId, data: &'a [u8] },
    /// `len` more bytes of what the shard asked to send were handed to the kernel.
    Sent { conn: ConnId, len: usize },
    /// The peer will send no more; it may still read.
    Eof { conn: ConnId },
    /// The connection is gone, by an error, by the peer, or by `Abort`. Its id is dead.
    Closed { conn: ConnId },
    /// A disk act is complete.
    Disk { ticket: Ticket, done: io::Result<DiskDone> },
    /// Another thread left a message.
    Mail(M),
    /// The time of `wake_at` has come.
    Tick,
}

impl<M> Event<'_, M> {
    /// What applying this event is called.
    pub fn work(&self) -> Work {
        match self {
            Event::Opened { .. } => Work::Opened,
            Event::Secured { .. } => Work::Secured,
            Event::Bytes { .. } => Work::Bytes,
            Event::Sent { .. } => Work::Sent,
            Event::Eof { .. } => Work::Eof,
            Event::Closed { .. } => Work::Closed,
            Event::Disk { .. } => Work::Disk,
            Event::Mail(_) => Work::Mail,
            Event::Tick => Work::Tick,
        }
    }
}

/// The free space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What may still be written.
    pub free: u64,
    /// All of it.
    pub total: u64,
    /// It has a number of inodes, and few are free: `limits::FREE_INODES_MIN`.
    pub few_inodes: bool,
}

/// What a disk act brought, by its kind.
#[derive(Debug)]
pub enum DiskDone {
    /// `Open`: the file is there and is `len` bytes long.
    Opened { len: u64 },
    /// `Read`: a block with exactly the bytes asked for.
    Read(Block),
    /// `Scan`: the bytes asked for; fewer only at the end of the file.
    Scanned(Vec<u8>),
    /// `List`: name and length of every regular file in the folder, in no order.
    Listed(Vec<(String, u64)>),
    /// `Run`: what the job returned.
    Ran(JobOutcome),
    /// `Space`: what may still be written to the file system.
    Space(Space),
    /// Every other act.
    Done,
}

/// What an act of a known kind brought. An answer of another kind is a mistake of the driver's.
impl DiskDone {
    /// Of `Open`: the length of the file.
    #[track_caller]
    pub fn into_opened(self) -> u64 {
        match self {
            DiskDone::Opened { len } => len,
            other => other.refuse("Open"),
        }
    }

    /// Of `Read`.
    #[track_caller]
    pub fn into_read(self) -> Block {
        match self {
            DiskDone::Read(block) => block,
            other => other.refuse("Read"),
        }
    }

    /// Of `Scan`.
    #[track_caller]
    pub fn into_scanned(self) -> Vec<u8> {
        match self {
            DiskDone::Scanned(bytes) => bytes,
            other => other.refuse("Scan"),
        }
    }

    /// Of `List`.
    #[track_caller]
    pub fn into_listed(self) -> Vec<(String, u64)> {
        match self {
            DiskDone::Listed(names) => names,
            other => other.refuse("List"),
        }
    }

    /// Of `Run`.
    #[track_caller]
    pub fn into_ran(self) -> JobOutcome {
        match self {
            DiskDone::Ran(outcome) => outcome,
            other => other.refuse("Run"),
        }
    }

    /// Of `Space`.
    #[track_caller]
    pub fn into_space(self) -> Space {
        match self {
            DiskDone::Space(space) => space,
            other => other.refuse("Space"),
        }
    }

    #[track_caller]
    fn refuse(self, act: &str) -> ! {
        panic!("{act} brought {self:?}")
    }
}

/// Something for the driver to do. `B` is what bodies are sent from: see `Machine::Body`.
#[derive(Debug)]
pub enum Act<M, B = Slice> {
    /// Send bytes of the act queue's scratch, then the body. Answered by `Sent`s that add up.
    Send { conn: ConnId, head: Span, body: Option<B> },
    /// Send what is queued, then end the sending side. Bytes of the peer go on arriving.
    Finish { conn: ConnId },
    /// Drop the connection now, with all that is queued. Answered by `Closed`.
    Abort { conn: ConnId },
    /// Tell no more `Bytes` of this connection after those already taken from the kernel.
    Pause { conn: ConnId },
    /// Undo `Pause`.
    Resume { conn: ConnId },
    /// Perform a disk operation. Answered by `Disk`.
    Disk { ticket: Ticket, op: DiskOp },
    /// Leave a message with another shard. Lanes are sized so that this cannot fail: a shard
    /// bounds what it has outstanding with each other one.
    Mail { to: ShardId, mail: M },
    /// Tell the control plane, if its mailbox is not full.
    Report(Report),
    /// Take no more connections on any listener.
    StopAccepting,
    /// The shard has nothing left to do and was asked to end.
    Stopped,
}

/// One disk operation. Offsets and lengths are in bytes.
pub enum DiskOp {
    /// Open a file under a name of the shard's choosing.
    Open { file: FileId, path: PathBuf, how: OpenHow },
    /// Close an open file. What is in progress on it is finished first.
    Close { file: FileId },
    /// Read `len` bytes at `at`, any alignment, into a block; fewer is an error.
    Read { file: FileId, at: u64, len: u32, into: BlockMut },
    /// Read up to `len` bytes at `at`, any alignment. One that is not urgent yields to all else.
    Scan { file: FileId, at: u64, len: u32, urgency: Urgency },
    /// Write the parts one after another at `at`. Offset and total length are multiples of
    /// 4096; the file grows as needed.
    Write { file: FileId, at: u64, parts: Vec<Part> },
    /// Make all that was written to the file durable.
    Sync { file: FileId },
    /// Give the file this length.
    Truncate { file: FileId, len: u64 },
    /// Rename a file, then make both folders durable. Across file systems a durable copy is made.
    Rename { from: PathBuf, to: PathBuf },
    /// Remove a file; it is no error if there is none. With `durable`, so that it stays removed.
    Remove { path: PathBuf, durable: bool },
    /// Create a folder and those above it, then make them durable; it is no error if it exists.
    MakeDir { path: PathBuf },
    /// List the regular files of a folder.
    List { path: PathBuf },
    /// Run a job on a thread that may block.
    Run(Job),
    /// Ask how much free space the file system of a folder has.
    Space { path: PathBuf },
}

/// Whether somebody waits for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    Foreground,
    /// Nobody does: it is performed beside all else, as far as capacity is left.
    Background,
}

/// A job for a thread that may block.
pub type Job = Box<dyn FnOnce() -> JobOutcome + Send>;

/// What a job returns.
pub type JobOutcome = Result<(), JobError>;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file system refused a step of the job.
    #[error("{doing} {}: {source}", path.display())]
    Disk { doing: &'static str, path: PathBuf, source: io::Error },
    /// A file that the job goes on with is not as long as it was left.
    #[error("{} has {found} bytes, not {expected}", path.display())]
    Length { path: PathBuf, found: u64, expected: u64 },
    /// The thread did not say what came of the job: it panicked, or has ended.
    #[error("its outcome is not known: {0}")]
    Unanswered(io::Error),
}

impl JobError {
    /// What a step on `path` failed with, for `map_err`.
    pub fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JobError {
        move |source| JobError::Disk { doing, path: path.to_owned(), source }
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    /// It must be there; it is only read.
    Read,
    /// It must be there.
    ReadWrite,
    /// It must not be there; its folder is made durable with it.
    CreateNew,
}

/// One piece of a write, gathered into one with its neighbours.
#[derive(Clone)]
pub enum Part {
    Bytes(Vec<u8>),
    Block(Slice),
    Zeros(usize),
}

impl Part {
    /// Bytes of the part.
    pub fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::Block(slice) => slice.len(),
            Part::Zeros(len) => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Part of a block.
#[derive(Clone, Debug)]
pub struct Slice {
    pub(crate) block: Block,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) hot: bool,
    pub(crate) seal: Option<Arc<dyn Seal>>,
}

/// A proof of a block's bytes that can be made again, right before they are sent.
pub trait Seal: fmt::Debug + Send + Sync {
    /// Whether these, all bytes of the block, are still what they were.
    fn holds(&self, block: &[u8]) -> bool;
}

impl Slice {
    /// All of a block's bytes.
    pub fn whole(block: Block) -> Slice {
        let end = block.len();
        Slice::part(block, 0..end)
    }

    /// Some of a block's bytes.
    ///
    /// # Panics
    /// If the range does not lie within the block.
    pub fn part(block: Block, range: Range<usize>) -> Slice {
        let Range { start, end } = range;
        assert!(start <= end && end <= block.len(), "{start}..{end} of {block:?}");
        Slice { block, start: start as u32, end: end as u32, hot: false, seal: None }
    }

    /// Says whether the block is worth sending without a copy: memory that was ever sent so must
    /// be renewed before it is used again, so only hot blocks are.
    #[must_use]
    pub fn hot(mut self, hot: bool) -> Slice {
        self.hot = hot;
        self
    }

    /// Has the bytes proved again when they are sent.
    #[must_use]
    pub fn sealed(mut self, seal: Option<Arc<dyn Seal>>) -> Slice {
        self.seal = seal;
        self
    }

    pub fn is_hot(&self) -> bool {
        self.hot
    }

    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The block that the bytes are part of.
    pub fn block(&self) -> &Block {
        &self.block
    }

    pub fn bytes(&self) -> &[u8] {
        &self.block.bytes()[self.start as usize..self.end as usize]
    }

    /// Makes the proof again. `None` when there is none to make.
    #[cfg(feature = "ring")]
    pub(crate) fn prove(&self) -> Option<bool> {
        self.seal.as_ref().map(|seal| seal.holds(self.block.bytes()))
    }
}

/// A range of the scratch bytes of an act queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// The acts a shard wants performed, in order, and the bytes they send.
///
/// Heads are written into one scratch buffer that keeps its memory, so an answer allocates
/// nothing. The scratch is forgotten when the last act has been taken.
#[derive(Debug)]
pub struct Acts<M, B = Slice> {
    queue: VecDeque<Act<M, B>>,
    scratch: Vec<u8>,
}

impl<M, B> Default for Acts<M, B> {
    fn default() -> Self {
        Acts { queue: VecDeque::with_capacity(256), scratch: Vec::with_capacity(64 * 1024) }
    }
}

impl<M, B> Acts<M, B> {
    pub fn push(&mut self, act: Act<M, B>) {
        self.queue.push_back(act);
    }

    /// The end of the scratch: write here, then call `send` with the length it had before.
    pub fn scratch(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    /// Asks for the scratch written since it was `start` bytes long to be sent, then the body.
    pub fn send(&mut self, conn: ConnId, start: usize, body: Option<B>) {
        assert!(start <= self.scratch.len() && self.scratch.len() <= u32::MAX as usize);
        let head = Span { start: start as u32, end: self.scratch.len() as u32 };
        if !head.is_empty() || body.is_some() {
            self.queue.push_back(Act::Send { conn, head, body });
        }
    }

    /// The next act. When there is none, the scratch is forgotten.
    pub fn pop(&mut self) -> Option<Act<M, B>> {
        let act = self.queue.pop_front();
        if act.is_none() {
            self.scratch.clear();
        }
        act
    }

    /// The scratch bytes of a `Send` taken from this queue. Valid until `pop` returns `None`.
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.scratch[span.start as usize..span.end as usize]
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// A state machine that a driver can run.
pub trait Machine {
    /// What threads leave in each other's mailboxes.
    type Mail: Send + 'static;

    /// What bodies are sent from: a type of the machine's, so that it says which bytes may be one.
    type Body: Into<Slice>;

    /// Takes one event. Everything it causes is in `acts()` when this returns.
    fn apply(&mut self, event: Event<'_, Self::Mail>, now: Now);

    /// The queue of acts, for the driver to take from.
    fn acts(&mut self) -> &mut Acts<Self::Mail, Self::Body>;

    /// When the machine wants a `Tick`, in `Now::mono_ns`; `None` for never.
    fn wake_at(&self) -> Option<u64>;
}

/// What a shard tells the control plane. The queue is bounded; what does not fit is counted.
#[derive(Clone, Debug)]
pub enum Report {
    /// The shard's partitions are open and it serves.
    Ready { shard: ShardId },
    /// Something an operator should know, with the facts as text.
    Note { shard: ShardId, severity: Severity, message: String },
    /// A stored object is not what it should be: the digest, and what is wrong with it. It is said
    /// again whenever it is found again.
    Damaged { shard: ShardId, digest: [u8; 32], what: String },
    /// A damaged object is whole again, or there no more: the digest.
    Healed { shard: ShardId, digest: [u8; 32] },
    /// What a partition can do from now on, and why it cannot do more.
    Partition { shard: ShardId, partition: u16, state: PartitionState, reason: String },
    /// One step ran longer than it may (`watch::Watch::set_limit`).
    Stalled { shard: ShardId, stall: Stall },
    /// A request was answered with an error that an operator should know of.
    Failed { shard: ShardId, failure: Box<Failure> },
    /// The answer to `Order::Verify` of the same `id`, by the shard that owns the object.
    Verified { shard: ShardId, id: u64, outcome: VerifyOutcome },
    /// The answer of a shard to `Order::List` of the same `id`; `None` while it opens its
    /// partitions.
    Listed { shard: ShardId, id: u64, page: Option<Box<ListPage>> },
    /// The shard resolves paths by the names of `Stats::names_version` now.
    Names { shard: ShardId },
    /// The shard has ended, in good order or with the reason.
    Stopped { shard: ShardId, reason: Option<String> },
}

/// A request that failed, or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub proto: Proto,
    pub op: Op,
    pub status: u16,
    /// The code of the answer.
    pub reason: &'static str,
    pub peer: SocketAddr,
    /// The correlation id, as it was sent to the peer.
    pub corr_id: String,
    /// Failures of the same side since the last that was reported, which were not reported.
    pub unreported: u64,
}

/// One step that kept the event loop for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub work: Work,
    pub held_ns: u64,
    /// CPU time of the shard's thread in the last `within_ns`, which the step is part of: little
    /// means that the thread waited for a page or for the core.
    pub ran_ns: u64,
    pub within_ns: u64,
    /// Stalls of the same kind since the last report, for which there was none.
    pub unreported: u64,
}

/// What a partition can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionState {
    Serving,
    /// Objects are read, and none is taken.
    ReadOnly,
    /// Nothing of it can be read or written.
    Absent,
}

/// What reading an object again from the disk, and hashing all of it, came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    Missing,
    /// Every byte is right; there are `size`.
    Whole {
        size: u64,
    },
    Damaged {
        what: String,
    },
    /// It could not be found out: the disk failed, or the shard has too much to do.
    Failed {
        what: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warn,
    Error,
}

impl fmt::Debug for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskOp::Open { file, path, how } => write!(f, "Open({file:?}, {path:?}, {how:?})"),
            DiskOp::Close { file } => write!(f, "Close({file:?})"),
            DiskOp::Read { file, at, len, .. } => write!(f, "Read({file:?}, {at}, {len})"),
            DiskOp::Scan { file, at, len, .. } => write!(f, "Scan({file:?}, {at}, {len})"),
            DiskOp::Write { file, at, parts } => {
                let len: usize = parts.iter().map(Part::len).sum();
                write!(f, "Write({file:?}, {at}, {len})")
            }
            DiskOp::Sync { file } => write!(f, "Sync({file:?})"),
            DiskOp::Truncate { file, len } => write!(f, "Truncate({file:?}, {len})"),
            DiskOp::Rename { from, to } => write!(f, "Rename({from:?}, {to:?})"),
            DiskOp::Remove { path, .. } => write!(f, "Remove({path:?})"),
            DiskOp::MakeDir { path } => write!(f, "MakeDir({path:?})"),
            DiskOp::List { path } => write!(f, "List({path:?})"),
            DiskOp::Run(_) => write!(f, "Run"),
            DiskOp::Space { path } => write!(f, "Space({path:?})"),
        }
    }
}

/// What the control plane wants of a shard.
#[derive(Clone, Debug)]
pub enum Order {
    /// Take no more connections, finish what is in progress, sync, and stop; drop what is not
    /// finished `within_ms` milliseconds from now.
    Drain { within_ms: u64 },
    /// Begin to verify all that is stored now, without regard to the schedule.
    Scrub,
    /// Read an object again from the disk and hash all of it. Shards that do not own the object
    /// take no notice; the one that does answers with `Report::Verified`.
    Verify { id: u64, digest: [u8; 32] },
    /// List objects. Every shard answers for those that it owns with `Report::Listed`.
    List { id: u64, range: ListRange },
    /// From now on these tokens allow writes, and no others.
    WriteTokens(WriteTokens),
    /// From now on these are the names. Answered by `Report::Names`.
    Names(Arc<NameTable>),
}

/// Tokens that allow writes. They are secrets, and not shown when printed for debugging.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WriteTokens(pub Arc<[String]>);

impl fmt::Debug for WriteTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteTokens({})", self.0.len())
    }
}
