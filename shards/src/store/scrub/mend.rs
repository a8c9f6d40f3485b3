//! Mending an object file whose data are right: its header block and its outboard are written
//! again where they lie.
//!
//! ```text
//!   (go)   Start ──► Opening ──► Open ──► Writing ──► Open ──► … ──► Syncing ──► over
//! ```
//!
//! The data are not touched. What is written is what must stand there, so a crash in the middle
//! leaves bytes that are right or as damaged as before, and readers at the same time see one or
//! the other and check it. A file that was deleted meanwhile is gone in spite of this, and one that
//! was stored anew has the same bytes in the same places.

use std::{collections::VecDeque, io};

use ron_codec::{address::Address, limits::DISK_BLOCK_LEN};
use ron_io::{
    limits::DISK_OP_LEN_MAX,
    ports::{DiskDone, DiskOp, FileId, OpenHow, Part},
};

use super::Parts;
use crate::{
    flow::Cx,
    store::{flaw::Beside, site::Tag},
};

/// What must stand in a file: where, and bytes. Both are multiples of 4096.
pub(super) type Write = (u64, Vec<u8>);

const _: () = assert!(DISK_OP_LEN_MAX.is_multiple_of(DISK_BLOCK_LEN));

#[derive(Debug)]
enum Stage {
    Start,
    Opening(FileId),
    Open(FileId),
    Writing(FileId),
    Syncing(FileId),
    Over,
}

/// An object file that is being mended.
#[derive(Debug)]
pub(super) struct Mend {
    address: Address,
    /// What was wrong with it.
    flaw: Beside,
    writes: VecDeque<Write>,
    tag: Tag,
    stage: Stage,
}

impl Mend {
    pub(super) fn new(address: Address, flaw: Beside, writes: Vec<Write>, tag: Tag) -> Mend {
        let pieces = writes.into_iter().flat_map(|(at, bytes)| {
            let starts = (at..).step_by(DISK_OP_LEN_MAX);
            let pieces: Vec<_> = bytes.chunks(DISK_OP_LEN_MAX).map(<[u8]>::to_vec).collect();
            starts.zip(pieces)
        });
        Mend { address, flaw, writes: pieces.collect(), tag, stage: Stage::Start }
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    pub(super) fn flaw(&self) -> Beside {
        self.flaw
    }

    /// Starts the next act, of which none may be under way. Returns how many bytes it writes.
    pub(super) fn go(&mut self, parts: &Parts<'_>, cx: &mut Cx<'_>) -> u64 {
        let (op, stage, len) = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Start => {
                let file = cx.tickets.file();
                let path = cx.config.layout.object_path(parts.site.number, &self.address);
                (DiskOp::Open { file, path, how: OpenHow::ReadWrite }, Stage::Opening(file), 0)
            }
            Stage::Open(file) => match self.writes.pop_front() {
                Some((at, bytes)) => {
                    let len = bytes.len() as u64;
                    let parts = vec![Part::Bytes(bytes)];
                    (DiskOp::Write { file, at, parts }, Stage::Writing(file), len)
                }
                None => (DiskOp::Sync { file }, Stage::Syncing(file), 0),
            },
            stage => unreachable!("{stage:?} does not start anything"),
        };
        self.stage = stage;
        parts.site.disk(cx, self.tag, op);
        len
    }

    /// Its act is complete. Unless this ends it, it wants to `go` on.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) -> Option<io::Result<()>> {
        match (std::mem::replace(&mut self.stage, Stage::Over), done) {
            (Stage::Opening(file), Err(error)) => {
                cx.tickets.forget_file(file);
                Some(Err(error))
            }
            (Stage::Opening(file) | Stage::Writing(file), Ok(_)) => {
                self.stage = Stage::Open(file);
                None
            }
            (Stage::Writing(file) | Stage::Syncing(file), Err(error)) => {
                cx.close_file(file);
                Some(Err(error))
            }
            (Stage::Syncing(file), Ok(_)) => {
                cx.close_file(file);
                Some(Ok(()))
            }
            (stage, _) => unreachable!("{stage:?} waits for nothing"),
        }
    }

    /// Its act is complete, and nobody wants to know any more.
    pub(super) fn abandon(self, done: &io::Result<DiskDone>, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Opening(file) if done.is_err() => cx.tickets.forget_file(file),
            Stage::Opening(file) | Stage::Writing(file) | Stage::Syncing(file) => {
                cx.close_file(file);
            }
            stage => unreachable!("{stage:?} waits for nothing"),
        }
    }

    /// Closes its file, if it is open. No act may be under way.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        match self.stage {
            Stage::Open(file) => cx.close_file(file),
            Stage::Start | Stage::Over => {}
            stage => unreachable!("{stage:?} is under way"),
        }
    }
}
