//! Whether there is space for an object: on the volume, in the partition's share, in the index.

use super::Partition;
use crate::flow::Cx;

impl Partition {
    /// Whether the partition has no space for an object of `len` bytes more, by its shares or on
    /// its volume.
    fn is_full_for(&self, len: u64, cx: &Cx<'_>) -> bool {
        let taken = self.log.extent().1 + self.index.totals().file_bytes + self.log.waiting_len();
        taken.saturating_add(len) > self.bytes_max
            || self.index.bytes() >= self.index_max
            || cx.free_space.check(self.volume, len).is_err()
    }

    /// Whether an object cannot be taken for lack of space. The bytes of an upload are on the disk
    /// already.
    pub(super) fn refuses(&mut self, to_be_written: bool, size: u64, cx: &mut Cx<'_>) -> bool {
        let len = if to_be_written { size } else { 0 };
        let full = self.is_full_for(len, cx) || (!to_be_written && self.has_ended(size));
        if full != std::mem::replace(&mut self.full, full) {
            let count = &cx.stats.partitions_full;
            if full { count.add(1) } else { count.sub(1) }
        }
        full
    }

    fn has_ended(&self, more: u64) -> bool {
        let (_, segments_len) = self.log.extent();
        let taken = segments_len + self.index.totals().file_bytes + self.log.waiting_len();
        taken.saturating_add(more) > self.bytes_max
    }
}
