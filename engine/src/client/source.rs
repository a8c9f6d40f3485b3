//! The sending end of a put: a file of known length, or a stream that is hashed as it is sent.
//!
//! The HTTP client reads a source through `Read` and reports whatever fails as one error. A fault
//! of the source itself is therefore kept here, so that a broken file is not taken for a broken
//! connection.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use ron_codec::{address::Address, outboard::Hashing};

use super::{early::Deaf, error::ClientError, progress::Progress};

/// Bytes that are read at once to be hashed.
const READ_LEN: usize = 256 * 1024;

/// What a put reads.
pub(super) enum Input {
    /// A regular file of `len` bytes: it can be read twice, to learn its address first.
    File { file: File, path: PathBuf, len: u64 },
    /// Anything else: it can be read once.
    Stream { reader: Box<dyn Read>, path: PathBuf },
}

impl Input {
    /// Opens `path`, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is a directory.
    pub(super) fn open(path: &Path) -> Result<Self, ClientError> {
        if path.as_os_str() == "-" {
            let path = PathBuf::from("stdin");
            return Ok(Self::Stream { reader: Box::new(io::stdin()), path });
        }
        let failed = |source| ClientError::file(path, source);
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let path = path.to_path_buf();
        if found.is_dir() {
            Err(ClientError::Directory { path })
        } else if found.is_file() && (found.len() > 0 || is_empty(&file)) {
            Ok(Self::File { file, path, len: found.len() })
        } else {
            Ok(Self::Stream { reader: Box::new(file), path })
        }
    }
}

/// Whether there is nothing in a file whose length is 0. Those of procfs have one of 0 and say what
/// they have to say when they are read.
fn is_empty(mut file: &File) -> bool {
    let read = file.read(&mut [0]);
    // What cannot be read is reported later.
    !matches!(read, Ok(1..)) || file.rewind().is_err()
}

/// The address of the `len` bytes of `file`, which ends at its beginning again.
///
/// # Errors
///
/// When the file cannot be read, or is longer than any object.
pub(super) fn hash_file(
    file: &File,
    path: &Path,
    len: u64,
    progress: Progress,
) -> Result<Address, ClientError> {
    hash_and(file, path, len, progress, &mut |_| Ok(()))
}

/// The same, and `also` gets all of the bytes: blocks of `READ_LEN`, and what is left.
///
/// # Errors
///
/// Those of `hash_file` and of `also`.
pub(super) fn hash_and(
    file: &File,
    path: &Path,
    len: u64,
    progress: Progress,
    also: &mut dyn FnMut(&[u8]) -> Result<(), ClientError>,
) -> Result<Address, ClientError> {
    let mut hashing = Hashing::new();
    read_all(file, path, len, progress, &mut |bytes| {
        hashing.update(bytes)?;
        also(bytes)
    })?;
    Ok(hashing.finish().address)
}

/// Hashes the first `len` bytes of a file, which ends at its beginning again.
///
/// # Errors
///
/// When the file cannot be read, or is longer than any object.
pub(super) fn hash_into(
    hashing: &mut Hashing,
    file: &File,
    path: &Path,
    len: u64,
    progress: Progress,
) -> Result<(), ClientError> {
    read_all(file, path, len, progress, &mut |bytes| Ok(hashing.update(bytes)?))
}

fn read_all(
    mut file: &File,
    path: &Path,
    len: u64,
    mut progress: Progress,
    take: &mut dyn FnMut(&[u8]) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let failed = |source| ClientError::file(path, source);
    let mut got = 0;
    let mut buffer = vec![0; READ_LEN.min(usize::try_from(len).unwrap_or(READ_LEN))];
    file.rewind().map_err(failed)?;
    let mut rest = file.take(len);
    while got < len {
        let read = read_full(&mut rest, &mut buffer).map_err(failed)?;
        if read == 0 {
            return Err(ClientError::Shrank { path: path.to_path_buf(), got, len });
        }
        if progress.is_stopped() {
            return Err(ClientError::Stopped);
        }
        take(&buffer[..read])?;
        got += read as u64;
        progress.advance(read);
    }
    file.rewind().map_err(failed)
}

