//! One GET or HEAD, from its question to the last byte of its answer.
//!
//! ```text
//!   Opening ──opened──► Starting ──first group──► Sending ──last byte──► done
//!      └─ missing, failed, 304, 416 …  └─ failed: an error answer   └─ failed: cut short
//! ```
//!
//! The first group is asked for together with the size, so a small object takes one question. The
//! head is sent with the first bytes of the body and not before: a failure to verify them can
//! still be answered. Afterwards the only honest end is a body that is too short. A copy that is
//! not there, or not what it should be, is not missed: the identity form is asked for instead.

use ron_codec::http::range::{ByteRange, RangeSpec};

use ron_io::arena::Block;

use super::{
    parts::Parts,
    refusal::Refusal,
    request::{Request, Verdict, Wanted},
    shown::Shown,
    wire::Wire,
};
use crate::{
    download::Download,
    flow::{Body, Cx, Fault, Reply, StreamId, Verified},
};

/// A GET or HEAD in progress.
#[derive(Debug)]
pub(super) struct Get {
    pub(super) request: Request,
    shown: Shown,
    wanted: Wanted,
    spare: Option<Box<Spare>>,
    download: Download,
    /// Where several parts are wanted. In a box, because what is wanted of most objects is all.
    parts: Option<Box<Parts>>,
    stage: Stage,
}

/// The identity form of what is asked for as a copy.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) shown: Shown,
    pub(super) wanted: Wanted,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Opening,
    /// The object has `size` bytes; all or a part are wanted, or several that begin with `part`.
    /// Nothing is sent.
    Starting {
        size: u64,
        part: Option<ByteRange>,
    },
    /// The head was sent, with this status.
    Sending {
        status: u16,
    },
}

/// Where a request stands after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something must happen first.
    Wait,
    /// The copy cannot be had: the identity form is to be asked for.
    FallBack,
    /// All of the answer is queued; it had this status.
    Answered { status: u16 },
    /// Nothing is sent; this is the answer.
    Refuse(Refusal),
    /// Part of an answer was sent that cannot be finished.
    Cut(Refusal),
}

impl Get {
    /// Asks for the object, and for its first group if that can be known.
    pub(super) fn begin(
        request: Request,
        stream: StreamId,
        shown: Shown,
        (wanted, spare): (Wanted, Option<Box<Spare>>),
        cx: &mut Cx<'_>,
    ) -> Get {
        let mut download = Download::new(stream, shown.address);
        let first = if request.is_head() { None } else { wanted.first_byte() };
        download.open(first, cx);
        Get { request, shown, wanted, spare, download, parts: None, stage: Stage::Opening }
    }

    /// Asks for the identity form instead, as another stream: groups of the copy that were asked
    /// for may still come.
    pub(super) fn fall_back(&mut self, stream: StreamId, cx: &mut Cx<'_>) {
        let Some(spare) = self.spare.take() else { return };
        self.download.cancel(cx);
        let Spare { shown, wanted } = *spare;
        *self = Get::begin(self.request, stream, shown, (wanted, None), cx);
    }

