//! The temporary file of an upload: its writes, its name, and how nothing of it is left.

use std::{io, path::PathBuf};

use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, SEGMENT_OBJECT_LEN_MAX},
};
use ron_io::{
    ports::{DiskDone, DiskOp, FileId, Part},
    process::is_out_of_files,
};

use crate::{
    config::Config,
    flow::{Cx, Fault, StreamId, Waiter},
};

/// The temporary file of an upload.
#[derive(Debug)]
pub(super) struct Spill {
    pub(super) file: FileId,
    /// Names the file; see [`upload_number`].
    pub(super) upload: u64,
    /// Groups whose write was started, over all.
    pub(super) started: u64,
    /// Groups whose write is under way: they still take memory.
    pub(super) lent: usize,
    /// Writes under way.
    pub(super) writes: usize,
}

impl Spill {
    /// Starts a write, filled up with zeros to a whole number of disk blocks.
    pub(super) fn write(
        &mut self,
        at: u64,
        mut parts: Vec<Part>,
        tag: Tag,
        stream: StreamId,
        cx: &mut Cx<'_>,
    ) {
        let len: usize = parts.iter().map(Part::len).sum();
        let missing = len.next_multiple_of(DISK_BLOCK_LEN) - len;
        if missing > 0 {
            parts.push(Part::Zeros(missing));
        }
        let volume = cx.config.layout.volume_number(partition_of(self.upload));
        cx.room.wrote(volume, len as u64);
        cx.disk(tag.waiter(stream), DiskOp::Write { file: self.file, at, parts });
        self.writes += 1;
    }
}

/// What a disk act of an upload was for, as it is written on its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Open,
    Header,
    Sync,
    /// A write of that many groups, or of outboard and none.
    Write {
        groups: usize,
    },
}

impl Tag {
    fn number(self) -> u32 {
        match self {
            Tag::Open => 0,
            Tag::Header => 1,
            Tag::Sync => 2,
            Tag::Write { groups } => 3 + groups as u32,
        }
    }

    pub(super) fn of_number(number: u32) -> Tag {
        match number {
            0 => Tag::Open,
            1 => Tag::Header,
            2 => Tag::Sync,
            more => Tag::Write { groups: (more - 3) as usize },
        }
    }

    pub(super) fn waiter(self, stream: StreamId) -> Waiter {
        Waiter::Stream { stream, tag: self.number() }
    }
}

/// Discards what came of opening the file of an upload that was given up meanwhile.
pub(crate) fn discard(file: FileId, upload: u64, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
    match done {
        Ok(_) => remove_opened(file, upload, cx),
        Err(error) => not_opened(file, upload, &error, cx),
    }
}

pub(super) fn remove_opened(file: FileId, upload: u64, cx: &mut Cx<'_>) {
    cx.close_file(file);
    let path = tmp_path(upload, cx);
    cx.disk(Waiter::Nobody, DiskOp::Remove { path, durable: false });
}

pub(super) fn not_opened(file: FileId, upload: u64, error: &io::Error, cx: &mut Cx<'_>) {
    cx.tickets.forget_file(file);
    // It may have been created before the error, unless the error is that another one was.
    if error.kind() != io::ErrorKind::AlreadyExists {
        let path = tmp_path(upload, cx);
        cx.disk(Waiter::Nobody, DiskOp::Remove { path, durable: false });
    }
}

/// The partition an upload is written in: its owner's, so that it gets its place by a rename.
/// Where the owner is not known it is the first of this shard that is not absent, or of all.
/// `None` if the owner's is absent, or all are.
pub(super) fn partition_for(expected: Option<&Address>, cx: &Cx<'_>) -> Option<u16> {
    let layout = &cx.config.layout;
    let present = |partition: &u16| !layout.is_absent(*partition);
    match expected {
        Some(address) => Some(layout.owner(address).0).filter(present),
        None => {
            let mut all = layout.partitions_of(cx.config.shard).chain(0..layout.partitions);
            all.find(present)
        }
    }
}

/// Whether there is room for an object that gets a file of its own, as far as this shard knows.
/// Others are taken into memory first, where they may prove to be stored already.
pub(super) fn has_room(expected: Option<&Address>, len: u64, cx: &Cx<'_>) -> bool {
    let volume = |partition| cx.config.layout.volume_number(partition);
    let takes = |partition| cx.room.takes(volume(partition), len);
    len <= SEGMENT_OBJECT_LEN_MAX || partition_for(expected, cx).is_none_or(takes)
}

/// A number for an upload in `partition`, from a random one. The partition is in its low bits, so
/// that whoever knows the number finds the file.
pub(super) fn upload_number(random: u64, partition: u16) -> u64 {
    random & !u64::from(u16::MAX) | u64::from(partition)
}

/// The partition that an upload of this number is written in.
fn partition_of(upload: u64) -> u16 {
    (upload & u64::from(u16::MAX)) as u16
}

/// Where an upload of this shard is written.
pub(super) fn tmp_path(upload: u64, cx: &Cx<'_>) -> PathBuf {
    let Config { layout, shard, boot_id, .. } = cx.config;
    layout.tmp_path(partition_of(upload), *boot_id, *shard, upload)
}

pub(super) fn fault_of(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Full,
        // The owner is another shard, which has yet to make its folders.
        io::ErrorKind::NotFound => Fault::Busy,
        _ if is_out_of_files(error) => Fault::Busy,
        _ => Fault::Disk,
    }
}
