//! What a partition has added to the counters of its shard.

use ron_io::stats::Stats;

use crate::store::{index::Index, log::Log};

/// In the order of `add`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted([u64; 7]);

impl Counted {
    /// Counts anew: what was added before is taken off.
    pub(super) fn add(&mut self, index: &Index, log: &Log, stats: &Stats) {
        let totals = index.totals();
        let (segments, segment_bytes) = log.extent();
        let counted = [
            totals.objects,
            totals.object_bytes,
            totals.file_bytes,
            segments as u64,
            segment_bytes,
            index.live_bytes(),
            index.bytes(),
        ];
        let counters = [
            &stats.objects,
            &stats.object_bytes,
            &stats.file_bytes,
            &stats.segments,
            &stats.segment_bytes,
            &stats.segment_live_bytes,
            &stats.index_bytes,
        ];
        for (counter, (now, before)) in counters.iter().zip(counted.iter().zip(self.0)) {
            // Counters wrap, so a difference may be negative.
            counter.add(now.wrapping_sub(before));
        }
        self.0 = counted;
    }
}
