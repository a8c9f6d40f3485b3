//! The receiving end of a get: where bytes go, and the proof that they are the right ones.
//!
//! ```text
//!   Download::new ─► begin ─► write … ─► finish ─► a file with its name, or all of stdout
//!                      └──── dropped before finish, or a signal: the partial file is removed
//! ```
//!
//! A whole object is hashed as it arrives, and keeps its name only if it hashes to its address. A
//! part of an object cannot be checked so, and the caller learns that; the rest of one, behind a
//! part that was kept, can. Nothing is created before
//! the node began to answer, so that a refusal leaves no file behind, nor spoils one that is there.

use std::{
    ffi::OsString,
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, ErrorKind, IsTerminal, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use ron_codec::{address::Address, manifest::ManifestError, outboard::Hashing};

use super::{
    error::{AnswerFault, ClientError},
    kept::{Kept, discard},
    progress::{Progress, Show},
    stdout::stdout_failed,
    unfinished::Unfinished,
};

/// How the name of a partial file ends.
const PART_SUFFIX: &str = ".part";

/// How often another name is tried when somebody else has one.
const TRIES_MAX: u32 = 8;

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
    to: Option<To>,
    show: Show,
    taking: Option<Taking>,
    /// Bytes of the object that are in the output once it is finished.
    there: u64,
}

/// Where bytes go that have not come yet.
enum To {
    /// Stdout; with `forced` it was named, so it takes anything.
    Stdout { forced: bool },
    /// A file that is made when the first bytes come.
    Path(PathBuf),
    /// A file that is open.
    Open { sink: Sink, hashing: Box<Hashing>, from: u64, expected: Expected },
}

/// What is known of an object before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Nothing,
    /// Its length.
    Len(u64),
    /// Its first bytes.
    Start(&'static [u8]),
}

/// What is there once the node began to answer.
struct Taking {
    sink: Sink,
    len: Option<u64>,
    got: u64,
    /// Bytes that were in the output before.
    from: u64,
    expected: Expected,
    /// Hashes a whole object.
    hashing: Option<Hashing>,
    progress: Progress,
}

impl Download {
    /// A download of `address` to the file `output`; to stdout when that is absent or `-`.
    pub(super) fn new(address: Address, output: Option<&Path>, quiet: bool) -> Self {
        let to = match output {
            Some(path) if path.as_os_str() != "-" => To::Path(path.to_path_buf()),
            _ => To::Stdout { forced: output.is_some() },
        };
        Self::to(address, to, Show::Alone { quiet })
    }

    /// The rest of `address` behind what was kept, which then has the name `target`.
    pub(super) fn go_on(address: Address, kept: Kept, target: &Path, quiet: bool) -> Self {
        let Kept { file, path, hashing, from } = kept;
        let sink = Sink::Kept { file, path, target: target.to_path_buf() };
        let (hashing, expected) = (Box::new(hashing), Expected::Nothing);
        let to = To::Open { sink, hashing, from, expected };
        Self::to(address, to, Show::Alone { quiet })
    }

    /// A download of all of `address` to an open file, which is `shown` in messages.
    pub(super) fn into_file(
        address: Address,
        file: File,
        shown: PathBuf,
        expected: Expected,
        show: Show,
    ) -> Self {
        let sink = Sink::Given { file, path: shown };
        let hashing = Box::new(Hashing::new());
        Self::to(address, To::Open { sink, hashing, from: 0, expected }, show)
    }

    fn to(address: Address, to: To, show: Show) -> Self {
        Self { address, to: Some(to), show, taking: None, there: 0 }
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
        let progress = self.show.begin("receiving", part.len);
        let whole = part.whole.then(Hashing::new);
        let (sink, hashing, from, expected) = match self.to.take().expect("a download begins once")
        {
            To::Stdout { forced } => (Sink::stdout(forced)?, whole, 0, Expected::Nothing),
            To::Path(path) => (Sink::create(&path)?, whole, 0, Expected::Nothing),
            To::Open { sink, hashing, from, expected } => {
                assert_eq!(part.offset, from, "what is answered is what was asked for");
                (sink, Some(*hashing), from, expected)
            }
        };
        if let (Expected::Len(said), Some(found)) = (expected, part.len)
            && said != found
        {
            return Err(ClientError::EntryLen { said, found });
        }
        self.taking =
            Some(Taking { sink, len: part.len, got: 0, from, expected, hashing, progress });
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
        if taking.progress.is_stopped() {
            return Err(ClientError::Stopped);
        }
        taking.expected.check(taking.got, bytes, &self.address)?;
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
        let Taking { mut sink, len, got, from, hashing, expected, .. } =
            self.taking.take().expect("an end comes after the beginning");
        if let Some(len) = len.filter(|len| *len != got) {
            return Err(AnswerFault::Short { got, len }.into());
        }
        expected.check_end(got, &self.address)?;
        let verified = hashing.is_some();
        if let Some(hashing) = hashing {
            let found = hashing.finish().address;
            if found != self.address {
                sink.discard();
                return Err(ClientError::Digest { expected: self.address, found });
            }
        }
        sink.commit()?;
        self.there = from + got;
        Ok(verified)
    }

