//! Disk operations.
//!
//! The bytes of open files move on the ring that the sockets use: past the page cache (O_DIRECT),
//! to and from blocks without a copy where they lie on pages. What only the file system's tables
//! know (names, folders, lengths) is a task that has it done by a thread that may block. So is a
//! read that nobody waits for: its tasks have a queue of their own with few shares, few are under
//! way at once, and the disk serves them last. Outcomes are collected in one place and told to the
//! shard a turn at a time.
//!
//! ```text
//!   perform ──► waiting ──► ring: Read, Scan, Write, Sync ───────────────► outcomes
//!      │           └──────► tasks: Open, Close, Truncate, names ─────────►    ▲
//!      └──► idling ───────► background tasks: Scan that is not urgent ────────┘
//! ```
//!
//! On a file system without direct I/O the same operations go through the page cache, and the
//! control plane is told so, once for each device. This room refuses operations on files that are
//! not open.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    task::Waker,
};

use glommio::TaskQueueHandle;
use io_uring::squeue;
use slab::Slab;

use crate::{
    limits::{BACKGROUND_SCANS_MAX, DISK_OP_LEN_MAX, DISK_OPS_MAX, PAGE_LEN},
    ports::{DiskDone, DiskOp, FileId, OpenHow, Ticket, Urgency},
};

mod buffer;
mod names;
mod transfer;

use buffer::{Buffer, Spares};
use transfer::Transfer;

/// The outcome of one operation.
pub(super) type Outcome = (Ticket, io::Result<DiskDone>);

/// Whether files are opened for direct I/O where that can be had, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Direct,
    #[cfg_attr(not(test), expect(dead_code, reason = "what happens without is tested anywhere"))]
    Buffered,
}

/// The task queues of a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queues {
    pub(super) foreground: TaskQueueHandle,
    /// Has few shares.
    pub(super) background: TaskQueueHandle,
}

/// The disk side of a driver.
pub(super) struct Disk {
    queues: Queues,
    access: Access,
    shared: Rc<Shared>,
    /// Operations that wait because `DISK_OPS_MAX` are under way.
    waiting: VecDeque<(Ticket, DiskOp)>,
    /// Reads that nobody waits for, until there is room for them.
    idling: VecDeque<Idling>,
    /// What the ring works on, by the number it is submitted with.
    transfers: Slab<Transfer>,
    /// What is to be submitted: numbers of transfers.
    submit: VecDeque<u32>,
    /// Closed files on which something is still under way.
    closing: Vec<(Ticket, Arc<fs::File>)>,
    spares: Spares,
}

/// What the tasks of a disk share with it.
#[derive(Default)]
struct Shared {
    files: RefCell<HashMap<FileId, Arc<fs::File>>>,
    outcomes: RefCell<VecDeque<Outcome>>,
    /// Tasks that have not ended.
    tasks: Cell<usize>,
    /// Those of them that read what nobody waits for.
    idling: Cell<usize>,
    /// Devices whose files turned out to have no direct I/O.
    buffered: RefCell<HashSet<u64>>,
    /// What the operator should know.
    notes: RefCell<VecDeque<String>>,
    /// Whoever sleeps until there is an outcome.
    sleeper: RefCell<Option<Waker>>,
}

/// A read that nobody waits for.
struct Idling {
    ticket: Ticket,
    file: Arc<fs::File>,
    at: u64,
    len: usize,
}

impl Disk {
    pub(super) fn new(queues: Queues, access: Access) -> Disk {
        Disk {
            queues,
            access,
            shared: Rc::default(),
            waiting: VecDeque::new(),
            idling: VecDeque::new(),
            transfers: Slab::new(),
            submit: VecDeque::new(),
            closing: Vec::new(),
            spares: Spares::default(),
        }
    }

    /// Takes an operation, to be started now or when there is room.
    pub(super) fn perform(&mut self, ticket: Ticket, op: DiskOp) {
        self.waiting.push_back((ticket, op));
        self.start();
    }

    /// The next transfer for the ring, and the number to be told when it has completed.
    pub(super) fn submission(&mut self) -> Option<(u32, squeue::Entry)> {
        let number = self.submit.pop_front()?;
        Some((number, self.transfers[number as usize].entry()))
    }

    /// A transfer has completed with this result of the kernel.
    pub(super) fn landed(&mut self, number: u32, result: i32) {
        let transfer = self.transfers.remove(number as usize);
        let ticket = transfer.ticket;
        let done = transfer.finish(result, &mut self.spares);
        self.shared.outcomes.borrow_mut().push_back((ticket, done));
    }

