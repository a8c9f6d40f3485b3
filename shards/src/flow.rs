//! What flows between sessions and the store, wherever the store's shard is.
//!
//! A session serves one connection. It asks questions about objects with [`Ask`]s, each in the
//! name of one of its streams, and gets the [`Reply`]s. The shard routes a question to the
//! owner of the object: into its own store, or over the mesh to another shard. A session cannot
//! tell the difference.
//!
//! ```text
//!  session ── Ask ──► shard ──► own store ─────────────┐
//!     ▲                 └─ mail ──► other's store ─┐   │
//!     └──────────────── Reply ◄────────────────────┴───┘
//! ```
//!
//! Each ask is answered by exactly one reply, unless the connection ends first.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
};

use ron_codec::{address::Address, outboard::Outboard};
use ron_io::{
    arena::Block,
    ports::{Act, Acts, DiskOp, FileId, Now, Order, ShardId, Ticket},
    process::is_out_of_files,
    splitmix::SplitMix64,
    stats::Stats,
};

pub use crate::{
    asker::{Asker, Peer, Place, StreamId},
    cache::{Body, Verified},
};
use crate::{
    cache::Memory,
    config::Config,
    names::Names,
    resolved::Resolved,
    store::{Damage, FreeSpace},
};

/// A question about an object, put to its owner.
#[derive(Debug)]
pub enum Ask {
    /// Is it there, and how long is it? With `first`, also the group that holds this byte, so
    /// that a small object takes one question. Answered by `Opened` or `Missing`.
    Open { address: Address, first: Option<u64> },
    /// Is it there, with nothing of it known to be damaged, so that its bytes need not be kept
    /// again? Answered by `Opened` or `Missing`.
    Whole { address: Address },
    /// One group of an object that was opened. Answered by `Group`. With `begins`, nothing of the
    /// object was given out before; with `ahead`, the answer needs others before it.
    Group { address: Address, index: u64, begins: bool, ahead: bool },
    /// Keep these bytes; they hash to the address. Answered by `Stored` once durable.
    Put { address: Address, size: u64, outboard: Outboard, blocks: Vec<Block> },
    /// Keep this file: a complete, durable record of the object. The owner, which takes
    /// or refuses the question, renames or removes the file: the upload may be gone when the answer
    /// comes. Answered by `Stored` once durable.
    Adopt { address: Address, size: u64, path: PathBuf },
    /// Forget an object. Answered by `Deleted` once that is durable, or `Missing`.
    Delete { address: Address },
    /// Nobody waits for this group any more, which was asked for before. It has no answer, and
    /// does not leave its shard: another one answers in any case before long.
    Cancel { address: Address, index: u64 },
}

impl Ask {
    /// The object the question is about, which decides who answers.
    pub fn address(&self) -> &Address {
        match self {
            Ask::Open { address, .. }
            | Ask::Group { address, .. }
            | Ask::Put { address, .. }
            | Ask::Adopt { address, .. }
            | Ask::Cancel { address, .. }
            | Ask::Whole { address }
            | Ask::Delete { address } => address,
        }
    }

    /// The place it takes when it is put to another shard.
    pub fn place(&self) -> Place {
        match self {
            Ask::Open { first: Some(_), .. } | Ask::Group { .. } => Place::Read,
            _ => Place::Other,
        }
    }

    /// Answers that nothing was done about it, and leaves nothing of it.
    pub fn refuse(self, asker: Asker, fault: Fault, cx: &mut Cx<'_>) {
        let mut reply = Reply::Failed(fault);
        match self {
            Ask::Cancel { .. } => return,
            Ask::Adopt { path, .. } => {
                cx.disk(Waiter::Nobody, DiskOp::Remove { path, durable: false });
            }
            // Not now: an answer that has something else to send asks again.
            Ask::Group { index, ahead, .. } if fault == Fault::Busy => {
                reply = Reply::Late { index, ahead };
            }
            _ => {}
        }
        cx.replies.push_back((asker, reply));
    }
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Reply {
    /// The object is there. `first` is the group asked for, unless the byte lies behind the end
    /// or none was asked for.
    Opened { size: u64, first: Option<Verified> },
    /// The object is not there.
    Missing,
    /// A group.
    Group(Verified),
    /// A group that was asked for waits for memory, and the answer is still to come. A download
    /// that keeps groups behind it drops them, because they may be what it waits for.
    MemoryPressure,
    /// A group waited too long for memory, or found no place to wait in. It may be one that the
    /// download dropped meanwhile. With `ahead` it was asked for ahead of its turn and found no
    /// place: when it is its turn, it is asked for again.
    Late { index: u64, ahead: bool },
    /// The object is durable; `new` unless it was there before.
    Stored { new: bool },
    /// The object was there, and durably is no more.
    Deleted,
    /// It could not be done.
    Failed(Fault),
}

/// Why the store could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Stored bytes did not hash to what they should.
    Integrity,
    /// The disk answered with an error.
    Disk,
    /// The disk has no free space.
    Full,
    /// The volume that the object lies on, or would, cannot be used.
    Absent,
    /// A queue or the memory for blocks is full; it will pass.
    Busy,
    /// The peer has as many uploads with files as are left for all.
    PeerUploads,
    /// The object was there, was not kept again for that reason, and was deleted meanwhile.
    Raced,
}

