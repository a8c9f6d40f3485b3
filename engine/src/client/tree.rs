//! A local tree of files that nobody vouches for: what is in it, and how its files are opened.
//!
//! A tree is walked from one open directory, component by component, and no symbolic link is
//! followed on the way: what a path leads to cannot be exchanged for something elsewhere between a
//! look and the next. With `--follow-links` the place that a link leads to is found first, must be
//! below the same directory, and is then opened in the same way.
//!
//! Everything that is not taken is a fault that names its path. The walk goes on behind it, so that
//! one run shows all of them.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use ron_codec::manifest::{PathFault, check_path};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use super::error::{ClientError, TreeFault};

/// Most files and directories of a tree: what is known of them is held in memory.
const ENTRIES_MAX: usize = 2_000_000;

/// Most faults that are kept; the rest is counted.
const FAULTS_KEPT_MAX: usize = 20;

/// How directories on the way are opened.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How files are opened. Without waiting, lest one that has become a FIFO keeps us.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A directory, or a file as the only one in it.
pub(super) struct Tree {
    root: OwnedFd,
    /// As it was named, for messages.
    shown: PathBuf,
    /// Without links.
    canonical: PathBuf,
    /// The name of the only file.
    only: Option<OsString>,
    follow_links: bool,
    entries_max: usize,
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path in the tree.
    pub(super) path: String,
    /// The path without links, where that is another.
    real: Option<Box<Path>>,
    pub(super) len: u64,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Sorted by their paths.
    pub(super) files: Vec<Found>,
    pub(super) faults: Vec<ClientError>,
    /// All faults, those that were not kept included.
    pub(super) faults_len: usize,
    /// Files and directories so far.
    entries: usize,
}

impl Walked {
    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    fn fault(&mut self, fault: ClientError) {
        self.faults_len += 1;
        if self.faults.len() < FAULTS_KEPT_MAX {
            self.faults.push(fault);
        }
    }
}

/// A directory that is yet to be read.
struct Pending {
    path: String,
    real: PathBuf,
    /// The directories that it was reached by, itself included, by device and inode.
    within: BTreeSet<(u64, u64)>,
}

impl Tree {
    /// Opens a directory, or the directory of a file. `path` itself may be a link.
    ///
    /// # Errors
    ///
    /// When it is not there, or is neither.
    pub(super) fn open(path: &Path, follow_links: bool) -> Result<Self, ClientError> {
        let failed = |source| ClientError::file(path, source);
        let mut canonical = fs::canonicalize(path).map_err(failed)?;
        let found = fs::metadata(&canonical).map_err(failed)?;
        let shown = path.to_path_buf();
        if !found.is_dir() && !found.is_file() {
            let why = TreeFault::Special("device, socket or FIFO");
            return Err(ClientError::Tree { path: shown, why });
        }
        let only = match (found.is_file(), canonical.file_name()) {
            (true, Some(name)) => Some(name.to_owned()),
            _ => None,
        };
        if only.is_some() {
            canonical.pop();
        }
        let root = openat(CWD, &canonical, DIRECTORY, Mode::empty());
        let root = root.map_err(|error| failed(error.into()))?;
        Ok(Self { root, shown, canonical, only, follow_links, entries_max: ENTRIES_MAX })
    }

    /// Where a path of the tree lies, as the operator would write it.
    pub(super) fn shown(&self, path: &str) -> PathBuf {
        match self.only {
            Some(_) => self.shown.clone(),
            None => self.shown.join(path),
        }
    }

    /// Finds all files.
    pub(super) fn walk(&self) -> Walked {
        let mut walked = Walked::default();
        if let Some(name) = &self.only {
            self.walk_only(name, &mut walked);
            return walked;
        }
        let within = fstat(&self.root).map(|root| [(root.st_dev, root.st_ino)].into());
        let within = within.unwrap_or_default();
        let mut pending = vec![Pending { path: String::new(), real: PathBuf::new(), within }];
        while let Some(directory) = pending.pop() {
            if let Err(fault) = self.walk_directory(&directory, &mut pending, &mut walked) {
                walked.fault(fault);
            }
            if walked.entries > self.entries_max {
                let why = TreeFault::TooMany { max: self.entries_max };
                walked.fault(ClientError::Tree { path: self.shown.clone(), why });
                break;
            }
        }
        walked.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        walked
    }

