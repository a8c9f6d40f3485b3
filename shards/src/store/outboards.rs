//! Outboards of objects of more than one group: read once, checked once, kept while there is space.
//! One that is in use is never dropped, so another one is read only when there is space for it
//! beside those: what all of them take is bounded whatever is read.
//!
//! The first group of such an object that is wanted makes its record's header and outboard be
//! read. The header must say what the index says, and the outboard must merge to the digest. Only
//! then can a group be checked. Nothing that failed is kept: the next reader finds out anew.

use std::{collections::HashMap, io, sync::Arc};

use ron_codec::{
    address::Address,
    outboard::Outboard,
    record::{RecordHeader, RecordKind},
};
use ron_io::{
    limits::DISK_OP_LEN_MAX,
    ports::{DiskDone, DiskOp, Urgency},
};
use slab::Slab;

use super::{
    files::Files,
    index::{Entry, Location},
    site::{Site, Tag},
};
use crate::{
    flow::{Cx, Fault},
    limits::{self, OUTBOARD_LOOKS_MAX},
};

#[derive(Debug)]
struct Load {
    address: Address,
    /// What the record's header must say.
    expected: RecordHeader,
    entry: Entry,
    file_slot: usize,
    /// The header, then the outboard in pieces of one read each, as far as they came.
    pieces: Vec<Vec<u8>>,
    missing: usize,
    fault: Option<Fault>,
    waiting: Vec<usize>,
}

#[derive(Debug)]
enum Kept {
    Loading(usize),
    /// Its slot among those that are ready.
    Ready(usize),
}

/// A verified outboard in the list of all, by when they were used last.
#[derive(Debug)]
struct Ready {
    address: Address,
    outboard: Arc<Outboard>,
    newer: usize,
    older: usize,
}

impl Ready {
    /// Bytes of memory it is counted with.
    fn cost(&self) -> usize {
        self.outboard.as_bytes().len() + limits::OUTBOARD_ENTRY_LEN
    }
}

/// The end of the list.
const NONE: usize = usize::MAX;

/// The verified outboards of one partition, and those on their way.
#[derive(Debug)]
pub(super) struct Outboards {
    kept: HashMap<Address, Kept>,
    loads: Slab<Load>,
    ready: Slab<Ready>,
    newest: usize,
    oldest: usize,
    /// Bytes of memory of those that are ready.
    ready_len: usize,
    /// Bytes of those on their way.
    loads_len: usize,
}

/// The answer to `Outboards::ask`.
#[derive(Debug)]
pub(super) enum Got {
    Ready(Arc<Outboard>),
    /// The waiter will be among those of a `Loaded`.
    Loading,
    /// Too many are on their way or in use: ask again.
    Later,
}

/// What became of an outboard that was on its way.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) address: Address,
    /// What the index said when it was asked for.
    pub(super) entry: Entry,
    pub(super) waiting: Vec<usize>,
    pub(super) outcome: Result<(), Fault>,
}

impl Outboards {
    pub(super) fn new() -> Outboards {
        Outboards {
            kept: HashMap::new(),
            loads: Slab::new(),
            ready: Slab::new(),
            newest: NONE,
            oldest: NONE,
            ready_len: 0,
            loads_len: 0,
        }
    }

