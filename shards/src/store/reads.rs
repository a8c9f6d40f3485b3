//! Reading groups: each is fetched once for all who want it, checked, kept, and handed out.
//!
//! ```text
//!   wanted ──► file open ──► outboard known ──► room for it ──► reading ──► verified ──► answered
//!               (waits)         (waits)           (lines)
//! ```
//!
//! What waits for memory is told so once, and refused when that takes too long. What nobody wants
//! any more takes none.
//!
//! A group that does not match is never handed out: whoever waits is told, it is counted and noted,
//! and the next who wants it makes it be read again. A single group needs no outboard.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
};

use ron_codec::{
    address::Address,
    outboard::{Outboard, group_count, group_len, verify_group},
};
use ron_io::{
    limits::COPY_LEN_MAX,
    ports::{DiskDone, DiskOp, Severity},
};
use slab::Slab;

use super::{
    damage,
    files::{Arrival, Asked, FileKey, Files},
    index::{Entry, Index, Location},
    outboards::{Got, Outboards},
    partition::{Site, Tag, fault_of},
};
use crate::{
    cache::{Cached, Purpose},
    flow::{Asker, Cx, Fault, Place, Reply, StreamId, Verified},
    limits,
};

/// Who waits for a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanting {
    pub(super) asker: Asker,
    /// Whether the question was about the object, and the group comes with the answer.
    pub(super) open: bool,
    /// Whether it is what an answer begins with.
    begins: bool,
    /// Whether it knows that the group waits for memory.
    told: bool,
}

impl Wanting {
    /// Wants an object, and a group of it with the answer.
    pub(super) fn open(asker: Asker) -> Wanting {
        Wanting { asker, open: true, begins: true, told: false }
    }

    /// Wants a group of an object that was opened.
    pub(super) fn group(asker: Asker, begins: bool) -> Wanting {
        Wanting { asker, open: false, begins, told: false }
    }

    fn answer(self, reply: Reply, cx: &mut Cx<'_>) {
        if self.asker.place == Place::Parked {
            cx.memory.unpark(self.asker.shard);
        }
        cx.replies.push_back((self.asker, reply));
    }

    /// There is no memory for group `index`.
    fn refuse(self, index: u64, cx: &mut Cx<'_>) {
        cx.stats.memory_refusals.add(1);
        let late = Reply::Late { index };
        self.answer(if self.open { Reply::Failed(Fault::Busy) } else { late }, cx);
    }

    /// Tells, once, that memory is short: it may be held by downloads that wait here for one group
    /// and keep those behind it, and if none let go, all would wait. A question of another shard
    /// gives its place back. False when too many of that shard wait already: it is refused.
    fn wait(&mut self, index: u64, cx: &mut Cx<'_>) -> bool {
        if std::mem::replace(&mut self.told, true) {
            return true;
        }
        if self.asker.shard == cx.config.shard {
            if !self.open {
                cx.replies.push_back((self.asker, Reply::Short));
            }
            return true;
        }
        if !cx.memory.park(self.asker.shard, self.begins) {
            self.refuse(index, cx);
            return false;
        }
        cx.replies.push_back((self.asker, Reply::Short));
        self.asker.place = Place::Parked;
        true
    }
}

/// What a fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Others to be done.
    Turn,
    /// Memory for a group that is copied when it is sent.
    Short,
    /// Memory for an answer that has begun, or may do without.
    Next,
    /// Memory for an answer that begins.
    First,
}

impl Line {
    /// In the order in which they go on. An answer that begins comes last: it can still be refused.
    const ALL: [Line; 4] = [Line::Turn, Line::Short, Line::Next, Line::First];
    const OF_MEMORY: [Line; 3] = [Line::Short, Line::Next, Line::First];

    /// Nanoseconds after which those in it are refused.
    fn wait_ns(self) -> u64 {
        if self == Line::Next { limits::READ_NEXT_WAIT_NS } else { limits::READ_WAIT_NS }
    }
}

#[derive(Debug)]
struct Fetch {
    address: Address,
    index: u64,
    entry: Entry,
    wanting: Vec<Wanting>,
    line: Option<Line>,
    /// Since when it waits for memory, in `Now::mono_ns`.
    since: Option<u64>,
    /// While it is being read: the file, and what the group is compared with.
    reading: Option<(usize, Option<Arc<Outboard>>)>,
}

impl Fetch {
    /// What its `len` bytes are for.
    fn purpose(&self, len: usize) -> Purpose {
        if len <= COPY_LEN_MAX {
            Purpose::ReadShort
        } else if self.wanting.iter().any(|wanting| wanting.told && !wanting.begins) {
            // Whoever was told asks for no more than this one.
            Purpose::ReadNext
        } else if self.wanting.iter().any(|wanting| wanting.begins) {
            Purpose::ReadFirst
        } else {
            Purpose::ReadAhead
        }
    }
}

