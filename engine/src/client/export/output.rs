//! Where an archive goes: a file that can be cut back and gone on with, or a stream that cannot.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use ron_codec::{address::Address, outboard::Hashing};

use crate::{
    archive::{ArchiveError, Found, Mark, Reader, Writer},
    client::{
        error::ClientError,
        options::Prefix,
        pour::{Unpoured, pour},
        stdout::stdout_failed,
    },
};

/// Bytes that are written at once.
const WRITE_LEN: usize = 256 * 1024;

/// A file, or standard output.
#[derive(Debug)]
pub(super) struct Output {
    out: BufWriter<File>,
    path: PathBuf,
    /// Whether it can be cut back.
    is_file: bool,
}

/// What an archive is gone on with.
pub(super) enum Begun {
    /// This is written, and what follows is to come.
    At(Box<Writer<Output>>, Option<Address>),
    /// It is whole.
    Whole,
}

impl Output {
    fn new(file: File, path: &Path, is_file: bool) -> Output {
        let out = BufWriter::with_capacity(WRITE_LEN, file);
        Output { out, path: path.to_path_buf(), is_file }
    }

    /// What a failure to write means.
    pub(super) fn failed(&self, source: io::Error) -> ClientError {
        ClientError::file(&self.path, source)
    }

    /// Cuts a file back to `len` bytes; `false`: it is a stream.
    pub(super) fn cut_back(&mut self, len: u64) -> io::Result<bool> {
        if self.is_file {
            self.out.flush()?;
            self.out.get_mut().set_len(len)?;
            self.out.seek(SeekFrom::Start(len))?;
        }
        Ok(self.is_file)
    }

    /// Sees to it that all is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.out.flush()?;
        if self.is_file { self.out.get_ref().sync_all() } else { Ok(()) }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Begins an archive, or goes on with one.
pub(super) fn open(path: &Path, go_on: bool, prefix: &Prefix) -> Result<Begun, ClientError> {
    let failed = |source| ClientError::file(path, source);
    if path.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(ClientError::ArchiveTerminal);
        }
        let file = io::stdout().as_fd().try_clone_to_owned().map_err(stdout_failed)?;
        return begin(Output::new(file.into(), Path::new("stdout"), false), prefix);
    }
    if go_on && path.exists() {
        return continue_file(path, prefix);
    }
    match File::options().write(true).create_new(true).open(path) {
        Ok(file) => begin(Output::new(file, path, true), prefix),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        // What is no file, as /dev/null or a FIFO, is a stream.
        Err(_) if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) => {
            let file = File::options().write(true).open(path).map_err(failed)?;
            begin(Output::new(file, path, false), prefix)
        }
        Err(_) => Err(ClientError::ArchiveThere { path: path.to_path_buf() }),
    }
}

fn begin(output: Output, prefix: &Prefix) -> Result<Begun, ClientError> {
    let path = output.path.clone();
    let writer = Writer::begin(output, prefix.digits());
    let writer = writer.map_err(|source| ClientError::file(&path, source))?;
    Ok(Begun::At(Box::new(writer), None))
}

/// Finds out how far a file is right, cuts off the rest, and goes on there.
fn continue_file(path: &Path, prefix: &Prefix) -> Result<Begun, ClientError> {
    let failed = |source| ClientError::file(path, source);
    let file = File::options().read(true).write(true).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(ClientError::ArchiveStream { path: path.to_path_buf() });
    }
    let input = BufReader::with_capacity(WRITE_LEN, file.try_clone().map_err(failed)?);
    let mark = match Reader::begin(input) {
        Ok(reader) if reader.prefix() != prefix.digits() => {
            let prefix = reader.prefix().to_owned();
            return Err(ClientError::ArchivePrefix { path: path.to_path_buf(), prefix });
        }
        Ok(mut reader) => match whole_part(&mut reader)? {
            None => return Ok(Begun::Whole),
            Some(mark) => Some(mark),
        },
        // It was cut within its head; anything else is no archive at all.
        Err(ArchiveError::Truncated { .. }) if is_cut_head(&file, prefix).map_err(failed)? => None,
        Err(ArchiveError::Truncated { .. }) => return Err(ArchiveError::NoArchive.into()),
        Err(ArchiveError::NoArchive) if file.metadata().map_err(failed)?.len() == 0 => None,
        Err(error) => return Err(error.into()),
    };
    let mut output = Output::new(file, path, true);
    output.cut_back(mark.as_ref().map_or(0, |mark| mark.at)).map_err(failed)?;
    let Some(mark) = mark else { return begin(output, prefix) };
    let last = mark.last();
    Ok(Begun::At(Box::new(Writer::go_on(output, mark)), last))
}

/// Whether a file has the beginning of the head that an archive of `prefix` has, and no more.
fn is_cut_head(mut file: &File, prefix: &Prefix) -> io::Result<bool> {
    let mut head = Writer::begin(Vec::new(), prefix.digits())?;
    let mut found = Vec::new();
    file.rewind()?;
    file.take(head.out().len() as u64 + 1).read_to_end(&mut found)?;
    Ok(head.out().starts_with(&found))
}

/// How far all is right; `None`: to a right end.
fn whole_part(reader: &mut Reader<BufReader<File>>) -> Result<Option<Mark>, ClientError> {
    let mut mark = reader.mark()?;
    loop {
        let member = match reader.find_next() {
            Ok(Some(Found::Object(member))) => member,
            Ok(Some(Found::End { matches: true })) => return Ok(None),
            Ok(_) | Err(ArchiveError::Truncated { .. }) => return Ok(Some(mark)),
            Err(error) => return Err(error.into()),
        };
        let mut hashing = Hashing::new();
        let is_right = match pour(reader, |bytes| Ok(hashing.update(bytes)?)) {
            Ok(()) => hashing.finish().address == member.address,
            Err(Unpoured::Taken(error)) => return Err(error),
            Err(Unpoured::Read(error)) => match reader.failed(error) {
                ArchiveError::Truncated { .. } => false,
                error => return Err(error.into()),
            },
        };
        let in_order = mark.last().is_none_or(|last| last < member.address);
        match reader.mark() {
            Ok(next) if is_right && in_order => mark = next,
            Ok(_) | Err(ArchiveError::Truncated { .. }) => return Ok(Some(mark)),
            Err(error) => return Err(error.into()),
        }
    }
}
