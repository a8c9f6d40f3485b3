//! Reading groups: each is fetched once for all who want it, checked, kept, and handed out.
//!
//! ```text
//!   wanted ──► file open ──► outboard known ──► room for it ──► reading ──► verified ──► answered
//!               (waits)         (waits)           (queue)
//! ```
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
use ron_io::ports::{Act, DiskDone, DiskOp, Report, Severity};
use slab::Slab;

use super::{
    files::{Arrival, FileKey, Files},
    index::{Entry, Index, Location},
    outboards::{Got, Outboards},
    partition::{Site, Tag, fault_of},
};
use crate::{
    flow::{Asker, Cx, Fault, Reply, Verified},
    limits,
};

/// Counts a damaged object and lets the control plane know of it.
pub(super) fn report_damage(address: &Address, what: &str, cx: &mut Cx<'_>) {
    cx.stats.damaged_objects.add(1);
    let (shard, digest, what) = (cx.config.shard, *address.as_bytes(), what.to_owned());
    cx.acts.push(Act::Report(Report::Damaged { shard, digest, what }));
}

/// Who waits for a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanting {
    pub(super) asker: Asker,
    /// Whether the question was about the object, and the group comes with the answer.
    pub(super) open: bool,
}

#[derive(Debug)]
struct Fetch {
    address: Address,
    index: u64,
    entry: Entry,
    wanting: Vec<Wanting>,
    /// How many of them know that it waits for memory.
    told: usize,
    /// While it is being read: the file, and what the group is compared with.
    reading: Option<(usize, Option<Arc<Outboard>>)>,
}

/// The groups of one partition that are wanted and not in the cache.
#[derive(Debug)]
pub(super) struct Reads {
    fetches: Slab<Fetch>,
    by_group: HashMap<(Address, u64), usize>,
    outboards: Outboards,
    /// Those that wait for memory, or for others to be done.
    queue: VecDeque<usize>,
    /// Whether it was memory that the first of them lacked when it was tried last.
    short: bool,
}

impl Reads {
    pub(super) fn new() -> Reads {
        Reads {
            fetches: Slab::new(),
            by_group: HashMap::new(),
            outboards: Outboards::new(),
            queue: VecDeque::new(),
            short: false,
        }
    }

