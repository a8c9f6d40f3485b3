//! The data directory: who uses it, and how it is laid out.
//!
//! Opening it takes the lock that keeps a second process out, and reads or makes `format.json`,
//! which never changes afterwards (docs/STORAGE.md, "The data directory"). What is in a partition
//! is not looked at here.
//!
//! A crash while the directory is made leaves an empty directory, a lock nobody holds, or a
//! temporary file beside them; each is taken for "nothing there" the next time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::config::limits::PARTITIONS_MAX;

/// The format of data directories that this version reads and writes.
pub const FORMAT: u64 = 1;

const LOCK_FILE: &str = "lock";
const FORMAT_FILE: &str = "format.json";
const TEMPORARY_FILE: &str = "format.json.tmp";

/// What may lie in a directory that is still "nothing there"; the last is a file system's own.
const NOTHING: [&str; 3] = [LOCK_FILE, TEMPORARY_FILE, "lost+found"];

/// Longest `format.json` that is read, and longest note of a lock's holder.
const FORMAT_LEN_MAX: u64 = 4096;
const PID_LEN_MAX: u64 = 32;

/// An open data directory. Nobody else can open it until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    partitions: u32,
    created: bool,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot {what} {path:?}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the data directory {path:?} is in use by another process{}", holder(*.pid))]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("the data directory {path:?} has format {found}; this version knows format {known}")]
    UnknownFormat { path: PathBuf, found: u64, known: u64 },
    #[error("{path:?} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("{path:?} says {found} partitions; 1 to {max} are allowed")]
    Partitions { path: PathBuf, found: u64, max: u32 },
    #[error("{path:?} has no format.json but holds {entry:?}: it is no data directory")]
    Foreign { path: PathBuf, entry: String },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// What is read first, whatever the format.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
    partitions: Option<u64>,
}

#[derive(Serialize)]
struct Format {
    format: u64,
    partitions: u32,
}

impl DataDir {
    /// Opens the data directory at `path`. One that is not there, or is empty, is made with
    /// `partitions` partitions; an existing one keeps the number it has.
    ///
    /// # Errors
    /// It is in use, unknown, damaged, holds something else, or the system refused.
    pub fn open(path: &Path, partitions: u32) -> Result<DataDir, DataDirError> {
        make_dir(path)?;
        let lock = lock(path)?;
        let file = path.join(FORMAT_FILE);
        let (partitions, created) = match File::open(&file) {
            Ok(opened) => (read_format(&file, opened)?, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_format(path, partitions)?;
                (partitions, true)
            }
            Err(source) => return Err(refused("open", &file)(source)),
        };
        Ok(DataDir { path: path.to_owned(), partitions, created, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Partitions of the directory: 1 to `PARTITIONS_MAX`.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Whether this call of `open` made it.
    pub fn created(&self) -> bool {
        self.created
    }
}

fn refused<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { what, path: path.to_owned(), source }
}

/// Makes a directory and those above it, durably.
fn make_dir(path: &Path) -> Result<(), DataDirError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    fs::create_dir_all(path).map_err(refused("create", path))?;
    for made in missing.into_iter().rev() {
        sync_dir(parent(made))?;
    }
    Ok(())
}

/// The directory that a path is in; that of a plain name is the current one.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(refused("sync", path))
}

