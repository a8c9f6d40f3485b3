//! `ronctl import`: the objects of an archive, stored in a node.
//!
//! ```text
//!   archive ─► small objects, into memory ─► threads: hash ─► does the node have it? ─► PUT
//!          └─► large objects, as they come, one at a time: does the node have it? ─► PUT, hashed
//! ```
//!
//! What the node has is not sent, so an import that was interrupted is run again. What is damaged
//! is named and not stored: a node takes nothing under an address that it does not hash to.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use ron_codec::{address::Address, limits::SEGMENT_OBJECT_LEN_MAX, outboard::Hashing};

use super::{
    args::Shared,
    error::{ClientError, Exit},
    export::say,
    http::Http,
    options::Import,
    retry::{sleep, with_patience},
    source::Source,
};
use crate::archive::{Found, Member, Reader};

/// Objects up to this size are sent several at a time, each from memory.
const SMALL_LEN_MAX: u64 = SEGMENT_OBJECT_LEN_MAX;

/// Bytes of an archive that are read at once.
const READ_LEN: usize = 256 * 1024;

type Wait<'a> = &'a mut dyn FnMut(&ClientError, Duration);

/// What became of the objects so far.
#[derive(Debug, Default)]
struct Outcome {
    stored: u64,
    /// The node had them.
    known: u64,
    damaged: u64,
    /// The node would not have them.
    refused: u64,
    /// Why all of it ends.
    failure: Option<ClientError>,
}

/// What several threads add to.
#[derive(Debug, Default)]
struct Outcomes(Mutex<Outcome>);

/// Stores the objects of an archive.
pub(super) fn import(shared: &Shared, options: &Import, wait: Wait<'_>) -> Result<(), ClientError> {
    let input: Box<dyn Read> = if options.file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        let file = File::open(&options.file);
        Box::new(file.map_err(|source| ClientError::file(&options.file, source))?)
    };
    let mut reader = Reader::begin(BufReader::with_capacity(READ_LEN, input))?;
    let outcomes = Outcomes::default();
    let read = read_all(&mut reader, shared, options, &outcomes, wait);
    let outcome = outcomes.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Outcome { stored, known, damaged, refused, failure } = outcome;
    say(shared, format_args!("stored {stored} objects; the node had {known} already"));
    if let Some(failure) = failure {
        return Err(failure);
    }
    match read? {
        true if damaged == 0 && refused == 0 => Ok(()),
        complete => Err(ClientError::NotImported { damaged, refused, complete }),
    }
}

/// Reads an archive to its end. Returns whether it holds what its end says.
fn read_all<R: Read>(
    reader: &mut Reader<R>,
    shared: &Shared,
    options: &Import,
    outcomes: &Outcomes,
    wait: Wait<'_>,
) -> Result<bool, ClientError> {
    let jobs = usize::from(options.jobs);
    let http = Http::from_args(shared, &shared.node)?;
    let (queue, taken) = sync_channel::<(Member, Vec<u8>)>(jobs);
    let taken = &Mutex::new(taken);
    thread::scope(move |scope| {
        // The threads end when this is dropped.
        let queue = queue;
        for _ in 0..jobs {
            let http = Http::from_args(shared, &shared.node)?;
            scope.spawn(move || work(taken, &http, outcomes, shared.quiet));
        }
        let mut complete = true;
        while let Some(found) = reader.find_next()? {
            match found {
                Found::End { matches } => complete &= matches,
                Found::Damaged { at, address, what } => outcomes.damaged(address, at, what),
                Found::Object(member) if member.size <= SMALL_LEN_MAX => {
                    let mut bytes = vec![0; member.size as usize];
                    reader.read_exact(&mut bytes).map_err(|error| reader.failed(error))?;
                    // The threads live as long as the queue.
                    let _ = queue.send((member, bytes));
                }
                Found::Object(member) => {
                    let path = &options.file;
                    send_large(reader, &member, path, &http, outcomes, shared.quiet, wait)?;
                }
            }
            if outcomes.lock().failure.is_some() {
                break;
            }
        }
        Ok(complete)
    })
}

