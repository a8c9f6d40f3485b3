//! Disk operations, each a small task on the executor's own rings.
//!
//! Data goes through `DmaFile` (O_DIRECT). What only the file system's tables know (renames,
//! folders) runs on a thread that may block. Outcomes are collected in one place and told to the
//! shard a turn at a time.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, VecDeque},
    ffi::CString,
    fs, io,
    mem::MaybeUninit,
    ops::Range,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    rc::Rc,
    task::Waker,
};

use glommio::{
    TaskQueueHandle,
    io::{DmaFile, OpenOptions, ReadResult},
};

use crate::{
    limits::{DISK_OP_LEN_MAX, DISK_OPS_MAX, PAGE_LEN},
    ports::{DiskDone, DiskOp, FileId, OpenHow, Part, Ticket},
};

/// The outcome of one operation.
pub(super) type Outcome = (Ticket, io::Result<DiskDone>);

/// The disk side of a driver.
pub(super) struct Disk {
    queue: TaskQueueHandle,
    shared: Rc<Shared>,
    /// Operations that wait because `DISK_OPS_MAX` are under way.
    waiting: VecDeque<(Ticket, DiskOp)>,
}

/// What the tasks of a disk share with it.
#[derive(Default)]
struct Shared {
    files: RefCell<HashMap<FileId, Rc<DmaFile>>>,
    outcomes: RefCell<VecDeque<Outcome>>,
    under_way: Cell<usize>,
    /// Devices whose way of completing reads the executor knows.
    primed: RefCell<HashSet<u64>>,
    /// Whoever sleeps until there is an outcome.
    sleeper: RefCell<Option<Waker>>,
}

impl Disk {
    /// `queue` is where the tasks run.
    pub(super) fn new(queue: TaskQueueHandle) -> Disk {
        Disk { queue, shared: Rc::default(), waiting: VecDeque::new() }
    }

    /// Starts an operation, now or when there is room.
    pub(super) fn perform(&mut self, ticket: Ticket, op: DiskOp) {
        self.waiting.push_back((ticket, op));
        self.start();
    }

    /// The next outcome, if there is one.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let outcome = self.shared.outcomes.borrow_mut().pop_front();
        if outcome.is_some() {
            self.start();
        }
        outcome
    }

    /// Whether nothing is under way, waiting or to be told.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.under_way.get() == 0 && self.waiting.is_empty() && !self.has_outcome()
    }

    pub(super) fn has_outcome(&self) -> bool {
        !self.shared.outcomes.borrow().is_empty()
    }

    /// Whom to wake when there is an outcome.
    pub(super) fn wake(&self, waker: &Waker) {
        self.shared.sleeper.replace(Some(waker.clone()));
    }

    fn start(&mut self) {
        while self.shared.under_way.get() < DISK_OPS_MAX {
            let Some((ticket, op)) = self.waiting.pop_front() else { return };
            let shared = Rc::clone(&self.shared);
            shared.under_way.set(shared.under_way.get() + 1);
            // The file is looked up now, so that an operation and a later `Close` keep their order.
            let file = match &op {
                DiskOp::Close { file } => {
                    shared.files.borrow_mut().remove(file).ok_or_else(not_open).map(Some)
                }
                _ => match file_of(&op) {
                    Some(id) => {
                        shared.files.borrow().get(&id).cloned().ok_or_else(not_open).map(Some)
                    }
                    None => Ok(None),
                },
            };
            let task = async move {
                let done = match file {
                    Ok(file) => run(&shared, op, file).await,
                    Err(error) => Err(error),
                };
                shared.under_way.set(shared.under_way.get() - 1);
                shared.outcomes.borrow_mut().push_back((ticket, done));
                if let Some(sleeper) = shared.sleeper.take() {
                    sleeper.wake();
                }
            };
            match glommio::spawn_local_into(task, self.queue) {
                Ok(task) => drop(task.detach()),
                Err(error) => panic!("the disk's task queue is gone: {error}"),
            }
        }
    }
}

fn not_open() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the file is not open")
}

