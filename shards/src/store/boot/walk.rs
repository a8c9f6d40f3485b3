//! The walk through the log: segment by segment, from the index's position or from the start.
//!
//! ```text
//!   open ─► scan ⇄ records ─► its end ─► (written again, cut) ─► synced ─► (mark removed) ─► next
//!                    │ damage, or the disk does not give it
//!                    └──► hidden: nothing is cut ─► synced ─► next
//! ```

use std::io;

use ron_codec::limits::{DISK_BLOCK_LEN, SEGMENT_LEN_MAX};
use ron_io::{
    limits::DISK_OP_LEN_MAX,
    ports::{DiskOp, FileId, OpenHow},
};

use super::{
    Boot,
    error::{Doing, Why},
    step::{After, Step, Tail, scan, short},
};
use crate::{
    flow::Cx,
    limits,
    store::{
        index::Position,
        notes::Note,
        scan::{Break, Next, Walk},
    },
};

impl Boot {
    pub(super) fn walk_next_segment(&mut self, cx: &mut Cx<'_>) -> Result<After, Why> {
        while let Some((number, len)) = self.segments.get(self.next_segment).copied() {
            self.next_segment += 1;
            // The last may have been cut, and the cut not synced, by a process that ended so.
            let is_last = self.next_segment == self.segments.len();
            if self.is_known(number, len) && !is_last {
                continue;
            }
            let file = cx.tickets.file();
            let path = cx.config.layout.segment_path(self.site.number, number);
            let op = DiskOp::Open { file, path, how: OpenHow::ReadWrite };
            return Ok(self.act(Step::OpenSegment(file), op, cx));
        }
        if let Some(segment) = self.unmarked.pop() {
            let (file, most) = (cx.tickets.file(), self.highest_sequence());
            let path = cx.config.layout.hidden_path(self.site.number, (segment, Some(most)));
            let op = DiskOp::Open { file, path, how: OpenHow::CreateNew };
            return Ok(self.act(Step::Mark(file, segment), op, cx));
        }
        if self.rebuild { self.next_objects_dir(cx) } else { self.unlink_next(cx) }
    }

    /// Whether nothing is to be learnt from a segment of this length.
    fn is_known(&self, segment: u32, len: u64) -> bool {
        len == 0 || Position { segment, offset: len.min(SEGMENT_LEN_MAX) } <= self.position
    }

    /// The segment being walked: its number, and whether it is the last.
    pub(super) fn segment(&self) -> (u32, bool) {
        let (number, _) = self.segments[self.next_segment - 1];
        (number, self.next_segment == self.segments.len())
    }

    pub(super) fn begin_walk(
        &mut self,
        file: FileId,
        len: u64,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        let (segment, _) = self.segment();
        if self.is_known(segment, len) {
            // It is cut again: after a sync that failed, another may write nothing.
            return Ok(self.act(Step::Cut(file), DiskOp::Truncate { file, len }, cx));
        }
        if len > SEGMENT_LEN_MAX {
            return Ok(self.pass_by(file, segment, len, cx));
        }
        let known = segment == self.position.segment;
        let at = if known { self.position.offset } else { 0 };
        // A batch is never longer than this, so only so much can be torn.
        let last_batch = len.saturating_sub(DISK_OP_LEN_MAX as u64);
        let verify_from = if self.rebuild { last_batch } else { at };
        self.report_progress(cx);
        self.tail_from = at.max(last_batch) / DISK_BLOCK_LEN as u64 * DISK_BLOCK_LEN as u64;
        let walk = Walk::new(at, len, verify_from);
        let next = walk.start();
        self.on_walked(file, walk, next, cx)
    }

    /// A segment is longer than any is made. It stays as it is, and no record of it is taken up.
    fn pass_by(&mut self, file: FileId, segment: u32, len: u64, cx: &mut Cx<'_>) -> After {
        self.hide(segment);
        // No index may say that it knows the log to a place where no log goes.
        self.position = Position { segment, offset: SEGMENT_LEN_MAX };
        self.site.note(cx, &Note::SegmentTooLong { segment, len });
        self.act(Step::Sync(file), DiskOp::Sync { file }, cx)
    }

