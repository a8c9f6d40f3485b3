//! Reading groups: each is fetched once for all who want it, checked, kept, and handed out.
//!
//! ```text
//!   wanted ──► file open ──► outboard known ──► memory ──────► reading ──► verified ──► answered
//!               (waits)         (waits)           (lines)
//! ```
//!
//! What waits for memory says so once to each asker, and is refused when that takes too long. What
//! nobody wants any more takes none.
//!
//! A group that does not match is never handed out: all who wait for it get an error, it is counted
//! and noted, and the next who wants it makes it be read again. A single group needs no outboard.

use std::{collections::HashMap, io};

use ron_codec::{
    address::Address,
    outboard::{Outboard, group_count, group_len, verify_group},
};
use ron_io::ports::{DiskDone, DiskOp};
use slab::Slab;

use super::{
    damage,
    files::{Arrival, Asked, FileKey, Files},
    flaw::{Flaw, Wrong},
    index::{Entry, Index, Location},
    notes::{Note, Unread},
    outboards::{Got, Outboards},
    site::{Site, Tag},
};
use crate::{
    cache::Cached,
    flow::{Cx, Fault, Reply, Verified},
    limits,
    turns::{Client, Turns},
};

mod askers;
mod fetch;
mod lines;
mod shed;

pub(super) use askers::Wanting;
use askers::{Askers, Count, Wanted};
use fetch::{Fetch, Line};

/// Bytes of memory of the most fetches and askers that one partition may have: each table may be
/// twice as large as what it holds.
pub(super) const fn bill() -> usize {
    let by_group = size_of::<((Address, u64), usize)>() + 1;
    let lines = Line::ALL.len() * size_of::<usize>();
    let of_fetch = size_of::<Fetch>() + size_of::<usize>() + by_group + lines;
    // A list for a few askers takes memory for four, and a block of the allocator.
    let few = 4 * size_of::<Wanting>() + 2 * size_of::<usize>();
    let each = few + Turns::<usize>::bill();
    // The nodes of the tree are half full.
    let of = 2 * (size_of::<Client>() + size_of::<usize>());
    let askers = limits::WANTING_MAX * (size_of::<Wanting>() + of / 2);
    2 * (limits::FETCHES_MAX * of_fetch + askers) + limits::FETCHES_MAX * each
}

/// The groups of one partition that are wanted and not in the cache.
#[derive(Debug)]
pub(super) struct Reads {
    fetches: Slab<Fetch>,
    count: Count,
    by_group: HashMap<(Address, u64), usize>,
    outboards: Outboards,
    /// Those that wait for memory, or for others to be done; by `Line`.
    lines: [Turns<usize>; Line::ALL.len()],
    /// When the next of them has waited too long for memory, or earlier.
    late_at: u64,
    /// Askers of all fetches.
    wanting: Askers,
    /// Fetches in a line that nobody wanted any more, counted since they were looked for.
    abandoned: usize,
}

impl Reads {
    pub(super) fn new() -> Reads {
        Reads {
            fetches: Slab::new(),
            count: Count::default(),
            by_group: HashMap::new(),
            outboards: Outboards::new(),
            lines: Default::default(),
            late_at: u64::MAX,
            wanting: Askers::default(),
            abandoned: 0,
        }
    }

    /// Whether nothing is wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Whether something waits in a line.
    pub(super) fn is_waiting(&self) -> bool {
        self.lines.iter().any(|line| !line.is_empty())
    }

    /// Whether something waits for memory.
    pub(super) fn awaits_memory(&self) -> bool {
        Line::OF_MEMORY.iter().any(|line| !self.lines[*line as usize].is_empty())
    }

