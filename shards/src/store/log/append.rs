//! What is on its way into the log: objects, and tombstones.
//!
//! An append is registered once for each address, so that others who want the same can join it, and
//! queued when it may be committed: at once, or when its file has its place.

use std::collections::{HashMap, VecDeque};

use ron_codec::{
    address::Address,
    limits::RECORD_ALIGN,
    outboard::{Outboard, outboard_len},
    record::RecordHeader,
};
use ron_io::{
    arena::Block,
    ports::{Part, Slice},
};
use slab::Slab;

use crate::{flow::Asker, limits};

/// An object on its way into the log.
#[derive(Debug)]
pub(in crate::store) struct Append {
    pub(in crate::store) address: Address,
    pub(in crate::store) size: u64,
    pub(in crate::store) what: What,
    /// Bytes of free space that are promised for it.
    pub(in crate::store) promised: u64,
    /// Who waits for it. The first brought it.
    pub(in crate::store) askers: Vec<Asker>,
}

/// What is appended.
#[derive(Debug)]
pub(in crate::store) enum What {
    /// The object itself.
    Object { outboard: Outboard, blocks: Vec<Block> },
    /// That the object lies in a file of its own.
    File,
    /// That the object is deleted.
    Tombstone,
}

/// Bytes of memory of the most appends that wait in one partition, but for their blocks: each has a
/// list of askers and one of blocks, and the bytes of all are bounded, so outboards are few.
pub(in crate::store) const fn appends_bill() -> usize {
    let lists = 2 * (4 * size_of::<Asker>() + 2 * size_of::<usize>());
    let outboards = outboard_len(limits::APPENDS_LEN_MAX);
    limits::APPENDS_MAX * (2 * size_of::<Append>() + lists) + outboards
}

/// The appends of one log that are not committed, wherever they are.
#[derive(Debug, Default)]
pub(super) struct Appends {
    all: Slab<Append>,
    /// Objects on their way, and tombstones.
    objects: HashMap<Address, usize>,
    tombstones: HashMap<Address, usize>,
    /// Those that may be committed, in their order.
    pending: VecDeque<usize>,
    /// Bytes of their memory, and of the files of those that have one.
    memory_len: u64,
    files_len: u64,
}

impl Appends {
    /// Joins an object that is on its way already. `false` if it is not.
    pub(super) fn join_object(&mut self, address: &Address, asker: Asker) -> bool {
        let Some(append) = self.objects.get(address) else { return false };
        self.all[*append].askers.push(asker);
        true
    }

    /// Joins a deletion that is on its way already. `false` if it is not.
    pub(super) fn join_delete(&mut self, address: &Address, asker: Asker) -> bool {
        let Some(append) = self.tombstones.get(address) else { return false };
        self.all[*append].askers.push(asker);
        true
    }

    /// Whether the object is on its way into the log.
    pub(super) fn is_storing(&self, address: &Address) -> bool {
        self.objects.contains_key(address)
    }

    /// Whether a tombstone of it is.
    pub(super) fn is_deleting(&self, address: &Address) -> bool {
        self.tombstones.contains_key(address)
    }

    /// Registers an append, so that others can join it. `None` if there are too many.
    pub(super) fn register(&mut self, append: Append) -> Option<usize> {
        if self.all.len() >= limits::APPENDS_MAX
            || self.memory_len + append.memory_len() > limits::APPENDS_LEN_MAX
        {
            return None;
        }
        self.memory_len += append.memory_len();
        self.files_len += append.file_len();
        let (address, is_tombstone) = (append.address, matches!(append.what, What::Tombstone));
        let key = self.all.insert(append);
        let same = if is_tombstone { &mut self.tombstones } else { &mut self.objects };
        let before = same.insert(address, key);
        assert!(before.is_none(), "{address} is on its way twice");
        Some(key)
    }

    /// The append may be committed now.
    pub(super) fn enqueue(&mut self, key: usize) {
        self.pending.push_back(key);
    }

    /// The append is committed, or is not to be after all.
    pub(super) fn remove(&mut self, key: usize) -> Append {
        let append = self.all.remove(key);
        match append.what {
            What::Tombstone => self.tombstones.remove(&append.address),
            What::Object { .. } | What::File => self.objects.remove(&append.address),
        };
        self.memory_len -= append.memory_len();
        self.files_len -= append.file_len();
        append
    }

    /// The next that may be committed, and the length of its record.
    pub(super) fn next(&self) -> Option<(usize, u64)> {
        let key = *self.pending.front()?;
        Some((key, self.all[key].header(0).record_len()))
    }

    /// Takes the next out of the queue.
    pub(super) fn take_next(&mut self) {
        self.pending.pop_front();
    }

    /// Removes all that may be committed.
    pub(super) fn remove_pending(&mut self) -> Vec<Append> {
        let keys = std::mem::take(&mut self.pending);
        keys.into_iter().map(|key| self.remove(key)).collect()
    }

    /// Adds the parts of the append's record and returns its length.
    pub(super) fn put_parts(&self, key: usize, sequence: u64, parts: &mut Vec<Part>) -> u64 {
        self.all[key].put_parts(sequence, parts)
    }

    /// Bytes of the objects in it.
    pub(super) fn len(&self) -> u64 {
        self.memory_len + self.files_len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether one may be committed.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl Append {
    /// Bytes of memory the append keeps until it is committed.
    fn memory_len(&self) -> u64 {
        match self.what {
            What::Object { .. } => self.size,
            What::File | What::Tombstone => 0,
        }
    }

    /// Bytes of the file that the object came in.
    fn file_len(&self) -> u64 {
        match self.what {
            What::File => self.size,
            What::Object { .. } | What::Tombstone => 0,
        }
    }

    fn header(&self, sequence: u64) -> RecordHeader {
        let header = match self.what {
            What::Object { .. } => RecordHeader::for_segment(self.address, self.size, sequence),
            What::File => RecordHeader::file(self.address, self.size, sequence),
            What::Tombstone => return RecordHeader::tombstone(self.address, sequence),
        };
        header.expect("sizes are checked before an object is taken up")
    }

    /// Adds the record's parts and returns its length.
    fn put_parts(&self, sequence: u64, parts: &mut Vec<Part>) -> u64 {
        let header = self.header(sequence);
        parts.push(Part::Bytes(header.encode().to_vec()));
        if let What::Object { outboard, blocks } = &self.what {
            for block in blocks {
                parts.push(Part::Block(Slice::whole(block.clone())));
            }
            let data_end = u64::from(header.data_offset()) + self.size;
            push_zeros(parts, header.outboard_offset() - data_end);
            if header.outboard_len() > 0 {
                parts.push(Part::Bytes(outboard.as_bytes().to_vec()));
                let outboard_end = header.outboard_offset() + u64::from(header.outboard_len());
                push_zeros(parts, header.record_len() - outboard_end);
            }
        }
        assert!(header.record_len().is_multiple_of(RECORD_ALIGN as u64));
        header.record_len()
    }
}

pub(super) fn push_zeros(parts: &mut Vec<Part>, len: u64) {
    if len > 0 {
        parts.push(Part::Zeros(len as usize));
    }
}