    pub(super) fn on_scanned(
        &mut self,
        file: FileId,
        mut walk: Walk,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        let (found, expected) = (bytes.len() as u64, walk.expected());
        if found < expected {
            // It is no end of the log: cutting it there would lose what was acknowledged.
            return self.unread(file, walk, short(found, expected), cx);
        }
        self.scan_failures = 0;
        match walk.feed(bytes) {
            Ok(next) => self.on_walked(file, walk, next, cx),
            Err(version) => {
                cx.close_file(file);
                Err(Why::Newer { version })
            }
        }
    }

    /// The disk does not give a piece of the log. With an index it may be about what was
    /// acknowledged since the last checkpoint, so the partition does not open, and neither if the
    /// disk gives nothing of the index: both may be there another time. In a rebuild, which
    /// is the only way back, the segment ends there: nothing is cut, and what lies behind is not
    /// known until another rebuild can read it.
    pub(super) fn unread(
        &mut self,
        file: FileId,
        walk: Walk,
        error: io::Error,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        self.scan_failures += 1;
        if self.scan_failures < limits::BOOT_SCAN_TRIES {
            let next = walk.start();
            return self.on_walked(file, walk, next, cx);
        }
        if !self.rebuild || self.index_unread {
            cx.close_file(file);
            return Err(Why::Withheld { doing: Doing::ReadLog, error });
        }
        self.scan_failures = 0;
        let (segment, _) = self.segment();
        let (_, len) = self.segments[self.next_segment - 1];
        self.hide(segment);
        // The rest is behind the position, not before it: a boot with the index must not read it.
        let offset = len - len % DISK_BLOCK_LEN as u64;
        self.position = Position { segment, offset };
        self.site.note(cx, &Note::SegmentUnread { segment, from: walk.at(), error: &error });
        Ok(self.act(Step::Sync(file), DiskOp::Sync { file }, cx))
    }

    fn on_walked(
        &mut self,
        file: FileId,
        mut walk: Walk,
        next: Next,
        cx: &mut Cx<'_>,
    ) -> Result<After, Why> {
        let (segment, _) = self.segment();
        for found in walk.take() {
            self.take_record(segment, &found, cx);
        }
        Ok(match next {
            Next::Read { at, len } => self.act(Step::Scan(file, walk), scan(file, at, len), cx),
            Next::End { end, torn: None } => self.whole(file, end, cx),
            Next::End { end, torn: Some(why) } => self.broken(file, end, why, cx),
        })
    }

    /// All records of the segment count, up to its end.
    fn whole(&mut self, file: FileId, end: u64, cx: &mut Cx<'_>) -> After {
        let (segment, last) = self.segment();
        self.position = Position { segment, offset: end };
        // All of it was read: nothing is hidden any more.
        let kept = self.strangers_in == Some(segment);
        if self.rebuild && !kept {
            let mark = self.hidden.remove(&segment);
            self.unmark = mark.map(|most| (segment, most));
        }
        let at = if last { self.tail_from } else { end };
        self.read_tail(Tail { file, at, end, cut: last }, cx)
    }

    /// The records of the segment end before it does.
    fn broken(&mut self, file: FileId, end: u64, why: Break, cx: &mut Cx<'_>) -> After {
        let (segment, last) = self.segment();
        let (_, len) = self.segments[self.next_segment - 1];
        // Only the last batch of the last segment can be torn by a crash. Anything else was synced
        // and is damage: what lies behind it may have been acknowledged, and is left for who finds
        // out what happened to it.
        if last && len.saturating_sub(end) <= DISK_OP_LEN_MAX as u64 {
            self.position = Position { segment, offset: end };
            self.site.note(cx, &Note::SegmentTorn { segment, end, why });
            self.segments[self.next_segment - 1].1 = end;
            return self.read_tail(Tail { file, at: self.tail_from, end, cut: true }, cx);
        }
        self.hide(segment);
        // The next boot with the index need not find it again.
        let offset = len - len % DISK_BLOCK_LEN as u64;
        self.position = Position { segment, offset };
        cx.stats.integrity_fail.add(1);
        let (at, hidden) = (end, len - end);
        self.site.note(cx, &Note::SegmentDamaged { segment, at, why, hidden });
        self.act(Step::Sync(file), DiskOp::Sync { file }, cx)
    }

    fn report_progress(&self, cx: &mut Cx<'_>) {
        let (done, all) = (self.next_segment - 1, self.segments.len());
        let tenth = |nth: usize| nth * 10 / all;
        if self.rebuild && done > 0 && tenth(done) > tenth(done - 1) {
            self.site.note(cx, &Note::RebuildAt { done, all, records: self.found });
        }
    }
}