    /// The outboard of an object whose file is open.
    pub(super) fn ask(
        &mut self,
        (address, entry, header): (&Address, &Entry, &RecordHeader),
        waiter: usize,
        (files, file_slot): (&mut Files, usize),
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Got {
        match self.kept.get(address) {
            Some(Kept::Ready(slot)) => {
                let slot = *slot;
                self.unlink(slot);
                self.link_newest(slot);
                return Got::Ready(Arc::clone(&self.ready[slot].outboard));
            }
            Some(Kept::Loading(slot)) => {
                self.loads[*slot].waiting.push(waiter);
                return Got::Loading;
            }
            None => {}
        }
        if !self.admits(header.outboard_len() as usize) {
            return Got::Later;
        }
        let spans = spans(entry.base(), header);
        self.loads_len += header.outboard_len() as usize;
        let slot = self.loads.insert(Load {
            address: *address,
            expected: *header,
            entry: *entry,
            file_slot,
            pieces: vec![Vec::new(); spans.len()],
            missing: spans.len(),
            fault: None,
            waiting: vec![waiter],
        });
        self.kept.insert(*address, Kept::Loading(slot));
        for (piece, (at, len)) in spans.into_iter().enumerate() {
            let file = files.hold(file_slot);
            let tag = Tag::Outboard { slot, piece: piece as u8 };
            site.disk(cx, tag, DiskOp::Scan { file, at, len, urgency: Urgency::Foreground });
        }
        Got::Loading
    }

    /// Whether another outboard of so many bytes can be read now, after the oldest that nobody uses
    /// made space for it.
    fn admits(&mut self, len: usize) -> bool {
        let too_long = self.loads_len + len > limits::OUTBOARD_LOADS_LEN_MAX;
        let full =
            self.loads.len() >= limits::OUTBOARD_LOADS_MAX || (too_long && !self.loads.is_empty());
        !full && self.evict_for(len)
    }

    /// A piece came. Returns what became of the outboard with the last one.
    pub(super) fn on_scanned(
        &mut self,
        slot: usize,
        piece: u8,
        done: io::Result<DiskDone>,
        files: &mut Files,
    ) -> Option<Loaded> {
        let load = &mut self.loads[slot];
        files.release(load.file_slot);
        load.missing -= 1;
        match done {
            Ok(done) => load.pieces[usize::from(piece)] = done.into_scanned(),
            Err(_) => load.fault = Some(Fault::Disk),
        }
        if load.missing > 0 {
            return None;
        }
        let load = self.loads.remove(slot);
        self.loads_len -= load.expected.outboard_len() as usize;
        let outcome = load.outcome();
        let Load { address, entry, waiting, .. } = load;
        self.kept.remove(&address);
        let outcome = outcome.map(|outboard| self.keep(address, outboard));
        Some(Loaded { address, entry, waiting, outcome })
    }

    /// Keeps an outboard as the one used last. There is space for it since it was admitted.
    fn keep(&mut self, address: Address, outboard: Outboard) {
        let outboard = Arc::new(outboard);
        let slot = self.ready.insert(Ready { address, outboard, newer: NONE, older: NONE });
        self.link_newest(slot);
        self.ready_len += self.ready[slot].cost();
        self.kept.insert(address, Kept::Ready(slot));
        debug_assert!(self.len() <= limits::OUTBOARDS_LEN_MAX);
    }

    /// Bytes of memory of those that are ready or on their way.
    fn len(&self) -> usize {
        self.ready_len + self.loads_len + self.loads.len() * limits::OUTBOARD_ENTRY_LEN
    }

    /// Drops the oldest that nobody uses, until there is space for one of so many bytes. False
    /// when those that are left are in use; they get another round.
    fn evict_for(&mut self, len: usize) -> bool {
        let (cost, mut in_use) = (len + limits::OUTBOARD_ENTRY_LEN, 0);
        while self.len() + cost > limits::OUTBOARDS_LEN_MAX {
            let oldest = self.oldest;
            if oldest == NONE || in_use == OUTBOARD_LOOKS_MAX {
                return false;
            }
            self.unlink(oldest);
            if Arc::strong_count(&self.ready[oldest].outboard) > 1 {
                self.link_newest(oldest);
                in_use += 1;
                continue;
            }
            let gone = self.ready.remove(oldest);
            self.ready_len -= gone.cost();
            self.kept.remove(&gone.address);
        }
        true
    }

    fn link_newest(&mut self, slot: usize) {
        let before = std::mem::replace(&mut self.newest, slot);
        (self.ready[slot].newer, self.ready[slot].older) = (NONE, before);
        match self.ready.get_mut(before) {
            Some(next) => next.newer = slot,
            None => self.oldest = slot,
        }
    }

    fn unlink(&mut self, slot: usize) {
        let Ready { newer, older, .. } = self.ready[slot];
        match self.ready.get_mut(newer) {
            Some(next) => next.older = older,
            None => self.newest = older,
        }
        match self.ready.get_mut(older) {
            Some(next) => next.newer = newer,
            None => self.oldest = newer,
        }
    }
}

impl Load {
    /// What its pieces are, once all came.
    fn outcome(&self) -> Result<Outboard, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let (header, outboard) = self.pieces.split_first().ok_or(Fault::Integrity)?;
        let found = RecordHeader::decode(header).map_err(|_| Fault::Integrity)?;
        // The sequence of an object file is nobody's: who wrote it did not know the log's.
        let same_sequence = matches!(self.entry.location, Location::File { .. })
            || found.sequence() == self.expected.sequence();
        let matches = found.kind() == RecordKind::Object
            && found.digest() == self.address
            && found.size() == self.expected.size()
            && found.place() == self.expected.place()
            && same_sequence;
        if !matches {
            return Err(Fault::Integrity);
        }
        let outboard =
            Outboard::from_pieces(outboard, found.size()).map_err(|_| Fault::Integrity)?;
        outboard.verify_root(&self.address).map_err(|_| Fault::Integrity)?;
        Ok(outboard)
    }
}

