//! Segments, one by one: a patrol opens each, sweeps it, and notes where it is broken.
//!
//! ```text
//!   Between ──► Opening ──► Sweeping ⇄ Reading
//!      ▲           ▼            ▼         ▼
//!      └───────────┴────────────┴─────────┘ its end, or where it is broken
//! ```

use std::io;

use ron_codec::limits::SEGMENT_LEN_MAX;
use ron_io::ports::{DiskOp, OpenHow, Urgency};

use super::{Broken, PATROL_TAG, Parts, Patrol, Ready, State, Step, Waiting, paging};
use crate::{
    flow::Cx,
    machine::Turn,
    store::{
        damage,
        handle::{Handle, Opening},
        notes::SegmentEnd,
        scan::Break,
        scrub::{
            check::Window,
            sweep::{End, Next, Orphans, Sweep},
        },
    },
};

impl Patrol {
    pub(super) fn next_segment(
        &mut self,
        after: u32,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> (State, Step) {
        let range = |number: u32| number > after && number <= self.until.segment;
        let next = parts.log.segments().find(|(number, _)| range(*number));
        let Some((segment, len)) = next else {
            let mut broken = self.broken.keys();
            // Nothing more is written where a rebuild would not find it.
            if !broken.all(|broken| parts.log.seal(*broken, parts.files)) {
                return (Turn::Ready(Ready::Between { after }), Step::Blocked);
            }
            return (Turn::Ready(paging(None)), Step::Did);
        };
        if len > SEGMENT_LEN_MAX {
            // No start believes any of it.
            let why = SegmentEnd::Broken(Break::TooLong);
            return (Turn::Ready(self.break_off(segment, 0, why, parts)), Step::Did);
        }
        let end = if segment == self.until.segment { len.min(self.until.offset) } else { len };
        let path = cx.config.layout.segment_path(parts.site.number, segment);
        let opening = Opening::start(parts.site, PATROL_TAG, (path, OpenHow::Read), cx);
        let sweep = Sweep::new(segment, end);
        (Turn::Waiting(Waiting::Opening { opening, sweep }), Step::Started(0))
    }

    pub(super) fn opened(
        &mut self,
        opened: io::Result<Handle>,
        sweep: Sweep,
        parts: &mut Parts<'_>,
    ) -> Ready {
        let segment = sweep.segment();
        let error = match opened {
            Ok(file) => return Ready::Sweeping { file, sweep, window: Window::default() },
            Err(error) => error,
        };
        let there = parts.log.segments().any(|(number, _)| number == segment);
        if there {
            // What the index places in it is probed, one by one; each says what is wrong with it.
            self.break_off(segment, 0, SegmentEnd::NotOpened(error), parts)
        } else {
            // It was compacted away meanwhile.
            Ready::Between { after: segment }
        }
    }

    pub(super) fn sweep(
        &mut self,
        file: Handle,
        mut sweep: Sweep,
        window: Window,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> (State, Step) {
        let mut none = Orphans::new();
        let orphans = self.orphans.as_mut().unwrap_or(&mut none);
        let next = sweep.go(&window, parts.index, cx.damage, orphans);
        sweep.take_healed().iter().for_each(|address| damage::healed(address, cx));
        let whole = sweep.take_objects();
        cx.stats.scrub_objects.add(whole);
        self.tally.checked += whole;
        let ready = match next {
            Next::Read { at, len } => {
                let urgency = Urgency::Background;
                let op = DiskOp::Scan { file: file.id(), at, len, urgency };
                parts.site.disk(cx, PATROL_TAG, op);
                let waiting = Waiting::Reading { file, sweep, at, asked: len };
                return (Turn::Waiting(waiting), Step::Started(u64::from(len)));
            }
            Next::Rest => Ready::Sweeping { file, sweep, window },
            Next::Suspect(address) => {
                self.probe(address);
                Ready::Sweeping { file, sweep, window }
            }
            Next::End(end) => {
                file.close(cx);
                match end {
                    End::Whole => Ready::Between { after: sweep.segment() },
                    End::Broken { from, why } => {
                        self.break_off(sweep.segment(), from, SegmentEnd::Broken(why), parts)
                    }
                }
            }
        };
        (Turn::Ready(ready), Step::Did)
    }

    /// A rebuild of the index would not find the rest of a segment, nor would the next start what
    /// of it is in no checkpoint: deletions too, which are not moved.
    pub(super) fn break_off(
        &mut self,
        segment: u32,
        from: u64,
        why: SegmentEnd,
        parts: &mut Parts<'_>,
    ) -> Ready {
        *parts.checkpoint_due = true;
        self.broken.insert(segment, Broken { from, why, reported: false });
        Ready::Between { after: segment }
    }
}