/// Bytes of memory of the most fetches and askers that one partition may have: each table may be
/// twice as large as what it holds.
pub(super) const fn bill() -> usize {
    let by_group = size_of::<((Address, u64), usize)>() + 1;
    let lines = Line::ALL.len() * size_of::<usize>();
    let of_fetch = size_of::<Fetch>() + size_of::<usize>() + by_group + lines;
    // A list for a few askers takes room for four, and a block of the allocator.
    let few = 4 * size_of::<Wanting>() + 2 * size_of::<usize>();
    let askers = limits::WANTING_MAX * size_of::<Wanting>();
    2 * (limits::FETCHES_MAX * of_fetch + askers) + limits::FETCHES_MAX * few
}

/// The groups of one partition that are wanted and not in the cache.
#[derive(Debug)]
pub(super) struct Reads {
    fetches: Slab<Fetch>,
    by_group: HashMap<(Address, u64), usize>,
    outboards: Outboards,
    /// Those that wait for memory, or for others to be done; by `Line`.
    lines: [VecDeque<usize>; Line::ALL.len()],
    /// Askers of all fetches.
    wanting: usize,
    /// Fetches in a line that nobody wanted any more, counted since they were looked for.
    abandoned: usize,
}

impl Reads {
    pub(super) fn new() -> Reads {
        Reads {
            fetches: Slab::new(),
            by_group: HashMap::new(),
            outboards: Outboards::new(),
            lines: Default::default(),
            wanting: 0,
            abandoned: 0,
        }
    }

