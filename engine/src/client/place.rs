//! The directory that takes the files of a bundle, whose paths nobody vouches for.
//!
//! Everything is done from one open directory, component by component, and no symbolic link below
//! it is followed: whatever a path says and whatever lies there, nothing outside changes. A file is
//! written in a folder of its own and moved to its place when it is verified, so that every name
//! has all of its bytes or none. That folder also keeps two processes from one directory.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use ron_codec::address::Address;
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat,
        mkdirat, openat, renameat, renameat_with, syncfs, unlinkat,
    },
    io::Errno,
};

use super::{
    error::{ClientError, TreeFault},
    progress::Progress,
    source::hash_file,
};

/// The folder of files that are not verified yet. No path of a bundle may begin with it.
const PARTS: &str = ".ronctl-part";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// For files that are there. Without waiting, lest a FIFO keeps us.
const EXISTING: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// What a directory or a file may have at most; the umask takes from it.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const PARTS_MODE: Mode = Mode::from_raw_mode(0o700);

/// A directory that is being filled.
pub(super) struct Place {
    root: OwnedFd,
    parts: OwnedFd,
    shown: PathBuf,
    go_on: bool,
}

/// Where a file belongs.
pub(super) struct Slot<'a> {
    place: &'a Place,
    directory: OwnedFd,
    path: &'a str,
    name: &'a str,
    /// A file has the name.
    replaces: bool,
}

impl Place {
    /// Makes a directory, or takes one that is empty; with `go_on`, one that is not.
    ///
    /// # Errors
    ///
    /// `NotEmpty`, `InUse` when another process fills it, and what the file system says.
    pub(super) fn open(shown: &Path, go_on: bool) -> Result<Self, ClientError> {
        let failed = |source| ClientError::file(shown, source);
        match fs::create_dir(shown) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(failed)?,
        }
        // The directory itself may be reached by a link: it was named.
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let root = openat(CWD, shown, flags, Mode::empty());
        let root = root.map_err(|error| failed(error.into()))?;
        if !go_on && names(&root).map_err(failed)?.next().is_some() {
            return Err(ClientError::NotEmpty { path: shown.to_path_buf() });
        }
        let parts = parts(&root).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ClientError::InUse { path: shown.to_path_buf() },
            _ => ClientError::file(&shown.join(PARTS), error),
        })?;
        Ok(Self { root, parts, shown: shown.to_path_buf(), go_on })
    }

    /// Where a path lies, for messages.
    pub(super) fn shown(&self, path: &str) -> PathBuf {
        self.shown.join(path)
    }

    /// The place of a path, whose directories are made. `None` when the right file is there.
    ///
    /// # Errors
    ///
    /// When something else is in the way.
    pub(super) fn slot<'a>(
        &'a self,
        path: &'a str,
        (address, len): (&Address, u64),
        progress: Progress,
    ) -> Result<Option<Slot<'a>>, ClientError> {
        if path.split('/').next() == Some(PARTS) {
            return Err(self.fault(path, TreeFault::Own));
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.directory(parent)?;
        let mut slot = Slot { place: self, directory, path, name, replaces: false };
        if self.go_on
            && let Some(file) = slot.existing()?
        {
            slot.replaces = true;
            let shown = self.shown(path);
            let found = file.metadata().map_err(|error| ClientError::file(&shown, error))?;
            if found.len() == len && hash_file(&file, &shown, len, progress)? == *address {
                return Ok(None);
            }
        }
        Ok(Some(slot))
    }

    /// Opens a directory, and makes what is not there of it.
    fn directory(&self, path: &str) -> Result<OwnedFd, ClientError> {
        let open = |from: &OwnedFd, name: &str| openat(from, name, DIRECTORY, Mode::empty());
        let failed = |error: Errno, len: usize| match error {
            Errno::NOTDIR | Errno::LOOP => self.fault(&path[..len], TreeFault::NotDirectory),
            error => ClientError::file(&self.shown(&path[..len]), error.into()),
        };
        let mut opened = open(&self.root, ".").map_err(|error| failed(error, 0))?;
        let mut len = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            len += name.len() + usize::from(len > 0);
            opened = match open(&opened, name) {
                Err(Errno::NOENT) => {
                    match mkdirat(&opened, name, DIRECTORY_MODE) {
                        // Another thread was faster.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(failed(error, len)),
                    }
                    open(&opened, name)
                }
                other => other,
            }
            .map_err(|error| failed(error, len))?;
        }
        Ok(opened)
    }

    /// All files are in their places: they are there after a power cut, too.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(super) fn finish(self) -> Result<(), ClientError> {
        let synced =
            unlinkat(&self.root, PARTS, AtFlags::REMOVEDIR).and_then(|()| syncfs(&self.root));
        synced.map_err(|error| ClientError::file(&self.shown, error.into()))
    }

    fn fault(&self, path: &str, why: TreeFault) -> ClientError {
        ClientError::Tree { path: self.shown(path), why }
    }
}

