//! What is stored and in what state it is, out of the shards' counters and reports.
//!
//! Counters are read when somebody asks. Reports add what counters cannot say: which objects are
//! damaged, and which partitions cannot do all they should, and why.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ron_codec::address::Address;
use ron_io::{
    ports::PartitionState,
    stats::{Phase, Stats},
};
use serde::{Deserialize, Serialize};

use crate::damage::{Damage, shortened};
pub use crate::damage::{DamageReport, DamagedObject};

/// A partition that cannot do all it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFault {
    pub partition: u16,
    /// `read_only` or `absent`.
    pub state: String,
    pub reason: String,
}

/// What `GET /storage` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    pub total: Figures,
    /// Bytes of what is free that are set aside for uploads in progress, on all volumes.
    #[serde(default)]
    pub promised_bytes: u64,
    #[serde(default)]
    pub shards: Vec<ShardFigures>,
    /// Partitions that do not serve, in the order of their numbers.
    #[serde(default)]
    pub partitions: Vec<PartitionFault>,
    #[serde(default)]
    pub damage: DamageReport,
}

/// The figures of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShardFigures {
    pub shard: u16,
    #[serde(flatten)]
    pub figures: Figures,
}

/// What one shard or the whole node stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    pub objects: u64,
    /// Bytes of the objects, without overhead.
    pub object_bytes: u64,
    pub segments: u64,
    /// Bytes of all segments, of the records in them that count, and of the rest.
    pub segment_bytes: u64,
    pub segment_live_bytes: u64,
    pub segment_dead_bytes: u64,
    /// Bytes of the files of objects that have one of their own.
    pub file_bytes: u64,
    /// Bytes free on the fullest of the volumes; absent while a shard is opening its partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Partitions that take no objects for want of space, that take none since a failure, and that
    /// can be neither read nor written.
    pub partitions_full: u64,
    pub partitions_read_only: u64,
    pub partitions_absent: u64,
    /// Since the start: objects deleted, segments given back by compaction, bytes moved and given
    /// back by it, and times that an object was found damaged.
    pub deletes: u64,
    pub compactions: u64,
    pub compact_moved_bytes: u64,
    pub compact_freed_bytes: u64,
    pub damaged_objects: u64,
    pub scrub: Scrub,
}

/// How far the scrub is, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scrub {
    /// Whether a round is in progress in any shard.
    pub running: bool,
    /// Rounds that every shard has finished.
    pub rounds: u64,
    pub bytes: u64,
    pub objects: u64,
    pub repaired: u64,
    /// Since when at the latest everything has been looked at once: the end of the last round, of
    /// the shard whose last round ended first; absent as long as one has finished none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_unix_s: Option<u64>,
}

impl Figures {
    /// The figures of one shard.
    fn of(stats: &Stats) -> Figures {
        let (all, live) = (stats.segment_bytes.get(), stats.segment_live_bytes.get());
        let finished = stats.scrub_finished_unix_s.get();
        Figures {
            objects: stats.objects.get(),
            object_bytes: stats.object_bytes.get(),
            segments: stats.segments.get(),
            segment_bytes: all,
            segment_live_bytes: live,
            // The two are read one after the other while the shard goes on.
            segment_dead_bytes: all.saturating_sub(live),
            file_bytes: stats.file_bytes.get(),
            disk_free_bytes: (stats.phase() != Phase::Booting).then(|| stats.disk_free_bytes.get()),
            partitions_full: stats.partitions_full.get(),
            partitions_read_only: stats.partitions_read_only.get(),
            partitions_absent: stats.partitions_absent.get(),
            deletes: stats.deletes.get(),
            compactions: stats.compactions.get(),
            compact_moved_bytes: stats.compact_moved_bytes.get(),
            compact_freed_bytes: stats.compact_freed_bytes.get(),
            damaged_objects: stats.damaged_objects.get(),
            scrub: Scrub {
                running: stats.scrub_running.get() > 0,
                rounds: stats.scrub_rounds.get(),
                bytes: stats.scrub_bytes.get(),
                objects: stats.scrub_objects.get(),
                repaired: stats.scrub_repaired.get(),
                finished_unix_s: (finished > 0).then_some(finished),
            },
        }
    }