/// Stores what comes, until nothing more does.
fn work(taken: &Mutex<Receiver<(Member, Vec<u8>)>>, http: &Http, outcomes: &Outcomes, quiet: bool) {
    let mut wait = sleep(quiet);
    loop {
        let next = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((member, bytes)) = next else { return };
        // What is left in the queue is not worth a try.
        if outcomes.lock().failure.is_some() {
            continue;
        }
        if Address::of(&bytes) != member.address {
            outcomes.mismatch(&member.address);
            continue;
        }
        let stored = store(&member, http, &mut wait, |http| {
            let mut source = Source::sized(&bytes[..], Path::new("archive"), member.size, true);
            http.put_with(Some(&member.address), &mut source, &member.fields).map(|_| ())
        });
        outcomes.add(&member.address, stored);
    }
}

/// Stores an object unless the node has it. Returns whether it was stored.
fn store(
    member: &Member,
    http: &Http,
    wait: Wait<'_>,
    mut put: impl FnMut(&Http) -> Result<(), ClientError>,
) -> Result<bool, ClientError> {
    if has(member, http, wait)? {
        return Ok(false);
    }
    with_patience(wait, || put(http)).map(|()| true)
}

/// Whether the node has an object, and gives it out.
fn has(member: &Member, http: &Http, wait: Wait<'_>) -> Result<bool, ClientError> {
    match with_patience(wait, || http.stat(&member.address)) {
        Ok(size) => Ok(size == member.size),
        // One that it knows to be damaged it takes again.
        Err(error) if matches!(error.exit(), Exit::NotFound | Exit::Integrity) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a large object as it is read. It cannot be read twice, so it is sent once.
fn send_large<R: Read>(
    reader: &mut Reader<R>,
    member: &Member,
    path: &Path,
    http: &Http,
    outcomes: &Outcomes,
    quiet: bool,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    match has(member, http, wait) {
        Ok(false) => {}
        known => {
            outcomes.add(&member.address, known.map(|_| false));
            return Ok(());
        }
    }
    let mut hashed = Hashed { reader, hashing: Hashing::new(), failure: None };
    let mut source = Source::sized(&mut hashed, path, member.size, quiet);
    let put = http.put_with(Some(&member.address), &mut source, &member.fields);
    drop(source);
    let Hashed { hashing, failure, .. } = hashed;
    if let Some(error) = failure {
        return Err(reader.failed(error).into());
    }
    if hashing.size() == member.size && hashing.finish().address != member.address {
        outcomes.mismatch(&member.address);
    } else {
        outcomes.add(&member.address, put.map(|_| true));
    }
    Ok(())
}

/// Hashes what is read from an archive, and keeps why that failed.
struct Hashed<'a, R> {
    reader: &'a mut Reader<R>,
    hashing: Hashing,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer) {
            Ok(got) => {
                self.hashing.update(&buffer[..got]).map_err(io::Error::other)?;
                Ok(got)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl Outcomes {
    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object was stored, or was there, or could not be stored: then the import goes on if that
    /// says something of the object, and ends if it says something of the node.
    fn add(&self, address: &Address, stored: Result<bool, ClientError>) {
        let mut outcome = self.lock();
        match stored {
            Ok(true) => outcome.stored += 1,
            Ok(false) => outcome.known += 1,
            Err(error) if is_of_object(&error) => {
                outcome.refused += 1;
                eprintln!("ronctl: {address} is not stored: {error}");
            }
            Err(error) => drop(outcome.failure.get_or_insert(error)),
        }
    }

    fn mismatch(&self, address: &Address) {
        self.lock().damaged += 1;
        eprintln!("ronctl: {address} is damaged in the archive: its bytes do not hash to it");
    }

    fn damaged(&self, address: Option<Address>, at: u64, what: &str) {
        self.lock().damaged += 1;
        match address {
            Some(address) => eprintln!("ronctl: {address} is damaged in the archive: {what}"),
            None => eprintln!("ronctl: the archive is damaged at byte {at}: {what}"),
        }
    }
}

/// Whether a refusal is of this object, and others may be taken.
fn is_of_object(error: &ClientError) -> bool {
    matches!(error, ClientError::Node { status, .. } if ![401, 403, 429, 503, 507].contains(status))
}
