//! A disk in memory that forgets what was not synced.
//!
//! It keeps, beside the bytes and names a reader sees, those that would be there after a failure
//! of power. A crash keeps or drops every unsynced write sector by sector, and every unsynced
//! change of a file's length or of a name. It fills up, fails as often as its weather says, and
//! rots where the simulation says so.
//!
//! Jobs run where they are performed, on the real files they were made for.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    path::{Path, PathBuf},
};

use super::{
    Chance,
    inode::{Inode, SECTOR_LEN},
};
use crate::ports::{DiskDone, DiskOp, JobError, OpenHow, Part, Space};

/// Bytes of a disk that was not given a capacity.
const CAPACITY_DEFAULT: u64 = 1 << 50;

/// A file, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(usize);

/// How often acts fail: one in so many of each kind, none where it is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    pub reads: u32,
    /// Reads and scans that find the end of the file too early.
    pub short_reads: u32,
    pub writes: u32,
    pub syncs: u32,
    pub jobs: u32,
    /// Removing; 0: as the rest.
    pub removes: u32,
    /// Opening, renaming, cutting, listing and the rest.
    pub others: u32,
}

/// What went wrong by the will of the simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    pub errors: u64,
    pub short_reads: u64,
    /// Those of the errors that kept a file.
    pub kept: u64,
    /// Writes that found the disk full, and answers with less free space than there was before.
    pub full: u64,
}

/// The disk, which all shards of a node share.
#[derive(Debug)]
pub struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, InodeId>,
    synced_names: BTreeMap<String, InodeId>,
    dirs: BTreeSet<String>,
    /// Where each file system begins: from one into another a file is copied.
    volumes: Vec<String>,
    capacity: u64,
    chance: Chance,
    pub weather: Weather,
    pub injected: Injected,
}

impl Disk {
    /// An empty disk on which each of these folders is a file system of its own.
    pub fn new(volumes: &[PathBuf], chance: Chance) -> Disk {
        Disk {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            dirs: BTreeSet::new(),
            volumes: volumes.iter().map(|path| text(path)).collect(),
            capacity: CAPACITY_DEFAULT,
            chance,
            weather: Weather::default(),
            injected: Injected::default(),
        }
    }

    /// Performs an act, on `inode` if it is about an open file. A file that was opened is returned.
    pub fn perform(
        &mut self,
        op: DiskOp,
        inode: Option<InodeId>,
    ) -> (io::Result<DiskDone>, Option<InodeId>) {
        if let Some(outcome) = self.fault(&op, inode) {
            return (outcome, None);
        }
        if let DiskOp::Open { path, how, .. } = &op {
            return match self.open(&text(path), *how) {
                Ok(id) => {
                    let len = self.inodes[id.0].seen.len() as u64;
                    (Ok(DiskDone::Opened { len }), Some(id))
                }
                Err(error) => (Err(error), None),
            };
        }
        (self.change(op, inode), None)
    }

    /// The act was begun and nobody waited for its end: what it changes is changed in part. A sync
    /// that a process leaves behind does not fail: the kernel ends it, or never began.
    pub fn half_perform(&mut self, op: DiskOp, inode: Option<InodeId>) {
        match (op, inode) {
            (DiskOp::Write { at, parts, .. }, Some(id)) => {
                let bytes = gather(&parts);
                let len = self.chance.below(bytes.len() / SECTOR_LEN + 1) * SECTOR_LEN;
                self.inodes[id.0].write(at as usize, bytes[..len].to_vec());
            }
            (DiskOp::Open { path, how: OpenHow::CreateNew, .. }, _) => {
                // The name is there, and its folder was not synced.
                self.create(&text(&path));
            }
            (DiskOp::Rename { from, to }, _) => self.half_rename(&text(&from), &text(&to)),
            (DiskOp::Remove { path, .. }, _) => drop(self.names.remove(&text(&path))),
            (DiskOp::Run(job), _) if self.chance.toss() => drop(job()),
            _ => {}
        }
    }

