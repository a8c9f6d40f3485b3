//! A disk in memory that forgets what was not synced.
//!
//! It performs disk acts at once and keeps, beside what a reader sees, what would be there after
//! a crash. A crash takes or drops every unsynced write sector by sector, and every unsynced
//! change of a file's length or of a name, as its seed says. It has no clock and no threads, so
//! the same acts and the same seed give the same disk.
//!
//! Jobs run where they are called and write to the real folder they were made for: an index is
//! either as before its job or as after.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
};

use ron_io::{
    arena::BlockMut,
    ports::{DiskDone, DiskOp, FileId, OpenHow, Part, Space},
};

use inode::Inode;
use ron_io::splitmix::SplitMix64;

mod inode;

/// The kinds of acts, for faults that are planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Open,
    Read,
    Scan,
    Write,
    Sync,
    Truncate,
    Rename,
    Remove,
    List,
    Run,
    Other,
}

/// A fault to come: of all acts of this kind, after `skip` more, `times` fail.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Planted {
    pub kind: Kind,
    pub skip: usize,
    pub times: usize,
    pub error: io::ErrorKind,
}

/// The disk.
#[derive(Debug)]
pub(in crate::store) struct TestDisk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
    open: HashMap<FileId, usize>,
    entropy: SplitMix64,
    pub planted: Vec<Planted>,
    /// A file that cannot be scanned.
    pub unreadable: Option<PathBuf>,
    /// So many scans to come bring half of what is there.
    pub short_scans: usize,
    /// Acts performed, by kind, and bytes written.
    pub performed: Vec<Kind>,
    pub written: u64,
    /// Bytes that all files together may have.
    pub capacity: u64,
}

impl TestDisk {
    pub(in crate::store) fn new(seed: u64) -> TestDisk {
        TestDisk {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            dirs: BTreeSet::new(),
            open: HashMap::new(),
            entropy: SplitMix64::new(seed),
            planted: Vec::new(),
            unreadable: None,
            short_scans: 0,
            performed: Vec::new(),
            written: 0,
            capacity: u64::MAX,
        }
    }

    /// Performs an act.
    pub(in crate::store) fn perform(&mut self, op: DiskOp) -> io::Result<DiskDone> {
        let kind = kind(&op);
        self.performed.push(kind);
        if let Some(error) = self.fault(kind) {
            self.half_done(&op);
            if let DiskOp::Sync { file } = op {
                let all = self.toss();
                self.inode(file).fail_sync(all);
            }
            return Err(error.into());
        }
        match op {
            DiskOp::Open { file, path, how } => self.open(file, path, how),
            DiskOp::Close { file } => {
                self.open.remove(&file).expect("a file is closed once");
                Ok(DiskDone::Done)
            }
            DiskOp::Read { file, at, len, into } => {
                self.read(file, at as usize, len as usize, into)
            }
            DiskOp::Scan { file, at, len, .. } => {
                self.scan(file, at as usize, len as usize).map(DiskDone::Scanned)
            }
            DiskOp::Write { file, at, parts } => self.write(file, at, &parts),
            DiskOp::Sync { file } => {
                self.inode(file).sync();
                Ok(DiskDone::Done)
            }
            DiskOp::Truncate { file, len } => {
                self.inode(file).set_len(len as usize);
                Ok(DiskDone::Done)
            }
            DiskOp::Rename { from, to } => {
                if !self.dirs.contains(to.parent().unwrap()) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = self.names.remove(&from).ok_or(io::ErrorKind::NotFound)?;
                self.names.insert(to.clone(), inode);
                self.synced_names.remove(&from);
                self.synced_names.insert(to, inode);
                Ok(DiskDone::Done)
            }
            DiskOp::Remove { path, durable } => {
                self.names.remove(&path);
                if durable {
                    self.sync_folder(path.parent());
                }
                Ok(DiskDone::Done)
            }
            DiskOp::MakeDir { path } => {
                self.dirs.extend(path.ancestors().map(Path::to_path_buf));
                Ok(DiskDone::Done)
            }
            DiskOp::List { path } => self.list(&path),
            DiskOp::Run(job) => Ok(DiskDone::Ran(job())),
            DiskOp::Space { .. } => Ok(DiskDone::Space(self.space())),
        }
    }

