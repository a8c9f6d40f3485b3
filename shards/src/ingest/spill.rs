//! The temporary file of an upload: its writes, its name, and how nothing of it is left.

use std::{io, path::PathBuf};

use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, SEGMENT_OBJECT_LEN_MAX},
    record::RecordHeader,
};
use ron_io::ports::{DiskDone, DiskOp, FileId, Part};

use crate::{
    config::Config,
    flow::{Cx, Fault, StreamId, Waiter},
    limits::UPLOAD_STEP_LEN,
    store::NotEnough,
};

/// The temporary file of an upload.
#[derive(Debug)]
pub(super) struct Spill {
    pub(super) file: FileId,
    /// Names the file; see [`upload_number`].
    pub(super) upload: u64,
    /// Bytes of free space set aside for it, and how many of them were written.
    pub(super) promised: u64,
    pub(super) spent: u64,
    /// Groups whose write was started, over all.
    pub(super) started: u64,
    /// Groups whose write is in progress: they still take memory.
    pub(super) lent: usize,
    /// Writes in progress.
    pub(super) writes: usize,
}

impl Spill {
    fn volume(&self, cx: &Cx<'_>) -> usize {
        cx.config.layout.volume_number(partition_of(self.upload))
    }

    /// Sets space aside for `len` bytes that came, of as many as were announced: one step more than
    /// was set aside, if there is so much. A step is as much as came, so that nobody keeps more
    /// than twice what it sent.
    ///
    /// # Errors
    /// There is not even space for this.
    pub(super) fn promise(
        &mut self,
        len: u64,
        announced: Option<u64>,
        cx: &Cx<'_>,
    ) -> Result<(), NotEnough> {
        let missing = file_len(len).saturating_sub(self.promised);
        if missing == 0 {
            return Ok(());
        }
        let most = announced.map_or(u64::MAX, file_len).saturating_sub(self.promised);
        let (volume, step) = (self.volume(cx), UPLOAD_STEP_LEN.min(len).min(most).max(missing));
        let more = match cx.free_space.promise(volume, step) {
            Ok(()) => step,
            Err(_) => cx.free_space.promise(volume, missing).map(|()| missing)?,
        };
        self.promised += more;
        Ok(())
    }

    /// Gives back what was set aside and is not going to be written.
    pub(super) fn release(&self, cx: &Cx<'_>) {
        cx.free_space.release(self.volume(cx), self.promised - self.spent);
    }

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
        let written = (len + missing) as u64;
        let promised = written.min(self.promised - self.spent);
        cx.free_space.wrote(self.volume(cx), written, promised);
        self.spent += promised;
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

/// Looks whether there is space for an object that gets a file of its own. It is set aside when the
/// file is made: a peer that only announces one keeps nothing from others. Shorter objects are
/// taken into memory first, where they may prove to be stored already.
///
/// # Errors
/// There is not.
pub(super) fn check_free_space(
    expected: Option<&Address>,
    announced: Option<u64>,
    cx: &Cx<'_>,
) -> Result<(), NotEnough> {
    let Some(len) = announced.filter(|len| *len > SEGMENT_OBJECT_LEN_MAX) else { return Ok(()) };
    let Some(partition) = partition_for(expected, cx) else { return Ok(()) };
    let volume = cx.config.layout.volume_number(partition);
    cx.free_space.check(volume, file_len(len))
}

/// Bytes of the file of an object of so many.
pub(super) fn file_len(len: u64) -> u64 {
    let address = Address::from_bytes([0; 32]);
    RecordHeader::for_file(address, len, 0).map_or(len, |header| header.record_len())
}

/// A number for an upload in `partition`, from a random one. The partition is in its low bits, so
/// that the number is enough to find the file.
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
        // The owner is another shard, which has yet to make its folders.
        io::ErrorKind::NotFound => Fault::Busy,
        _ => Fault::of_disk(error),
    }
}