/// The open file an operation is on.
fn file_of(op: &DiskOp) -> Option<FileId> {
    match op {
        DiskOp::Read { file, .. }
        | DiskOp::Scan { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Truncate { file, .. } => Some(*file),
        _ => None,
    }
}

async fn run(shared: &Shared, op: DiskOp, file: Option<Rc<DmaFile>>) -> io::Result<DiskDone> {
    match (op, file) {
        (DiskOp::Open { file, path, how }, _) => open(shared, file, &path, how).await,
        (DiskOp::Close { .. }, Some(file)) => {
            // Closes when the last operation on it lets go.
            file.close_rc().await?;
            Ok(DiskDone::Done)
        }
        (DiskOp::Read { at, len, mut into, .. }, Some(file)) => {
            let (read, range) = read(&file, at, len as usize).await?;
            if range.len() != len as usize {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into.bytes_mut()[..len as usize].copy_from_slice(&read[range]);
            Ok(DiskDone::Read(into.freeze(len as usize)))
        }
        (DiskOp::Scan { at, len, .. }, Some(file)) => {
            assert!(len as usize <= DISK_OP_LEN_MAX);
            let (read, range) = read(&file, at, len as usize).await?;
            Ok(DiskDone::Scanned(read[range].to_vec()))
        }
        (DiskOp::Write { at, parts, .. }, Some(file)) => write(&file, at, &parts).await,
        (DiskOp::Sync { .. }, Some(file)) => {
            file.fdatasync().await?;
            Ok(DiskDone::Done)
        }
        (DiskOp::Truncate { len, .. }, Some(file)) => {
            file.truncate(len).await?;
            Ok(DiskDone::Done)
        }
        (op, _) => glommio::executor().spawn_blocking(move || blocking(op)).await,
    }
}

/// Reads whole disk blocks around the bytes asked for. Returns what was read and where in it the
/// bytes lie; fewer than `len` at the end of the file.
async fn read(file: &DmaFile, at: u64, len: usize) -> io::Result<(ReadResult, Range<usize>)> {
    let skip = (at % PAGE_LEN as u64) as usize;
    let aligned = (skip + len).next_multiple_of(PAGE_LEN);
    let read = file.read_at_aligned(at - skip as u64, aligned).await?;
    let end = read.len().min(skip + len);
    Ok((read, skip.min(end)..end))
}

async fn open(shared: &Shared, id: FileId, path: &Path, how: OpenHow) -> io::Result<DiskDone> {
    prime(shared, path.parent().unwrap_or(Path::new("."))).await?;
    let mut options = OpenOptions::new();
    options.read(true).write(how != OpenHow::Read).create_new(how == OpenHow::CreateNew);
    let file = options.dma_open(path).await?;
    if how == OpenHow::CreateNew {
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        glommio::executor().spawn_blocking(move || sync_folder(&folder)).await?;
    }
    let len = file.file_size().await?;
    let before = shared.files.borrow_mut().insert(id, Rc::new(file));
    assert!(before.is_none(), "{id:?} names two open files");
    Ok(DiskDone::Opened { len })
}

/// Lets the executor find out, once for each device, whether reads can be polled for. It tries on
/// the first file it opens there, and on an empty one it would find out wrongly.
async fn prime(shared: &Shared, folder: &Path) -> io::Result<()> {
    let device = fs::metadata(folder)?.dev();
    if !shared.primed.borrow_mut().insert(device) {
        return Ok(());
    }
    let thread = glommio::executor().id();
    let path = folder.join(format!("probe-{}-{thread}", std::process::id()));
    let made = path.clone();
    let make = move || {
        fs::write(&made, [0; PAGE_LEN])?;
        fs::File::open(&made)?.sync_all()
    };
    glommio::executor().spawn_blocking(make).await?;
    let opened = DmaFile::open(&path).await;
    fs::remove_file(&path)?;
    opened?.close().await?;
    Ok(())
}

async fn write(file: &DmaFile, at: u64, parts: &[Part]) -> io::Result<DiskDone> {
    let len: usize = parts.iter().map(Part::len).sum();
    assert!(len <= DISK_OP_LEN_MAX && len.is_multiple_of(PAGE_LEN), "a write of {len} bytes");
    let mut buffer = file.alloc_dma_buffer(len);
    let mut rest = buffer.as_bytes_mut();
    for part in parts {
        let (place, behind) = rest.split_at_mut(part.len());
        match part {
            Part::Bytes(bytes) => place.copy_from_slice(bytes),
            Part::Block(slice) => place.copy_from_slice(slice.bytes()),
            Part::Zeros(_) => place.fill(0),
        }
        rest = behind;
    }
    match file.write_at(buffer, at).await? {
        written if written == len => Ok(DiskDone::Done),
        // A short write is how a file system says that it just became full.
        _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
    }
}

fn blocking(op: DiskOp) -> io::Result<DiskDone> {
    match op {
        DiskOp::Rename { from, to } => {
            fs::rename(&from, &to)?;
            for path in [&to, &from] {
                sync_folder(path.parent().unwrap_or(Path::new(".")))?;
            }
        }
        DiskOp::Remove { path, durable } => match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) if durable => sync_folder(path.parent().unwrap_or(Path::new(".")))?,
            Ok(()) => {}
        },
        DiskOp::MakeDir { path } => make_dir(&path)?,
        DiskOp::List { path } => return list(&path).map(DiskDone::Listed),
        DiskOp::Run(job) => return Ok(DiskDone::Ran(job())),
        DiskOp::Space { path } => return space(&path),
        op => unreachable!("{op:?} needs an open file"),
    }
    Ok(DiskDone::Done)
}

fn space(path: &Path) -> io::Result<DiskDone> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut facts = MaybeUninit::<libc::statvfs64>::uninit();
    // SAFETY: the path ends with a zero, and the call fills `facts` when it returns 0.
    let facts = match unsafe { libc::statvfs64(path.as_ptr(), facts.as_mut_ptr()) } {
        // SAFETY: see above.
        0 => unsafe { facts.assume_init() },
        _ => return Err(io::Error::last_os_error()),
    };
    let (free, total) = (facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize);
    Ok(DiskDone::Space { free, total })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_dir(above)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_folder(above)?,
        }
    }
    Ok(())
}

fn list(path: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        // A name that is not text is none of ours.
        if let (true, Ok(name)) = (facts.is_file(), entry.file_name().into_string()) {
            found.push((name, facts.len()));
        }
    }
    Ok(found)
}
