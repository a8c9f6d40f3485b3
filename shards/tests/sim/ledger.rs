//! Where the node wrote what, noted as it wrote it, so that rot can be told from loss.
//!
//! A flipped bit may hide what lies behind it in its segment, because a log is walked from its
//! start. So an object is excused when any record of it ends behind the first flipped bit of the
//! file it was written to. Records in front of it, and in other files, are not.

use std::collections::BTreeMap;

use ron_codec::record::{RecordHeader, RecordKind};
use ron_io::{
    ports::{DiskOp, Part},
    sim::InodeId,
};

use super::objects::{self, ObjectId};

#[derive(Debug, Default)]
pub struct Ledger {
    /// For each object, the files with a record about it and where the record ends.
    records: BTreeMap<ObjectId, Vec<(InodeId, u64)>>,
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
                    self.records.entry(object).or_default().push((inode, next));
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
            self.records.entry(object).or_default().push((inode, len));
        }
    }

    /// A bit of a file was flipped.
    pub fn rot(&mut self, inode: InodeId, at: u64) {
        let first = self.rotten.entry(inode).or_insert(at);
        *first = at.min(*first);
    }

    /// Whether the object may be damaged or lost.
    pub fn excuses(&self, object: ObjectId) -> bool {
        let records = self.records.get(&object).map(Vec::as_slice).unwrap_or_default();
        let hit =
            |(inode, end): &(InodeId, u64)| self.rotten.get(inode).is_some_and(|first| first < end);
        records.iter().any(hit)
    }
}