    /// Bytes of the object that are in the output, once it is finished.
    pub(super) const fn there(&self) -> u64 {
        self.there
    }
}

impl Expected {
    /// Checks bytes that come behind `got` others.
    fn check(self, got: u64, bytes: &[u8], address: &Address) -> Result<(), ClientError> {
        match self {
            Expected::Len(said) if got + bytes.len() as u64 > said => {
                Err(ClientError::EntryLen { said, found: got + bytes.len() as u64 })
            }
            Expected::Start(start) => {
                let rest = usize::try_from(got).ok().and_then(|got| start.get(got..));
                let rest = rest.unwrap_or_default();
                let is_same = rest.iter().zip(bytes).all(|(wanted, found)| wanted == found);
                if is_same { Ok(()) } else { Err(no_bundle(address)) }
            }
            _ => Ok(()),
        }
    }

    /// Checks that enough came.
    fn check_end(self, got: u64, address: &Address) -> Result<(), ClientError> {
        match self {
            Expected::Len(said) if got != said => Err(ClientError::EntryLen { said, found: got }),
            Expected::Start(start) if got < start.len() as u64 => Err(no_bundle(address)),
            _ => Ok(()),
        }
    }
}

fn no_bundle(address: &Address) -> ClientError {
    ClientError::Manifest { address: *address, source: ManifestError::NotABundle }
}

/// Where bytes go.
enum Sink {
    /// Stdout, and what is no regular file, such as `/dev/null`, is written as it is.
    Direct {
        file: File,
        path: PathBuf,
        /// A terminal, which obeys what bytes that are not text happen to say.
        text_only: bool,
    },
    Partial(Partial),
    /// A partial file that stays when it is not finished.
    Kept {
        file: File,
        path: PathBuf,
        target: PathBuf,
    },
    /// A file that somebody else looks after.
    Given {
        file: File,
        path: PathBuf,
    },
}

impl Sink {
    /// Stdout; with `forced`, it takes anything.
    fn stdout(forced: bool) -> Result<Self, ClientError> {
        // Not through the standard handle: its buffer looks for the ends of lines.
        let file = io::stdout().as_fd().try_clone_to_owned().map_err(stdout_failed)?.into();
        let text_only = !forced && io::stdout().is_terminal();
        Ok(Self::Direct { file, path: "stdout".into(), text_only })
    }

    /// Makes a file that will have the name `path`, or opens what is no file.
    fn create(path: &Path) -> Result<Self, ClientError> {
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
            return Ok(Self::Direct { file, path: path.to_path_buf(), text_only: false });
        }
        Partial::create(path).map(Self::Partial)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match self {
            Self::Direct { text_only: true, .. } if !is_text(bytes) => Err(ClientError::Terminal),
            Self::Direct { file, path, .. }
            | Self::Kept { file, path, .. }
            | Self::Given { file, path } => {
                file.write_all(bytes).map_err(|source| ClientError::file(path, source))
            }
            Self::Partial(partial) => {
                let Partial { file, part, .. } = partial;
                file.write_all(bytes).map_err(|source| ClientError::file(part.path(), source))
            }
        }
    }

    fn commit(&mut self) -> Result<(), ClientError> {
        match self {
            Self::Direct { .. } | Self::Given { .. } => Ok(()),
            Self::Partial(partial) => partial.commit(),
            Self::Kept { file, path, target } => {
                file.sync_all().map_err(|source| ClientError::file(path, source))?;
                fs::rename(path, &target).map_err(|source| ClientError::file(target, source))
            }
        }
    }

    /// The bytes are wrong: nobody may go on with them.
    fn discard(&self) {
        if let Self::Kept { path, .. } = self {
            // Where it stays, it is found wrong again.
            let _ = discard(path);
        }
    }
}

/// Whether a terminal shows these bytes, and does not obey them.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| byte.is_ascii_control() && !b"\t\n\r".contains(byte))
}

/// A file under its partial name; removed when it is dropped before `commit`.
struct Partial {
    file: File,
    part: Unfinished,
    target: PathBuf,
}

