//! Segments, one by one: a patrol opens each, sweeps it, and notes where it is broken.
//!
//! ```text
//!   Between ──► Opening ──► Sweeping ⇄ Reading
//!      ▲           ▼            ▼         ▼
//!      └───────────┴────────────┴─────────┘ its end, or where it is broken
//! ```

use std::io;

use ron_codec::limits::SEGMENT_LEN_MAX;
use ron_io::ports::{DiskDone, DiskOp, FileId, OpenHow, Urgency};

use super::{Broken, PATROL_TAG, Parts, Patrol, Stage, Step, paging};
use crate::{
    flow::Cx,
    store::{
        damage,
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
    ) -> Step {
        let range = |number: u32| number > after && number <= self.until.segment;
        let next = parts.log.segments().find(|(number, _)| range(*number));
        let Some((segment, len)) = next else {
            let mut broken = self.broken.keys();
            // Nothing more is written where a rebuild would not find it.
            if !broken.all(|broken| parts.log.seal(*broken, parts.files)) {
                self.stage = Stage::Between { after };
                return Step::Blocked;
            }
            self.stage = paging(None);
            return Step::Did;
        };
        if len > SEGMENT_LEN_MAX {
            // No start believes any of it.
            self.break_off(segment, 0, SegmentEnd::Broken(Break::TooLong), parts);
            return Step::Did;
        }
        let end = if segment == self.until.segment { len.min(self.until.offset) } else { len };
        let file = cx.tickets.file();
        let path = cx.config.layout.segment_path(parts.site.number, segment);
        self.stage = Stage::Opening { file, sweep: Sweep::new(segment, end) };
        parts.site.disk(cx, PATROL_TAG, DiskOp::Open { file, path, how: OpenHow::Read });
        Step::Started(0)
    }

    pub(super) fn opened(
        &mut self,
        file: FileId,
        sweep: Sweep,
        done: io::Result<DiskDone>,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) {
        let segment = sweep.segment();
        let Err(error) = done else {
            self.stage = Stage::Sweeping { file, sweep, window: Window::default() };
            return;
        };
        cx.tickets.forget_file(file);
        let there = parts.log.segments().any(|(number, _)| number == segment);
        if there {
            // What the index places in it is probed, one by one; each says what is wrong with it.
            self.break_off(segment, 0, SegmentEnd::NotOpened(error), parts);
        } else {
            // It was compacted away meanwhile.
            self.stage = Stage::Between { after: segment };
        }
    }

    pub(super) fn sweep(
        &mut self,
        file: FileId,
        mut sweep: Sweep,
        window: Window,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Step {
        let mut none = Orphans::new();
        let orphans = self.orphans.as_mut().unwrap_or(&mut none);
        let next = sweep.go(&window, parts.index, cx.damage, orphans);
        sweep.take_healed().iter().for_each(|address| damage::healed(address, cx));
        let whole = sweep.take_objects();
        cx.stats.scrub_objects.add(whole);
        self.tally.checked += whole;
        match next {
            Next::Read { at, len } => {
                self.stage = Stage::Reading { file, sweep, at, asked: len };
                let urgency = Urgency::Background;
                parts.site.disk(cx, PATROL_TAG, DiskOp::Scan { file, at, len, urgency });
                return Step::Started(u64::from(len));
            }
            Next::Rest => self.stage = Stage::Sweeping { file, sweep, window },
            Next::Suspect(address) => {
                self.stage = Stage::Sweeping { file, sweep, window };
                self.probe(address);
            }
            Next::End(end) => {
                cx.close_file(file);
                match end {
                    End::Whole => self.stage = Stage::Between { after: sweep.segment() },
                    End::Broken { from, why } => {
                        self.break_off(sweep.segment(), from, SegmentEnd::Broken(why), parts);
                    }
                }
            }
        }
        Step::Did
    }

    /// A rebuild of the index would not find the rest of a segment, nor would the next start what
    /// of it is in no checkpoint: deletions too, which are not moved.
    pub(super) fn break_off(
        &mut self,
        segment: u32,
        from: u64,
        why: SegmentEnd,
        parts: &mut Parts<'_>,
    ) {
        *parts.checkpoint_due = true;
        self.broken.insert(segment, Broken { from, why, told: false });
        self.stage = Stage::Between { after: segment };
    }
}