    /// Whether the client was sent anything.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Sending { .. })
    }

    pub(super) fn on_reply(&mut self, reply: Reply, wire: &mut Wire, cx: &mut Cx<'_>) -> Turn {
        if !matches!(reply, Reply::MemoryPressure) {
            self.download.answered();
        }
        match (reply, self.stage) {
            (Reply::Opened { size, first }, Stage::Opening) => self.opened(size, first, wire, cx),
            (Reply::Group(group), Stage::Starting { .. } | Stage::Sending { .. }) => {
                self.download.on_group(group);
                self.send_more(wire, cx)
            }
            (Reply::MemoryPressure, _) => {
                // What it holds itself is enough for now. Another shard answers later in any case.
                if wire.unsent() > 0 && self.download.is_local(cx) {
                    self.download.withdraw(cx);
                } else {
                    self.download.drop_readahead(cx);
                }
                Turn::Wait
            }
            (Reply::Late { index, .. }, _) if !self.download.wants(index) => Turn::Wait,
            (Reply::Late { index, ahead: true }, _) => {
                self.download.crowded(index, cx);
                self.send_more(wire, cx)
            }
            (Reply::Late { index, .. }, _) if self.download.is_ahead(index) => {
                self.download.drop_readahead(cx);
                Turn::Wait
            }
            (Reply::Late { .. }, Stage::Sending { .. }) if wire.unsent() > 0 => {
                self.download.withdraw(cx);
                Turn::Wait
            }
            (Reply::Late { .. }, Stage::Sending { .. }) => Turn::Cut(Fault::Busy.into()),
            (Reply::Late { .. }, _) => Turn::Refuse(Fault::Busy.into()),
            (
                Reply::Missing | Reply::Failed(Fault::Integrity | Fault::Absent),
                Stage::Opening | Stage::Starting { .. },
            ) if self.spare.is_some() => Turn::FallBack,
            (Reply::Failed(fault), Stage::Sending { .. }) => Turn::Cut(fault.into()),
            (Reply::Failed(fault), _) => Turn::Refuse(fault.into()),
            // Between two of its groups an object can only have been removed.
            (Reply::Missing, Stage::Sending { .. }) => Turn::Cut(Refusal::NoObject),
            (Reply::Missing, _) => Turn::Refuse(Refusal::NoObject),
            (Reply::Stored { .. } | Reply::Deleted | Reply::Opened { .. } | Reply::Group(_), _) => {
                Turn::Wait
            }
        }
    }

    /// Queues what may be queued and asks for what comes behind it.
    pub(super) fn send_more(&mut self, wire: &mut Wire, cx: &mut Cx<'_>) -> Turn {
        if matches!(self.stage, Stage::Opening) {
            return Turn::Wait;
        }
        let tight = cx.memory.is_tight() || self.download.is_under_pressure();
        while let Some(slice) = self.next_slice(wire.body_space(tight, cx)) {
            if matches!(self.stage, Stage::Starting { .. }) {
                self.decide_end(wire);
            }
            match (self.stage, &mut self.parts) {
                (Stage::Starting { size, part }, None) => {
                    let body = Some(slice);
                    wire.send_content(&self.request, &self.shown, (size, part), body, cx);
                    let status = if part.is_some() { 206 } else { 200 };
                    self.stage = Stage::Sending { status };
                }
                (Stage::Starting { .. }, Some(parts)) => {
                    wire.send_part(Some(&self.request), parts, slice, cx);
                    self.stage = Stage::Sending { status: 206 };
                }
                (_, None) => wire.send_slice(slice, cx),
                (_, Some(parts)) => wire.send_part(None, parts, slice, cx),
            }
        }
        match self.stage {
            Stage::Sending { status } if self.download.is_done() => {
                if let Some(parts) = self.parts.take() {
                    wire.send_parts_end(&parts, cx);
                }
                Turn::Answered { status }
            }
            _ => {
                self.download.pump_ahead(wire.body_space(tight, cx), cx);
                Turn::Wait
            }
        }
    }

    /// The next bytes to be sent, at most `max`, of this part or of the one behind it.
    fn next_slice(&mut self, max: usize) -> Option<Body> {
        if let Some(parts) = &mut self.parts
            && self.download.is_done()
            && let Some(next) = parts.next()
        {
            self.download.go_on(next.start..next.end_exclusive);
        }
        self.download.take_whole(max)
    }

    /// Ends what was not brought to its end: nothing more is wanted of the store.
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>) {
        self.download.cancel(cx);
    }

    /// The block of a group that waits to be sent.
    pub(super) fn held(&self) -> Option<&Block> {
        self.download.held()
    }

    /// Bytes of memory that are kept besides the value itself and its blocks.
    pub(super) fn heap(&self) -> usize {
        let spare = self.spare.as_ref();
        let spare = spare.map_or(0, |spare| size_of_val(&**spare) + spare.wanted.heap());
        let target = self.shown.target.as_ref();
        let target = target.map_or(0, |target| size_of_val(&**target) + target.heap());
        let parts = self.parts.as_ref().map_or(0, |parts| size_of_val(&**parts));
        self.download.heap() + self.wanted.heap() + spare + target + parts
    }

    fn opened(
        &mut self,
        size: u64,
        first: Option<Verified>,
        wire: &mut Wire,
        cx: &mut Cx<'_>,
    ) -> Turn {
        match self.wanted.verdict {
            Verdict::Content => {}
            Verdict::NotModified => {
                self.decide_end(wire);
                wire.send_not_modified(&self.request, &self.shown, cx);
                cx.stats.not_modified.add(1);
                return Turn::Answered { status: 304 };
            }
            Verdict::PreconditionFailed => return Turn::Refuse(Refusal::Precondition),
            Verdict::NotAcceptable => return Turn::Refuse(Refusal::NotAcceptable),
        }
        let part = match self.wanted.range(size) {
            RangeSpec::Whole => None,
            RangeSpec::One(range) => Some(range),
            RangeSpec::Several(ranges) => {
                let parts = Box::new(Parts::new(self.shown.clone(), size, ranges));
                Some(self.parts.insert(parts).now())
            }
            RangeSpec::Unsatisfiable => return Turn::Refuse(Refusal::Range { size }),
        };
        if part.is_some() {
            cx.stats.ranges.add(1);
        }
        if let Some(encoded) = self.shown.coding {
            cx.stats.encoded(encoded).add(1);
        }
        if self.request.is_head() || size == 0 {
            self.decide_end(wire);
            wire.send_content(&self.request, &self.shown, (size, part), None, cx);
            return Turn::Answered { status: 200 };
        }
        let range = part.map_or(0..size, |range| range.start..range.end_exclusive);
        self.download.begin(range, size, first);
        self.stage = Stage::Starting { size, part };
        self.send_more(wire, cx)
    }

    /// Decides, as the head is written, whether the connection goes on after this answer.
    fn decide_end(&mut self, wire: &Wire) {
        self.request.keep_alive &= !wire.is_draining();
    }
}