    /// Fetches a group that the object has.
    pub(super) fn want(
        &mut self,
        (address, index, entry): (Address, u64, Entry),
        mut wanting: Wanting,
        files: &mut Files,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        debug_assert!(index < group_count(entry.size));
        let (most, need) = (cx.config.fetches_max, wanting.need);
        if !self.wanting.count.has_capacity(2 * most, need) {
            self.shed_for(Wanted::Asker, wanting, cx);
            if !self.wanting.count.has_capacity(2 * most, need) {
                return wanting.refuse(index, cx);
            }
        }
        if let Some(key) = self.by_group.get(&(address, index)).copied() {
            let fetch = &self.fetches[key];
            let waits = fetch.since.is_some() && fetch.line.is_some();
            if waits && !self.let_wait(&mut wanting, index, cx) {
                return;
            }
            let fetch = &mut self.fetches[key];
            fetch.wanting.push(wanting);
            self.wanting.add(&wanting);
            if !need.begins && fetch.line == Some(Line::First) {
                self.lines[Line::First as usize].retain(|other| *other != key);
                self.advance(key, files, site, cx);
            }
            return;
        }
        if !self.count.has_capacity(most, need) {
            self.shed_for(Wanted::Fetch, wanting, cx);
            if !self.count.has_capacity(most, need) {
                return wanting.refuse(index, cx);
            }
        }
        self.wanting.add(&wanting);
        let wanting = vec![wanting];
        let (line, since, reading) = (None, None, None);
        let fetch = Fetch { address, index, entry, need, wanting, line, since, reading };
        let key = self.fetches.insert(fetch);
        self.count.add(need);
        self.by_group.insert((address, index), key);
        self.advance(key, files, site, cx);
    }

    /// A file was opened, or cannot be.
    pub(super) fn on_opened(
        &mut self,
        arrival: Arrival,
        (index, files): (&Index, &mut Files),
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let Arrival { key: file, waiting, outcome } = arrival;
        let Err(error) = outcome else {
            waiting.into_iter().for_each(|key| self.advance(key, files, site, cx));
            return;
        };
        if error.kind() != io::ErrorKind::NotFound {
            let error = &error;
            let note = match file {
                FileKey::Segment(segment) => Note::SegmentNotOpened { segment, error },
                FileKey::Object(address) => Note::FileNotOpened { address, error },
            };
            site.note(cx, &note);
        }
        for key in waiting {
            match error.kind() {
                io::ErrorKind::NotFound => {
                    self.look_up_again(key, Wrong::NoFile, (index, files), site, cx);
                }
                _ => self.unread(key, Fault::of_disk(&error), Unread::NotOpened, site, cx),
            }
        }
    }

    /// A group is not there, or not what it should be. The object may have been moved, deleted or
    /// stored anew since it was asked for; otherwise it is damaged.
    fn look_up_again(
        &mut self,
        key: usize,
        why: Wrong,
        (index, files): (&Index, &mut Files),
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let Fetch { address, entry, .. } = &mut self.fetches[key];
        match index.get(address) {
            Some(now) if now != *entry => {
                *entry = now;
                self.advance(key, files, site, cx);
            }
            None => {
                for wanting in self.remove(key).wanting {
                    wanting.answer(Reply::Missing, cx);
                }
            }
            _ => self.flawed(key, why, cx),
        }
    }

    /// A piece of an outboard came.
    pub(super) fn on_scanned(
        &mut self,
        (slot, piece): (usize, u8),
        done: io::Result<DiskDone>,
        (index, files): (&Index, &mut Files),
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let Some(loaded) = self.outboards.on_scanned(slot, piece, done, files) else { return };
        for key in loaded.waiting {
            let fetch = &self.fetches[key];
            debug_assert_eq!(fetch.address, loaded.address);
            let why = Wrong::HeaderOrOutboard;
            match loaded.outcome {
                Err(_) if fetch.entry != loaded.entry => self.advance(key, files, site, cx),
                Err(Fault::Integrity) => self.look_up_again(key, why, (index, files), site, cx),
                Err(fault) => self.unread(key, fault, Unread::HeaderOrOutboard, site, cx),
                Ok(()) => self.advance(key, files, site, cx),
            }
        }
    }

    /// A group was read.
    pub(super) fn on_read(
        &mut self,
        key: usize,
        done: io::Result<DiskDone>,
        (index, files): (&Index, &mut Files),
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let fetch = &mut self.fetches[key];
        let (file_slot, outboard) = fetch.reading.take().expect("the group was being read");
        files.release(file_slot);
        let block = match done {
            Ok(done) => done.into_read(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return self.look_up_again(key, Wrong::TooShort, (index, files), site, cx);
            }
            Err(error) => {
                return self.unread(key, Fault::Disk, Unread::Disk(&error), site, cx);
            }
        };
        let values = outboard.as_deref().map(Outboard::values);
        let size = fetch.entry.size;
        cx.stats.verify_groups.add(1);
        cx.stats.verify_bytes.add(block.len() as u64);
        match verify_group(&fetch.address, size, values, fetch.index, block.bytes()) {
            Ok(matched) => {
                let group = Verified::proven(matched, &block, cx.config.verify_sends);
                self.succeed(key, &group, index, cx);
            }
            Err(mismatch) => {
                self.look_up_again(key, Wrong::Group(mismatch), (index, files), site, cx);
            }
        }
    }

