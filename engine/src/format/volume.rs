//! One directory of a node: what it is, and the lock that keeps other processes out.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use ron_shards::store::layout::partition_name;

use super::{
    error::DataDirError,
    file::{COPY_FILE, FORMAT_FILE, Format, TEMPORARY_FILE},
    folders::{holds_something, refused},
};

const LOCK_FILE: &str = "lock";

/// What may lie in a directory that is still "nothing there"; the last is a file system's own.
const NOTHING: [&str; 3] = [LOCK_FILE, TEMPORARY_FILE, "lost+found"];

/// What may lie beside that in a directory that was never served.
const UNUSED: [&str; 3] = [FORMAT_FILE, COPY_FILE, "tls"];

/// Longest note of a lock's holder.
const PID_LEN_MAX: u64 = 32;

/// What is found where a volume should be.
#[derive(Debug)]
pub(super) enum State {
    /// No directory.
    Missing,
    /// A directory with nothing in it that counts.
    Empty,
    /// A volume that was made; `used` if a node has served it.
    Made { format: Format, used: bool },
    /// The disk does not let anybody look or work there.
    Unusable(DataDirError),
}

impl State {
    /// Looks at a directory and changes nothing.
    ///
    /// # Errors
    /// It holds something that is no volume of this version.
    pub(super) fn of(dir: &Path) -> Result<State, DataDirError> {
        match State::look(dir) {
            Err(DataDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(State::Missing)
            }
            Err(error) if is_unusable(&error) => Ok(State::Unusable(error)),
            state => state,
        }
    }

    fn look(dir: &Path) -> Result<State, DataDirError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(refused("list", dir))? {
            names.push(entry.map_err(refused("list", dir))?.file_name());
        }
        // The folders of partitions are made first, and nothing was stored while they are empty.
        let is_unused = |name: &OsString| is_partition(name) && !holds_something(&dir.join(name));
        let mut kept = names
            .iter()
            .filter(|name| !NOTHING.iter().any(|known| *name == known) && !is_unused(name));
        if let Some(format) = Format::read(dir)? {
            let used = kept.any(|name| !UNUSED.iter().any(|known| name == known));
            return Ok(State::Made { format, used });
        }
        match kept.next() {
            None => Ok(State::Empty),
            Some(name) => {
                let entry = name.to_string_lossy().into_owned();
                Err(DataDirError::Foreign { path: dir.to_owned(), entry })
            }
        }
    }
}

/// Whether a name is that of a partition's folder.
fn is_partition(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix('p')?.parse().ok());
    number.is_some_and(|number| name == partition_name(number).as_str())
}

/// Whether an error is the disk's. A file where a directory should be is somebody's mistake.
pub(super) fn is_unusable(error: &DataDirError) -> bool {
    let DataDirError::Io { source, .. } = error else { return false };
    !matches!(source.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists)
}

/// Takes the lock and notes who holds it. It is held until the file is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(refused("open", &path))?;
    take(dir, &path, file)
}

/// As `lock`, also where nothing can be written.
pub(super) fn lock_to_read(dir: &Path) -> Result<File, DataDirError> {
    let read_only = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    };
    match lock(dir) {
        Err(DataDirError::Io { source, .. }) if read_only(&source) => {
            let path = dir.join(LOCK_FILE);
            let file = File::open(&path).map_err(refused("open", &path))?;
            take(dir, &path, file)
        }
        taken => taken,
    }
}

fn take(dir: &Path, path: &Path, file: File) -> Result<File, DataDirError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut note = String::new();
            let read = (&file).take(PID_LEN_MAX).read_to_string(&mut note);
            let pid = read.ok().and_then(|_| note.trim().parse().ok());
            return Err(DataDirError::Locked { path: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(refused("lock", path)(source)),
    }
    let note = format!("{}\n", std::process::id());
    let noted = file.write_all_at(note.as_bytes(), 0);
    match noted.and_then(|()| file.set_len(note.len() as u64)) {
        Err(error) if !is_courtesy(&error) => Err(refused("write", path)(error)),
        _ => Ok(file),
    }
}

/// Whether the note of the holder may be missing: a full disk can be read, and so can one that was
/// opened for nothing else.
fn is_courtesy(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    const NOT_FOR_WRITING: i32 = 9;
    matches!(error.kind(), StorageFull | QuotaExceeded)
        || error.raw_os_error() == Some(NOT_FOR_WRITING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_may_hold_a_lock_and_its_note_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        fs::write(dir.path().join(LOCK_FILE), "1234567890123\n").unwrap();
        let first = lock(dir.path()).unwrap();
        let note = || fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap();
        assert_eq!(note(), format!("{own}\n"));
        let second = lock_to_read(dir.path()).unwrap_err();
        assert!(matches!(&second, DataDirError::Locked { pid: Some(pid), .. } if *pid == own));
        let said = second.to_string();
        assert!(said.contains(&format!("{:?}", dir.path())) && said.contains("pid"), "{said}");
        fs::write(dir.path().join(LOCK_FILE), "no number").unwrap();
        let third = lock(dir.path()).unwrap_err();
        assert!(matches!(third, DataDirError::Locked { pid: None, .. }));
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }

    #[test]
    fn a_lock_can_be_held_without_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        fs::write(&path, "77").unwrap();
        let held = take(dir.path(), &path, File::open(&path).unwrap()).unwrap();
        assert!(matches!(lock(dir.path()), Err(DataDirError::Locked { pid: Some(77), .. })));
        drop(held);
    }

    #[test]
    fn states_are_distinguished() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        assert!(matches!(State::of(&dir), Ok(State::Missing)));
        fs::create_dir(&dir).unwrap();
        assert!(matches!(State::of(&dir), Ok(State::Empty)));
        fs::write(dir.join(LOCK_FILE), "12345678\n").unwrap();
        fs::write(dir.join(TEMPORARY_FILE), "{\"form").unwrap();
        fs::create_dir(dir.join("lost+found")).unwrap();
        assert!(matches!(State::of(&dir), Ok(State::Empty)), "what a crash left is nothing");
        fs::create_dir(dir.join("p000")).unwrap();
        assert!(matches!(State::of(&dir), Ok(State::Empty)), "folders are made first");
        fs::create_dir(dir.join("p000/segments")).unwrap();
        let foreign = State::of(&dir).unwrap_err();
        assert!(matches!(&foreign, DataDirError::Foreign { entry, .. } if entry == "p000"));
        Format { partitions: 1, place: None }.create(&dir).unwrap();
        assert!(matches!(State::of(&dir), Ok(State::Made { used: true, .. })));
        fs::remove_dir(dir.join("p000/segments")).unwrap();
        fs::create_dir(dir.join("tls")).unwrap();
        assert!(matches!(State::of(&dir), Ok(State::Made { used: false, .. })));

        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(State::of(&file), Err(DataDirError::Io { what: "list", .. })));
        assert!(matches!(State::of(&file.join("b")), Err(DataDirError::Io { .. })));
    }
}