    /// Whether nothing is wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Whether something waits for room.
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
        if self.wanting >= limits::WANTING_MAX {
            return wanting.answer(Reply::Failed(Fault::Busy), cx);
        }
        if let Some(key) = self.by_group.get(&(address, index)).copied() {
            let fetch = &mut self.fetches[key];
            let waits = fetch.since.is_some() && fetch.line.is_some();
            if waits && !wanting.wait(index, cx) {
                return;
            }
            fetch.wanting.push(wanting);
            self.wanting += 1;
            if !wanting.begins && fetch.line == Some(Line::First) {
                self.lines[Line::First as usize].retain(|other| *other != key);
                self.advance(key, files, site, cx);
            }
            return;
        }
        if self.fetches.len() >= limits::FETCHES_MAX {
            return wanting.answer(Reply::Failed(Fault::Busy), cx);
        }
        let wanting = vec![wanting];
        let (line, since, reading) = (None, None, None);
        let fetch = Fetch { address, index, entry, wanting, line, since, reading };
        let key = self.fetches.insert(fetch);
        self.wanting += 1;
        self.by_group.insert((address, index), key);
        self.advance(key, files, site, cx);
    }

    /// A stream of this shard wants a group no more.
    pub(super) fn cancel(&mut self, stream: StreamId, address: Address, index: u64, cx: &Cx<'_>) {
        let Some(key) = self.by_group.get(&(address, index)) else { return };
        let fetch = &mut self.fetches[*key];
        let is_it = |wanting: &Wanting| {
            wanting.asker.stream == stream && wanting.asker.shard == cx.config.shard
        };
        let Some(at) = fetch.wanting.iter().position(is_it) else { return };
        fetch.wanting.swap_remove(at);
        self.wanting -= 1;
        if fetch.wanting.is_empty() && fetch.line.is_some() {
            self.abandoned += 1;
        }
        // Otherwise they leave when their turn comes.
        let in_line: usize = self.lines.iter().map(VecDeque::len).sum();
        if 2 * self.abandoned > in_line {
            self.drop_abandoned();
        }
    }

    fn drop_abandoned(&mut self) {
        self.abandoned = 0;
        for line in 0..self.lines.len() {
            let mut waiting = std::mem::take(&mut self.lines[line]);
            waiting.retain(|key| {
                let wanted = !self.fetches[*key].wanting.is_empty();
                if !wanted {
                    self.remove(*key);
                }
                wanted
            });
            self.lines[line] = waiting;
        }
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
            site.note(cx, Severity::Error, &format!("cannot open {file:?}: {error}"));
        }
        for key in waiting {
            match error.kind() {
                io::ErrorKind::NotFound => {
                    self.look_again(key, "its file is missing", (index, files), site, cx);
                }
                _ => self.fail(key, fault_of(&error), "its file cannot be opened", site, cx),
            }
        }
    }

    /// A group is not there, or not what it should be. The object may have been moved, deleted or
    /// stored anew since it was asked for; otherwise it is damaged.
    fn look_again(
        &mut self,
        key: usize,
        why: &str,
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
            _ => self.fail(key, Fault::Integrity, why, site, cx),
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
            let why = "its header or outboard";
            match loaded.outcome {
                Err(_) if fetch.entry != loaded.entry => self.advance(key, files, site, cx),
                Err(Fault::Integrity) => self.look_again(key, why, (index, files), site, cx),
                Err(fault) => self.fail(key, fault, why, site, cx),
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
            Ok(DiskDone::Read(block)) => block,
            Ok(other) => unreachable!("a read brought {other:?}"),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let why = "its file is too short";
                return self.look_again(key, why, (index, files), site, cx);
            }
            Err(error) => {
                return self.fail(key, Fault::Disk, &error.to_string(), site, cx);
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
                self.look_again(key, &mismatch.to_string(), (index, files), site, cx);
            }
        }
    }

    /// Goes on with those that wait for room, in their order, while there is some.
    pub(super) fn retry(&mut self, files: &mut Files, site: Site, cx: &mut Cx<'_>) {
        self.refuse_late(cx);
        for line in Line::ALL {
            for _ in 0..self.lines[line as usize].len() {
                let Some(key) = self.lines[line as usize].pop_front() else { break };
                let others = self.lines[line as usize].len();
                self.advance(key, files, site, cx);
                let line = &mut self.lines[line as usize];
                if line.len() > others {
                    // It went to the end of the line: there is still no room. Its turn comes first.
                    line.rotate_right(1);
                    break;
                }
            }
        }
    }

    /// Refuses those that have waited too long for memory. The first in a line waits longest.
    fn refuse_late(&mut self, cx: &mut Cx<'_>) {
        for line in Line::OF_MEMORY {
            while let Some(key) = self.lines[line as usize].front().copied() {
                let since = self.fetches[key].since.unwrap_or(cx.now.mono_ns);
                if cx.now.mono_ns < since.saturating_add(line.wait_ns()) {
                    break;
                }
                self.lines[line as usize].pop_front();
                let Fetch { index, wanting, .. } = self.remove(key);
                wanting.into_iter().for_each(|wanting| wanting.refuse(index, cx));
            }
        }
    }

    fn line_up(&mut self, key: usize, line: Line) {
        self.fetches[key].line = Some(line);
        self.lines[line as usize].push_back(key);
    }

    /// There is no memory for the group: waits for some.
    fn wait(&mut self, key: usize, len: usize, cx: &mut Cx<'_>) {
        let fetch = &mut self.fetches[key];
        if fetch.since.is_none() {
            fetch.since = Some(cx.now.mono_ns);
            cx.stats.memory_waits.add(1);
        }
        let before = fetch.wanting.len();
        let index = fetch.index;
        fetch.wanting.retain_mut(|wanting| wanting.wait(index, cx));
        let left = fetch.wanting.len();
        self.wanting -= before - left;
        if left == 0 {
            self.remove(key);
            return;
        }
        // Some were told only now.
        let line = match self.fetches[key].purpose(len) {
            Purpose::ReadShort => Line::Short,
            Purpose::ReadFirst => Line::First,
            _ => Line::Next,
        };
        self.line_up(key, line);
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
            return self.fail(key, Fault::Integrity, "its index entry", site, cx);
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
        if cx.tickets.under_way() >= limits::READS_UNDER_WAY_MAX {
            return self.line_up(key, Line::Turn);
        }
        let len = group_len(entry.size, index);
        let purpose = self.fetches[key].purpose(len);
        // It may have come meanwhile, or have been there, and too much be held for it to be given.
        let cached = since.and_then(|_| cx.memory.get_for(purpose, &address, index));
        if let Some(Cached { group, size }) = cached {
            return self.hand_out(key, &group, size, cx);
        }
        let room = cx.memory.alloc_for(purpose, len, None);
        let Some(into) = room else { return self.wait(key, len, cx) };
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

    fn fail(&mut self, key: usize, fault: Fault, why: &str, site: Site, cx: &mut Cx<'_>) {
        let Fetch { address, index, wanting, .. } = self.remove(key);
        match fault {
            Fault::Integrity => {
                cx.stats.integrity_fail.add(1);
                // The control plane logs it when it is new, however often it is asked for.
                damage::report_read(&address, &format!("group {index}: {why}"), cx);
            }
            _ => site.note(cx, Severity::Error, &format!("cannot read {address}: {why}")),
        }
        for wanting in wanting {
            wanting.answer(Reply::Failed(fault), cx);
        }
    }

    fn remove(&mut self, key: usize) -> Fetch {
        let fetch = self.fetches.remove(key);
        self.wanting -= fetch.wanting.len();
        self.by_group.remove(&(fetch.address, fetch.index));
        fetch
    }
}