    fn walk_only(&self, name: &OsStr, walked: &mut Walked) {
        // The name that was given, which may be that of a link.
        let given = self.shown.file_name().unwrap_or(name);
        let found = self.join("", given).and_then(|path| {
            check_path(&path).map_err(|why| self.fault(&path, why.into()))?;
            let found = statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW);
            let found = found.map_err(|error| ClientError::file(&self.shown, error.into()))?;
            let real = (path.as_bytes() != name.as_bytes()).then(|| Path::new(name).into());
            Ok(Found { path, real, len: found.st_size as u64 })
        });
        match found {
            Ok(found) => walked.files.push(found),
            Err(fault) => walked.fault(fault),
        }
    }

    fn walk_directory(
        &self,
        directory: &Pending,
        pending: &mut Vec<Pending>,
        walked: &mut Walked,
    ) -> Result<(), ClientError> {
        let failed = |error: Errno| ClientError::file(&self.shown(&directory.path), error.into());
        let opened = self.open_directory(&directory.real).map_err(failed)?;
        for entry in Dir::read_from(&opened).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            walked.entries += 1;
            if walked.entries > self.entries_max {
                return Ok(());
            }
            if let Err(fault) = self.walk_entry((directory, &opened), name, pending, walked) {
                walked.fault(fault);
            }
        }
        Ok(())
    }

    fn walk_entry(
        &self,
        (directory, opened): (&Pending, &OwnedFd),
        name: &OsStr,
        pending: &mut Vec<Pending>,
        walked: &mut Walked,
    ) -> Result<(), ClientError> {
        let path = self.join(&directory.path, name)?;
        let mut real = directory.real.join(name);
        let failed = |error: Errno| ClientError::file(&self.shown(&path), error.into());
        let mut found = statat(opened, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            if !self.follow_links {
                return Err(self.fault(&path, TreeFault::Link));
            }
            real = self.target(&real, &path)?;
            found = self.stat(&real, &path)?;
        }
        match (FileType::from_raw_mode(found.st_mode), check_path(&path)) {
            // A directory is no path of the bundle.
            (FileType::Directory, Ok(()) | Err(PathFault::Reserved)) => {
                let mut within = directory.within.clone();
                if !within.insert((found.st_dev, found.st_ino)) {
                    return Err(self.fault(&path, TreeFault::LinkLoop));
                }
                pending.push(Pending { path, real, within });
            }
            (FileType::RegularFile, Ok(())) => {
                let is_other = real.as_os_str() != OsStr::new(&path);
                let real = is_other.then(|| real.into());
                walked.files.push(Found { path, real, len: found.st_size as u64 });
            }
            (FileType::RegularFile | FileType::Directory, Err(why)) => {
                return Err(self.fault(&path, why.into()));
            }
            (other, _) => return Err(self.fault(&path, TreeFault::Special(name_of(other)))),
        }
        Ok(())
    }

    /// The path of an entry in the tree.
    fn join(&self, directory: &str, name: &OsStr) -> Result<String, ClientError> {
        let Some(name) = name.to_str() else {
            let path = self.shown(directory).join(name);
            return Err(ClientError::Tree { path, why: TreeFault::NotUtf8 });
        };
        Ok(if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") })
    }

    fn stat(&self, real: &Path, path: &str) -> Result<rustix::fs::Stat, ClientError> {
        let failed = |error: Errno| ClientError::file(&self.shown(path), error.into());
        let (parent, name) = split(real);
        let parent = self.open_directory(parent).map_err(failed)?;
        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Where a link leads, from the root of the tree.
    fn target(&self, real: &Path, path: &str) -> Result<PathBuf, ClientError> {
        let out = || self.fault(path, TreeFault::LinkOut);
        let target = fs::canonicalize(self.canonical.join(real)).map_err(|_| out())?;
        target.strip_prefix(&self.canonical).map(Path::to_path_buf).map_err(|_| out())
    }

    /// Opens a file that a walk found.
    ///
    /// # Errors
    ///
    /// When it cannot be opened any more, or is something else now.
    pub(super) fn open_file(&self, found: &Found) -> Result<File, ClientError> {
        let real = found.real.as_deref().unwrap_or_else(|| Path::new(&found.path));
        let shown = self.shown(&found.path);
        let failed = |error: Errno| match error {
            Errno::LOOP | Errno::NOTDIR => ClientError::Changed { path: shown.clone() },
            error => ClientError::file(&shown, error.into()),
        };
        let (parent, name) = split(real);
        let parent = self.open_directory(parent).map_err(failed)?;
        let file = openat(parent, name, FILE, Mode::empty()).map_err(failed)?;
        let is = FileType::from_raw_mode(fstat(&file).map_err(failed)?.st_mode);
        if is == FileType::RegularFile { Ok(file.into()) } else { Err(failed(Errno::NOTDIR)) }
    }

    /// Opens a directory below the root without following a link.
    fn open_directory(&self, real: &Path) -> Result<OwnedFd, Errno> {
        let mut opened = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for component in real.components() {
            let Component::Normal(name) = component else { return Err(Errno::INVAL) };
            opened = openat(&opened, name, DIRECTORY, Mode::empty())?;
        }
        Ok(opened)
    }

    fn fault(&self, path: &str, why: TreeFault) -> ClientError {
        ClientError::Tree { path: self.shown(path), why }
    }
}

/// The directory and the name of a path; the directory of the root itself is the root.
fn split(real: &Path) -> (&Path, &OsStr) {
    let name = real.file_name().unwrap_or(OsStr::new("."));
    (real.parent().unwrap_or(Path::new("")), name)
}

fn name_of(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "file of another kind",
    }
}

#[cfg(test)]
mod tests;