impl Fault {
    /// What an error of the disk means to the asker.
    pub(crate) fn of_disk(error: &io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Fault::Full,
            _ if is_out_of_files(error) => Fault::Busy,
            _ => Fault::Disk,
        }
    }
}

/// What lies in a shard's mailboxes.
#[derive(Debug)]
pub enum Mail {
    Ask {
        from: Asker,
        ask: Ask,
    },
    Reply {
        from: ShardId,
        to: StreamId,
        /// The place that the question had.
        place: Place,
        reply: Reply,
    },
    /// Reads of shard `from` wait for memory that readers of this shard hold. Answered by
    /// `Relieved`, after those were cut that take nothing.
    Relieve {
        from: ShardId,
    },
    Relieved {
        from: ShardId,
    },
    /// Shard `from` has no connections left and will ask nothing more.
    Drained {
        from: ShardId,
    },
    Order(Order),
}

/// Who waits for a disk act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// A partition of this shard, by its place among the shard's; `tag` is the partition's own.
    Partition { partition: u16, tag: u64 },
    /// A stream's upload; `tag` is the upload's own.
    Stream { stream: StreamId, tag: u32 },
    /// Nobody any more: the `upload`th upload of this shard was given up while its file was being
    /// opened. What was opened goes to `ingest::discard`.
    Discard { file: FileId, upload: u64 },
    /// The store, which asked for the free space of a volume.
    FreeSpace { volume: u16 },
    /// Nobody, but the file counts among those that are open until it is closed.
    Closing(Opened),
    /// Nobody: the outcome does not matter.
    Nobody,
}

/// What a file is open for, as far as there may be only so many. Each kind has a part of the
/// descriptors of its own, so that none takes those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUse {
    /// Reads of objects.
    Read,
    /// An upload that is being written.
    Upload,
    /// The log and its care, which have few at a time.
    Log,
}

/// What a file is open for, and for which peer if it is an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    usage: FileUse,
    peer: Option<Peer>,
}

/// Names for what the driver has in progress for this shard: disk acts and open files.
#[derive(Debug, Default)]
pub struct Tickets {
    waiting: slab::Slab<Waiter>,
    files: slab::Slab<Opened>,
    /// Files that are being opened, open, or being closed, by use.
    open: [usize; 3],
    /// Those of uploads, by the peer that sends them.
    uploads: HashMap<Peer, usize>,
    /// Those of them that are being closed.
    closing: usize,
    /// Whether a read found no descriptor left since this was asked last.
    wants_file: bool,
}

impl Tickets {
    pub fn issue(&mut self, waiter: Waiter) -> Ticket {
        Ticket(self.waiting.insert(waiter) as u64)
    }

    /// Who waits for this ticket. It is used up.
    ///
    /// # Panics
    /// If the ticket is not in use: the driver answered twice.
    pub fn redeem(&mut self, ticket: Ticket) -> Waiter {
        let waiter = self.waiting.remove(ticket.0 as usize);
        if let Waiter::Closing(opened) = waiter {
            self.uncount(opened);
            self.closing -= 1;
            return Waiter::Nobody;
        }
        waiter
    }

    /// Names another waiter for a ticket that is in use.
    ///
    /// # Panics
    /// If it is not.
    pub fn readdress(&mut self, ticket: Ticket, waiter: Waiter) {
        self.waiting[ticket.0 as usize] = waiter;
    }

