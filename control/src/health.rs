//! Whether the node is ready for traffic, and if not, why and for how long.
//!
//! What the shards say of themselves is read from their counters when somebody asks; events add
//! what counters cannot say, such as a thread that is gone. Partitions that cannot do all they
//! should are named, and the node stays ready as long as one is left that can: the rest go on.
//! Nothing here runs on a timer, so an idle node stays asleep.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use ron_io::stats::{Phase, Rejected, Stats};
use serde::Serialize;

use crate::{
    bus::KernelEvent,
    limits::{OVERLOAD_HOLD, RETRY_BOOT_S, RETRY_GONE_S},
    storage::{PartitionFault, StorageState},
};

/// The health of a node.
#[derive(Debug)]
pub struct HealthState {
    stats: Vec<Arc<Stats>>,
    storage: Arc<StorageState>,
    /// Version of the configuration in force; 0 before the first.
    config: AtomicU64,
    leaving: AtomicBool,
    /// Services that ended.
    down: Mutex<BTreeSet<String>>,
    overload: Mutex<Overload>,
}

/// What was last seen of work that shards turned away.
#[derive(Debug, Default)]
struct Overload {
    turned_away: u64,
    until: Option<Instant>,
}

/// The answer to "is the node ready".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// A configuration is in force.
    pub config: bool,
    /// Every shard has opened its partitions, and one partition at least serves.
    pub storage: bool,
    /// Partitions that do not serve, or not fully; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionFault>,
    /// Every shard takes connections.
    pub listeners: bool,
    /// The node was not asked to end.
    pub control: bool,
    /// Work was turned away a moment ago; the only of these that is false in a ready node.
    pub overload: bool,
    /// Seconds after which to ask again; absent in a ready node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl HealthState {
    pub(crate) fn new(stats: Vec<Arc<Stats>>, storage: Arc<StorageState>) -> HealthState {
        // What was turned away before this began is no overload of now.
        let overload = Overload { turned_away: turned_away(&stats), until: None };
        HealthState {
            stats,
            storage,
            config: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            down: Mutex::default(),
            overload: Mutex::new(overload),
        }
    }

    /// Takes note of an event.
    pub fn apply(&self, event: &KernelEvent) {
        match event {
            KernelEvent::Health { service, ok: true } => {
                self.down.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
            }
            KernelEvent::Health { service, ok: false }
            | KernelEvent::ServiceCrashed { service, .. } => {
                let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
                down.insert(service.clone());
            }
            KernelEvent::ConfigUpdated { version } => {
                self.config.store(*version, Ordering::Relaxed);
            }
            KernelEvent::Shutdown => self.leave(),
        }
    }

    /// The node is going away: it is not ready from now on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    pub fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// How things are at `now`.
    ///
    /// The node counts as overloaded for [`OVERLOAD_HOLD`] after a look that found more work
    /// turned away (for want of connections, queue or memory) than the look before.
    pub fn look(&self, now: Instant) -> Readiness {
        let phases = || self.stats.iter().map(|stats| stats.phase());
        let open = |phase| matches!(phase, Phase::Serving | Phase::Draining);
        let all_up = self.down.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let overload_s = self.overload_left_s(now);
        let mut readiness = Readiness {
            ready: false,
            config: self.config.load(Ordering::Relaxed) > 0,
            storage: all_up && phases().all(open) && self.storage.serves(),
            partitions: self.storage.faults(),
            listeners: all_up && phases().all(|phase| phase == Phase::Serving),
            control: !self.leaving(),
            overload: overload_s > 0,
            retry_after: None,
        };
        readiness.ready = readiness.config
            && readiness.storage
            && readiness.listeners
            && readiness.control
            && !readiness.overload;
        if !readiness.ready {
            let booting = |phase| matches!(phase, Phase::Booting | Phase::Serving);
            let gone =
                !readiness.control || !all_up || !phases().all(booting) || !self.storage.serves();
            let starting = !(readiness.config && readiness.listeners);
            readiness.retry_after = Some(match (gone, starting) {
                (true, _) => RETRY_GONE_S,
                (false, true) => RETRY_BOOT_S.max(overload_s),
                (false, false) => overload_s,
            });
        }
        readiness
    }

    /// Seconds, rounded up, that the node still counts as overloaded.
    fn overload_left_s(&self, now: Instant) -> u64 {
        let turned_away = turned_away(&self.stats);
        let mut overload = self.overload.lock().unwrap_or_else(PoisonError::into_inner);
        if turned_away != overload.turned_away {
            overload.turned_away = turned_away;
            overload.until = Some(now + OVERLOAD_HOLD);
        }
        let left = overload.until.map(|until| until.saturating_duration_since(now));
        left.map_or(0, |left| left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }
}