    /// The figures of two parts of a node together.
    fn and(self, other: &Figures) -> Figures {
        let least = |a: Option<u64>, b: Option<u64>| Some(a?.min(b?));
        Figures {
            objects: self.objects.wrapping_add(other.objects),
            object_bytes: self.object_bytes.wrapping_add(other.object_bytes),
            segments: self.segments.wrapping_add(other.segments),
            segment_bytes: self.segment_bytes.wrapping_add(other.segment_bytes),
            segment_live_bytes: self.segment_live_bytes.wrapping_add(other.segment_live_bytes),
            segment_dead_bytes: self.segment_dead_bytes.wrapping_add(other.segment_dead_bytes),
            file_bytes: self.file_bytes.wrapping_add(other.file_bytes),
            disk_free_bytes: least(self.disk_free_bytes, other.disk_free_bytes),
            partitions_full: self.partitions_full.wrapping_add(other.partitions_full),
            partitions_read_only: self
                .partitions_read_only
                .wrapping_add(other.partitions_read_only),
            partitions_absent: self.partitions_absent.wrapping_add(other.partitions_absent),
            deletes: self.deletes.wrapping_add(other.deletes),
            compactions: self.compactions.wrapping_add(other.compactions),
            compact_moved_bytes: self.compact_moved_bytes.wrapping_add(other.compact_moved_bytes),
            compact_freed_bytes: self.compact_freed_bytes.wrapping_add(other.compact_freed_bytes),
            damaged_objects: self.damaged_objects.wrapping_add(other.damaged_objects),
            scrub: Scrub {
                running: self.scrub.running || other.scrub.running,
                rounds: self.scrub.rounds.min(other.scrub.rounds),
                bytes: self.scrub.bytes.wrapping_add(other.scrub.bytes),
                objects: self.scrub.objects.wrapping_add(other.scrub.objects),
                repaired: self.scrub.repaired.wrapping_add(other.scrub.repaired),
                finished_unix_s: least(self.scrub.finished_unix_s, other.scrub.finished_unix_s),
            },
        }
    }

    /// The figures of a node; sums wrap as the counters do.
    pub(crate) fn total(stats: &[Arc<Stats>]) -> Figures {
        let shards = stats.iter().map(|stats| Figures::of(stats));
        shards.reduce(|sum, figures| sum.and(&figures)).unwrap_or_default()
    }
}

/// Asks how many bytes are set aside for uploads in progress, on all volumes. It is one account of
/// all shards, so it is asked for and not added up.
#[derive(Clone)]
pub struct SetAside(Arc<dyn Fn() -> u64 + Send + Sync>);

impl SetAside {
    pub fn new(bytes: impl Fn() -> u64 + Send + Sync + 'static) -> SetAside {
        SetAside(Arc::new(bytes))
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetAside({})", self.bytes())
    }
}

/// What shards reported of their storage.
#[derive(Debug)]
pub(crate) struct StorageState {
    stats: Vec<Arc<Stats>>,
    /// Partitions of the node.
    partitions: u16,
    set_aside: SetAside,
    faults: Mutex<BTreeMap<u16, PartitionFault>>,
    damage: Mutex<Damage>,
}

impl StorageState {
    pub(crate) fn new(
        stats: Vec<Arc<Stats>>,
        partitions: u16,
        set_aside: SetAside,
    ) -> StorageState {
        let (faults, damage) = Default::default();
        StorageState { stats, partitions, set_aside, faults, damage }
    }

    /// A shard found an object damaged. Returns whether that is news.
    pub(crate) fn damaged(&self, shard: u16, addr: Address, what: &str, unix_s: u64) -> bool {
        unpoisoned(&self.damage).note(shard, addr, what, unix_s)
    }

    /// An object was read again as a whole and is right, or is gone. Returns whether that is news.
    pub(crate) fn forget_damage(&self, addr: &Address) -> bool {
        unpoisoned(&self.damage).forget(addr)
    }

    /// A partition can do this from now on. Returns whether that is news.
    pub(crate) fn partition(&self, partition: u16, state: PartitionState, reason: &str) -> bool {
        let mut faults = unpoisoned(&self.faults);
        let Some(state) = state_name(state) else { return faults.remove(&partition).is_some() };
        let fault = PartitionFault { partition, state: state.into(), reason: shortened(reason) };
        faults.insert(partition, fault.clone()).as_ref() != Some(&fault)
    }

    /// Partitions that cannot do all they should.
    pub(crate) fn faults(&self) -> Vec<PartitionFault> {
        unpoisoned(&self.faults).values().cloned().collect()
    }

    /// Whether a partition is left that can do all it should.
    pub(crate) fn serves(&self) -> bool {
        unpoisoned(&self.faults).len() < usize::from(self.partitions)
    }