impl Slot<'_> {
    /// Where it is, for messages.
    pub(super) fn shown(&self) -> PathBuf {
        self.place.shown(self.path)
    }

    /// What has the name, if that is a file.
    fn existing(&self) -> Result<Option<File>, ClientError> {
        let failed = |error: Errno| match error {
            // A symbolic link, or a socket.
            Errno::LOOP | Errno::NXIO => self.place.fault(self.path, TreeFault::NotFile),
            error => ClientError::file(&self.place.shown(self.path), error.into()),
        };
        let file = match openat(&self.directory, self.name, EXISTING, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mode = fstat(&file).map_err(failed)?.st_mode;
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Ok(Some(file.into())),
            _ => Err(failed(Errno::LOOP)),
        }
    }

    /// A new file, which is known by a number until it is in its place.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(super) fn begin(&self, number: u64) -> Result<File, ClientError> {
        let file = openat(&self.place.parts, number.to_string(), NEW, FILE_MODE);
        file.map(File::from).map_err(|error| self.failed(error))
    }

    /// Moves the file of this number to its place.
    ///
    /// # Errors
    ///
    /// When something has the name by now.
    pub(super) fn finish(&self, number: u64) -> Result<(), ClientError> {
        let (parts, number) = (&self.place.parts, number.to_string());
        let moved = if self.replaces {
            renameat(parts, &number, &self.directory, self.name)
        } else {
            let flags = RenameFlags::NOREPLACE;
            match renameat_with(parts, &number, &self.directory, self.name, flags) {
                // Not every file system can promise that.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    renameat(parts, &number, &self.directory, self.name)
                }
                other => other,
            }
        };
        moved.map_err(|error| match error {
            Errno::EXIST | Errno::ISDIR | Errno::NOTDIR => {
                self.place.fault(self.path, TreeFault::Taken)
            }
            error => self.failed(error),
        })
    }

    /// Removes the file of this number, which did not become what it should.
    pub(super) fn give_up(&self, number: u64) {
        // What stays is removed by the next one who goes on.
        let _ = unlinkat(&self.place.parts, number.to_string(), AtFlags::empty());
    }

    fn failed(&self, error: Errno) -> ClientError {
        ClientError::file(&self.place.shown(self.path), error.into())
    }
}

/// Opens the folder of files that are not verified yet, without any.
fn parts(root: &OwnedFd) -> io::Result<OwnedFd> {
    match mkdirat(root, PARTS, PARTS_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let parts = openat(root, PARTS, DIRECTORY, Mode::empty())?;
    flock(&parts, FlockOperation::NonBlockingLockExclusive)?;
    for name in names(&parts)? {
        unlinkat(&parts, OsStr::from_bytes(&name?), AtFlags::empty())?;
    }
    Ok(parts)
}

/// What is in a directory.
fn names(directory: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<Vec<u8>>>> {
    let entries = Dir::read_from(directory)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) => {
            let name = entry.file_name().to_bytes();
            (name != b"." && name != b"..").then(|| Ok(name.to_vec()))
        }
        Err(error) => Some(Err(error.into())),
    }))
}
