//! Whether the node is ready for traffic, and if not, why and for how long.
//!
//! Every reason has a name, and `/readyz` lists those that hold. The one place to add another is
//! `HealthState::reasons`: a name, and what is looked at to tell whether it holds.
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

use ron_io::{
    stats::{Phase, Stats},
    watch::clock_ns,
};
use serde::Serialize;

use crate::{
    bus::KernelEvent,
    limits::{LOAD_WINDOW, RETRY_BOOT_S, RETRY_GONE_S, TURN_STALL},
    load::{Clients, Load, Work},
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
    load: Mutex<Load>,
    /// The reasons that were last logged.
    noted: Mutex<Vec<Reason>>,
}

/// Why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No configuration is in force.
    Config,
    /// A shard has not opened its partitions, or no partition serves.
    Storage,
    /// A shard takes no connections.
    Listeners,
    /// The node was asked to end.
    Leaving,
    /// It turns away a good part of its work.
    Overload,
    /// A shard fails to accept connections, for want of descriptors or memory.
    Accepting,
    /// A turn of a shard's event loop does not end.
    EventLoopStall,
}

impl Reason {
    /// As `/readyz` and the log have it.
    fn name(self) -> &'static str {
        match self {
            Reason::Config => "config",
            Reason::Storage => "storage",
            Reason::Listeners => "listeners",
            Reason::Leaving => "leaving",
            Reason::Overload => "overload",
            Reason::Accepting => "accepting",
            Reason::EventLoopStall => "event_loop_stall",
        }
    }

    /// Whether the node will not come back by itself.
    fn is_final(self) -> bool {
        self == Reason::Leaving
    }
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
    /// No shard fails to accept connections, for want of descriptors or memory.
    pub accepting: bool,
    /// Shards whose event loop is stalled; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_loop_stall: Vec<usize>,
    /// The node was not asked to end.
    pub control: bool,
    /// A good part of the work is turned away; the only of these that is false in a ready node.
    pub overload: bool,
    /// All that keeps the node from being ready; absent when nothing does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Seconds after which to ask again; absent in a ready node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl HealthState {
    pub(crate) fn new(
        stats: Vec<Arc<Stats>>,
        storage: Arc<StorageState>,
        clients: Clients,
    ) -> HealthState {
        let load = Mutex::new(Load::new(Work::of(&stats), clients));
        HealthState {
            stats,
            storage,
            config: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            down: Mutex::default(),
            load,
            noted: Mutex::new(vec![Reason::Config]),
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

    /// The node is shutting down: it is not ready from now on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    pub fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// How things are at `now`.
    pub fn look(&self, now: Instant) -> Readiness {
        let reasons = self.reasons(now);
        self.note(&reasons);
        let lacks = |reason| reasons.contains(&reason);
        Readiness {
            ready: reasons.is_empty(),
            config: !lacks(Reason::Config),
            storage: !lacks(Reason::Storage),
            partitions: self.storage.faults(),
            listeners: !lacks(Reason::Listeners),
            accepting: !lacks(Reason::Accepting),
            event_loop_stall: self.stalled(),
            control: !lacks(Reason::Leaving),
            overload: lacks(Reason::Overload),
            retry_after: (!reasons.is_empty()).then(|| self.retry_after(&reasons)),
            reasons,
        }
    }

    /// Takes note of the work that was done up to `now`, and logs when the node has become ready or
    /// is ready no more.
    pub(crate) fn measure(&self, now: Instant) {
        self.note(&self.reasons(now));
    }

    fn note(&self, reasons: &[Reason]) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted == reasons {
            return;
        }
        *noted = reasons.to_vec();
        let names = || reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(", ");
        match reasons {
            [] => tracing::info!("ready"),
            _ if reasons.contains(&Reason::Leaving) => tracing::info!("not ready: {}", names()),
            _ => tracing::warn!("not ready: {}", names()),
        }
    }

    /// Looks at the load that are kept.
    #[cfg(test)]
    pub(crate) fn looks_kept(&self) -> usize {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).looks_kept()
    }

    /// All that keeps the node from being ready at `now`.
    fn reasons(&self, now: Instant) -> Vec<Reason> {
        let phases = || self.stats.iter().map(|stats| stats.phase());
        let open = |phase| matches!(phase, Phase::Serving | Phase::Draining);
        let is_up = self.is_all_up();
        let stored = is_up && phases().all(open) && self.storage.serves();
        let listening = is_up && phases().all(|phase| phase == Phase::Serving);
        let paused = |stats: &Arc<Stats>| stats.watch.ring.accept_paused.get() > 0;
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = [
            (Reason::Config, self.config.load(Ordering::Relaxed) == 0),
            (Reason::Storage, !stored),
            (Reason::Listeners, !listening),
            (Reason::Leaving, self.leaving()),
            (Reason::Overload, load.look(Work::of(&self.stats), now)),
            (Reason::Accepting, self.stats.iter().any(paused)),
            (Reason::EventLoopStall, !self.stalled().is_empty()),
        ];
        holds.into_iter().filter(|(_, holds)| *holds).map(|(reason, _)| reason).collect()
    }

    /// The shards whose present turn lasts for [`TURN_STALL`] already.
    pub(crate) fn stalled(&self) -> Vec<usize> {
        let now_ns = clock_ns();
        let lasts = |stats: &Stats| stats.watch.turn_lasts(now_ns).unwrap_or_default();
        let stalled = |(_, stats): &(usize, &Arc<Stats>)| lasts(stats) >= TURN_STALL;
        self.stats.iter().enumerate().filter(stalled).map(|(shard, _)| shard).collect()
    }

    /// Whether no service has ended.
    fn is_all_up(&self) -> bool {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Seconds after which to ask again.
    fn retry_after(&self, reasons: &[Reason]) -> u64 {
        let booting = |stats: &Arc<Stats>| matches!(stats.phase(), Phase::Booting | Phase::Serving);
        let comes_back =
            self.is_all_up() && self.stats.iter().all(booting) && self.storage.serves();
        if !comes_back || reasons.iter().any(|reason| reason.is_final()) {
            return RETRY_GONE_S;
        }
        if reasons == [Reason::Overload] { LOAD_WINDOW.as_secs() } else { RETRY_BOOT_S }
    }
}