    fn read(
        &mut self,
        file: FileId,
        at: usize,
        len: usize,
        mut into: BlockMut,
    ) -> io::Result<DiskDone> {
        let found = self.inode(file).seen.get(at..at + len).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.bytes_mut()[..len].copy_from_slice(found);
        Ok(DiskDone::Read(into.freeze(len)))
    }

    fn scan(&mut self, file: FileId, at: usize, len: usize) -> io::Result<Vec<u8>> {
        let unreadable = self.unreadable.as_ref().and_then(|path| self.names.get(path));
        if unreadable == self.open.get(&file) {
            return Err(io::Error::other("the disk does not give it"));
        }
        let bytes = &self.inode(file).seen;
        let start = at.min(bytes.len());
        let mut found = bytes[start..(start + len).min(bytes.len())].to_vec();
        if self.short_scans > 0 && found.len() > 4096 {
            self.short_scans -= 1;
            found.truncate((found.len() / 2).next_multiple_of(4096));
        }
        Ok(found)
    }

    /// The act is begun, and then the power fails: what it would have changed is changed in part.
    pub(in crate::store) fn half_done(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Write { file, at, parts } => {
                let bytes = gather(parts);
                let len = self.entropy.next_u64() as usize % (bytes.len() + 1);
                self.inode(*file).write(*at as usize, bytes[..len].to_vec());
            }
            DiskOp::Open { path, how: OpenHow::CreateNew, .. } if self.toss() => {
                self.inodes.push(Inode::default());
                self.names.entry(path.clone()).or_insert(self.inodes.len() - 1);
            }
            DiskOp::Rename { from, to } if self.toss() => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            _ => {}
        }
    }

    /// The power fails: what was not synced is there or not. All files are closed.
    pub(in crate::store) fn crash(&mut self, seed: u64) {
        self.entropy = SplitMix64::new(seed);
        let mut entropy = self.entropy.clone();
        for inode in &mut self.inodes {
            inode.crash(&mut entropy);
        }
        let paths: BTreeSet<PathBuf> =
            self.names.keys().chain(self.synced_names.keys()).cloned().collect();
        for path in paths {
            let (seen, synced) = (self.names.get(&path), self.synced_names.get(&path));
            let kept = if seen != synced && entropy.next_u64() & 1 == 0 { synced } else { seen };
            match kept.copied() {
                Some(inode) => drop(self.names.insert(path, inode)),
                None => drop(self.names.remove(&path)),
            }
        }
        self.synced_names = self.names.clone();
        self.open.clear();
        self.planted.clear();
        self.entropy = entropy;
    }

    /// The process is killed, and everything it wrote stays.
    pub(in crate::store) fn kill(&mut self) {
        self.open.clear();
        self.planted.clear();
    }

    /// A file that is complete and durable, as an upload leaves it.
    pub(in crate::store) fn place(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.inodes.push(Inode::durable(bytes));
        self.names.insert(path.clone(), self.inodes.len() - 1);
        self.synced_names.insert(path, self.inodes.len() - 1);
    }

    /// All files there are.
    pub(in crate::store) fn paths(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    pub(in crate::store) fn bytes(&self, path: &Path) -> &[u8] {
        &self.inodes[self.names[path]].seen
    }

    /// Changes stored bytes behind everyone's back.
    pub(in crate::store) fn damage(&mut self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let inode = &mut self.inodes[self.names[path]];
        change(&mut inode.seen);
        change(&mut inode.synced);
    }

    /// Takes a file away behind everyone's back.
    pub(in crate::store) fn lose(&mut self, path: &Path) {
        self.names.remove(path);
        self.synced_names.remove(path);
    }

    /// Removes a folder in which nothing is.
    pub(in crate::store) fn lose_folder(&mut self, path: &Path) {
        assert!(self.names.keys().all(|name| !name.starts_with(path)), "{path:?} is not empty");
        assert!(self.dirs.remove(path), "{path:?} is not there");
    }

    /// Open files.
    pub(in crate::store) fn open_files(&self) -> usize {
        self.open.len()
    }

    fn fault(&mut self, kind: Kind) -> Option<io::ErrorKind> {
        let planted =
            self.planted.iter_mut().find(|planted| planted.kind == kind && planted.times > 0)?;
        if planted.skip > 0 {
            planted.skip -= 1;
            return None;
        }
        planted.times = planted.times.checked_sub(1)?;
        Some(planted.error)
    }

    fn write(&mut self, file: FileId, at: u64, parts: &[Part]) -> io::Result<DiskDone> {
        let bytes = gather(parts);
        let aligned = at.is_multiple_of(4096) && bytes.len().is_multiple_of(4096);
        assert!(aligned, "a write is aligned");
        let before = self.inode(file).seen.len();
        let more = (at as usize + bytes.len()).saturating_sub(before) as u64;
        if self.used() + more > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written += bytes.len() as u64;
        self.inode(file).write(at as usize, bytes);
        Ok(DiskDone::Done)
    }

    fn sync_folder(&mut self, folder: Option<&Path>) {
        self.synced_names.retain(|name, _| name.parent() != folder);
        let there = self.names.iter().filter(|(name, _)| name.parent() == folder);
        self.synced_names.extend(there.map(|(name, inode)| (name.clone(), *inode)));
    }

    fn space(&self) -> Space {
        let free = self.capacity - self.used();
        Space { free, total: self.capacity, few_inodes: false }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].seen.len() as u64).sum()
    }

    fn toss(&mut self) -> bool {
        self.entropy.next_u64() & 1 == 0
    }

    fn inode(&mut self, file: FileId) -> &mut Inode {
        &mut self.inodes[self.open[&file]]
    }

    fn open(&mut self, file: FileId, path: PathBuf, how: OpenHow) -> io::Result<DiskDone> {
        let there = self.names.get(&path).copied();
        let inode = match (how, there) {
            (OpenHow::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenHow::CreateNew, None) => {
                self.inodes.push(Inode::default());
                let inode = self.inodes.len() - 1;
                self.names.insert(path.clone(), inode);
                self.synced_names.insert(path, inode);
                inode
            }
            (_, there) => there.ok_or(io::ErrorKind::NotFound)?,
        };
        assert!(self.open.insert(file, inode).is_none(), "{file:?} is open");
        Ok(DiskDone::Opened { len: self.inodes[inode].seen.len() as u64 })
    }

    fn list(&self, path: &Path) -> io::Result<DiskDone> {
        if !self.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = self.names.iter().filter(|(name, _)| name.parent() == Some(path));
        let listed = files.map(|(name, inode)| {
            let name = name.file_name().unwrap().to_str().unwrap().to_string();
            (name, self.inodes[*inode].seen.len() as u64)
        });
        Ok(DiskDone::Listed(listed.collect()))
    }
}

fn gather(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Bytes(own) => bytes.extend(own),
            Part::Block(slice) => bytes.extend(slice.bytes()),
            Part::Zeros(len) => bytes.resize(bytes.len() + len, 0),
        }
    }
    bytes
}

fn kind(op: &DiskOp) -> Kind {
    match op {
        DiskOp::Open { .. } => Kind::Open,
        DiskOp::Read { .. } => Kind::Read,
        DiskOp::Scan { .. } => Kind::Scan,
        DiskOp::Write { .. } => Kind::Write,
        DiskOp::Sync { .. } => Kind::Sync,
        DiskOp::Truncate { .. } => Kind::Truncate,
        DiskOp::Rename { .. } => Kind::Rename,
        DiskOp::Remove { .. } => Kind::Remove,
        DiskOp::List { .. } => Kind::List,
        DiskOp::Run(_) => Kind::Run,
        _ => Kind::Other,
    }
}
