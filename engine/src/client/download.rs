//! The receiving end of a get: where bytes go, and the proof that they are the right ones.
//!
//! ```text
//!   Download::new ─► begin ─► write … ─► finish ─► a file with its name, or all of stdout
//!                      └──── dropped before finish: the partial file is removed
//! ```
//!
//! A whole object is hashed as it arrives, and keeps its name only if it hashes to its address. A
//! part of an object cannot be checked so; the caller is told. Nothing is created before the node
//! began to answer, so that a refusal leaves no file behind, nor spoils one that is there.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use ron_codec::{address::Address, outboard::Hashing};

use super::{
    error::{AnswerFault, ClientError},
    progress::Progress,
};

/// What a partial file is called, behind the name of the whole.
const PART_SUFFIX: &str = ".part";

/// What the node says it is sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// First byte of the object that is sent.
    pub(super) offset: u64,
    /// Bytes that are sent, when it said so.
    pub(super) len: Option<u64>,
    /// Whether these are all bytes of the object.
    pub(super) whole: bool,
}

/// One object, or a part of it, on its way to a file or to stdout.
pub(super) struct Download {
    address: Address,
    output: Option<PathBuf>,
    quiet: bool,
    taking: Option<Taking>,
}

/// What is there once the node began to answer.
struct Taking {
    sink: Sink,
    len: Option<u64>,
    got: u64,
    /// Hashes a whole object.
    hashing: Option<Hashing>,
    progress: Progress,
}

impl Download {
    /// A download of `address` to the file `output`; to stdout when that is absent or `-`.
    pub(super) fn new(address: Address, output: Option<&Path>, quiet: bool) -> Self {
        let output = output.filter(|path| path.as_os_str() != "-").map(Path::to_path_buf);
        Self { address, output, quiet, taking: None }
    }

    /// Whether the node has begun to answer.
    pub(super) fn has_begun(&self) -> bool {
        self.taking.is_some()
    }

    /// Bytes taken so far, and bytes expected if that is known.
    pub(super) fn position(&self) -> (u64, Option<u64>) {
        self.taking.as_ref().map_or((0, None), |taking| (taking.got, taking.len))
    }

    /// The node answers: opens the output.
    ///
    /// # Errors
    ///
    /// When the output cannot be opened.
    ///
    /// # Panics
    ///
    /// When called twice.
    pub(super) fn begin(&mut self, part: Part) -> Result<(), ClientError> {
        assert!(self.taking.is_none(), "a download begins once");
        self.taking = Some(Taking {
            sink: Sink::open(self.output.as_deref())?,
            len: part.len,
            got: 0,
            hashing: part.whole.then(Hashing::new),
            progress: Progress::new("receiving", part.len, self.quiet),
        });
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// When there are more than the node said, or they cannot be written.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let taking = self.taking.as_mut().expect("bytes come after the beginning");
        let got = taking.got + bytes.len() as u64;
        if let Some(max) = taking.len.filter(|max| got > *max) {
            return Err(AnswerFault::Excess { got, max }.into());
        }
        if let Some(hashing) = &mut taking.hashing {
            hashing.update(bytes)?;
        }
        taking.sink.write(bytes)?;
        taking.got = got;
        taking.progress.advance(bytes.len());
        Ok(())
    }

    /// The node has sent all. Returns whether the bytes were verified; they were not when they are
    /// only a part of the object.
    ///
    /// # Errors
    ///
    /// When bytes are missing, or do not hash to the address, or the file cannot get its name.
    pub(super) fn finish(&mut self) -> Result<bool, ClientError> {
        let Taking { mut sink, len, got, hashing, .. } =
            self.taking.take().expect("an end comes after the beginning");
        if let Some(len) = len.filter(|len| *len != got) {
            return Err(AnswerFault::Short { got, len }.into());
        }
        let verified = hashing.is_some();
        if let Some(hashing) = hashing {
            let found = hashing.finish().address;
            if found != self.address {
                return Err(ClientError::Digest { expected: self.address, found });
            }
        }
        sink.commit()?;
        Ok(verified)
    }
}

/// Where bytes go.
enum Sink {
    /// Stdout, and what is no regular file, such as `/dev/null`, is written as it is.
    Direct {
        file: File,
        path: PathBuf,
    },
    Partial(Partial),
}

impl Sink {
    fn open(output: Option<&Path>) -> Result<Self, ClientError> {
        let Some(path) = output else {
            // Not through the standard handle: its buffer looks for the ends of lines.
            let file = io::stdout().as_fd().try_clone_to_owned().map_err(stdout_failed)?.into();
            return Ok(Self::Direct { file, path: "stdout".into() });
        };
        let special = match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(ClientError::Directory { path: path.to_path_buf() });
            }
            Ok(found) => !found.is_file(),
            // It is not there, or creating the partial file will say what is wrong.
            Err(_) => false,
        };
        if special {
            let file = File::options().write(true).open(path);
            let file = file.map_err(|source| ClientError::file(path, source))?;
            return Ok(Self::Direct { file, path: path.to_path_buf() });
        }
        Partial::create(path).map(Self::Partial)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match self {
            Self::Direct { file, path } => {
                file.write_all(bytes).map_err(|source| ClientError::file(path, source))
            }
            Self::Partial(partial) => {
                let Partial { file, path, .. } = partial;
                file.write_all(bytes).map_err(|source| ClientError::file(path, source))
            }
        }
    }

    fn commit(&mut self) -> Result<(), ClientError> {
        match self {
            Self::Direct { .. } => Ok(()),
            Self::Partial(partial) => partial.commit(),
        }
    }
}

