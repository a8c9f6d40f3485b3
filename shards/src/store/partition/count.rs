//! What a partition adds to the counters of its shard, and the warning before its index is full.

use ron_io::ports::Severity;

use super::Partition;
use crate::{flow::Cx, limits};

/// What one partition has added to the counters of its shard, in the order of `count`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted([u64; 7]);

impl Partition {
    pub(super) fn count(&mut self, cx: &mut Cx<'_>) {
        let totals = self.index.totals();
        let (segments, segment_bytes) = self.log.extent();
        let counted = Counted([
            totals.objects,
            totals.object_bytes,
            totals.file_bytes,
            segments as u64,
            segment_bytes,
            self.index.live_bytes(),
            self.index.bytes(),
        ]);
        let stats = cx.stats;
        let counters = [
            &stats.objects,
            &stats.object_bytes,
            &stats.file_bytes,
            &stats.segments,
            &stats.segment_bytes,
            &stats.segment_live_bytes,
            &stats.index_bytes,
        ];
        for (counter, (now, before)) in counters.iter().zip(counted.0.iter().zip(self.counted.0)) {
            // Counters wrap, so a difference may be negative.
            counter.add(now.wrapping_sub(before));
        }
        self.counted = counted;
        self.look_at_index(cx);
    }

    /// Warns before the memory for the index is used up.
    fn look_at_index(&mut self, cx: &mut Cx<'_>) {
        let (bytes, max) = (self.index.bytes(), self.index_max);
        let is_beyond =
            |percent: u64| u128::from(bytes) * 100 > u128::from(max) * u128::from(percent);
        if is_beyond(limits::INDEX_WARN_PERCENT) && !self.index_warned {
            self.index_warned = true;
            let text = format!(
                "the index takes {bytes} bytes of its {max}: objects are refused beyond; raise \
                 storage.index_memory"
            );
            self.site.note(cx, Severity::Warn, &text);
        }
        self.index_warned &= is_beyond(limits::INDEX_CALM_PERCENT);
    }
}