    /// Takes the fetch as far as it goes without waiting.
    fn advance(&mut self, key: usize, files: &mut Files, site: Site, cx: &mut Cx<'_>) {
        let fetch = &mut self.fetches[key];
        fetch.line = None;
        let Fetch { address, index, entry, since, .. } = *fetch;
        if fetch.wanting.is_empty() {
            self.remove(key);
            return;
        }
        let Ok(header) = entry.header(&address) else {
            return self.flawed(key, Wrong::Entry, cx);
        };
        let file_key = match entry.location {
            Location::Segment { segment, .. } => FileKey::Segment(segment),
            Location::File { .. } => FileKey::Object(address),
        };
        let file_slot = match files.ask(file_key, key, site, cx) {
            Asked::Open(slot) => slot,
            Asked::Opening => return,
            Asked::Later => return self.line_up(key, Line::Turn),
        };
        let mut outboard = None;
        if header.outboard_len() > 0 {
            let object = (&address, &entry, &header);
            match self.outboards.ask(object, key, (files, file_slot), site, cx) {
                Got::Ready(ready) => outboard = Some(ready),
                Got::Loading => return,
                Got::Later => return self.line_up(key, Line::Turn),
            }
        }
        if cx.tickets.in_progress() >= limits::READS_IN_PROGRESS_MAX {
            return self.line_up(key, Line::Turn);
        }
        let len = group_len(entry.size, index);
        let purpose = self.fetches[key].purpose(len);
        // It may have come meanwhile, or have been there, and too much be held for it to be given.
        let cached = since.and_then(|_| cx.memory.get_for(purpose, &address, index));
        if let Some(Cached { group, size }) = cached {
            return self.hand_out(key, &group, size, cx);
        }
        let block = cx.memory.alloc_for(purpose, len, None);
        let Some(into) = block else { return self.wait(key, len, cx) };
        let group_at = index * ron_codec::limits::GROUP_LEN as u64;
        let at = entry.base() + u64::from(header.data_offset()) + group_at;
        self.fetches[key].reading = Some((file_slot, outboard));
        let file = files.hold(file_slot);
        let op = DiskOp::Read { file, at, len: len as u32, into };
        site.disk(cx, Tag::Read { slot: key }, op);
    }

    fn succeed(&mut self, key: usize, group: &Verified, known: &Index, cx: &mut Cx<'_>) {
        let Fetch { address, entry, .. } = self.fetches[key];
        // What was deleted while it was read must not be found in the cache.
        if known.get(&address).is_some() {
            cx.memory.insert(&address, entry.size, group);
        }
        self.hand_out(key, group, entry.size, cx);
    }

    /// Answers all who wait for a group, which is of an object of `size` bytes.
    fn hand_out(&mut self, key: usize, group: &Verified, size: u64, cx: &mut Cx<'_>) {
        for wanting in self.remove(key).wanting {
            let group = group.clone();
            let reply = match wanting.open {
                true => Reply::Opened { size, first: Some(group) },
                false => Reply::Group(group),
            };
            wanting.answer(reply, cx);
        }
    }

    /// A group is not what was stored.
    fn flawed(&mut self, key: usize, why: Wrong, cx: &mut Cx<'_>) {
        let Fetch { address, index, wanting, .. } = self.remove(key);
        cx.stats.integrity_fail.add(1);
        // The control plane logs it when it is new, however often it is asked for.
        damage::report_read(&address, &Flaw::Group { index, why }, cx);
        for wanting in wanting {
            wanting.answer(Reply::Failed(Fault::Integrity), cx);
        }
    }

    /// A group cannot be read, and may be right.
    fn unread(&mut self, key: usize, fault: Fault, why: Unread<'_>, site: Site, cx: &mut Cx<'_>) {
        let Fetch { address, wanting, .. } = self.remove(key);
        site.note(cx, &Note::GroupUnread { address, why });
        for wanting in wanting {
            wanting.answer(Reply::Failed(fault), cx);
        }
    }

    fn remove(&mut self, key: usize) -> Fetch {
        let fetch = self.fetches.remove(key);
        self.count.take(fetch.need);
        fetch.wanting.iter().for_each(|wanting| self.wanting.take(wanting));
        self.by_group.remove(&(fetch.address, fetch.index));
        fetch
    }
}
