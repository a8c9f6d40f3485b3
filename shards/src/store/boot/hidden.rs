//! Segments in which damage hides records: their marks, and what may not be concluded while they
//! are there.

use ron_io::ports::DiskOp;

use super::{
    Boot,
    error::Why,
    step::{After, Step},
};
use crate::{flow::Cx, limits};

impl Boot {
    /// Records of a segment are not known that may have been acknowledged. It is marked, so that it
    /// is never removed because nothing known is left in it.
    pub(super) fn hide(&mut self, segment: u32) {
        self.has_holes = true;
        let Boot { hidden, unmarked, .. } = self;
        hidden.entry(segment).or_insert_with(|| {
            unmarked.push(segment);
            None
        });
    }

    /// Whether nothing that is hidden can have come after what has this sequence.
    pub(super) fn is_behind_all_hidden(&self, sequence: u64) -> bool {
        let is_behind = |most: &Option<u64>| most.is_some_and(|most| most < sequence);
        self.hidden.values().all(is_behind)
    }

    /// The highest sequence that may have been used. What comes now counts before what is hidden:
    /// no record of an earlier segment has a sequence from that of the next segment on.
    pub(super) fn highest_sequence(&self) -> u64 {
        let marked = self.hidden.values().flatten().copied().max().unwrap_or(0);
        let known = self.sequence.max(marked);
        match self.has_holes || !self.lost.is_empty() {
            true => known.max(u64::from(self.new_segment()) * limits::SEGMENT_SEQUENCES),
            false => known,
        }
    }

    /// The number of the segment in which writing goes on: above that of any that there was.
    pub(super) fn new_segment(&self) -> u32 {
        let last = self.segments.last().map_or(0, |(number, _)| *number);
        last.max(self.highest).max(self.position.segment) + 1
    }

    /// Removes the mark of the segment that was walked, if need be, and goes on.
    pub(super) fn unmark_segment(&mut self, cx: &mut Cx<'_>) -> Result<After, Why> {
        let Some(mark) = self.unmark.take() else { return self.walk_next_segment(cx) };
        let path = cx.config.layout.hidden_path(self.site.number, mark);
        Ok(self.act(Step::Unmark, DiskOp::Remove { path, durable: true }, cx))
    }
}