#[cfg(test)]
mod tests {
    use ron_io::ports::PartitionState;

    use super::*;
    use crate::storage::SetAside;

    fn over(stats: &[Arc<Stats>]) -> HealthState {
        let storage = StorageState::new(stats.to_vec(), 2, SetAside::new(|| 0));
        HealthState::new(stats.to_vec(), Arc::new(storage), Clients::Direct)
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
    fn a_turn_that_does_not_end_makes_the_node_unready_and_names_the_shard() {
        let (stats, health) = node(2);
        stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
        stats[1].watch.turn(clock_ns() + TURN_STALL.as_nanos() as u64);
        stats[1].watch.begin(ron_io::work::Work::Tls);
        assert!(health.look(Instant::now()).ready, "it has just begun");
        // Nothing here moves the clock: the turn began long ago instead.
        stats[1].watch.turn(1);
        let begun = Instant::now();
        while health.look(Instant::now()).ready {
            stats[1].watch.begin(ron_io::work::Work::Tls);
            assert!(begun.elapsed() < 10 * TURN_STALL, "no stall was seen");
            std::thread::yield_now();
        }
        let look = health.look(Instant::now());
        assert_eq!((look.event_loop_stall, look.retry_after), (vec![1], Some(RETRY_BOOT_S)));
        assert_eq!(look.reasons, [Reason::EventLoopStall]);
        stats[1].watch.rest();
        assert!(health.look(Instant::now()).ready);
    }

    #[test]
    fn a_node_that_cannot_accept_is_not_ready() {
        let (stats, health) = node(2);
        stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
        stats[1].watch.ring.accept_paused.set(1);
        let look = health.look(Instant::now());
        assert!(!look.ready && !look.accepting && look.listeners);
        assert_eq!((look.reasons, look.retry_after), (vec![Reason::Accepting], Some(RETRY_BOOT_S)));
        stats[1].watch.ring.accept_paused.set(0);
        assert!(health.look(Instant::now()).ready);
    }
}
