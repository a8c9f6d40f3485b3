//! The choice of a segment: which one is worth being compacted next.
//!
//! A segment is worth it if enough of it is dead. Without such a segment, many tombstones or many
//! small segments are a reason to take an old one. A segment that was tried in vain is passed over,
//! at least until nothing in it counts any more.

use ron_codec::limits::RECORD_HEADER_LEN;

use super::Compaction;
use crate::{
    flow::Cx,
    limits,
    store::{index::Index, log::Log},
};

const HEADER_LEN: u64 = RECORD_HEADER_LEN as u64;

impl Compaction {
    /// The segment whose compaction gains most, if one is worth it; else the oldest, when there are
    /// many tombstones, which nothing but that makes superfluous; else the oldest of too many small
    /// ones.
    pub(super) fn choose(&self, log: &Log, index: &Index, cx: &Cx<'_>) -> Option<u32> {
        let percent = u64::from(cx.config.storage.compact_below_percent);
        let dead_min = cx.config.compact_dead_min;
        let oldest = self.oldest(log);
        let (mut best, mut small, mut all_tombstones) = (None, Vec::new(), 0);
        for (number, len) in log.segments() {
            let tally = index.tally_of(number);
            all_tombstones += tally.tombstones * HEADER_LEN;
            // Who looks after damage may have moved away what kept the segment.
            if self.stuck.get(&number).is_some_and(|live| *live == 0 || tally.live > 0) {
                continue;
            }
            let tombstones = if Some(number) == oldest { 0 } else { tally.tombstones };
            let needed = tally.live + tombstones * HEADER_LEN;
            let sealed = log.is_sealed(number);
            let dead = len.saturating_sub(needed);
            let empty = needed == 0 && (sealed || len >= dead_min);
            let sparse = dead >= dead_min && needed * 100 < len * percent;
            if empty || sparse {
                let per_mille = (needed * 1000).checked_div(len).unwrap_or(0);
                best = best.min(Some((per_mille, number))).or(Some((per_mille, number)));
            }
            if sealed && len < limits::SMALL_SEGMENT_LEN {
                small.push(number);
            }
        }
        let many = small.len() > limits::SMALL_SEGMENTS_MAX;
        let crowded = all_tombstones >= dead_min
            && all_tombstones * limits::TOMBSTONES_SHARE >= log.extent().1;
        let oldest = oldest.filter(|oldest| crowded && !self.stuck.contains_key(oldest));
        best.map(|(_, number)| number).or(oldest).or(small.first().copied().filter(|_| many))
    }

    /// The oldest segment, if its tombstones may be dropped.
    pub(super) fn oldest(&self, log: &Log) -> Option<u32> {
        let oldest = log.segments().next().map(|(number, _)| number);
        oldest.filter(|_| !self.has_hidden)
    }
}
