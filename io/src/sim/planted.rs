//! The disk of one shard with faults that a test plants, for tests that must know what fails.
//!
//! It is the same [`Disk`], in good weather. Acts are performed at once, and counted. A fault that
//! is planted leaves what the weather's would, but for three: what was to be removed or cut off
//! stays, so that a test knows what is there; a job has no outcome, as one that panicked; and a
//! write that was begun may end at any byte.
//!
//! Tests also do here what no act does: files come, go and change behind everyone's back.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Chance, Disk, InodeId, files::Files};
use crate::{
    limits::PAGE_LEN,
    ports::{DiskDone, DiskOp, Part},
};

/// The kinds of acts, for faults that are planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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

impl Kind {
    fn of(op: &DiskOp) -> Kind {
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
}

/// A fault to come: of all acts of this kind, after `skip` more, `times` fail.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    pub kind: Kind,
    pub skip: usize,
    pub times: usize,
    pub error: io::ErrorKind,
}

/// The disk, and the files that are open.
#[derive(Debug)]
pub struct PlantedDisk {
    disk: Disk,
    files: Files,
    pub planted: Vec<Planted>,
    /// A file that cannot be scanned.
    pub unreadable: Option<PathBuf>,
    /// So many scans to come bring half of what is there.
    pub short_scans: usize,
    /// Acts performed, by kind, and bytes written.
    pub performed: Vec<Kind>,
    pub written: u64,
}

impl PlantedDisk {
    pub fn new(seed: u64) -> PlantedDisk {
        PlantedDisk {
            disk: Disk::new(&[], Chance::new(seed)),
            files: Files::default(),
            planted: Vec::new(),
            unreadable: None,
            short_scans: 0,
            performed: Vec::new(),
            written: 0,
        }
    }

    /// Performs an act.
    ///
    /// # Errors
    /// What the disk says, or what was planted.
    ///
    /// # Panics
    /// If the act is about a file that is not open.
    pub fn perform(&mut self, op: DiskOp) -> io::Result<DiskDone> {
        let kind = Kind::of(&op);
        self.performed.push(kind);
        let inode = self.files.submit(&op);
        let unreadable = self.unreadable.as_ref().and_then(|path| self.disk.named(path));
        if kind == Kind::Scan && inode == unreadable {
            return Err(io::Error::other("the disk does not give it"));
        }
        if let Some(error) = self.fault(kind) {
            let nothing = matches!(kind, Kind::Remove | Kind::Truncate | Kind::Run);
            return if nothing {
                Err(error.into())
            } else {
                self.disk.fail(&op, inode, error.into())
            };
        }
        let len = match &op {
            DiskOp::Write { parts, .. } => parts.iter().map(Part::len).sum(),
            _ => 0,
        };
        let closes = inode.filter(|_| matches!(op, DiskOp::Close { .. }));
        let mut done = self.files.perform(op, inode, &mut self.disk)?;
        self.written += len as u64;
        if let Some(id) = closes {
            self.disk.closed(id);
        }
        if let DiskDone::Scanned(found) = &mut done
            && self.short_scans > 0
            && found.len() > PAGE_LEN
        {
            self.short_scans -= 1;
            found.truncate((found.len() / 2).next_multiple_of(PAGE_LEN));
        }
        Ok(done)
    }

    /// The act was begun and nobody waited for its end: what it changes is changed in part.
    ///
    /// # Panics
    /// If it is about a file that is not open.
    pub fn half_perform(&mut self, op: DiskOp) {
        let inode = self.files.inode_of(&op);
        match (&op, inode) {
            (DiskOp::Write { at, parts, .. }, Some(id)) => self.disk.write_begun(id, *at, parts),
            _ => self.disk.half_perform(op, inode),
        }
    }

    /// The power fails: what was not synced is there or not, as the seed says. All files are
    /// closed, and no fault is to come.
    pub fn crash(&mut self, seed: u64) {
        self.disk.reseed(seed);
        self.disk.crash();
        self.kill();
    }

    /// The process is killed, and everything it wrote stays. No fault is to come.
    pub fn kill(&mut self) {
        self.disk.close_all();
        self.files = Files::default();
        self.planted.clear();
    }

    /// A file that is complete and durable, as an upload leaves it.
    pub fn place(&mut self, path: &Path, bytes: &[u8]) {
        self.disk.lay(path, bytes);
    }