/// Offset and length of what is read: the header, then the outboard.
fn spans(base: u64, header: &RecordHeader) -> Vec<(u64, u32)> {
    let mut spans = vec![(base, ron_codec::limits::RECORD_HEADER_LEN as u32)];
    let start = base + header.outboard_offset();
    let end = start + u64::from(header.outboard_len());
    let mut at = start;
    while at < end {
        let len = (end - at).min(DISK_OP_LEN_MAX as u64);
        spans.push((at, len as u32));
        at += len;
    }
    spans
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ron_codec::outboard::Hashing;

    use super::*;

    fn outboard(n: u64, len: usize) -> (Address, Outboard) {
        let mut bytes = vec![0; len];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        let mut hashing = Hashing::new();
        hashing.update(&bytes).unwrap();
        let hashed = hashing.finish();
        (hashed.address, hashed.outboard)
    }

    /// As many as there are in the list, from the newest on, walked both ways.
    fn listed(outboards: &Outboards) -> Vec<Address> {
        let (mut slot, mut there) = (outboards.newest, VecDeque::new());
        while let Some(ready) = outboards.ready.get(slot) {
            there.push_back(ready.address);
            slot = ready.older;
        }
        let (mut slot, mut back) = (outboards.oldest, VecDeque::new());
        while let Some(ready) = outboards.ready.get(slot) {
            back.push_front(ready.address);
            slot = ready.newer;
        }
        assert_eq!(there, back);
        assert_eq!(there.len(), outboards.ready.len());
        there.into()
    }

    /// Keeps an outboard if space for it is left, or is made.
    fn keep(outboards: &mut Outboards, n: u64, len: usize) -> Option<Address> {
        let (address, kept) = outboard(n, len);
        outboards.evict_for(kept.as_bytes().len()).then(|| {
            outboards.keep(address, kept);
            assert!(outboards.len() <= limits::OUTBOARDS_LEN_MAX);
            address
        })
    }

    fn use_of(outboards: &Outboards, address: &Address) -> Arc<Outboard> {
        let Some(Kept::Ready(slot)) = outboards.kept.get(address) else { panic!("it is ready") };
        Arc::clone(&outboards.ready[*slot].outboard)
    }

    #[test]
    fn the_oldest_that_nobody_uses_goes_first() {
        const LEN: usize = 4 * 1024 * 1024;
        let mut outboards = Outboards::new();
        let first = keep(&mut outboards, 0, LEN).unwrap();
        let cost = outboards.len();
        let in_use = use_of(&outboards, &first);
        // As if there were space for few of them.
        let fit = 20;
        outboards.loads_len = limits::OUTBOARDS_LEN_MAX - fit * cost;
        let others = (1..fit as u64 + 10).map(|n| keep(&mut outboards, n, LEN).unwrap());
        let addresses: Vec<Address> =
            [first].into_iter().chain(others.collect::<Vec<_>>()).collect();
        assert_eq!(outboards.ready.len(), fit);
        let listed = listed(&outboards);
        assert!(listed.contains(&first), "one in use stays");
        assert!(!addresses[1..11].iter().any(|gone| listed.contains(gone)));
        assert!(addresses[11..].iter().all(|kept| listed.contains(kept)));
        let sum: usize = outboards.ready.iter().map(|(_, ready)| ready.cost()).sum();
        assert_eq!(sum, outboards.ready_len);
        drop(in_use);
        // A large one makes several small ones leave.
        let before = outboards.ready.len();
        keep(&mut outboards, 100, 3 * LEN).unwrap();
        assert!(outboards.ready.len() < before);
    }

    #[test]
    fn those_in_use_leave_no_room_for_more_than_there_may_be() {
        const LEN: usize = 4 * 1024 * 1024;
        let mut outboards = Outboards::new();
        let one = keep(&mut outboards, 0, LEN).unwrap();
        let cost = outboards.len();
        outboards.loads_len = limits::OUTBOARDS_LEN_MAX - 12 * cost;
        let mut users = vec![use_of(&outboards, &one)];
        for n in 1..12 {
            let address = keep(&mut outboards, n, LEN).unwrap();
            users.push(use_of(&outboards, &address));
        }
        assert_eq!(keep(&mut outboards, 12, LEN), None);
        users.swap_remove(5);
        // Those that were passed over are looked at last.
        let kept = (0..2).find_map(|_| keep(&mut outboards, 12, LEN));
        assert!(kept.is_some(), "space for one that is used no more");
        assert_eq!(outboards.ready.len(), 12);
    }
}