    /// Whether nothing is wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.fetches.is_empty()
    }

    /// Whether something waits for room.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Fetches a group that the object has.
    pub(super) fn want(
        &mut self,
        (address, index, entry): (Address, u64, Entry),
        wanting: Wanting,
        files: &mut Files,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        debug_assert!(index < group_count(entry.size));
        if let Some(key) = self.by_group.get(&(address, index)) {
            self.fetches[*key].wanting.push(wanting);
            return;
        }
        if self.fetches.len() >= limits::FETCHES_MAX {
            cx.replies.push_back((wanting.asker, Reply::Failed(Fault::Busy)));
            return;
        }
        let wanting = vec![wanting];
        let key =
            self.fetches.insert(Fetch { address, index, entry, wanting, told: 0, reading: None });
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
            site.note(cx, Severity::Error, &format!("cannot open {file:?}: {error}"));
        }
        for key in waiting {
            match error.kind() {
                io::ErrorKind::NotFound => self.look_again(key, (index, files), site, cx),
                _ => self.fail(key, fault_of(&error), "its file cannot be opened", site, cx),
            }
        }
    }

    /// The file of a group is gone. The object may have been moved or deleted since it was asked
    /// for; otherwise it is damaged.
    fn look_again(
        &mut self,
        key: usize,
        (index, files): (&Index, &mut Files),
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let Fetch { address, entry, .. } = &mut self.fetches[key];
        match index.get(address) {
            Ok(Some(now)) if now != *entry => {
                *entry = now;
                self.advance(key, files, site, cx);
            }
            Ok(None) => {
                for Wanting { asker, .. } in self.remove(key).wanting {
                    cx.replies.push_back((asker, Reply::Missing));
                }
            }
            _ => self.fail(key, Fault::Integrity, "its file is missing", site, cx),
        }
    }

    /// A piece of an outboard came.
    pub(super) fn on_scanned(
        &mut self,
        (slot, piece): (usize, u8),
        done: io::Result<DiskDone>,
        files: &mut Files,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let Some(loaded) = self.outboards.on_scanned(slot, piece, done, files) else { return };
        for key in loaded.waiting {
            debug_assert_eq!(self.fetches[key].address, loaded.address);
            match loaded.outcome {
                Err(fault) => self.fail(key, fault, "its header or outboard", site, cx),
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
                return self.fail(key, Fault::Integrity, "its file is too short", site, cx);
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
            Err(mismatch) => self.fail(key, Fault::Integrity, &mismatch.to_string(), site, cx),
        }
    }

    /// Goes on with those that wait for room, in their order, while there is some.
    pub(super) fn retry(&mut self, files: &mut Files, site: Site, cx: &mut Cx<'_>) {
        for _ in 0..self.queue.len() {
            let before = self.queue.len();
            let Some(key) = self.queue.pop_front() else { return };
            self.advance(key, files, site, cx);
            if self.queue.len() == before {
                // It went to the end of the queue: there is still no room. Its turn comes first.
                self.queue.rotate_right(1);
                if self.short {
                    self.tell_of_want(cx);
                }
                return;
            }
        }
    }

    /// Tells all who wait, each once, that memory is short. The memory may be held by downloads
    /// that wait here for one group and keep those behind it: if none let go, all would wait for
    /// ever.
    fn tell_of_want(&mut self, cx: &mut Cx<'_>) {
        for key in &self.queue {
            let fetch = &mut self.fetches[*key];
            for Wanting { asker, open } in &fetch.wanting[fetch.told..] {
                if !open {
                    cx.replies.push_back((*asker, Reply::Short));
                }
            }
            fetch.told = fetch.wanting.len();
        }
    }

    /// Takes the fetch as far as it goes without waiting.
    fn advance(&mut self, key: usize, files: &mut Files, site: Site, cx: &mut Cx<'_>) {
        let Fetch { address, index, entry, .. } = self.fetches[key];
        let Ok(header) = entry.header(&address) else {
            return self.fail(key, Fault::Integrity, "its index entry", site, cx);
        };
        let file_key = match entry.location {
            Location::Segment { segment, .. } => FileKey::Segment(segment),
            Location::File { .. } => FileKey::Object(address),
        };
        let Some(file_slot) = files.ask(file_key, key, site, cx) else { return };
        let mut outboard = None;
        if header.outboard_len() > 0 {
            let object = (&address, &entry, &header);
            match self.outboards.ask(object, key, (files, file_slot), site, cx) {
                Got::Ready(ready) => outboard = Some(ready),
                Got::Loading => return,
                Got::Later => {
                    self.short = false;
                    return self.queue.push_back(key);
                }
            }
        }
        if cx.tickets.under_way() >= limits::READS_UNDER_WAY_MAX {
            self.short = false;
            return self.queue.push_back(key);
        }
        let len = group_len(entry.size, index);
        let room = cx.memory.alloc(len);
        self.short = room.is_none();
        let Some(into) = room else { return self.queue.push_back(key) };
        let group_at = index * ron_codec::limits::GROUP_LEN as u64;
        let at = entry.base() + u64::from(header.data_offset()) + group_at;
        self.fetches[key].reading = Some((file_slot, outboard));
        let file = files.hold(file_slot);
        let op = DiskOp::Read { file, at, len: len as u32, into };
        site.disk(cx, Tag::Read { slot: key }, op);
    }

    fn succeed(&mut self, key: usize, group: &Verified, known: &Index, cx: &mut Cx<'_>) {
        let Fetch { address, entry, wanting, .. } = self.remove(key);
        // What was deleted while it was read must not be found in the cache.
        if matches!(known.get(&address), Ok(Some(_))) {
            cx.memory.insert(&address, entry.size, group);
        }
        for Wanting { asker, open } in wanting {
            let verified = group.clone();
            let reply = if open {
                Reply::Opened { size: entry.size, first: Some(verified) }
            } else {
                Reply::Group(verified)
            };
            cx.replies.push_back((asker, reply));
        }
    }

    fn fail(&mut self, key: usize, fault: Fault, why: &str, site: Site, cx: &mut Cx<'_>) {
        let Fetch { address, index, wanting, .. } = self.remove(key);
        match fault {
            Fault::Integrity => {
                cx.stats.integrity_fail.add(1);
                // The control plane logs it when it is new, however often it is asked for.
                report_damage(&address, &format!("group {index}: {why}"), cx);
            }
            _ => site.note(cx, Severity::Error, &format!("cannot read {address}: {why}")),
        }
        for Wanting { asker, .. } in wanting {
            cx.replies.push_back((asker, Reply::Failed(fault)));
        }
    }

    fn remove(&mut self, key: usize) -> Fetch {
        let fetch = self.fetches.remove(key);
        self.by_group.remove(&(fetch.address, fetch.index));
        fetch
    }
}
