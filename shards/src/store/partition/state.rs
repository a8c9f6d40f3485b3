//! Whether a partition takes writes, and when the operator is notified.

use ron_io::ports::{Act, PartitionState, Report};

use super::Partition;
use crate::{
    flow::Cx,
    limits,
    store::notes::{Note, Writes},
};

impl Partition {
    pub(super) fn look_at_log(&mut self, cx: &mut Cx<'_>) {
        if self.log.is_broken() {
            self.set_read_only(true, &Writes::LogBroken, cx);
        } else if self.log.begin_failures() >= limits::BEGIN_FAILURES_MAX {
            self.set_read_only(true, &Writes::NoSegment, cx);
        } else if self.log.begin_failures() == 0 && !self.takes_nothing() {
            self.set_read_only(false, &Writes::Taken, cx);
        }
    }

    /// Whether puts and deletes are refused at once. Where a segment cannot be begun they are not:
    /// the next one tries again.
    pub(super) fn takes_nothing(&self) -> bool {
        self.log.is_broken() || self.checkpoints.has_failed_too_often()
    }

    pub(super) fn set_read_only(&mut self, read_only: bool, why: &Writes<'_>, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.read_only, read_only) == read_only {
            return;
        }
        match read_only {
            true => cx.stats.partitions_read_only.add(1),
            false => cx.stats.partitions_read_only.sub(1),
        }
        let state = if read_only { PartitionState::ReadOnly } else { PartitionState::Serving };
        let reason = format!("{}: {why}", cx.config.layout.volume(self.site.number).display());
        let (shard, partition) = (cx.config.shard, self.site.number);
        cx.acts.push(Act::Report(Report::Partition { shard, partition, state, reason }));
    }

    pub(super) fn count(&mut self, cx: &mut Cx<'_>) {
        self.counted.add(&self.index, &self.log, cx.stats);
        self.look_at_index(cx);
    }

    /// Warns before the memory for the index is used up.
    fn look_at_index(&mut self, cx: &mut Cx<'_>) {
        let (bytes, max) = (self.index.bytes(), self.index_max);
        let is_beyond =
            |percent: u64| u128::from(bytes) * 100 > u128::from(max) * u128::from(percent);
        if is_beyond(limits::INDEX_WARN_PERCENT) && !self.index_warned {
            self.index_warned = true;
            self.site.note(cx, &Note::IndexNearlyFull { bytes, max });
        }
        self.index_warned &= is_beyond(limits::INDEX_CALM_PERCENT);
    }
}