fn stdout_failed(source: io::Error) -> ClientError {
    ClientError::Standard { name: "stdout", source }
}

/// A file under its partial name, locked; removed when it is dropped before `commit`.
struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl Partial {
    fn create(target: &Path) -> Result<Self, ClientError> {
        let mut name = OsString::from(target);
        name.push(PART_SUFFIX);
        let path = PathBuf::from(name);
        let failed = |source| ClientError::file(&path, source);
        // Not truncated yet: the bytes may be those of another download under way.
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ClientError::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Between the two calls above, another download may have given this very file its name.
        let ours = file.metadata().map_err(failed)?;
        let named = fs::metadata(&path).ok().filter(|named| named.ino() == ours.ino());
        if named.is_none_or(|named| named.dev() != ours.dev()) {
            return Err(ClientError::Busy { path });
        }
        file.set_len(0).map_err(failed)?;
        Ok(Self { file, path, target: target.to_path_buf(), committed: false })
    }

    fn commit(&mut self) -> Result<(), ClientError> {
        fs::rename(&self.path, &self.target)
            .map_err(|source| ClientError::file(&self.target, source))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.committed {
            // There is nobody to tell, and the next download begins it anew.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const BYTES: &[u8] = b"some bytes";

    fn whole(len: u64) -> Part {
        Part { offset: 0, len: Some(len), whole: true }
    }

    fn room() -> (TempDir, PathBuf) {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("out");
        (room, path)
    }

    fn download(path: &Path) -> Download {
        Download::new(Address::of(BYTES), Some(path), true)
    }

    fn names(room: &TempDir) -> Vec<OsString> {
        fs::read_dir(room.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_gets_its_name_once_it_is_checked() {
        let (room, path) = room();
        let mut download = download(&path);
        assert_eq!(names(&room).len(), 0);
        download.begin(whole(10)).unwrap();
        download.write(&BYTES[..4]).unwrap();
        assert_eq!(names(&room), ["out.part"]);
        assert_eq!(download.position(), (4, Some(10)));
        download.write(&BYTES[4..]).unwrap();
        assert!(download.finish().unwrap());
        assert_eq!(names(&room), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), BYTES);
    }

    #[test]
    fn wrong_bytes_leave_the_old_file_and_no_other() {
        let (room, path) = room();
        fs::write(&path, b"old").unwrap();
        let mut download = download(&path);
        download.begin(whole(10)).unwrap();
        download.write(b"some Bytes").unwrap();
        let error = download.finish().unwrap_err();
        assert!(matches!(error, ClientError::Digest { .. }));
        assert_eq!(names(&room), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn one_byte_less_and_one_more_are_refused() {
        let (room, path) = room();
        let mut less = download(&path);
        less.begin(whole(10)).unwrap();
        less.write(&BYTES[..9]).unwrap();
        let error = less.finish().unwrap_err();
        assert!(matches!(error, ClientError::Answer(AnswerFault::Short { got: 9, len: 10 })));

        let mut more = download(&path);
        more.begin(whole(10)).unwrap();
        more.write(BYTES).unwrap();
        let error = more.write(b"!").unwrap_err();
        assert!(matches!(error, ClientError::Answer(AnswerFault::Excess { got: 11, max: 10 })));
        drop(more);
        assert_eq!(names(&room).len(), 0);
    }

    #[test]
    fn a_part_is_taken_unverified() {
        let (_room, path) = room();
        let mut download = download(&path);
        download.begin(Part { offset: 3, len: Some(2), whole: false }).unwrap();
        download.write(b"??").unwrap();
        assert!(!download.finish().unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"??");
    }

    #[test]
    fn a_stale_partial_file_is_begun_anew() {
        let (room, path) = room();
        fs::write(room.path().join("out.part"), vec![7; 999]).unwrap();
        let mut download = download(&path);
        download.begin(whole(10)).unwrap();
        download.write(BYTES).unwrap();
        assert!(download.finish().unwrap());
        assert_eq!(fs::read(&path).unwrap(), BYTES);
        assert_eq!(names(&room), ["out"]);
    }

    #[test]
    fn two_downloads_do_not_share_a_partial_file() {
        let (_room, path) = room();
        let mut first = download(&path);
        first.begin(whole(10)).unwrap();
        first.write(&BYTES[..4]).unwrap();
        let mut second = download(&path);
        assert!(matches!(second.begin(whole(10)), Err(ClientError::Busy { .. })));
        drop(second);
        first.write(&BYTES[4..]).unwrap();
        assert!(first.finish().unwrap());
        assert_eq!(fs::read(&path).unwrap(), BYTES);
    }

    #[test]
    fn special_files_are_written_and_never_replaced() {
        let mut download = download(Path::new("/dev/null"));
        download.begin(whole(10)).unwrap();
        download.write(BYTES).unwrap();
        assert!(download.finish().unwrap());
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert!(!Path::new("/dev/null.part").exists());
    }

    #[test]
    fn what_cannot_be_written_is_a_local_failure() {
        let (room, path) = room();
        let mut into = download(room.path());
        assert!(matches!(into.begin(whole(10)), Err(ClientError::Directory { .. })));
        let mut missing = download(&path.join("no/where"));
        assert!(matches!(missing.begin(whole(10)), Err(ClientError::File { .. })));
    }
}
