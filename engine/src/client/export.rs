//! `ronctl export`: the objects of a node, or of the directories of a stopped one, in one archive.
//!
//! ```text
//!   listing, or a directory ─► bytes ─► hashed ─► archive
//!                                         └─ not what they should be: named and left out
//! ```
//!
//! Objects come by rising address, so an archive that was left incomplete is gone on with behind
//! its last whole object. Small objects are in memory as a whole; large ones are written as they
//! come, and taken back when they prove to be damaged. Where the archive is a stream that takes
//! nothing back, what is missing is filled with zeros, and its reader finds that object damaged.

use std::{collections::BTreeSet, fmt, io, thread, time::Duration};

use ron_codec::{address::Address, limits::SEGMENT_OBJECT_LEN_MAX, outboard::Hashing};
use ron_control::listing::ObjectEntry;

use super::{
    args::Shared,
    error::{ClientError, Exit},
    http::Http,
    listing::Listing,
    options::Export,
    pour::{Unpoured, pour},
};
use crate::{
    archive::{Fields, Mark, Member, Writer},
    stopped::{StoppedNode, Stored},
};

mod fetch;
mod output;

use fetch::{Fetched, Fetches, Memory, Taker};
use output::{Begun, Output};

/// Objects up to this size are fetched several at a time, each into memory.
const SMALL_LEN_MAX: u64 = SEGMENT_OBJECT_LEN_MAX;

type Wait<'a> = &'a mut dyn FnMut(&ClientError, Duration);

/// Writes an archive.
pub(super) fn export(shared: &Shared, options: &Export, wait: Wait<'_>) -> Result<(), ClientError> {
    let begun = output::open(&options.out, options.go_on, &options.prefix)?;
    let (writer, after) = match begun {
        Begun::At(writer, after) => (*writer, after),
        Begun::Whole => {
            say(shared, format_args!("{} is whole already", options.out.display()));
            return Ok(());
        }
    };
    let mut archive = Archive { writer, damaged: 0 };
    let absent = match options.data.is_empty() {
        true => from_node(shared, options, after, &mut archive, wait)?,
        false => from_directories(options, after, &mut archive)?,
    };
    let Archive { writer, damaged } = archive;
    let path = options.out.clone();
    let failed = |source| ClientError::file(&path, source);
    let (mut output, tally) = writer.end().map_err(failed)?;
    output.sync().map_err(failed)?;
    say(shared, format_args!("exported {} objects, {} bytes", tally.objects, tally.bytes));
    if !absent.is_empty() {
        eprintln!("ronctl: partitions that are absent: {absent:?}; their objects are left out");
    }
    match (damaged, absent.len()) {
        (0, 0) => Ok(()),
        (damaged, absent) => Err(ClientError::NotExported { damaged, absent }),
    }
}

/// Exports from a node that runs. Returns the partitions that it could not list.
fn from_node(
    shared: &Shared,
    options: &Export,
    after: Option<Address>,
    archive: &mut Archive,
    wait: Wait<'_>,
) -> Result<BTreeSet<u16>, ClientError> {
    let mut listing = Listing::new(shared, &options.prefix, after)?;
    let http = Http::from_args(shared, &shared.node)?;
    let jobs = usize::from(options.jobs);
    let (fetches, queue) = Fetches::new(jobs);
    let queue = &queue;
    thread::scope(move |scope| {
        // The threads end with this.
        let mut fetches = fetches;
        Fetches::start(scope, queue, jobs, shared)?;
        while let Some(object) = listing.next(wait)? {
            let asked_for = !object.damaged && object.size <= SMALL_LEN_MAX;
            // What was asked for before is written before.
            while (!asked_for || fetches.is_full()) && archive.take_next(&mut fetches)? {}
            if object.damaged {
                archive.leave_out(&object.addr, &"it is known to be damaged");
            } else if asked_for {
                fetches.ask(object);
            } else {
                archive.take_large(&object, |taker| {
                    fetch::stream(&http, &object.addr, object.size, wait, taker)
                })?;
            }
        }
        while archive.take_next(&mut fetches)? {}
        Ok(listing.absent().clone())
    })
}

/// Exports from the directories of a stopped node. Returns the partitions that are not there.
fn from_directories(
    options: &Export,
    after: Option<Address>,
    archive: &mut Archive,
) -> Result<BTreeSet<u16>, ClientError> {
    let node = StoppedNode::open(&options.data)?;
    let mut absent = BTreeSet::new();
    for partition in node.partitions() {
        if node.is_absent(partition) {
            absent.insert(partition);
            continue;
        }
        for stored in node.objects(partition)? {
            let (addr, size) = (stored.address, stored.size);
            if after.is_some_and(|after| addr <= after) || !options.prefix.is_of(&addr.to_hex()) {
                continue;
            }
            let object = ObjectEntry { addr, size, damaged: false };
            if size > SMALL_LEN_MAX {
                archive.take_large(&object, |taker| read(&node, &stored, taker))?;
                continue;
            }
            let mut memory = Memory::default();
            let outcome = read(&node, &stored, &mut memory);
            archive.take_small(&object, outcome.map(|()| (memory.bytes, memory.fields)))?;
        }
    }
    Ok(absent)
}

