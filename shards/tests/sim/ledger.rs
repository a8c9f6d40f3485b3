//! Where the node wrote what, noted as it wrote it, so that rot can be distinguished from loss.
//!
//! A flipped bit may hide what lies behind it in its segment, because a log is walked from its
//! start. So an object is excused when any record of it ends behind the first flipped bit of the
//! file it was written to. Records in front of it, and in other files, are not. What an
//! acknowledged put or delete made superfluous excuses nothing any more, nor does a file that is
//! gone, once the object was seen behind it.

use std::collections::BTreeMap;

use ron_codec::record::{RecordHeader, RecordKind};
use ron_io::{
    ports::{DiskOp, Part},
    sim::{Disk, InodeId},
};

use super::objects::{self, ObjectId};

#[derive(Clone, Copy, Debug)]
struct Record {
    inode: InodeId,
    end: u64,
    kind: RecordKind,
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// For each object, the records about it, in the order they were written.
    records: BTreeMap<ObjectId, Vec<Record>>,
    /// The first flipped bit of a file, in bytes.
    rotten: BTreeMap<InodeId, u64>,
}

impl Ledger {
    /// Notes the records that a write is about to put into a file.
    pub fn note(&mut self, op: &DiskOp, inode: InodeId) {
        let DiskOp::Write { at, parts, .. } = op else { return };
        let (mut place, mut next) = (*at, *at);
        for part in parts {
            if place == next
                && let Part::Bytes(bytes) = part
                && let Ok(header) = RecordHeader::decode(bytes)
            {
                next += header.record_len();
                let object = objects::find(&header.digest());
                if let Some(object) = object.filter(|_| header.kind() != RecordKind::Pad) {
                    let record = Record { inode, end: next, kind: header.kind() };
                    self.records.entry(object).or_default().push(record);
                }
            }
            place += part.len() as u64;
        }
    }

    /// Notes whose file this is, by its name: it may be a copy that was made below the node.
    pub fn note_name(&mut self, name: &str, inode: InodeId, len: u64) {
        let hex = name.rsplit('/').next().and_then(|name| name.strip_suffix(".obj"));
        let address = hex.and_then(|hex| hex.parse().ok());
        if let Some(object) = address.and_then(|address| objects::find(&address)) {
            let record = Record { inode, end: len, kind: RecordKind::Object };
            self.records.entry(object).or_default().push(record);
        }
    }

    /// A put (an object, or a file) or a delete (a tombstone) was acknowledged: its last record
    /// decides, and those behind it. A file of its own counts for as long as it has its name.
    pub fn settled(&mut self, object: ObjectId, deleted: bool, disk: &Disk) {
        let Some(records) = self.records.get_mut(&object) else { return };
        // What another upload of the same object wrote may have come later, and is dropped.
        let kept = |record: &Record| {
            [".seg", ".obj"].into_iter().any(|end| disk.is_named(record.inode, end))
        };
        let decides =
            |record: &Record| (record.kind == RecordKind::Tombstone) == deleted && kept(record);
        let Some(last) = records.iter().rposition(decides) else { return };
        let mut nth = 0..;
        records.retain(|record| {
            let own = !deleted && disk.is_named(record.inode, ".obj");
            nth.next().is_some_and(|nth| nth >= last) || own
        });
    }

    /// The object is there: what lies in files that are gone does not matter to it any more.
    pub fn seen(&mut self, object: ObjectId, disk: &Disk) {
        let Some(records) = self.records.get_mut(&object) else { return };
        records.retain(|record| disk.is_named(record.inode, ""));
    }

    /// A bit of a file was flipped.
    pub fn rot(&mut self, inode: InodeId, at: u64) {
        let first = self.rotten.entry(inode).or_insert(at);
        *first = at.min(*first);
    }

    /// Whether no bit was ever flipped.
    pub fn is_sound(&self) -> bool {
        self.rotten.is_empty()
    }

    /// Whether the object may be damaged or lost.
    pub fn excuses(&self, object: ObjectId) -> bool {
        let records = self.records.get(&object).map(Vec::as_slice).unwrap_or_default();
        let hit =
            |record: &Record| self.rotten.get(&record.inode).is_some_and(|at| *at < record.end);
        records.iter().any(hit)
    }
}
