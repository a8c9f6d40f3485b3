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
    collections::{BTreeMap, HashMap, btree_map},
    io,
    sync::Arc,
};

use ron_codec::{
    address::Address,
    outboard::{Outboard, group_count, group_len, verify_group},
};
use ron_io::{
    limits::COPY_LEN_MAX,
    ports::{DiskDone, DiskOp, Severity, ShardId},
};
use slab::Slab;

use super::{
    damage,
    files::{Arrival, Asked, FileKey, Files},
    index::{Entry, Index, Location},
    outboards::{Got, Outboards},
    site::{Site, Tag, fault_of},
};
use crate::{
    cache::{Cached, Purpose},
    flow::{Asker, Cx, Fault, Place, Reply, StreamId, Verified},
    limits,
    turns::{Client, Turns},
};

/// Who waits for a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanting {
    pub(super) asker: Asker,
    /// Whether the question was about the object, and the group comes with the answer.
    pub(super) open: bool,
    need: Need,
    /// Whether it knows that the group waits for memory.
    told: bool,
}

impl Wanting {
    /// Wants an object, and a group of it with the answer.
    pub(super) fn open(asker: Asker) -> Wanting {
        Wanting { asker, open: true, need: Need { begins: true, ahead: false }, told: false }
    }

    /// Wants a group of an object that was opened.
    pub(super) fn group(asker: Asker, begins: bool, ahead: bool) -> Wanting {
        Wanting { asker, open: false, need: Need { begins, ahead }, told: false }
    }

    fn answer(self, reply: Reply, cx: &mut Cx<'_>) {
        if self.asker.place == Place::Parked {
            cx.memory.unpark(self.asker.shard);
        }
        cx.replies.push_back((self.asker, reply));
    }

    /// There is no memory for group `index`, or no place to wait for it.
    fn refuse(self, index: u64, cx: &mut Cx<'_>) {
        cx.stats.memory_refusals.add(1);
        let late = Reply::Late { index, ahead: self.need.ahead };
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
        if !cx.memory.park(self.asker.shard, self.need.begins) {
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

/// What somebody has to find to wait here.
#[derive(Clone, Copy, Debug)]
enum Room {
    /// A fetch of its own.
    Fetch,
    /// A place among all who wait.
    Asker,
    /// One among those of another shard that wait for memory.
    Place(ShardId),
}

/// What may be refused to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Cut {
    /// What is ahead of its turn.
    Ahead,
    /// What an answer begins with.
    Begins,
    /// What an answer goes on with as well.
    Any,
}

impl Cut {
    /// What loses least comes first.
    const ALL: [Cut; 3] = [Cut::Ahead, Cut::Begins, Cut::Any];

    fn takes(self, wanting: &Wanting) -> bool {
        match self {
            Cut::Ahead => wanting.need.ahead,
            Cut::Begins => wanting.need.begins,
            Cut::Any => true,
        }
    }
}

/// What an answer needs something for.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// The answer begins with it.
    begins: bool,
    /// Others come before it.
    ahead: bool,
}

/// Of all, of those that answers begin with, and of those that are ahead of their turn.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    begins: usize,
    ahead: usize,
}

impl Count {
    fn add(&mut self, need: Need) {
        self.all += 1;
        self.begins += usize::from(need.begins);
        self.ahead += usize::from(need.ahead);
    }

    fn take(&mut self, need: Need) {
        self.all -= 1;
        self.begins -= usize::from(need.begins);
        self.ahead -= usize::from(need.ahead);
    }

    /// Whether there is room for one more, of `most`: some is kept for answers that began, and half
    /// for what is needed next.
    fn has_room(self, most: usize, need: Need) -> bool {
        let begins = !need.begins || self.begins < most / 4 * 3;
        self.all < most && begins && (!need.ahead || self.ahead < most / 2)
    }
}

/// Those who want something.
#[derive(Debug, Default)]
struct Askers {
    count: Count,
    /// How many of each client there are.
    of: BTreeMap<Client, usize>,
}

impl Askers {
    fn add(&mut self, wanting: &Wanting) {
        self.count.add(wanting.need);
        *self.of.entry(wanting.asker.peer).or_default() += 1;
    }

    fn take(&mut self, wanting: &Wanting) {
        self.count.take(wanting.need);
        let btree_map::Entry::Occupied(mut of) = self.of.entry(wanting.asker.peer) else {
            unreachable!("who goes had come");
        };
        *of.get_mut() -= 1;
        if *of.get() == 0 {
            of.remove();
        }
    }

    fn of(&self, client: Client) -> usize {
        self.of.get(&client).copied().unwrap_or(0)
    }