    /// A write came as far as any byte of it.
    pub(super) fn write_begun(&mut self, id: InodeId, at: u64, parts: &[Part]) {
        let bytes = gather(parts);
        let len = self.chance.below(bytes.len() + 1);
        self.inodes[id.0].write(at as usize, bytes[..len].to_vec());
    }

    /// No folder was synced. Across volumes the copy may not have its name yet, or the file may
    /// not have lost its own.
    fn half_rename(&mut self, from: &str, to: &str) {
        let Some(id) = self.names.get(from).copied() else { return };
        if self.volume(from) == self.volume(to) {
            self.names.remove(from);
            self.names.insert(to.to_string(), id);
            return;
        }
        let copy = self.copy(id);
        if self.chance.toss() {
            self.names.insert(format!("{}.part", to.trim_end_matches(".obj")), copy);
        } else {
            self.inodes[copy.0].sync();
            self.names.insert(to.to_string(), copy);
        }
    }

    /// The power fails: what was not synced is there or not.
    pub fn crash(&mut self) {
        for inode in &mut self.inodes {
            inode.crash(&mut self.chance);
        }
        let paths: BTreeSet<String> =
            self.names.keys().chain(self.synced_names.keys()).cloned().collect();
        for path in paths {
            let (seen, synced) = (self.names.get(&path), self.synced_names.get(&path));
            let kept = if seen != synced && self.chance.toss() { synced } else { seen };
            match kept.copied() {
                Some(id) => drop(self.names.insert(path, id)),
                None => drop(self.names.remove(&path)),
            }
        }
        self.synced_names = self.names.clone();
    }

    /// The process ends, and everything it wrote stays.
    pub fn close_all(&mut self) {
        self.inodes.iter_mut().for_each(|inode| inode.opened = 0);
    }

    /// Chooses anew, from this seed, what a crash keeps and what fails.
    pub fn reseed(&mut self, seed: u64) {
        self.chance = Chance::new(seed);
    }

    /// Bytes that all files together may have; `None` for more than ever are written.
    pub fn set_capacity(&mut self, capacity: Option<u64>) {
        self.capacity = capacity.unwrap_or(CAPACITY_DEFAULT);
    }

    /// Bytes of all files that have a name or are open.
    pub fn used(&self) -> u64 {
        let mut counted: Vec<bool> = self.inodes.iter().map(|inode| inode.opened > 0).collect();
        self.names.values().for_each(|id| counted[id.0] = true);
        let files = self.inodes.iter().zip(counted).filter(|(_, counted)| *counted);
        files.map(|(inode, _)| disk_blocks_len(&inode.seen)).sum()
    }