    pub(crate) fn report(&self) -> StorageReport {
        let shards = (0..).zip(&self.stats);
        StorageReport {
            total: Figures::total(&self.stats),
            promised_bytes: self.set_aside.bytes(),
            shards: shards
                .map(|(shard, stats)| ShardFigures { shard, figures: Figures::of(stats) })
                .collect(),
            partitions: self.faults(),
            damage: unpoisoned(&self.damage).report(),
        }
    }
}

/// What a state is called that is worth a mention.
pub(crate) fn state_name(state: PartitionState) -> Option<&'static str> {
    match state {
        PartitionState::Serving => None,
        PartitionState::ReadOnly => Some("read_only"),
        PartitionState::Absent => Some("absent"),
    }
}

/// What is behind a lock is whole after every step, so a panic elsewhere does not spoil it.
fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(shards: usize, partitions: u16) -> (Vec<Arc<Stats>>, StorageState) {
        let stats: Vec<Arc<Stats>> = (0..shards).map(|_| Arc::default()).collect();
        stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
        (stats.clone(), StorageState::new(stats, partitions, SetAside::new(|| 9)))
    }

    #[test]
    fn a_node_is_the_sum_of_its_shards_and_as_good_as_the_worst() {
        let (stats, storage) = node(2, 4);
        for (stats, n) in stats.iter().zip([1, 10]) {
            stats.objects.set(3 * n);
            stats.segment_bytes.set(1000 * n);
            stats.segment_live_bytes.set(900 * n);
            stats.disk_free_bytes.set(5000 * n);
            stats.scrub_rounds.set(n);
            stats.scrub_bytes.set(7 * n);
            stats.partitions_full.set(n);
        }
        stats[1].scrub_running.set(1);
        stats[1].scrub_finished_unix_s.set(200);
        let total = storage.report().total;
        assert_eq!((total.objects, total.segment_bytes), (33, 11_000));
        assert_eq!((total.segment_live_bytes, total.segment_dead_bytes), (9_900, 1_100));
        assert_eq!((total.disk_free_bytes, total.partitions_full), (Some(5000), 11));
        assert_eq!((total.scrub.rounds, total.scrub.bytes), (1, 77));
        assert!(total.scrub.running);
        assert_eq!(total.scrub.finished_unix_s, None, "one shard has never finished");
        stats[0].scrub_finished_unix_s.set(300);
        assert_eq!(storage.report().total.scrub.finished_unix_s, Some(200));
        let shards = storage.report().shards;
        assert_eq!((shards[1].shard, shards[1].figures.objects), (1, 30));
        stats[1].set_phase(Phase::Booting);
        assert_eq!(storage.report().total.disk_free_bytes, None, "not known yet");
    }

    #[test]
    fn a_partition_is_listed_until_it_serves_again() {
        let (_, storage) = node(1, 2);
        assert!(!storage.partition(1, PartitionState::Serving, ""), "that is how it began");
        assert!(storage.partition(1, PartitionState::ReadOnly, "cut failed"));
        assert!(!storage.partition(1, PartitionState::ReadOnly, "cut failed"));
        assert!(storage.partition(1, PartitionState::Absent, "no volume"));
        let fault = |partition, state: &str, reason: &str| PartitionFault {
            partition,
            state: state.into(),
            reason: reason.into(),
        };
        assert_eq!(storage.faults(), [fault(1, "absent", "no volume")]);
        assert!(storage.serves());
        assert!(storage.partition(0, PartitionState::ReadOnly, "x"));
        assert!(!storage.serves());
        assert_eq!(storage.faults()[0], fault(0, "read_only", "x"));
        assert!(storage.partition(1, PartitionState::Serving, ""));
        assert!(storage.serves() && storage.faults().len() == 1);
    }

    #[test]
    fn the_report_reads_back_and_an_older_one_too() {
        let (stats, storage) = node(2, 2);
        stats[0].objects.set(5);
        storage.partition(1, PartitionState::Absent, "gone");
        storage.damaged(1, Address::of(b"x"), "data", 9);
        let report = storage.report();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<StorageReport>(&json).unwrap(), report);
        let old: StorageReport =
            serde_json::from_str(r#"{"total":{"objects":1,"new":2}}"#).unwrap();
        assert_eq!((old.total.objects, old.shards.len()), (1, 0));
        let x = Address::of(b"x");
        assert!(storage.forget_damage(&x) && !storage.forget_damage(&x));
    }
}
