//! The sending end of a put: a file of known length, or a stream that is hashed as it is sent.
//!
//! The HTTP client reads a source through `Read` and reports whatever fails as one error. A fault
//! of the source itself is therefore kept here, so that a broken file is not taken for a broken
//! connection.

use std::{
    fs::File,
    io::{self, Read, Seek},
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
    mut file: &File,
    path: &Path,
    len: u64,
    quiet: bool,
) -> Result<Address, ClientError> {
    let failed = |source| ClientError::file(path, source);
    let mut hashing = Hashing::new();
    let mut progress = Progress::new("hashing", Some(len), quiet);
    let mut buffer = vec![0; READ_LEN];
    file.rewind().map_err(failed)?;
    let mut rest = file.take(len);
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hashing.update(&buffer[..read])?;
                progress.advance(read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if hashing.size() != len {
        let path = path.to_path_buf();
        return Err(ClientError::Shrank { path, got: hashing.size(), len });
    }
    file.rewind().map_err(failed)?;
    Ok(hashing.finish().address)
}

/// Bytes on their way to a node.
pub(super) struct Source<'a> {
    reader: Box<dyn Read + 'a>,
    path: &'a Path,
    /// Bytes to send, when that is known.
    len: Option<u64>,
    sent: u64,
    /// Hashes a stream.
    hashing: Option<Hashing>,
    progress: Progress,
    fault: Option<ClientError>,
    /// Whether nobody takes the bytes any more.
    deaf: Deaf,
}

impl<'a> Source<'a> {
    /// The `len` bytes of `file`, from its beginning.
    ///
    /// # Errors
    ///
    /// When the file cannot be rewound.
    pub(super) fn file(
        mut file: &'a File,
        path: &'a Path,
        len: u64,
        quiet: bool,
    ) -> Result<Self, ClientError> {
        file.rewind().map_err(|source| ClientError::file(path, source))?;
        let progress = Progress::new("sending", Some(len), quiet);
        let reader = Box::new(file.take(len));
        let (len, deaf) = (Some(len), Deaf::default());
        Ok(Self { reader, path, len, sent: 0, hashing: None, progress, fault: None, deaf })
    }

    /// The `len` bytes that `reader` yields, which the caller hashes.
    pub(super) fn sized(reader: impl Read + 'a, path: &'a Path, len: u64, quiet: bool) -> Self {
        let progress = Progress::new("sending", Some(len), quiet);
        let (len, reader, deaf) = (Some(len), Box::new(reader), Deaf::default());
        Self { reader, path, len, sent: 0, hashing: None, progress, fault: None, deaf }
    }

    /// All that `reader` yields, hashed on the way.
    pub(super) fn stream(reader: &'a mut dyn Read, path: &'a Path, quiet: bool) -> Self {
        let progress = Progress::new("sending", None, quiet);
        let (reader, hashing) = (Box::new(reader), Some(Hashing::new()));
        let deaf = Deaf::default();
        Self { reader, path, len: None, sent: 0, hashing, progress, fault: None, deaf }
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

    /// The address of a stream that was read to its end.
    pub(super) fn address(self) -> Option<Address> {
        self.hashing.map(|hashing| hashing.finish().address)
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
        if let Some(hashing) = &mut self.hashing
            && let Err(error) = hashing.update(&buffer[..read])
        {
            return Err(self.fail(error.into()));
        }
        self.sent += read as u64;
        self.progress.advance(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Cursor};

    use super::*;

    fn with_file(bytes: &[u8], test: impl FnOnce(&File, &Path)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        fs::write(&path, bytes).unwrap();
        test(&File::open(&path).unwrap(), &path);
    }

    #[test]
    fn a_file_is_hashed_and_can_be_sent_twice() {
        for len in [0, 1, READ_LEN - 1, READ_LEN, READ_LEN + 1] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            with_file(&bytes, |file, path| {
                let len = len as u64;
                assert_eq!(hash_file(file, path, len, true).unwrap(), Address::of(&bytes));
                for _ in 0..2 {
                    let mut source = Source::file(file, path, len, true).unwrap();
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
            let error = hash_file(file, path, 4, true).unwrap_err();
            assert!(matches!(error, ClientError::Shrank { got: 3, len: 4, .. }));
            let mut source = Source::file(file, path, 4, true).unwrap();
            assert!(source.read_to_end(&mut Vec::new()).is_err());
            let fault = source.take_fault();
            assert!(matches!(fault, Some(ClientError::Shrank { got: 3, len: 4, .. })));
        });
    }

    #[test]
    fn a_file_that_grew_is_sent_as_it_was() {
        with_file(b"1234", |file, path| {
            assert_eq!(hash_file(file, path, 3, true).unwrap(), Address::of(b"123"));
            let mut sent = Vec::new();
            Source::file(file, path, 3, true).unwrap().read_to_end(&mut sent).unwrap();
            assert_eq!(sent, b"123");
        });
    }

    #[test]
    fn a_stream_is_hashed_on_its_way() {
        let mut reader = Cursor::new(vec![9; 70_000]);
        let mut source = Source::stream(&mut reader, Path::new("stdin"), true);
        assert_eq!(source.len(), None);
        let mut sent = Vec::new();
        source.read_to_end(&mut sent).unwrap();
        assert_eq!(source.address(), Some(Address::of(&sent)));
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
        let mut source = Source::stream(&mut reader, Path::new("pipe"), true);
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
