//! Outboards of objects of more than one group: read once, checked once, kept while there is room.
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
    partition::{Site, Tag},
};
use crate::{
    flow::{Cx, Fault},
    limits,
};

#[derive(Debug)]
struct Load {
    address: Address,
    /// What the record's header must say.
    expected: RecordHeader,
    place: Location,
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
    Ready { outboard: Arc<Outboard>, used: u64 },
}

/// The verified outboards of one partition, and those on their way.
#[derive(Debug)]
pub(super) struct Outboards {
    kept: HashMap<Address, Kept>,
    loads: Slab<Load>,
    kept_len: usize,
    askings: u64,
}

/// The answer to `Outboards::ask`.
#[derive(Debug)]
pub(super) enum Got {
    Ready(Arc<Outboard>),
    /// The waiter will be among those of a `Loaded`.
    Loading,
    /// Too many are on their way: ask again.
    Later,
}

/// What became of an outboard that was on its way.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) address: Address,
    pub(super) waiting: Vec<usize>,
    pub(super) outcome: Result<(), Fault>,
}

impl Outboards {
    pub(super) fn new() -> Outboards {
        Outboards { kept: HashMap::new(), loads: Slab::new(), kept_len: 0, askings: 0 }
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
        self.askings += 1;
        match self.kept.get_mut(address) {
            Some(Kept::Ready { outboard, used }) => {
                *used = self.askings;
                return Got::Ready(Arc::clone(outboard));
            }
            Some(Kept::Loading(slot)) => {
                self.loads[*slot].waiting.push(waiter);
                return Got::Loading;
            }
            None if self.loads.len() >= limits::OUTBOARD_LOADS_MAX => return Got::Later,
            None => {}
        }
        let spans = spans(entry.base(), header);
        let slot = self.loads.insert(Load {
            address: *address,
            expected: *header,
            place: entry.location,
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
            Ok(DiskDone::Scanned(bytes)) => load.pieces[usize::from(piece)] = bytes,
            Ok(other) => unreachable!("a scan brought {other:?}"),
            Err(_) => load.fault = Some(Fault::Disk),
        }
        if load.missing > 0 {
            return None;
        }
        let Load { address, waiting, .. } = &mut *load;
        let (address, waiting) = (*address, std::mem::take(waiting));
        let outcome = self.loads.remove(slot).finish();
        self.kept.remove(&address);
        let outcome = outcome.map(|outboard| self.keep(address, outboard));
        Some(Loaded { address, waiting, outcome })
    }

    fn keep(&mut self, address: Address, outboard: Outboard) {
        self.kept_len += outboard.as_bytes().len();
        let ready = Kept::Ready { outboard: Arc::new(outboard), used: self.askings };
        self.kept.insert(address, ready);
        while self.kept_len > limits::OUTBOARDS_IDLE_LEN_MAX {
            let idle = self.kept.iter().filter_map(|(other, kept)| match kept {
                // Who waited for the newest one is about to ask for it.
                Kept::Ready { outboard, used }
                    if Arc::strong_count(outboard) == 1 && *other != address =>
                {
                    Some((*used, *other, outboard.as_bytes().len()))
                }
                _ => None,
            });
            let Some((_, oldest, len)) = idle.min() else { break };
            self.kept.remove(&oldest);
            self.kept_len -= len;
        }
    }
}

impl Load {
    fn finish(self) -> Result<Outboard, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let (header, outboard) = self.pieces.split_first().ok_or(Fault::Integrity)?;
        let found = RecordHeader::decode(header).map_err(|_| Fault::Integrity)?;
        // The sequence of an object file is nobody's: who wrote it did not know the log's.
        let same_sequence = matches!(self.place, Location::File { .. })
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
            Outboard::from_bytes(&outboard.concat(), found.size()).map_err(|_| Fault::Integrity)?;
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
