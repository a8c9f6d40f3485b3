//! Disk operations.
//!
//! The bytes of open files move on the ring that the sockets use: past the page cache (O_DIRECT),
//! to and from blocks without a copy where they lie on pages. What only the file system's tables
//! know (names, folders, lengths) is done by threads that may block. So is a read that nobody waits
//! for: few of them are in progress at once, so that some thread is always there for the rest, and
//! the disk serves them last. So is a file that is to be renamed to another file system, which
//! means a copy of it all: one at a time. Outcomes are delivered to the shard a turn at a time.
//!
//! ```text
//!   perform ──► waiting ──► ring: Read, Scan, Write, Sync ──────────► outcomes
//!      │           └──────► threads: Open, Close, Truncate, names ─►     ▲
//!      ├──► background ───────► threads: Scan that is not urgent ────────────┤
//!      └──► carrying ─────► threads: Rename to another file system ──────┘
//! ```
//!
//! On a file system without direct I/O the same operations go through the page cache, and the
//! control plane is informed, once for each device. This module refuses operations on files that
//! are not open.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use io_uring::squeue;
use slab::Slab;

use crate::{
    limits::{BACKGROUND_SCANS_MAX, CARRIES_MAX, DISK_OP_LEN_MAX, DISK_OPS_MAX, PAGE_LEN},
    ports::{DiskDone, DiskOp, FileId, OpenHow, Ticket, Urgency},
};

mod buffer;
mod names;
mod open;
mod transfer;
mod workers;

use buffer::{Buffer, Spares};
pub(super) use open::Access;
use open::{OpenFile, Opened};
use transfer::Transfer;

/// The outcome of one operation.
pub(super) type Outcome = (Ticket, io::Result<DiskDone>);

/// What a thread is asked to do.
#[derive(Debug)]
pub(super) struct About {
    ticket: Ticket,
    load: Load,
}

/// How long a thread may be busy with what it is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Short,
    /// A background read.
    Idle,
    /// A copy of a file, to another file system.
    Copy,
}

/// What a thread has done.
pub(super) enum Done {
    Outcome(DiskDone),
    Opened {
        id: FileId,
        path: PathBuf,
        opened: Opened,
    },
    /// The new name of a file is on another file system.
    Crosses {
        from: PathBuf,
        to: PathBuf,
    },
}

/// The threads of a disk.
pub(super) type Workers = workers::Workers<About, Done>;

/// The disk side of a driver.
pub(super) struct Disk {
    workers: Workers,
    access: Access,
    files: HashMap<FileId, Arc<OpenFile>>,
    /// Outcomes that need no thread to come.
    outcomes: VecDeque<Outcome>,
    /// Operations that wait because `DISK_OPS_MAX` are in progress.
    waiting: VecDeque<(Ticket, DiskOp)>,
    /// Background reads, until capacity is left for them.
    background: VecDeque<Background>,
    /// Files to be copied to another file system: from where to where.
    carrying: VecDeque<(Ticket, PathBuf, PathBuf)>,
    /// What the ring works on, by the number it is submitted with.
    transfers: Slab<Transfer>,
    /// What is to be submitted: numbers of transfers.
    submit: VecDeque<u32>,
    /// What threads work on; how much of it is background work; and how many of it are copies.
    jobs: usize,
    idle_jobs: usize,
    carries: usize,
    /// Closed files on which something is still in progress.
    closing: Vec<(Ticket, Arc<OpenFile>)>,
    spares: Spares,
    /// Devices whose files turned out to have no direct I/O.
    buffered: HashSet<u64>,
    /// What the operator should know.
    notes: VecDeque<String>,
}

/// A background read.
struct Background {
    ticket: Ticket,
    file: Arc<OpenFile>,
    at: u64,
    len: usize,
}

impl Disk {
    pub(super) fn new(workers: Workers, access: Access) -> Disk {
        Disk {
            workers,
            access,
            files: HashMap::new(),
            outcomes: VecDeque::new(),
            waiting: VecDeque::new(),
            background: VecDeque::new(),
            carrying: VecDeque::new(),
            transfers: Slab::new(),
            submit: VecDeque::new(),
            jobs: 0,
            idle_jobs: 0,
            carries: 0,
            closing: Vec::new(),
            spares: Spares::default(),
            buffered: HashSet::new(),
            notes: VecDeque::new(),
        }
    }

