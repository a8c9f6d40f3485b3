//! The files that a shard has open, by the numbers it gave them.

use std::{collections::BTreeMap, io};

use super::{Disk, InodeId};
use crate::ports::{DiskDone, DiskOp, FileId};

/// The file that an act opens, closes or is about.
pub fn file_of(op: &DiskOp) -> Option<FileId> {
    match op {
        DiskOp::Open { file, .. }
        | DiskOp::Close { file }
        | DiskOp::Read { file, .. }
        | DiskOp::Scan { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Sync { file }
        | DiskOp::Truncate { file, .. } => Some(*file),
        _ => None,
    }
}

#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<u32, InodeId>);

impl Files {
    /// What an act is about, if it is about an open file. The number of one that is to be closed is
    /// free from now on.
    ///
    /// # Panics
    /// If it is about a file that is not open.
    pub(super) fn submit(&mut self, op: &DiskOp) -> Option<InodeId> {
        let inode = self.inode_of(op);
        if let DiskOp::Close { file } = op {
            self.0.remove(&file.0);
        }
        inode
    }

    /// The same for a background act.
    ///
    /// # Panics
    /// If it is about a file that is not open.
    pub(super) fn inode_of(&self, op: &DiskOp) -> Option<InodeId> {
        if matches!(op, DiskOp::Open { .. }) {
            return None;
        }
        let FileId(number) = file_of(op)?;
        let inode = self.0.get(&number).copied();
        assert!(inode.is_some(), "{op:?} is about a file that is not open");
        inode
    }

    /// Performs an act that was submitted.
    ///
    /// # Panics
    /// If it opens a file under a number that another one has.
    pub(super) fn perform(
        &mut self,
        op: DiskOp,
        inode: Option<InodeId>,
        disk: &mut Disk,
    ) -> io::Result<DiskDone> {
        let file = file_of(&op);
        let (outcome, opened) = disk.perform(op, inode);
        if let (Some(FileId(number)), Some(id)) = (file, opened) {
            let before = self.0.insert(number, id);
            assert!(before.is_none(), "file {number} names two open files");
        }
        outcome
    }
}