/// Hands over the bytes of an object of a stopped node.
fn read(node: &StoppedNode, stored: &Stored, taker: &mut dyn Taker) -> Result<(), ClientError> {
    let unreadable = |error: io::Error| ClientError::Unreadable { reason: error.to_string() };
    let mut bytes = node.read(stored).map_err(unreadable)?;
    taker.begin(&Fields::default())?;
    match pour(&mut bytes, |bytes| taker.take(bytes)) {
        Ok(()) => Ok(()),
        Err(Unpoured::Taken(error)) => Err(error),
        Err(Unpoured::Read(error)) => Err(unreadable(error)),
    }
}

/// An archive that is being written, and how many objects were left out.
struct Archive {
    writer: Writer<Output>,
    damaged: u64,
}

impl Archive {
    /// Writes the first object that was asked for; `false` when there is none.
    fn take_next(&mut self, fetches: &mut Fetches) -> Result<bool, ClientError> {
        let Some((object, fetched)) = fetches.take() else { return Ok(false) };
        self.take_small(&object, fetched)?;
        Ok(true)
    }

    /// Writes an object that is in memory, if it is right.
    fn take_small(&mut self, object: &ObjectEntry, fetched: Fetched) -> Result<(), ClientError> {
        let address = object.addr;
        let (bytes, fields) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return self.judge(&address, error),
        };
        let found = Address::of(&bytes);
        if found != address {
            return self.judge(&address, ClientError::Digest { expected: address, found });
        }
        let member = Member { address, size: bytes.len() as u64, fields };
        let writer = &mut self.writer;
        let written = writer.object(&member).and_then(|()| writer.body(&bytes));
        let written = written.and_then(|()| writer.close(&member));
        written.map_err(|error| self.writer.out().failed(error))
    }

    /// Writes an object as `fetch` hands it over, and takes it back if it is not right.
    fn take_large(
        &mut self,
        object: &ObjectEntry,
        fetch: impl FnOnce(&mut dyn Taker) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let mark = self.writer.mark();
        let (address, size) = (object.addr, object.size);
        let member = Member { address, size, fields: Fields::default() };
        let writer = &mut self.writer;
        let mut large = Large { writer, member, hashing: Hashing::new(), begun: false };
        let outcome = fetch(&mut large).and_then(|()| large.finish());
        let (begun, member) = (large.begun, large.member);
        let Err(error) = outcome else { return Ok(()) };
        if begun && !self.take_back(mark, &member)? && error.exit() == Exit::NotFound {
            // It was deleted in the midst of it, and zeros stand for its rest.
            self.leave_out(&address, &error);
            return Ok(());
        }
        self.judge(&address, error)
    }

    /// The object that was begun at `mark` is not to be in the archive. `false` if it is, damaged.
    fn take_back(&mut self, mark: Mark, member: &Member) -> Result<bool, ClientError> {
        let is_back = self.writer.out().cut_back(mark.at);
        let undone = is_back.and_then(|is_back| match is_back {
            true => {
                self.writer.cut_back(mark);
                Ok(true)
            }
            false => self.writer.close(member).map(|()| false),
        });
        undone.map_err(|error| self.writer.out().failed(error))
    }

    /// What a failure means that an object met: it is left out, or the export ends.
    fn judge(&mut self, address: &Address, error: ClientError) -> Result<(), ClientError> {
        match error.exit() {
            // It was deleted since it was listed.
            Exit::NotFound => Ok(()),
            Exit::Integrity => {
                self.leave_out(address, &error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn leave_out(&mut self, address: &Address, why: &dyn fmt::Display) {
        self.damaged += 1;
        eprintln!("ronctl: {address} is left out: {why}");
    }
}

/// Takes an object into the archive as it comes.
struct Large<'a> {
    writer: &'a mut Writer<Output>,
    member: Member,
    hashing: Hashing,
    begun: bool,
}

impl Large<'_> {
    /// All bytes came; whether they are right is found out now.
    fn finish(&mut self) -> Result<(), ClientError> {
        let found = std::mem::take(&mut self.hashing).finish().address;
        let expected = self.member.address;
        if found != expected {
            return Err(ClientError::Digest { expected, found });
        }
        self.writer.close(&self.member).map_err(|error| self.writer.out().failed(error))
    }
}

impl Taker for Large<'_> {
    fn begin(&mut self, fields: &Fields) -> Result<(), ClientError> {
        self.member.fields = fields.clone();
        self.begun = true;
        self.writer.object(&self.member).map_err(|error| self.writer.out().failed(error))
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.hashing.update(bytes)?;
        self.writer.body(bytes).map_err(|error| self.writer.out().failed(error))
    }
}

/// One line on what was done, unless nothing is to be said.
pub(super) fn say(shared: &Shared, line: fmt::Arguments<'_>) {
    if !shared.quiet {
        eprintln!("ronctl: {line}");
    }
}
