//! The file system itself: every request is passed on to a folder, unless a fault comes first.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::{Fault, Faults, Op};

/// The kernel asks again each time: what lies below may change without it.
const TTL: Duration = Duration::ZERO;
const BLOCK: u32 = 4096;
/// What the disk says that it has.
const BLOCKS: u64 = 1 << 25;

/// The numbers that the kernel knows files by. A file that was removed keeps its own.
#[derive(Debug, Default)]
struct Names {
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    last: u64,
}

impl Names {
    fn number(&mut self, path: PathBuf) -> u64 {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        self.last += 1;
        self.paths.insert(self.last, path.clone());
        self.numbers.insert(path, self.last);
        self.last
    }

    fn rename(&mut self, from: &Path, to: PathBuf) {
        self.numbers.remove(&to);
        if let Some(number) = self.numbers.remove(from) {
            self.paths.insert(number, to.clone());
            self.numbers.insert(to, number);
        }
    }
}

#[derive(Debug)]
pub(super) struct Passing {
    faults: Arc<Faults>,
    names: Mutex<Names>,
    /// Open files, with the number of each.
    files: Mutex<HashMap<u64, (u64, Arc<File>)>>,
    handle: AtomicU64,
}

fn attr(number: u64, facts: &fs::Metadata) -> FileAttr {
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    FileAttr {
        ino: INodeNo(number),
        size: facts.len(),
        blocks: facts.blocks(),
        atime: time(facts.atime()),
        mtime: time(facts.mtime()),
        ctime: time(facts.ctime()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::from_std(facts.file_type()).unwrap_or(FileType::RegularFile),
        perm: (facts.mode() & 0o7777) as u16,
        nlink: facts.nlink() as u32,
        uid: facts.uid(),
        gid: facts.gid(),
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

/// A fault as an error, for operations that are done or not.
fn refused(fault: Option<Fault>) -> Result<(), Errno> {
    match fault {
        None | Some(Fault::Torn | Fault::Slow(_)) => Ok(()),
        Some(Fault::Error) => Err(Errno::EIO),
        Some(Fault::Full) => Err(Errno::ENOSPC),
    }
}

/// What was done fails after all, if that is its fault.
fn torn(fault: Option<Fault>) -> Result<(), Errno> {
    if fault == Some(Fault::Torn) { Err(Errno::EIO) } else { Ok(()) }
}

impl Passing {
    pub(super) fn new(below: PathBuf, faults: Arc<Faults>) -> Passing {
        let mut names = Names::default();
        assert_eq!(names.number(below), INodeNo::ROOT.0);
        Passing {
            faults,
            names: Mutex::new(names),
            files: Mutex::default(),
            handle: AtomicU64::new(1),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().expect("nobody panics with it")
    }

    fn path(&self, number: INodeNo) -> Result<PathBuf, Errno> {
        self.names().paths.get(&number.0).cloned().ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf, Errno> {
        Ok(self.path(parent)?.join(name))
    }

    fn entry(&self, path: PathBuf) -> Result<FileAttr, Errno> {
        let facts = fs::symlink_metadata(&path)?;
        Ok(attr(self.names().number(path), &facts))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        let files = self.files.lock().expect("nobody panics with it");
        files.get(&handle.0).map(|(_, file)| Arc::clone(file)).ok_or(Errno::EBADF)
    }

    fn keep(&self, number: u64, file: File) -> FileHandle {
        let handle = self.handle.fetch_add(1, Ordering::Relaxed);
        let mut files = self.files.lock().expect("nobody panics with it");
        files.insert(handle, (number, Arc::new(file)));
        FileHandle(handle)
    }

    /// What is known of a file, which may have no name any more.
    fn facts(&self, number: INodeNo, handle: Option<FileHandle>) -> Result<fs::Metadata, Errno> {
        if let Some(handle) = handle {
            return Ok(self.file(handle)?.metadata()?);
        }
        let open = {
            let files = self.files.lock().expect("nobody panics with it");
            let mut open = files.values().filter(|(of, _)| *of == number.0);
            open.next().map(|(_, file)| Arc::clone(file))
        };
        match open {
            Some(file) => Ok(file.metadata()?),
            None => Ok(fs::symlink_metadata(self.path(number)?)?),
        }
    }

    fn do_open(&self, number: INodeNo, flags: OpenFlags) -> Result<FileHandle, Errno> {
        let path = self.path(number)?;
        refused(self.faults.of(Op::Open, &path))?;
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let file = fs::OpenOptions::new().read(true).write(writes).open(&path)?;
        Ok(self.keep(number.0, file))
    }

    fn do_create(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
    ) -> Result<(FileAttr, FileHandle), Errno> {
        let path = self.child(parent, name)?;
        let fault = self.faults.of(Op::Create, &path);
        refused(fault)?;
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).mode(mode).open(&path)?;
        torn(fault)?;
        let attr = self.entry(path)?;
        Ok((attr, self.keep(attr.ino.0, file)))
    }

    fn do_read(&self, from: (INodeNo, FileHandle), at: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let fault = self.faults.of(Op::Read, &self.path(from.0)?);
        refused(fault)?;
        torn(fault)?;
        let (file, mut bytes) = (self.file(from.1)?, vec![0; len as usize]);
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], at + done as u64)? {
                0 => break,
                read => done += read,
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    fn do_write(&self, to: (INodeNo, FileHandle), at: u64, data: &[u8]) -> Result<u32, Errno> {
        let fault = self.faults.of(Op::Write, &self.path(to.0)?);
        refused(fault)?;
        let _quiet = self.faults.quiet.read().expect("nobody panics with it");
        let len = if fault == Some(Fault::Torn) { data.len() / 2 } else { data.len() };
        self.file(to.1)?.write_all_at(&data[..len], at)?;
        torn(fault)?;
        Ok(len as u32)
    }

    /// Nothing below has to reach a disk: the file system outlives the node.
    fn do_sync(&self, op: Op, number: INodeNo) -> Result<(), Errno> {
        let fault = self.faults.of(op, &self.path(number)?);
        refused(fault)?;
        torn(fault)
    }

    fn do_truncate(
        &self,
        number: INodeNo,
        handle: Option<FileHandle>,
        len: u64,
    ) -> Result<(), Errno> {
        let path = self.path(number)?;
        let fault = self.faults.of(Op::Truncate, &path);
        refused(fault)?;
        let _quiet = self.faults.quiet.read().expect("nobody panics with it");
        match handle {
            Some(handle) => self.file(handle)?.set_len(len)?,
            None => fs::OpenOptions::new().write(true).open(&path)?.set_len(len)?,
        }
        torn(fault)
    }

    fn do_unlink(&self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let path = self.child(parent, name)?;
        let fault = self.faults.of(Op::Unlink, &path);
        refused(fault)?;
        fs::remove_file(&path)?;
        self.names().numbers.remove(&path);
        torn(fault)
    }

    fn do_rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> Result<(), Errno> {
        let (from, to) = (self.child(from.0, from.1)?, self.child(to.0, to.1)?);
        let fault = self.faults.of(Op::Rename, &to);
        refused(fault)?;
        let _quiet = self.faults.quiet.read().expect("nobody panics with it");
        fs::rename(&from, &to)?;
        self.names().rename(&from, to);
        torn(fault)
    }

    /// The names of a folder, from the one after `offset` on.
    fn do_list(&self, number: INodeNo, offset: u64, to: &mut ReplyDirectory) -> Result<(), Errno> {
        let path = self.path(number)?;
        refused(self.faults.of(Op::List, &path))?;
        let mut found: Vec<(String, FileType)> = Vec::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            let name = entry.file_name().into_string().map_err(|_| Errno::EIO)?;
            found.push((name, kind));
        }
        found.sort_by(|left, right| left.0.cmp(&right.0));
        for (nth, (name, kind)) in (1..).zip(found).skip(offset as usize) {
            // The number is of no interest to anybody; the kernel looks the name up.
            if to.add(INodeNo(u64::MAX - nth), nth, kind, &name) {
                break;
            }
        }
        Ok(())
    }
}

fn answer(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(found: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match found {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Passing {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.child(parent, name).and_then(|path| self.entry(path)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.facts(ino, fh) {
            Ok(facts) => reply.attr(&TTL, &attr(ino.0, &facts)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = || {
            if let Some(len) = size {
                self.do_truncate(ino, fh, len)?;
            }
            if let Some(mode) = mode {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                fs::set_permissions(self.path(ino)?, mode)?;
            }
            self.facts(ino, fh)
        };
        match set() {
            Ok(facts) => reply.attr(&TTL, &attr(ino.0, &facts)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, up: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.child(up, name).and_then(|path| {
            refused(self.faults.of(Op::Create, &path))?;
            fs::create_dir(&path)?;
            self.entry(path)
        });
        entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.do_unlink(parent, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.child(parent, name).and_then(|path| {
            fs::remove_dir(&path)?;
            self.names().numbers.remove(&path);
            Ok(())
        });
        answer(removed, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer(self.do_rename((parent, name), (newparent, newname)), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.do_open(ino, flags) {
            // What the page cache has of a file is dropped when it is opened, so it cannot hide
            // what lies below. `FOPEN_DIRECT_IO` would do without the cache; but with it Linux 6.18
            // writes the rest of a short write to the place where the write began.
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.do_create(parent, name, mode) {
            Ok((attr, handle)) => {
                reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.do_read((ino, fh), offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.do_write((ino, fh), offset, data) {
            Ok(len) => reply.written(len),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.lock().expect("nobody panics with it").remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.do_sync(Op::Sync, ino), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.do_sync(Op::SyncDir, ino), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.do_list(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = if self.faults.is_full() { 0 } else { BLOCKS / 2 };
        reply.statfs(BLOCKS, free, free, 1 << 20, 1 << 20, BLOCK, 255, BLOCK);
    }
}