impl Partial {
    /// Makes a file beside `target` that nobody else has, and follows no link to make it.
    fn create(target: &Path) -> Result<Self, ClientError> {
        let mut tries = 0;
        loop {
            let mut name = OsString::from(target);
            name.push(format!(".{:016x}{PART_SUFFIX}", RandomState::new().build_hasher().finish()));
            let path = PathBuf::from(name);
            match Unfinished::create(&path) {
                Ok((file, part)) => {
                    let target = target.to_path_buf();
                    return Ok(Self { file, part, target });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES_MAX => {
                    tries += 1;
                }
                Err(source) => return Err(ClientError::file(&path, source)),
            }
        }
    }

    /// Gives the file its name, once its bytes are on the disk: after a power cut there is all of
    /// it under that name, or what was there before.
    fn commit(&mut self) -> Result<(), ClientError> {
        let synced = self.file.sync_all();
        synced.map_err(|source| ClientError::file(self.part.path(), source))?;
        self.part.finish(&self.target).map_err(|source| ClientError::file(&self.target, source))
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

    fn dir() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        (dir, path)
    }

    fn download(path: &Path) -> Download {
        Download::new(Address::of(BYTES), Some(path), true)
    }

    fn names(dir: &TempDir) -> Vec<OsString> {
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_gets_its_name_once_it_is_checked() {
        let (dir, path) = dir();
        let mut download = download(&path);
        assert_eq!(names(&dir).len(), 0);
        download.begin(whole(10)).unwrap();
        download.write(&BYTES[..4]).unwrap();
        let [name] = &names(&dir)[..] else { panic!("{:?}", names(&dir)) };
        let name = name.to_str().unwrap();
        assert!(name.starts_with("out.") && name.ends_with(".part"), "{name}");
        assert_eq!(download.position(), (4, Some(10)));
        download.write(&BYTES[4..]).unwrap();
        assert!(download.finish().unwrap());
        assert_eq!(names(&dir), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), BYTES);
    }

    #[test]
    fn wrong_bytes_leave_the_old_file_and_no_other() {
        let (dir, path) = dir();
        fs::write(&path, b"old").unwrap();
        let mut download = download(&path);
        download.begin(whole(10)).unwrap();
        download.write(b"some Bytes").unwrap();
        let error = download.finish().unwrap_err();
        assert!(matches!(error, ClientError::Digest { .. }));
        assert_eq!(names(&dir), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn one_byte_less_and_one_more_are_refused() {
        let (dir, path) = dir();
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
        assert_eq!(names(&dir).len(), 0);
    }

    #[test]
    fn a_part_is_taken_unverified() {
        let (_dir, path) = dir();
        let mut download = download(&path);
        download.begin(Part { offset: 3, len: Some(2), whole: false }).unwrap();
        download.write(b"??").unwrap();
        assert!(!download.finish().unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"??");
    }

    #[test]
    fn files_and_links_of_others_are_left_alone() {
        let (dir, path) = dir();
        let (victim, stale) = (dir.path().join("victim"), dir.path().join("out.part"));
        fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, &stale).unwrap();
        let mut download = download(&path);
        download.begin(whole(10)).unwrap();
        download.write(BYTES).unwrap();
        assert!(download.finish().unwrap());
        assert_eq!(fs::read(&path).unwrap(), BYTES);
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&stale).unwrap().is_symlink());
        assert_eq!(names(&dir).len(), 3);
    }

    #[test]
    fn two_downloads_do_not_share_a_partial_file() {
        let (dir, path) = dir();
        let mut both = [download(&path), download(&path)];
        for download in &mut both {
            download.begin(whole(10)).unwrap();
        }
        assert_eq!(names(&dir).len(), 2);
        for download in &mut both {
            download.write(BYTES).unwrap();
        }
        for mut download in both {
            assert!(download.finish().unwrap());
        }
        assert_eq!(names(&dir), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), BYTES);
    }

    #[test]
    fn only_text_goes_to_a_terminal() {
        for (bytes, is_text) in [
            (&b""[..], true),
            (b"text\twith\r\nlines\n", true),
            ("größer".as_bytes(), true),
            (b"nul\0", false),
            (b"\x1b[2J", false),
            (b"\x07", false),
        ] {
            let file = tempfile::tempfile().unwrap();
            let mut sink = Sink::Direct { file, path: "stdout".into(), text_only: true };
            let written = sink.write(bytes);
            assert_eq!(written.is_ok(), is_text, "{bytes:?}");
            assert!(is_text || matches!(written, Err(ClientError::Terminal)));
        }
        let (file, path) = (tempfile::tempfile().unwrap(), "stdout".into());
        assert!(Sink::Direct { file, path, text_only: false }.write(b"\0").is_ok());
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
        let (dir, path) = dir();
        let mut into = download(dir.path());
        assert!(matches!(into.begin(whole(10)), Err(ClientError::Directory { .. })));
        let mut missing = download(&path.join("no/where"));
        assert!(matches!(missing.begin(whole(10)), Err(ClientError::File { .. })));
    }
}