    /// Of whom there are most.
    fn most(&self) -> Option<(usize, Client)> {
        self.of.iter().map(|(client, count)| (*count, *client)).max()
    }
}

#[derive(Debug)]
struct Fetch {
    address: Address,
    index: u64,
    entry: Entry,
    /// What the first who wanted it needs it for.
    need: Need,
    wanting: Vec<Wanting>,
    line: Option<Line>,
    /// Since when it waits for memory, in `Now::mono_ns`.
    since: Option<u64>,
    /// While it is being read: the file, and what the group is compared with.
    reading: Option<(usize, Option<Arc<Outboard>>)>,
}

impl Fetch {
    /// In whose turn it goes on: of those who want it, the first.
    fn client(&self) -> Client {
        self.wanting.first()?.asker.peer
    }

    /// When it has waited too long for memory, in `Now::mono_ns`.
    fn late_at(&self, line: Line) -> Option<u64> {
        Some(self.since?.saturating_add(line.wait_ns()))
    }

    /// What its `len` bytes are for.
    fn purpose(&self, len: usize) -> Purpose {
        if len <= COPY_LEN_MAX {
            Purpose::ReadShort
        } else if self.wanting.iter().any(|wanting| wanting.told && !wanting.need.begins) {
            // Whoever was told asks for no more than this one.
            Purpose::ReadNext
        } else if self.wanting.iter().any(|wanting| wanting.need.begins) {
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
        let (most, need) = (cx.config.fetches_max, wanting.need);
        if !self.wanting.count.has_room(2 * most, need) {
            self.make_room(Room::Asker, wanting, cx);
            if !self.wanting.count.has_room(2 * most, need) {
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
        if !self.count.has_room(most, need) {
            self.make_room(Room::Fetch, wanting, cx);
            if !self.count.has_room(most, need) {
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

    /// Refuses something of the client that wants most here, if that is more than who wants this
    /// does: what is ahead of its turn before what an answer begins with, and that before what one
    /// goes on with. For an answer that begins, one that goes on is cut only when its client has
    /// more than all that is kept for such; for what is ahead, only what is ahead as well.
    fn make_room(&mut self, room: Room, wanting: Wanting, cx: &mut Cx<'_>) {
        let own = self.wanting.of(wanting.asker.peer);
        let kept = if wanting.need.begins { cx.config.fetches_max / 4 } else { 0 };
        let Some((most, of)) = self.wanting.most().filter(|(most, _)| *most > own + 1) else {
            return;
        };
        let least = match wanting.need.ahead {
            true => Cut::Ahead,
            false if most > own + 1 + kept => Cut::Any,
            false => Cut::Begins,
        };
        let mut cuts = Cut::ALL.into_iter().filter(|cut| *cut <= least);
        match room {
            Room::Fetch => {
                let Some(key) = cuts.find_map(|cut| self.pop_fetch(of, cut)) else { return };
                let Fetch { wanting, index, .. } = self.remove(key);
                wanting.into_iter().for_each(|wanting| wanting.refuse(index, cx));
            }
            Room::Asker | Room::Place(_) => {
                let found = cuts.find_map(|cut| self.find_asker(room, of, cut));
                let Some((key, at)) = found else { return };
                let index = self.fetches[key].index;
                self.take_asker(key, at).refuse(index, cx);
            }
        }
    }

    /// Takes the newest fetch out of a line that only this client wants, and so.
    fn pop_fetch(&mut self, of: Client, cut: Cut) -> Option<usize> {
        let fetches = &self.fetches;
        let may_go = |key: &usize| {
            let all = &fetches[*key].wanting;
            all.iter().all(|wanting| wanting.asker.peer == of && cut.takes(wanting))
        };
        self.lines.iter_mut().find_map(|line| line.pop_newest(of, may_go))
    }

    /// An asker of this client whose fetch waits, and that has the place that is wanted.
    fn find_asker(&self, room: Room, of: Client, cut: Cut) -> Option<(usize, usize)> {
        let may_go = |wanting: &Wanting| {
            let asker = wanting.asker;
            let has_place = match room {
                Room::Place(shard) => asker.place == Place::Parked && asker.shard == shard,
                Room::Fetch | Room::Asker => true,
            };
            asker.peer == of && has_place && cut.takes(wanting)
        };
        let of_fetch = |(key, fetch): (usize, &Fetch)| {
            Some((key, fetch.line.and(fetch.wanting.iter().rposition(may_go))?))
        };
        let own = self.lines.iter().flat_map(|line| line.line_of(of).rev());
        own.map(|key| (*key, &self.fetches[*key]))
            .find_map(of_fetch)
            .or_else(|| self.fetches.iter().find_map(of_fetch))
    }

    /// Lets somebody wait for memory, in a place that another gives back if there is none. False
    /// when there is still none: it is refused.
    fn let_wait(&mut self, wanting: &mut Wanting, index: u64, cx: &mut Cx<'_>) -> bool {
        let Asker { shard, .. } = wanting.asker;
        let wants_place = !wanting.told && shard != cx.config.shard;
        if wants_place && !cx.memory.may_park(shard, wanting.need.begins) {
            self.make_room(Room::Place(shard), *wanting, cx);
        }
        wanting.wait(index, cx)
    }

    /// A stream of this shard wants a group no more.
    pub(super) fn cancel(&mut self, stream: StreamId, address: Address, index: u64, cx: &Cx<'_>) {
        let Some(key) = self.by_group.get(&(address, index)) else { return };
        let fetch = &self.fetches[*key];
        let is_it = |wanting: &Wanting| {
            wanting.asker.stream == stream && wanting.asker.shard == cx.config.shard
        };
        let Some(at) = fetch.wanting.iter().position(is_it) else { return };
        self.take_asker(*key, at);
        // Otherwise they leave when their turn comes.
        let in_line: usize = self.lines.iter().map(Turns::len).sum();
        if 2 * self.abandoned > in_line {
            self.drop_abandoned();
        }
    }

    /// A fetch that nobody wants leaves when its turn comes, or sooner.
    fn take_asker(&mut self, key: usize, at: usize) -> Wanting {
        let fetch = &mut self.fetches[key];
        let gone = fetch.wanting.swap_remove(at);
        self.wanting.take(&gone);
        if fetch.wanting.is_empty() && fetch.line.is_some() {
            self.abandoned += 1;
        }
        gone
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
                let Some((_, key)) = self.lines[line as usize].pop() else { break };
                let others = self.lines[line as usize].len();
                self.advance(key, files, site, cx);
                if self.lines[line as usize].len() > others {
                    // It went to the end of a line: there is still no room. Its turn comes first.
                    let client = self.fetches[key].client();
                    self.lines[line as usize].last_first(client);
                    break;
                }
            }
        }
    }

    /// Refuses those that have waited too long for memory.
    fn refuse_late(&mut self, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        if now_ns < self.late_at {
            return;
        }
        self.late_at = u64::MAX;
        for line in Line::OF_MEMORY {
            let mut late = Vec::new();
            for key in self.lines[line as usize].iter() {
                let at = self.fetches[*key].late_at(line).unwrap_or(u64::MAX);
                if at <= now_ns {
                    late.push(*key);
                } else {
                    self.late_at = at.min(self.late_at);
                }
            }
            if late.is_empty() {
                continue;
            }
            let fetches = &self.fetches;
            let is_late = |key: &usize| fetches[*key].late_at(line).is_some_and(|at| at <= now_ns);
            self.lines[line as usize].retain(|key| !is_late(key));
            late.sort_unstable_by_key(|key| self.fetches[*key].since);
            for key in late {
                let Fetch { index, wanting, .. } = self.remove(key);
                for wanting in wanting {
                    // That it was ahead when it was asked for says nothing after that time.
                    let need = Need { ahead: false, ..wanting.need };
                    Wanting { need, ..wanting }.refuse(index, cx);
                }
            }
        }
    }

    fn line_up(&mut self, key: usize, line: Line) {
        let fetch = &mut self.fetches[key];
        fetch.line = Some(line);
        if line != Line::Turn {
            self.late_at = self.late_at.min(fetch.late_at(line).unwrap_or(u64::MAX));
        }
        self.lines[line as usize].push(fetch.client(), key);
    }

    /// There is no memory for the group: waits for some.
    fn wait(&mut self, key: usize, len: usize, cx: &mut Cx<'_>) {
        let fetch = &mut self.fetches[key];
        if fetch.since.is_none() {
            fetch.since = Some(cx.now.mono_ns);
            cx.stats.memory_waits.add(1);
        }
        let index = fetch.index;
        let mut all = std::mem::take(&mut fetch.wanting);
        all.retain_mut(|wanting| {
            let waits = self.let_wait(wanting, index, cx);
            if !waits {
                self.wanting.take(wanting);
            }
            waits
        });
        let nobody = all.is_empty();
        self.fetches[key].wanting = all;
        if nobody {
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
        self.count.take(fetch.need);
        fetch.wanting.iter().for_each(|wanting| self.wanting.take(wanting));
        self.by_group.remove(&(fetch.address, fetch.index));
        fetch
    }
}