    /// The next outcome, if there is one.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let outcome = self.shared.outcomes.borrow_mut().pop_front();
        if outcome.is_some() {
            self.start();
        }
        outcome
    }

    /// The next thing the operator should know.
    pub(super) fn note(&self) -> Option<String> {
        self.shared.notes.borrow_mut().pop_front()
    }

    /// Whether no task has to run and nothing is to be told: all that is under way is on the ring.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.tasks.get() == 0 && !self.has_outcome()
    }

    pub(super) fn has_outcome(&self) -> bool {
        !self.shared.outcomes.borrow().is_empty()
    }

    /// Whom to wake when there is an outcome.
    pub(super) fn wake(&self, waker: &Waker) {
        self.shared.sleeper.replace(Some(waker.clone()));
    }

    fn start(&mut self) {
        self.close_unused();
        while self.transfers.len() + self.shared.tasks.get() < DISK_OPS_MAX {
            let Some((ticket, op)) = self.waiting.pop_front() else { break };
            self.start_one(ticket, op);
        }
        while self.shared.idling.get() < BACKGROUND_SCANS_MAX {
            let Some(idling) = self.idling.pop_front() else { break };
            self.scan_idly(idling);
        }
    }

    /// Files are looked up now, so that an operation and a later `Close` keep their order.
    fn start_one(&mut self, ticket: Ticket, op: DiskOp) {
        let file = match file_of(&op).map(|id| self.file(id)) {
            Some(Err(error)) => {
                return self.shared.outcomes.borrow_mut().push_back((ticket, Err(error)));
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
                self.idling.push_back(Idling { ticket, file, at, len: len as usize });
            }
            (DiskOp::Write { at, parts, .. }, Some(file)) => {
                self.transfer(|spares| Transfer::write(ticket, file, at, parts, spares));
            }
            (DiskOp::Sync { .. }, Some(file)) => self.transfer(|_| Transfer::sync(ticket, file)),
            (DiskOp::Truncate { len, .. }, Some(file)) => {
                self.block(ticket, move || file.set_len(len).map(|()| DiskDone::Done));
            }
            (DiskOp::Close { file: id }, Some(file)) => {
                self.shared.files.borrow_mut().remove(&id);
                self.closing.push((ticket, file));
                self.close_unused();
            }
            (DiskOp::Open { file, path, how }, _) => self.open(ticket, file, path, how),
            (op, _) => self.block(ticket, move || names::perform(op)),
        }
    }

    fn file(&self, id: FileId) -> io::Result<Arc<fs::File>> {
        let not_open = || io::Error::new(io::ErrorKind::NotFound, "the file is not open");
        self.shared.files.borrow().get(&id).cloned().ok_or_else(not_open)
    }

    fn transfer(&mut self, make: impl FnOnce(&mut Spares) -> Transfer) {
        let transfer = make(&mut self.spares);
        self.submit.push_back(self.transfers.insert(transfer) as u32);
    }

    /// Has a job done by a thread that may block, and its result told.
    fn block(&self, ticket: Ticket, job: impl FnOnce() -> io::Result<DiskDone> + Send + 'static) {
        let task = async move { glommio::executor().spawn_blocking(job).await };
        self.spawn(ticket, self.queues.foreground, task);
    }

    fn spawn(
        &self,
        ticket: Ticket,
        queue: TaskQueueHandle,
        task: impl Future<Output = io::Result<DiskDone>> + 'static,
    ) {
        let shared = Rc::clone(&self.shared);
        shared.tasks.set(shared.tasks.get() + 1);
        let task = async move {
            let done = task.await;
            shared.tasks.set(shared.tasks.get() - 1);
            shared.outcomes.borrow_mut().push_back((ticket, done));
            if let Some(sleeper) = shared.sleeper.take() {
                sleeper.wake();
            }
        };
        match glommio::spawn_local_into(task, queue) {
            Ok(task) => drop(task.detach()),
            Err(error) => panic!("a task queue of the disk is gone: {error}"),
        }
    }

    fn open(&self, ticket: Ticket, id: FileId, path: PathBuf, how: OpenHow) {
        let (shared, access) = (Rc::clone(&self.shared), self.access);
        let task = async move {
            let place = path.clone();
            let open = move || names::open(&place, how, access);
            let opened = glommio::executor().spawn_blocking(open).await?;
            if !opened.direct && shared.buffered.borrow_mut().insert(opened.device) {
                shared.notes.borrow_mut().push_back(no_direct_io(&path));
            }
            let before = shared.files.borrow_mut().insert(id, Arc::new(opened.file));
            assert!(before.is_none(), "{id:?} names two open files");
            Ok(DiskDone::Opened { len: opened.len })
        };
        self.spawn(ticket, self.queues.foreground, task);
    }

    fn scan_idly(&self, Idling { ticket, file, at, len }: Idling) {
        let shared = Rc::clone(&self.shared);
        shared.idling.set(shared.idling.get() + 1);
        let read = move || {
            let skip = (at % PAGE_LEN as u64) as usize;
            let mut buffer = Buffer::new((skip + len).next_multiple_of(PAGE_LEN));
            let read = names::read_idly(&file, at - skip as u64, buffer.bytes_mut())?;
            let end = read.min(skip + len);
            Ok(DiskDone::Scanned(buffer.bytes()[skip.min(end)..end].to_vec()))
        };
        let task = async move {
            let done = glommio::executor().spawn_blocking(read).await;
            shared.idling.set(shared.idling.get() - 1);
            done
        };
        self.spawn(ticket, self.queues.background, task);
    }

    /// Closes the closed files on which nothing is under way any more. That may take long, when a
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
        // The kernel may still write to the memory of what is under way: it is given up.
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