    /// All files that have a name, with their lengths, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = (&str, InodeId, usize)> {
        self.names.iter().map(|(name, id)| (name.as_str(), *id, self.inodes[id.0].seen.len()))
    }

    /// Whether a file has a name with this ending.
    pub fn is_named(&self, id: InodeId, ending: &str) -> bool {
        self.names.iter().any(|(name, named)| *named == id && name.ends_with(ending))
    }

    /// What a reader sees of a file.
    pub fn bytes(&self, id: InodeId) -> &[u8] {
        &self.inodes[id.0].seen
    }

    /// Puts a file where it is as if it had been there for long, with its folders.
    pub fn lay(&mut self, path: &Path, bytes: &[u8]) {
        self.dirs.extend(path.ancestors().skip(1).map(text));
        let id = self.create(&text(path));
        let inode = &mut self.inodes[id.0];
        inode.set_len(0);
        inode.write(0, bytes.to_vec());
        inode.sync();
        self.synced_names.insert(text(path), id);
    }

    /// The file of this name.
    pub(super) fn named(&self, path: &Path) -> Option<InodeId> {
        self.names.get(&text(path)).copied()
    }

    /// Changes stored bytes behind everyone's back.
    pub(super) fn alter(&mut self, id: InodeId, change: impl Fn(&mut Vec<u8>)) {
        self.inodes[id.0].alter(change);
    }

    /// Takes a file away behind everyone's back.
    pub(super) fn lose(&mut self, path: &Path) {
        self.names.remove(&text(path));
        self.synced_names.remove(&text(path));
    }

    /// Takes a folder away in which nothing is.
    pub(super) fn lose_folder(&mut self, path: &Path) {
        let path = text(path);
        assert!(within(&self.names, &path).next().is_none(), "{path} is not empty");
        assert!(self.dirs.remove(&path), "{path} is not there");
    }

    /// Descriptors of any file.
    pub fn opened(&self) -> u32 {
        self.inodes.iter().map(|inode| inode.opened).sum()
    }

    /// Flips one bit of a file that is synced. False where that is not so, or there is no such
    /// byte.
    pub fn rot(&mut self, id: InodeId, at: usize, bit: u32) -> bool {
        let inode = &mut self.inodes[id.0];
        let can = inode.is_synced() && at < inode.seen.len();
        if can {
            inode.flip(at, bit);
        }
        can
    }

    pub(super) fn closed(&mut self, id: InodeId) {
        let opened = &mut self.inodes[id.0].opened;
        *opened = opened.checked_sub(1).expect("a file is closed as often as it was opened");
    }

    /// Whether the act fails now, and how; what it would have changed may be changed in part.
    fn fault(&mut self, op: &DiskOp, inode: Option<InodeId>) -> Option<io::Result<DiskDone>> {
        let weather = self.weather;
        let often = match op {
            DiskOp::Read { .. } | DiskOp::Scan { .. } => weather.reads,
            DiskOp::Write { .. } => weather.writes,
            DiskOp::Sync { .. } => weather.syncs,
            DiskOp::Run(_) => weather.jobs,
            DiskOp::Remove { .. } if weather.removes > 0 => weather.removes,
            DiskOp::Close { .. } => 0,
            _ => weather.others,
        };
        let reads = matches!(op, DiskOp::Read { .. } | DiskOp::Scan { .. });
        if reads && self.chance.one_in(weather.short_reads) {
            self.injected.short_reads += 1;
            let DiskOp::Scan { at, len, .. } = op else {
                return Some(Err(io::ErrorKind::UnexpectedEof.into()));
            };
            let mut found = self.scan(*at, *len, inode).to_vec();
            found.truncate(self.chance.below(found.len() + 1));
            return Some(Ok(DiskDone::Scanned(found)));
        }
        if !self.chance.one_in(often) {
            return None;
        }
        self.injected.errors += 1;
        self.injected.kept += u64::from(matches!(op, DiskOp::Remove { .. }));
        Some(self.fail(op, inode, io::Error::other("bad weather")))
    }

    /// The act fails with this error; what it would have changed may be changed in part.
    pub(super) fn fail(
        &mut self,
        op: &DiskOp,
        inode: Option<InodeId>,
        error: io::Error,
    ) -> io::Result<DiskDone> {
        match (op, inode) {
            (DiskOp::Run(_), _) => return Ok(DiskDone::Ran(Err(JobError::Unanswered(error)))),
            (DiskOp::Sync { .. }, Some(id)) => self.inodes[id.0].fail_sync(),
            (DiskOp::Write { at, parts, .. }, Some(id)) => {
                let bytes = gather(parts);
                let len = self.chance.below(bytes.len() / SECTOR_LEN + 1) * SECTOR_LEN;
                self.inodes[id.0].write(*at as usize, bytes[..len].to_vec());
            }
            (DiskOp::Open { path, how: OpenHow::CreateNew, .. }, _) if self.chance.toss() => {
                self.create(&text(path));
            }
            _ if self.chance.toss() => self.take_effect(op, inode),
            _ => {}
        }
        Err(error)
    }

    /// What is about to fail happens all the same, and is not made durable.
    fn take_effect(&mut self, op: &DiskOp, inode: Option<InodeId>) {
        match (op, inode) {
            (DiskOp::Rename { from, to }, _) if self.dirs.contains(folder(&text(to))) => {
                self.half_rename(&text(from), &text(to));
            }
            (DiskOp::Remove { path, .. }, _) => drop(self.names.remove(&text(path))),
            (DiskOp::MakeDir { path }, _) => self.dirs.extend(path.ancestors().map(text)),
            (DiskOp::Truncate { len, .. }, Some(id)) => self.inodes[id.0].set_len(*len as usize),
            _ => {}
        }
    }

    fn change(&mut self, op: DiskOp, inode: Option<InodeId>) -> io::Result<DiskDone> {
        match op {
            DiskOp::Read { at, len, mut into, .. } => {
                let bytes = self.seen(inode);
                let range = at as usize..at as usize + len as usize;
                let found = bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
                into.bytes_mut()[..len as usize].copy_from_slice(found);
                return Ok(DiskDone::Read(into.freeze(len as usize)));
            }
            DiskOp::Scan { at, len, .. } => {
                return Ok(DiskDone::Scanned(self.scan(at, len, inode).to_vec()));
            }
            DiskOp::Write { at, parts, .. } => self.write(at as usize, &parts, inode)?,
            DiskOp::Sync { .. } => self.inode(inode).sync(),
            DiskOp::Truncate { len, .. } => self.inode(inode).set_len(len as usize),
            DiskOp::Rename { from, to } => self.rename(&text(&from), &text(&to))?,
            DiskOp::Remove { path, durable } => {
                self.names.remove(&text(&path));
                if durable {
                    self.sync_folder(&text(&path));
                }
            }
            DiskOp::MakeDir { path } => self.dirs.extend(path.ancestors().map(text)),
            DiskOp::List { path } => return self.list(&text(&path)).map(DiskDone::Listed),
            DiskOp::Run(job) => return Ok(DiskDone::Ran(job())),
            DiskOp::Space { .. } => {
                let free = self.capacity.saturating_sub(self.used());
                self.injected.full += u64::from(self.capacity < CAPACITY_DEFAULT);
                let total = self.capacity;
                return Ok(DiskDone::Space(Space { free, total, few_inodes: false }));
            }
            DiskOp::Close { .. } | DiskOp::Open { .. } => {}
        }
        Ok(DiskDone::Done)
    }

    /// The bytes from `at` on, as far as there are any.
    fn scan(&self, at: u64, len: u32, inode: Option<InodeId>) -> &[u8] {
        let bytes = self.seen(inode);
        let start = (at as usize).min(bytes.len());
        &bytes[start..(start + len as usize).min(bytes.len())]
    }

    fn write(&mut self, at: usize, parts: &[Part], inode: Option<InodeId>) -> io::Result<()> {
        let mut bytes = gather(parts);
        let page = crate::limits::PAGE_LEN;
        let fits = bytes.len() <= crate::limits::DISK_OP_LEN_MAX;
        let aligned = at.is_multiple_of(page) && bytes.len().is_multiple_of(page);
        assert!(fits && aligned, "a write of {} bytes at {at}", bytes.len());
        let end = (at + bytes.len()) as u64;
        let grows = end.saturating_sub(disk_blocks_len(self.seen(inode)));
        let over = (self.used() + grows).saturating_sub(self.capacity);
        if over == 0 || grows == 0 {
            self.inode(inode).write(at, bytes);
            return Ok(());
        }
        // A short write is how a file system says that it just became full.
        self.injected.full += 1;
        let short = bytes.len().saturating_sub(over as usize) / page * page;
        bytes.truncate(short);
        self.inode(inode).write(at, bytes);
        Err(io::ErrorKind::StorageFull.into())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if !self.dirs.contains(folder(to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = *self.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let carried = self.volume(from) != self.volume(to);
        if carried && self.used() + disk_blocks_len(&self.inodes[id.0].seen) > self.capacity {
            self.injected.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let there = if carried { self.copy(id) } else { id };
        if carried {
            self.inodes[there.0].sync();
        }
        self.names.remove(from);
        self.names.insert(to.to_string(), there);
        self.sync_folder(from);
        self.sync_folder(to);
        Ok(())
    }

    /// A file of its own with the same bytes, not synced.
    fn copy(&mut self, id: InodeId) -> InodeId {
        let bytes = self.inodes[id.0].seen.clone();
        let mut inode = Inode::default();
        inode.write(0, bytes);
        self.inodes.push(inode);
        InodeId(self.inodes.len() - 1)
    }

    fn open(&mut self, path: &str, how: OpenHow) -> io::Result<InodeId> {
        let id = match (how, self.names.get(path).copied()) {
            (OpenHow::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenHow::CreateNew, None) => {
                if !self.dirs.contains(folder(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let id = self.create(path);
                self.sync_folder(path);
                id
            }
            (_, there) => there.ok_or(io::ErrorKind::NotFound)?,
        };
        self.inodes[id.0].opened += 1;
        Ok(id)
    }

    fn create(&mut self, path: &str) -> InodeId {
        let new = InodeId(self.inodes.len());
        let id = *self.names.entry(path.to_string()).or_insert(new);
        if id == new {
            self.inodes.push(Inode::default());
        }
        id
    }

    fn list(&self, path: &str) -> io::Result<Vec<(String, u64)>> {
        if !self.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let listed = within(&self.names, path).map(|(name, id)| {
            (name[path.len() + 1..].to_string(), self.inodes[id.0].seen.len() as u64)
        });
        Ok(listed.collect())
    }

    /// Makes the names in the folder of `path` durable.
    fn sync_folder(&mut self, path: &str) {
        let folder = folder(path);
        let gone: Vec<String> = within(&self.synced_names, folder)
            .filter(|(name, _)| !self.names.contains_key(*name))
            .map(|(name, _)| name.to_string())
            .collect();
        let there: Vec<(String, InodeId)> =
            within(&self.names, folder).map(|(name, id)| (name.to_string(), id)).collect();
        self.synced_names.retain(|name, _| !gone.contains(name));
        self.synced_names.extend(there);
    }

    fn volume(&self, path: &str) -> Option<usize> {
        self.volumes.iter().position(|volume| path.starts_with(volume.as_str()))
    }

    fn inode(&mut self, id: Option<InodeId>) -> &mut Inode {
        let InodeId(at) = id.expect("the act is about an open file");
        &mut self.inodes[at]
    }

    fn seen(&self, id: Option<InodeId>) -> &[u8] {
        let InodeId(at) = id.expect("the act is about an open file");
        &self.inodes[at].seen
    }
}

/// The files right in a folder.
fn within<'a>(
    names: &'a BTreeMap<String, InodeId>,
    folder: &str,
) -> impl Iterator<Item = (&'a str, InodeId)> + use<'a> {
    let prefix = format!("{folder}/");
    let from = Bound::Excluded(prefix.clone());
    let behind = names.range((from, Bound::Unbounded));
    let inside =
        move |name: &str| name.strip_prefix(prefix.as_str()).map(|rest| !rest.contains('/'));
    behind
        .map_while(move |(name, id)| inside(name).map(|direct| (name.as_str(), *id, direct)))
        .filter(|(_, _, direct)| *direct)
        .map(|(name, id, _)| (name, id))
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Bytes that a file takes of the disk: whole blocks, so writing on in its last one takes none.
fn disk_blocks_len(bytes: &[u8]) -> u64 {
    bytes.len().next_multiple_of(crate::limits::PAGE_LEN) as u64
}

fn gather(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(Part::len).sum());
    for part in parts {
        match part {
            Part::Bytes(own) => bytes.extend_from_slice(own),
            Part::Block(slice) => bytes.extend_from_slice(slice.bytes()),
            Part::Zeros(len) => bytes.resize(bytes.len() + len, 0),
        }
    }
    bytes
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
