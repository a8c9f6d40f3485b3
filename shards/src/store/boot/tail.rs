//! The end of the log, which is written again before it counts, and cut there: a process whose sync
//! failed may have left it where it can be read, or have cut it off, and neither is durable, nor
//! would a later sync make it so.
//!
//! ```text
//!   read ─► written in its place ─► read on … ─► (cut) ─► synced
//! ```

use std::io;

use ron_codec::limits::DISK_BLOCK_LEN;
use ron_io::ports::{DiskOp, Part};

use super::{
    Boot,
    error::{Doing, Why},
    step::{After, Step, Tail, scan, short},
};
use crate::flow::{Cx, Fault};

impl Boot {
    pub(super) fn read_tail(&self, tail: Tail, cx: &mut Cx<'_>) -> After {
        match tail.next_len() {
            0 => self.end_tail(tail, cx),
            len => self.act(Step::ReadTail(tail), scan(tail.file, tail.at, len as u32), cx),
        }
    }

    pub(super) fn write_tail(
        &mut self,
        tail: Tail,
        mut bytes: Vec<u8>,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        let (found, expected) = (bytes.len() as u64, tail.next_len());
        if found < expected {
            return self.on_error(Step::ReadTail(tail), short(found, expected), cx);
        }
        bytes.truncate(expected as usize);
        let blank = bytes.len().next_multiple_of(DISK_BLOCK_LEN) - bytes.len();
        let next = Tail { at: tail.at + expected, cut: tail.cut || blank > 0, ..tail };
        let parts = vec![Part::Bytes(bytes), Part::Zeros(blank)];
        let op = DiskOp::Write { file: tail.file, at: tail.at, parts };
        Ok(self.act(Step::WriteTail(next), op, cx))
    }

    fn end_tail(&self, tail: Tail, cx: &mut Cx<'_>) -> After {
        let Tail { file, end, cut, .. } = tail;
        match cut {
            true => self.act(Step::Cut(file), DiskOp::Truncate { file, len: end }, cx),
            false => self.act(Step::Sync(file), DiskOp::Sync { file }, cx),
        }
    }

    /// It could not be written. What is written anew takes space on some file systems, and a full
    /// disk is no reason not to start.
    pub(super) fn tail_failed(
        &mut self,
        tail: Tail,
        error: io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        if Fault::of_disk(&error) == Fault::Full {
            return Ok(self.end_tail(tail, cx));
        }
        cx.close_file(tail.file);
        Err(Why::Disk { doing: Doing::SyncLog, error })
    }
}