fn turned_away(stats: &[Arc<Stats>]) -> u64 {
    let of = |stats: &Stats| {
        stats.rejected(Rejected::Connections).wrapping_add(stats.rejected(Rejected::Overload))
    };
    stats.iter().fold(0, |sum, stats| sum.wrapping_add(of(stats)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ron_io::ports::PartitionState;

    use super::*;

    fn over(stats: &[Arc<Stats>]) -> HealthState {
        let storage = StorageState::new(stats.to_vec(), 2);
        HealthState::new(stats.to_vec(), Arc::new(storage))
    }

    fn node(shards: usize) -> (Vec<Arc<Stats>>, HealthState) {
        let stats: Vec<Arc<Stats>> = (0..shards).map(|_| Arc::default()).collect();
        let health = over(&stats);
        health.apply(&KernelEvent::ConfigUpdated { version: 1 });
        (stats, health)
    }

    #[test]
    fn only_a_node_whose_shards_all_serve_is_ready() {
        let (stats, health) = node(2);
        stats[0].set_phase(Phase::Serving);
        let look = health.look(Instant::now());
        assert!(!look.ready && !look.storage && !look.listeners && look.config && look.control);
        assert_eq!(look.retry_after, Some(RETRY_BOOT_S));
        stats[1].set_phase(Phase::Serving);
        let look = health.look(Instant::now());
        assert!(look.ready && look.storage && look.listeners && !look.overload);
        assert_eq!(look.retry_after, None);
        stats[1].set_phase(Phase::Draining);
        let look = health.look(Instant::now());
        assert!(!look.ready && look.storage && !look.listeners);
        assert_eq!(look.retry_after, Some(RETRY_GONE_S));
        stats[1].set_phase(Phase::Failed);
        assert!(!health.look(Instant::now()).storage);
    }

    #[test]
    fn events_weigh_more_than_phases() {
        let (stats, health) = node(1);
        stats[0].set_phase(Phase::Serving);
        let service = "shard-0".to_owned();
        let crash = KernelEvent::ServiceCrashed { service: service.clone(), reason: "x".into() };
        health.apply(&crash);
        assert!(!health.look(Instant::now()).ready);
        health.apply(&KernelEvent::Health { service: service.clone(), ok: true });
        assert!(health.look(Instant::now()).ready);
        health.apply(&KernelEvent::Health { service, ok: false });
        assert_eq!(health.look(Instant::now()).retry_after, Some(RETRY_GONE_S));
    }

    #[test]
    fn a_node_without_configuration_or_on_its_way_out_is_not_ready() {
        let stats = vec![Arc::new(Stats::default())];
        stats[0].set_phase(Phase::Serving);
        let health = over(&stats);
        let look = health.look(Instant::now());
        assert!(!look.ready && !look.config);
        health.apply(&KernelEvent::ConfigUpdated { version: 7 });
        assert!(health.look(Instant::now()).ready);
        health.apply(&KernelEvent::Shutdown);
        let look = health.look(Instant::now());
        assert!(!look.ready && !look.control && look.storage && look.listeners);
    }

    #[test]
    fn a_node_is_ready_as_long_as_one_partition_serves() {
        let (stats, health) = node(1);
        stats[0].set_phase(Phase::Serving);
        health.storage.partition(1, PartitionState::Absent, "the volume is gone");
        let look = health.look(Instant::now());
        assert!(look.ready && look.storage && look.retry_after.is_none());
        assert_eq!((look.partitions.len(), look.partitions[0].partition), (1, 1));
        health.storage.partition(0, PartitionState::ReadOnly, "a sync failed");
        let look = health.look(Instant::now());
        assert!(!look.ready && !look.storage && look.listeners);
        assert_eq!(look.retry_after, Some(RETRY_GONE_S));
        health.storage.partition(1, PartitionState::Serving, "");
        assert!(health.look(Instant::now()).ready);
    }

    #[test]
    fn overload_is_held_and_then_forgotten() {
        let (stats, health) = node(1);
        stats[0].set_phase(Phase::Serving);
        let start = Instant::now();
        stats[0].reject(Rejected::Timeout);
        assert!(health.look(start).ready, "a slow peer is no overload");
        stats[0].reject(Rejected::Overload);
        let look = health.look(start);
        assert!(!look.ready && look.overload);
        assert_eq!(look.retry_after, Some(OVERLOAD_HOLD.as_secs()));
        let nearly = start + OVERLOAD_HOLD - Duration::from_nanos(1);
        assert_eq!(health.look(nearly).retry_after, Some(1));
        assert!(health.look(start + OVERLOAD_HOLD).ready);
        stats[0].reject(Rejected::Connections);
        assert!(health.look(start + OVERLOAD_HOLD).overload);
    }
}