/// Takes the lock and notes who holds it.
fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(refused("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut note = String::new();
            let read = (&file).take(PID_LEN_MAX).read_to_string(&mut note);
            let pid = read.ok().and_then(|_| note.trim().parse().ok());
            return Err(DataDirError::Locked { path: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(refused("lock", &path)(source)),
    }
    let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(refused("write", &path))?;
    Ok(file)
}

fn read_format(path: &Path, file: File) -> Result<u32, DataDirError> {
    let mut text = Vec::new();
    file.take(FORMAT_LEN_MAX + 1).read_to_end(&mut text).map_err(refused("read", path))?;
    let damaged = |reason: String| DataDirError::Damaged { path: path.to_owned(), reason };
    if text.len() as u64 > FORMAT_LEN_MAX {
        return Err(damaged(format!("it is longer than {FORMAT_LEN_MAX} bytes")));
    }
    let read: AnyFormat =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if read.format != FORMAT {
        let (path, found) = (parent(path).to_owned(), read.format);
        return Err(DataDirError::UnknownFormat { path, found, known: FORMAT });
    }
    let found = read.partitions.ok_or_else(|| damaged("it names no partitions".to_owned()))?;
    check_partitions(path, found)
}

fn check_partitions(path: &Path, found: u64) -> Result<u32, DataDirError> {
    let allowed = u32::try_from(found).ok().filter(|n| (1..=PARTITIONS_MAX).contains(n));
    let max = PARTITIONS_MAX;
    allowed.ok_or_else(|| DataDirError::Partitions { path: path.to_owned(), found, max })
}

/// Writes `format.json` where there is nothing: all of it or none of it is there after a crash.
fn create_format(dir: &Path, partitions: u32) -> Result<(), DataDirError> {
    let path = dir.join(FORMAT_FILE);
    check_partitions(&path, partitions.into())?;
    for entry in fs::read_dir(dir).map_err(refused("list", dir))? {
        let name = entry.map_err(refused("list", dir))?.file_name();
        if !NOTHING.iter().any(|known| name == *known) {
            let entry = name.to_string_lossy().into_owned();
            return Err(DataDirError::Foreign { path: dir.to_owned(), entry });
        }
    }
    let temporary = dir.join(TEMPORARY_FILE);
    let write = || {
        let mut text = serde_json::to_vec(&Format { format: FORMAT, partitions })?;
        text.push(b'\n');
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(refused("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(refused("create", &path))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_format(text: &str) -> (tempfile::TempDir, Result<DataDir, DataDirError>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FORMAT_FILE), text).unwrap();
        let opened = DataDir::open(dir.path(), 3);
        (dir, opened)
    }

    #[test]
    fn a_directory_is_made_once_and_keeps_its_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/data");
        let made = DataDir::open(&path, 3).unwrap();
        assert!(made.created() && made.partitions() == 3 && made.path() == path);
        let text = fs::read_to_string(path.join(FORMAT_FILE)).unwrap();
        assert_eq!(text, "{\"format\":1,\"partitions\":3}\n");
        assert!(!path.join(TEMPORARY_FILE).exists());
        drop(made);
        let again = DataDir::open(&path, 7).unwrap();
        assert!(!again.created() && again.partitions() == 3);
    }

    #[test]
    fn only_one_may_have_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), 1).unwrap();
        let second = DataDir::open(dir.path(), 1).unwrap_err();
        let own = std::process::id();
        assert!(matches!(&second, DataDirError::Locked { pid: Some(pid), .. } if *pid == own));
        let said = second.to_string();
        assert!(said.contains(&format!("{:?}", dir.path())) && said.contains("pid"), "{said}");
        fs::write(dir.path().join(LOCK_FILE), "no number").unwrap();
        let third = DataDir::open(dir.path(), 1).unwrap_err();
        assert!(matches!(third, DataDirError::Locked { pid: None, .. }));
        drop(first);
        assert!(DataDir::open(dir.path(), 1).is_ok());
        let note = fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap();
        assert_eq!(note, format!("{own}\n"), "an old note is replaced whole");
    }

    #[test]
    fn what_a_crash_left_is_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), "12345678\n").unwrap();
        fs::write(dir.path().join(TEMPORARY_FILE), "{\"form").unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        let opened = DataDir::open(dir.path(), 2).unwrap();
        assert!(opened.created() && opened.partitions() == 2);
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("p000")).unwrap();
        let error = DataDir::open(dir.path(), 2).unwrap_err();
        assert!(matches!(&error, DataDirError::Foreign { entry, .. } if entry == "p000"));
        assert!(!dir.path().join(FORMAT_FILE).exists());
    }

    #[test]
    fn other_formats_are_refused_with_both_numbers() {
        let (_dir, opened) = with_format(r#"{"format":2,"shape":"other"}"#);
        let said = opened.unwrap_err().to_string();
        assert!(said.contains("format 2") && said.contains("format 1"), "{said}");
    }

    #[test]
    fn damage_is_no_reason_to_start_afresh() {
        for text in ["", "{", "[]", r#"{"format":"1"}"#, r#"{"format":1}"#, "{\"partitions\":1}"] {
            let (dir, opened) = with_format(text);
            assert!(matches!(opened, Err(DataDirError::Damaged { .. })), "{text}");
            assert_eq!(fs::read_to_string(dir.path().join(FORMAT_FILE)).unwrap(), text);
        }
        let (_dir, opened) = with_format(&" ".repeat(FORMAT_LEN_MAX as usize + 1));
        assert!(matches!(opened, Err(DataDirError::Damaged { .. })));
    }

    #[test]
    fn partitions_have_bounds_and_unknown_fields_none() {
        for (partitions, good) in [(0, false), (1, true), (1024, true), (1025, false)] {
            let text = format!(r#"{{"format":1,"partitions":{partitions},"node":"x"}}"#);
            assert_eq!(with_format(&text).1.is_ok(), good, "{partitions} read");
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(DataDir::open(dir.path(), partitions).is_ok(), good, "{partitions} made");
        }
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, "").unwrap();
        assert!(matches!(DataDir::open(&path, 1), Err(DataDirError::Io { what: "create", .. })));
    }
}