/// Fills `buffer`, less only at the end.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// What changes of a file when somebody writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Of a file as it is now.
    ///
    /// # Errors
    ///
    /// When the file system does not say.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let modified = (found.mtime(), found.mtime_nsec());
        Ok(Self { len: found.len(), modified, changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// Bytes on their way to a node.
pub(super) struct Source<'a> {
    reader: Box<dyn Read + 'a>,
    path: &'a Path,
    /// Bytes to send, when that is known.
    len: Option<u64>,
    sent: u64,
    hashing: Hashing,
    /// What the bytes of a file must hash to.
    expected: Option<Address>,
    progress: Progress,
    fault: Option<ClientError>,
    /// Whether nobody takes the bytes any more.
    deaf: Deaf,
}

impl<'a> Source<'a> {
    /// The `len` bytes of `file`, from its beginning, which hash to `address`.
    ///
    /// # Errors
    ///
    /// When the file cannot be rewound.
    pub(super) fn file(
        mut file: &'a File,
        path: &'a Path,
        len: u64,
        address: Address,
        progress: Progress,
    ) -> Result<Self, ClientError> {
        file.rewind().map_err(|source| ClientError::file(path, source))?;
        let source = Self::new(Box::new(file.take(len)), path, progress);
        Ok(Self { len: Some(len), expected: Some(address), ..source })
    }

    /// The `len` bytes that `reader` yields, which the caller hashes.
    pub(super) fn sized(reader: impl Read + 'a, path: &'a Path, len: u64, quiet: bool) -> Self {
        let progress = Progress::new("sending", Some(len), quiet);
        let (len, reader, deaf) = (Some(len), Box::new(reader), Deaf::default());
        Self { len, deaf, ..Self::new(reader, path, progress) }
    }

    /// All that `reader` yields, hashed on the way.
    pub(super) fn stream(reader: &'a mut dyn Read, path: &'a Path, progress: Progress) -> Self {
        Self::new(Box::new(reader), path, progress)
    }

    fn new(reader: Box<dyn Read + 'a>, path: &'a Path, progress: Progress) -> Self {
        Self {
            reader,
            path,
            len: None,
            sent: 0,
            hashing: Hashing::new(),
            expected: None,
            progress,
            fault: None,
            deaf: Deaf::default(),
        }
    }

    /// Reads no more once this is deaf: what is announced and left is then as good as any bytes.
    pub(super) fn stop_when(&mut self, deaf: &Deaf) {
        self.deaf = deaf.clone();
    }

    /// Bytes that will be sent, when that is known.
    pub(super) fn len(&self) -> Option<u64> {
        self.len
    }

    /// What was wrong with the source, if anything was.
    pub(super) fn take_fault(&mut self) -> Option<ClientError> {
        self.fault.take()
    }

    /// The address and the length of a stream that was read to its end.
    pub(super) fn finish(self) -> (Address, u64) {
        (self.hashing.finish().address, self.sent)
    }

    /// The last bytes of a file are not given away unless all of them are those that were hashed
    /// before.
    fn check(&mut self) -> Result<(), ClientError> {
        if self.len != Some(self.sent) || self.expected.is_none() {
            return Ok(());
        }
        let found = std::mem::take(&mut self.hashing).finish().address;
        match self.expected.take() {
            Some(expected) if expected != found => {
                Err(ClientError::Changed { path: self.path.to_path_buf() })
            }
            _ => Ok(()),
        }
    }

    fn fail(&mut self, fault: ClientError) -> io::Error {
        let error = io::Error::other(fault.to_string());
        self.fault = Some(fault);
        error
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.deaf.is_so() {
            let left = self.len.map_or(0, |len| len - self.sent);
            let len = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.sent += len as u64;
            return Ok(len);
        }
        let read = match self.reader.read(buffer) {
            Ok(read) => read,
            // The HTTP client would give up where there is nothing wrong.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.read(buffer),
            Err(error) => return Err(self.fail(ClientError::file(self.path, error))),
        };
        if let Some(len) = self.len.filter(|len| read == 0 && self.sent < *len) {
            let (path, got) = (self.path.to_path_buf(), self.sent);
            return Err(self.fail(ClientError::Shrank { path, got, len }));
        }
        if self.progress.is_stopped() {
            return Err(self.fail(ClientError::Stopped));
        }
        let taken = self.hashing.update(&buffer[..read]).map_err(ClientError::from);
        self.sent += read as u64;
        if let Err(fault) = taken.and_then(|()| self.check()) {
            return Err(self.fail(fault));
        }
        self.progress.advance(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Cursor};

    use super::{super::progress::Batch, *};

    fn with_file(bytes: &[u8], test: impl FnOnce(&File, &Path)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        fs::write(&path, bytes).unwrap();
        test(&File::open(&path).unwrap(), &path);
    }

    fn quiet() -> Progress {
        Progress::new("test", None, true)
    }

    #[test]
    fn a_file_is_hashed_and_can_be_sent_twice() {
        for len in [0, 1, READ_LEN - 1, READ_LEN, READ_LEN + 1] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            with_file(&bytes, |file, path| {
                let len = len as u64;
                assert_eq!(hash_file(file, path, len, quiet()).unwrap(), Address::of(&bytes));
                for _ in 0..2 {
                    let mut source =
                        Source::file(file, path, len, Address::of(&bytes), quiet()).unwrap();
                    let mut sent = Vec::new();
                    source.read_to_end(&mut sent).unwrap();
                    assert_eq!(sent, bytes);
                    assert_eq!(source.len(), Some(len));
                    assert!(source.take_fault().is_none());
                }
            });
        }
    }

    #[test]
    fn a_file_that_shrank_is_its_own_fault() {
        with_file(b"123", |file, path| {
            let error = hash_file(file, path, 4, quiet()).unwrap_err();
            assert!(matches!(error, ClientError::Shrank { got: 3, len: 4, .. }));
            let mut source = Source::file(file, path, 4, Address::of(b"1234"), quiet()).unwrap();
            assert!(source.read_to_end(&mut Vec::new()).is_err());
            let fault = source.take_fault();
            assert!(matches!(fault, Some(ClientError::Shrank { got: 3, len: 4, .. })));
        });
    }

    #[test]
    fn a_file_with_other_bytes_is_not_sent_to_its_end() {
        let bytes = vec![7; 3 * READ_LEN];
        with_file(&bytes, |file, path| {
            let (len, address) = (bytes.len() as u64, Address::of(b"as it was"));
            let mut source = Source::file(file, path, len, address, quiet()).unwrap();
            let mut sent = Vec::new();
            assert!(source.read_to_end(&mut sent).is_err());
            assert!(sent.len() < bytes.len());
            assert!(matches!(source.take_fault(), Some(ClientError::Changed { .. })));
        });
    }

    #[test]
    fn a_batch_that_is_stopped_stops_its_transfers() {
        with_file(b"123", |file, path| {
            let batch = Batch::default();
            batch.stop();
            let hashed = hash_file(file, path, 3, batch.part());
            assert!(matches!(hashed, Err(ClientError::Stopped)));
            let mut source =
                Source::file(file, path, 3, Address::of(b"123"), batch.part()).unwrap();
            assert!(source.read(&mut [0; 9]).is_err());
            assert!(matches!(source.take_fault(), Some(ClientError::Stopped)));
        });
    }

    #[test]
    fn a_stamp_tells_that_a_file_was_written() {
        with_file(b"123", |file, path| {
            let before = Stamp::of(file).unwrap();
            assert_eq!(Stamp::of(file).unwrap(), before);
            fs::write(path, b"1234").unwrap();
            assert_ne!(Stamp::of(file).unwrap(), before);
        });
    }

    #[test]
    fn a_file_that_grew_is_sent_as_it_was() {
        with_file(b"1234", |file, path| {
            assert_eq!(hash_file(file, path, 3, quiet()).unwrap(), Address::of(b"123"));
            let mut sent = Vec::new();
            let source = Source::file(file, path, 3, Address::of(b"123"), quiet());
            source.unwrap().read_to_end(&mut sent).unwrap();
            assert_eq!(sent, b"123");
        });
    }

    #[test]
    fn a_stream_is_hashed_on_its_way() {
        let mut reader = Cursor::new(vec![9; 70_000]);
        let mut source = Source::stream(&mut reader, Path::new("stdin"), quiet());
        assert_eq!(source.len(), None);
        let mut sent = Vec::new();
        source.read_to_end(&mut sent).unwrap();
        assert_eq!(source.finish(), (Address::of(&sent), 70_000));
    }

    #[test]
    fn a_stream_that_breaks_keeps_its_fault_and_interruptions_are_none() {
        struct Broken(u8);
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                let kinds = [io::ErrorKind::Interrupted, io::ErrorKind::PermissionDenied];
                Err(kinds[usize::from(self.0 > 2)].into())
            }
        }
        let mut reader = Broken(0);
        let mut source = Source::stream(&mut reader, Path::new("pipe"), quiet());
        assert!(source.read(&mut [0; 9]).is_err());
        assert!(matches!(source.take_fault(), Some(ClientError::File { .. })));
    }

    #[test]
    fn directories_are_refused_and_devices_are_streams() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Input::open(dir.path()), Err(ClientError::Directory { .. })));
        let missing = dir.path().join("none");
        assert!(matches!(Input::open(&missing), Err(ClientError::File { .. })));
        assert!(matches!(Input::open(Path::new("/dev/null")), Ok(Input::Stream { .. })));
        let empty = dir.path().join("empty");
        fs::write(&empty, b"").unwrap();
        assert!(matches!(Input::open(&empty), Ok(Input::File { len: 0, .. })));
    }

    #[test]
    fn files_without_a_length_of_their_own_are_streams() {
        let Input::Stream { mut reader, .. } = Input::open(Path::new("/proc/version")).unwrap()
        else {
            panic!("its length is taken to be 0");
        };
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert!(text.starts_with(b"Linux"), "from the beginning");
    }
}