    /// All files there are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk.files().map(|(name, _, _)| name.into()).collect()
    }

    /// What a reader sees of a file.
    ///
    /// # Panics
    /// If there is no file of this name.
    pub fn bytes(&self, path: &Path) -> &[u8] {
        self.disk.bytes(self.named(path))
    }

    /// Changes stored bytes.
    ///
    /// # Panics
    /// If there is no file of this name.
    pub fn damage(&mut self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let id = self.named(path);
        self.disk.alter(id, change);
    }

    /// Takes a file away.
    pub fn lose(&mut self, path: &Path) {
        self.disk.lose(path);
    }

    /// Takes a folder away in which nothing is.
    ///
    /// # Panics
    /// If something is in it, or it is not there.
    pub fn lose_folder(&mut self, path: &Path) {
        self.disk.lose_folder(path);
    }

    /// Bytes that all files together may have.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.disk.set_capacity(Some(capacity));
    }

    /// Open files.
    pub fn open_files(&self) -> usize {
        self.disk.opened() as usize
    }

    fn named(&self, path: &Path) -> InodeId {
        self.disk.named(path).unwrap_or_else(|| panic!("{} is not there", path.display()))
    }

    fn fault(&mut self, kind: Kind) -> Option<io::ErrorKind> {
        let planted =
            self.planted.iter_mut().find(|planted| planted.kind == kind && planted.times > 0)?;
        if planted.skip > 0 {
            planted.skip -= 1;
            return None;
        }
        planted.times -= 1;
        Some(planted.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{FileId, OpenHow, Urgency};

    const FILE: FileId = FileId(0);

    fn disk(len: usize) -> PlantedDisk {
        let mut disk = PlantedDisk::new(1);
        disk.perform(DiskOp::MakeDir { path: "/a".into() }).unwrap();
        let how = OpenHow::CreateNew;
        disk.perform(DiskOp::Open { file: FILE, path: "/a/b".into(), how }).unwrap();
        write(&mut disk, len).unwrap();
        disk.perform(DiskOp::Sync { file: FILE }).unwrap();
        disk
    }

    fn write(disk: &mut PlantedDisk, len: usize) -> io::Result<DiskDone> {
        disk.perform(DiskOp::Write { file: FILE, at: 0, parts: vec![Part::Bytes(vec![7; len])] })
    }

    fn scan(disk: &mut PlantedDisk) -> io::Result<usize> {
        let urgency = Urgency::Background;
        match disk.perform(DiskOp::Scan { file: FILE, at: 0, len: 1 << 20, urgency })? {
            DiskDone::Scanned(bytes) => Ok(bytes.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn acts_fail_as_they_were_planted_and_are_counted() {
        let mut disk = disk(8192);
        let error = io::ErrorKind::StorageFull;
        disk.planted.push(Planted { kind: Kind::Write, skip: 1, times: 2, error });
        let outcomes = [(); 4].map(|()| write(&mut disk, 4096).map_err(|error| error.kind()).err());
        assert_eq!(outcomes, [None, Some(error), Some(error), None]);
        assert_eq!(disk.written, 8192 + 2 * 4096, "what failed is not counted");
        assert_eq!(disk.performed[..4], [Kind::Other, Kind::Open, Kind::Write, Kind::Sync]);
        assert_eq!(disk.performed[4..], [Kind::Write; 4]);
        disk.planted.push(Planted { kind: Kind::Sync, skip: 0, times: 1, error });
        disk.kill();
        assert!(disk.planted.is_empty() && disk.open_files() == 0);
    }

    #[test]
    fn what_a_planted_fault_was_to_take_away_stays() {
        for seed in 0..10 {
            let mut disk = disk(8192);
            disk.crash(seed);
            let how = OpenHow::ReadWrite;
            disk.perform(DiskOp::Open { file: FILE, path: "/a/b".into(), how }).unwrap();
            let error = io::ErrorKind::Other;
            for kind in [Kind::Truncate, Kind::Remove] {
                disk.planted.push(Planted { kind, skip: 0, times: 1, error });
            }
            disk.perform(DiskOp::Truncate { file: FILE, len: 0 }).unwrap_err();
            disk.perform(DiskOp::Remove { path: "/a/b".into(), durable: true }).unwrap_err();
            assert_eq!(disk.bytes(Path::new("/a/b")), [7; 8192]);
            disk.perform(DiskOp::Remove { path: "/a/b".into(), durable: true }).unwrap();
            assert!(disk.paths().is_empty());
        }
    }

    #[test]
    fn scans_are_refused_and_cut_short_as_long_as_a_test_wants() {
        let mut disk = disk(3 * 4096);
        disk.short_scans = 1;
        assert_eq!((scan(&mut disk).unwrap(), scan(&mut disk).unwrap()), (2 * 4096, 3 * 4096));
        disk.unreadable = Some("/a/b".into());
        assert!(scan(&mut disk).is_err());
        disk.unreadable = Some("/a/c".into());
        assert!(scan(&mut disk).is_ok(), "another one");
    }

    #[test]
    fn what_changes_behind_everyones_back_outlives_a_crash() {
        for seed in 0..10 {
            let mut disk = disk(4096);
            disk.place(Path::new("/a/c"), &[1; 10]);
            disk.damage(Path::new("/a/b"), |bytes| bytes.truncate(5));
            disk.place(Path::new("/b/d"), b"");
            disk.lose(Path::new("/b/d"));
            disk.lose_folder(Path::new("/b"));
            disk.crash(seed);
            assert_eq!(disk.paths(), [PathBuf::from("/a/b"), PathBuf::from("/a/c")]);
            assert_eq!(disk.bytes(Path::new("/a/b")), [7; 5]);
            assert!(disk.perform(DiskOp::List { path: "/b".into() }).is_err());
        }
    }
}