    pub fn in_progress(&self) -> usize {
        self.waiting.len()
    }

    /// A name for a file about to be opened, for the log.
    pub fn file(&mut self) -> FileId {
        self.name_file(Opened { usage: FileUse::Log, peer: None })
    }

    /// A name for a file about to be opened for a read, unless `max` are open for that.
    pub fn read_file(&mut self, max: usize) -> Option<FileId> {
        let has_capacity = self.open_files(FileUse::Read) < max;
        self.wants_file |= !has_capacity;
        has_capacity.then(|| self.name_file(Opened { usage: FileUse::Read, peer: None }))
    }

    /// A name for a file about to be opened for an upload of this peer, if it has fewer than are
    /// left of `max`. So one peer has half of them at most, and some are left for newcomers.
    ///
    /// # Errors
    /// `Busy` when none is left, `PeerUploads` when the peer has too many.
    pub fn upload_file(&mut self, peer: Peer, max: usize) -> Result<FileId, Fault> {
        let left = max.saturating_sub(self.open_files(FileUse::Upload));
        let has = self.uploads.get(&peer).copied().unwrap_or_default();
        let opened = Opened { usage: FileUse::Upload, peer: Some(peer) };
        match (left, has < left) {
            (0, _) => Err(Fault::Busy),
            (_, false) => Err(Fault::PeerUploads),
            (_, true) => Ok(self.name_file(opened)),
        }
    }

    fn name_file(&mut self, opened: Opened) -> FileId {
        self.open[opened.usage as usize] += 1;
        if let Some(peer) = opened.peer {
            *self.uploads.entry(peer).or_default() += 1;
        }
        FileId(self.files.insert(opened) as u32)
    }

    /// The file could not be opened; its name may be given again.
    pub fn forget_file(&mut self, file: FileId) {
        let opened = self.files.remove(file.0 as usize);
        self.uncount(opened);
    }

    fn uncount(&mut self, opened: Opened) {
        self.open[opened.usage as usize] -= 1;
        let Some(peer) = opened.peer else { return };
        let has = self.uploads.get_mut(&peer).expect("the files of each peer are counted");
        *has -= 1;
        if *has == 0 {
            self.uploads.remove(&peer);
        }
    }

    /// Files that are being opened, open, or being closed for this use.
    pub fn open_files(&self, usage: FileUse) -> usize {
        self.open[usage as usize]
    }

    /// Whether a read has found no descriptor left since this was asked last, and none is about to
    /// come free.
    pub fn take_wants_file(&mut self) -> bool {
        std::mem::take(&mut self.wants_file) && self.closing == 0
    }
}

/// What every part of a shard works with while it handles one event.
#[derive(Debug)]
pub struct Cx<'a> {
    pub now: Now,
    pub config: &'a Config,
    /// Of this moment: other names come between two events.
    pub names: &'a Names,
    pub stats: &'a Stats,
    pub acts: &'a mut Acts<Mail, Body>,
    /// Questions of sessions, routed when the session is done.
    pub asks: &'a mut VecDeque<(StreamId, Ask)>,
    /// Answers of this shard's store, delivered when the store is done.
    pub replies: &'a mut VecDeque<(Asker, Reply)>,
    pub memory: &'a mut Memory,
    pub tickets: &'a mut Tickets,
    pub entropy: &'a mut SplitMix64,
    pub free_space: &'a mut FreeSpace,
    pub damage: &'a mut Damage,
    pub resolved: &'a mut Resolved,
}

impl Cx<'_> {
    /// Whether connections buffer more than half of what they may together: from then on each of
    /// them is given little ahead of what its peer takes.
    #[inline]
    pub fn is_tight(&self) -> bool {
        self.stats.connection_buffer_bytes.get() as usize > self.config.connection_buffers / 2
    }

    /// Starts a disk act; its outcome goes to `waiter`.
    pub fn disk(&mut self, waiter: Waiter, op: DiskOp) {
        let ticket = self.tickets.issue(waiter);
        self.acts.push(Act::Disk { ticket, op });
    }

    /// Closes a file and forgets its name. What is in progress on it is finished first.
    pub fn close_file(&mut self, file: FileId) {
        let opened = self.tickets.files.remove(file.0 as usize);
        self.tickets.closing += 1;
        self.disk(Waiter::Closing(opened), DiskOp::Close { file });
    }
}