    /// Frees the buffers that are kept for later.
    pub(super) fn release_spares(&mut self) {
        self.spares = Spares::default();
    }

    /// Takes an operation, to be started now or when the queue has space.
    pub(super) fn perform(&mut self, ticket: Ticket, op: DiskOp) {
        self.waiting.push_back((ticket, op));
        self.start();
    }

    /// The next transfer for the ring, and the number to report when it has completed.
    pub(super) fn submission(&mut self) -> Option<(u32, squeue::Entry)> {
        let number = self.submit.pop_front()?;
        Some((number, self.transfers[number as usize].entry()))
    }

    /// A transfer has completed with this result of the kernel.
    pub(super) fn landed(&mut self, number: u32, result: i32) {
        let transfer = self.transfers.remove(number as usize);
        let ticket = transfer.ticket;
        let done = transfer.finish(result, &mut self.spares);
        self.outcomes.push_back((ticket, done));
    }

    /// The next outcome, if there is one.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let mut outcome = self.outcomes.pop_front();
        while outcome.is_none()
            && let Some((about, result)) = self.workers.result()
        {
            outcome = self.worked(&about, result);
            self.start();
        }
        self.start();
        outcome
    }

    /// A thread has done something. `None` if that is not all of it.
    fn worked(&mut self, about: &About, result: io::Result<Done>) -> Option<Outcome> {
        let About { ticket, load } = *about;
        self.jobs -= 1;
        self.idle_jobs -= usize::from(load == Load::Idle);
        self.carries -= usize::from(load == Load::Copy);
        let done = match result {
            Err(error) => Err(error),
            Ok(Done::Outcome(done)) => Ok(done),
            Ok(Done::Crosses { from, to }) => {
                self.carrying.push_back((ticket, from, to));
                return None;
            }
            Ok(Done::Opened { id, path, opened }) => {
                if !opened.direct && self.buffered.insert(opened.device) {
                    self.notes.push_back(no_direct_io(&path));
                }
                let before = self.files.insert(id, Arc::new(opened.file));
                assert!(before.is_none(), "{id:?} names two open files");
                Ok(DiskDone::Opened { len: opened.len })
            }
        };
        Some((ticket, done))
    }

    /// The next thing the operator should know.
    pub(super) fn note(&mut self) -> Option<String> {
        self.notes.pop_front()
    }

    /// Operations on the ring, with other threads, and waiting; and background reads that
    /// wait.
    pub(super) fn depths(&self) -> [usize; 4] {
        [self.transfers.len(), self.jobs, self.waiting.len(), self.background.len()]
    }

    /// Whether there is something to tell. While the loop sleeps, threads use the waker.
    pub(super) fn has_outcome(&self) -> bool {
        !self.outcomes.is_empty() || self.workers.has_result()
    }

    fn start(&mut self) {
        self.close_unused();
        while self.carries < CARRIES_MAX {
            let Some((ticket, from, to)) = self.carrying.pop_front() else { break };
            let carry = move || names::carry(&from, &to).map(Done::Outcome);
            self.give(About { ticket, load: Load::Copy }, carry);
        }
        while self.transfers.len() + self.jobs < DISK_OPS_MAX {
            let Some((ticket, op)) = self.waiting.pop_front() else { break };
            self.start_one(ticket, op);
        }
        while self.idle_jobs < BACKGROUND_SCANS_MAX {
            let Some(background) = self.background.pop_front() else { break };
            self.scan_in_background(background);
        }
    }

    /// Files are looked up now, so that an operation and a later `Close` keep their order.
    fn start_one(&mut self, ticket: Ticket, op: DiskOp) {
        let file = match file_of(&op).map(|id| self.file(id)) {
            Some(Err(error)) => {
                return self.outcomes.push_back((ticket, Err(error)));
            }
            Some(Ok(file)) => Some(file),
            None => None,
        };
        match (op, file) {
            (DiskOp::Read { at, len, into, .. }, Some(file)) => {
                self.transfer(|spares| Transfer::read(ticket, file, (at, len), into, spares));
            }
            (DiskOp::Scan { at, len, urgency: Urgency::Foreground, .. }, Some(file)) => {
                self.transfer(|spares| Transfer::scan(ticket, file, (at, len), spares));
            }
            (DiskOp::Scan { at, len, urgency: Urgency::Background, .. }, Some(file)) => {
                assert!(len as usize <= DISK_OP_LEN_MAX);
                self.background.push_back(Background { ticket, file, at, len: len as usize });
            }
            (DiskOp::Write { at, parts, .. }, Some(file)) => {
                self.transfer(|spares| Transfer::write(ticket, file, at, parts, spares));
            }
            (DiskOp::Sync { .. }, Some(file)) => self.transfer(|_| Transfer::sync(ticket, file)),
            (DiskOp::Truncate { len, .. }, Some(file)) => {
                self.block(ticket, move || file.set_len(len).map(|()| DiskDone::Done));
            }
            (DiskOp::Close { file: id }, Some(file)) => {
                self.files.remove(&id);
                self.closing.push((ticket, file));
                self.close_unused();
            }
            (DiskOp::Open { file, path, how }, _) => self.open(ticket, file, path, how),
            (DiskOp::Rename { from, to }, _) => self.rename(ticket, from, to),
            (op, _) => self.block(ticket, move || names::perform(op)),
        }
    }

    fn file(&self, id: FileId) -> io::Result<Arc<OpenFile>> {
        let not_open = || io::Error::new(io::ErrorKind::NotFound, "the file is not open");
        self.files.get(&id).cloned().ok_or_else(not_open)
    }

    fn transfer(&mut self, make: impl FnOnce(&mut Spares) -> Transfer) {
        let transfer = make(&mut self.spares);
        self.submit.push_back(self.transfers.insert(transfer) as u32);
    }

    /// Has a job done by a thread that may block, and delivers its result.
    fn block(
        &mut self,
        ticket: Ticket,
        job: impl FnOnce() -> io::Result<DiskDone> + Send + 'static,
    ) {
        self.give(About { ticket, load: Load::Short }, move || job().map(Done::Outcome));
    }

    fn give(&mut self, about: About, job: impl FnOnce() -> io::Result<Done> + Send + 'static) {
        self.jobs += 1;
        self.idle_jobs += usize::from(about.load == Load::Idle);
        self.carries += usize::from(about.load == Load::Copy);
        self.workers.give(about, Box::new(job));
    }

    fn open(&mut self, ticket: Ticket, id: FileId, path: PathBuf, how: OpenHow) {
        let access = self.access;
        self.give(About { ticket, load: Load::Short }, move || {
            let opened = open::open(&path, how, access)?;
            Ok(Done::Opened { id, path, opened })
        });
    }

    fn rename(&mut self, ticket: Ticket, from: PathBuf, to: PathBuf) {
        self.give(About { ticket, load: Load::Short }, move || match names::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                Ok(Done::Crosses { from, to })
            }
            renamed => renamed.map(Done::Outcome),
        });
    }

    fn scan_in_background(&mut self, Background { ticket, file, at, len }: Background) {
        self.give(About { ticket, load: Load::Idle }, move || {
            let skip = (at % PAGE_LEN as u64) as usize;
            let mut buffer = Buffer::new((skip + len).next_multiple_of(PAGE_LEN));
            let read = names::read_idly(&file, at - skip as u64, buffer.bytes_mut())?;
            let end = read.min(skip + len);
            let bytes = buffer.bytes()[skip.min(end)..end].to_vec();
            Ok(Done::Outcome(DiskDone::Scanned(bytes)))
        });
    }

    /// Closes the closed files on which nothing is in progress any more. That may take long, when a
    /// name is gone and this is the end of the file.
    fn close_unused(&mut self) {
        let mut at = 0;
        while at < self.closing.len() {
            if Arc::strong_count(&self.closing[at].1) > 1 {
                at += 1;
                continue;
            }
            let (ticket, file) = self.closing.swap_remove(at);
            self.block(ticket, move || {
                drop(file);
                Ok(DiskDone::Done)
            });
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The kernel may still write to the memory of what is in progress: it is given up.
        std::mem::take(&mut self.transfers).into_iter().for_each(|(_, transfer)| {
            std::mem::forget(transfer);
        });
    }
}

fn no_direct_io(path: &Path) -> String {
    let folder = path.parent().unwrap_or(path).display();
    format!(
        "the file system of {folder} has no direct I/O: its files are read and written through the \
         page cache"
    )
}

/// The open file an operation is on.
fn file_of(op: &DiskOp) -> Option<FileId> {
    match op {
        DiskOp::Read { file, .. }
        | DiskOp::Scan { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Close { file }
        | DiskOp::Truncate { file, .. } => Some(*file),
        _ => None,
    }
}
