//! Repairs an object file whose data are right: its header block and its outboard are written
//! again where they lie.
//!
//! ```text
//!             go            done       go           done          go            done
//!   Start ──────► Opening ──────► Open ────► Writing ────► Open … ────► Syncing ────► ended
//!                    │                          │                         │
//!                    └──────────────────────────┴─────────────────────────┴ failed ──► ended
//! ```
//!
//! The data are not touched. What is written is what must stand there, so a crash in the middle
//! leaves bytes that are right or as damaged as before, and readers at the same time see one or
//! the other and check it. A file that was deleted meanwhile is gone in spite of this, and one that
//! was stored anew has the same bytes in the same places.

use std::{collections::VecDeque, io, ops::ControlFlow};

use ron_codec::{address::Address, limits::DISK_BLOCK_LEN};
use ron_io::{
    limits::DISK_OP_LEN_MAX,
    ports::{DiskDone, DiskOp, OpenHow, Part},
};

use super::Parts;
use crate::{
    flow::Cx,
    machine::{Machine, Turn, answer_name},
    store::{
        flaw::Beside,
        handle::{Handle, Opening},
        site::Tag,
    },
};

/// What must stand in a file: where, and bytes. Both are multiples of 4096.
pub(super) type Write = (u64, Vec<u8>);

const _: () = assert!(DISK_OP_LEN_MAX.is_multiple_of(DISK_BLOCK_LEN));

#[derive(Debug)]
enum Ready {
    Start,
    Open(Handle),
}

#[derive(Debug)]
enum Waiting {
    Opening(Opening),
    Writing(Handle),
    Syncing(Handle),
}

/// An object file that is being repaired.
#[derive(Debug)]
pub(super) struct FileRepair {
    address: Address,
    /// What was wrong with it.
    flaw: Beside,
    writes: VecDeque<Write>,
    tag: Tag,
    machine: Machine<Turn<Ready, Waiting>>,
}

impl FileRepair {
    pub(super) fn new(address: Address, flaw: Beside, writes: Vec<Write>, tag: Tag) -> FileRepair {
        let pieces = writes.into_iter().flat_map(|(at, bytes)| {
            let starts = (at..).step_by(DISK_OP_LEN_MAX);
            let pieces: Vec<_> = bytes.chunks(DISK_OP_LEN_MAX).map(<[u8]>::to_vec).collect();
            starts.zip(pieces)
        });
        let machine = Machine::new("repair", Turn::Ready(Ready::Start));
        FileRepair { address, flaw, writes: pieces.collect(), tag, machine }
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    pub(super) fn flaw(&self) -> Beside {
        self.flaw
    }

    /// Starts the next act; no other may be in progress. Returns how many bytes it writes.
    pub(super) fn go(&mut self, parts: &Parts<'_>, cx: &mut Cx<'_>) -> u64 {
        let ready = self.machine.take_ready("go");
        let (waiting, len) = self.start(ready, parts, cx);
        self.machine.put(Turn::Waiting(waiting));
        len
    }

    fn start(&mut self, ready: Ready, parts: &Parts<'_>, cx: &mut Cx<'_>) -> (Waiting, u64) {
        let file = match ready {
            Ready::Start => {
                let path = cx.config.layout.object_path(parts.site.number, &self.address);
                let what = (path, OpenHow::ReadWrite);
                return (Waiting::Opening(Opening::start(parts.site, self.tag, what, cx)), 0);
            }
            Ready::Open(file) => file,
        };
        let (op, waiting, len) = match self.writes.pop_front() {
            Some((at, bytes)) => {
                let len = bytes.len() as u64;
                let parts = vec![Part::Bytes(bytes)];
                (DiskOp::Write { file: file.id(), at, parts }, Waiting::Writing(file), len)
            }
            None => (DiskOp::Sync { file: file.id() }, Waiting::Syncing(file), 0),
        };
        parts.site.disk(cx, self.tag, op);
        (waiting, len)
    }

    /// Its act is complete. Unless this ends it, it wants to `go` on.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) -> Option<io::Result<()>> {
        let waiting = self.machine.take_waiting(answer_name(&done));
        self.machine.answered(waiting.on_disk(done, cx))
    }

    /// Its act is complete, and nobody wants to know any more.
    pub(super) fn abandon(self, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        match self.machine.into_waiting("abandoned") {
            Waiting::Opening(opening) => opening.abandon(done, cx),
            Waiting::Writing(file) | Waiting::Syncing(file) => file.close(cx),
        }
    }

    /// Closes its file, if it is open. No act may be in progress.
    pub(super) fn close(self, cx: &mut Cx<'_>) {
        match self.machine.into_ready("closed") {
            Ready::Open(file) => file.close(cx),
            Ready::Start => {}
        }
    }
}

impl Waiting {
    fn on_disk(
        self,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) -> ControlFlow<io::Result<()>, Ready> {
        match (self, done) {
            (Waiting::Opening(opening), done) => match opening.opened(done, cx) {
                Ok(file) => ControlFlow::Continue(Ready::Open(file)),
                Err(error) => ControlFlow::Break(Err(error)),
            },
            (Waiting::Writing(file), Ok(_)) => ControlFlow::Continue(Ready::Open(file)),
            (Waiting::Syncing(file), Ok(_)) => {
                file.close(cx);
                ControlFlow::Break(Ok(()))
            }
            (Waiting::Writing(file) | Waiting::Syncing(file), Err(error)) => {
                file.close(cx);
                ControlFlow::Break(Err(error))
            }
        }
    }
}
