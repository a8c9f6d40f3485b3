//! Whether the node is ready for traffic, and if not, why and for how long.
//!
//! Every reason has a name, and `/readyz` lists those that hold. The one place to add another is
//! [`HealthState::reasons`]: a name, and what is looked at to tell whether it holds.
//!
//! What the shards say of themselves is read from their counters when somebody asks; events add
//! what counters cannot say, such as a thread that is gone. Partitions that cannot do all they
//! should are named, and the node stays ready as long as one is left that can: the rest go on.
//! Nothing here runs on a timer, so an idle node stays asleep.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use ron_io::{
    peers::PEER_BUCKETS,
    stats::{Phase, Rejected, Stats},
    watch::clock_ns,
};
use serde::Serialize;

use crate::{
    bus::KernelEvent,
    limits::{
        LOAD_ALL_MIN, LOAD_ALL_SHARE, LOAD_ENTER, LOAD_LEAVE, LOAD_LOOK_EVERY, LOAD_WINDOW,
        RETRY_BOOT_S, RETRY_GONE_S, TURN_STALL,
    },
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
    pub(crate) fn new(stats: Vec<Arc<Stats>>, storage: Arc<StorageState>) -> HealthState {
        let load = Mutex::new(Load::new(Work::of(&stats)));
        HealthState {
            stats,
            storage,
            config: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            down: Mutex::default(),
            load,
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
    pub fn look(&self, now: Instant) -> Readiness {
        let reasons = self.reasons(now);
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

    /// Takes note of the work that was done up to `now`.
    pub(crate) fn measure(&self, now: Instant) {
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        load.look(Work::of(&self.stats), now);
    }

    /// Looks at the load that are kept.
    #[cfg(test)]
    pub(crate) fn looks_kept(&self) -> usize {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).looks.len()
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

/// What the shards did since they began.
#[derive(Clone, Debug)]
struct Work {
    /// Of the peers in each bucket: requests that were answered, whatever with, and those of them
    /// that were turned away for want of memory or of room in a queue.
    peers: Vec<(u64, u64)>,
    /// Connections that were turned away because there were too many. One that is dropped because
    /// it buffers too much is no sign of load: a single peer could make a node unready by it.
    connections: u64,
}

impl Work {
    fn of(stats: &[Arc<Stats>]) -> Work {
        let mut peers = vec![(0u64, 0u64); PEER_BUCKETS];
        for stats in stats {
            for (sum, (asked, turned_away)) in peers.iter_mut().zip(stats.peers.all()) {
                *sum = (sum.0.wrapping_add(asked), sum.1.wrapping_add(turned_away));
            }
        }
        let connections = stats.iter().map(|stats| stats.rejected(Rejected::Connections));
        Work { peers, connections: connections.fold(0, u64::wrapping_add) }
    }

    fn since(&self, before: &Work) -> Work {
        let peers = self.peers.iter().zip(&before.peers);
        let peers =
            peers.map(|(now, then)| (now.0.wrapping_sub(then.0), now.1.wrapping_sub(then.1)));
        Work {
            peers: peers.collect(),
            connections: self.connections.wrapping_sub(before.connections),
        }
    }

    /// Requests that were turned away.
    fn turned_away(&self) -> u64 {
        self.peers.iter().map(|(_, turned_away)| turned_away).sum()
    }

    /// Which share of their requests was turned away, in the mean of all peers that asked: one that
    /// asks again and again weighs no more than one that asks now and then, served or not.
    fn share(&self) -> f64 {
        let active = || self.peers.iter().filter(|(asked, turned_away)| asked + turned_away > 0);
        let shares = active()
            .map(|(asked, turned_away)| *turned_away as f64 / (*asked).max(*turned_away) as f64);
        shares.sum::<f64>() / active().count().max(1) as f64
    }
}

/// Whether the node turns away a good part of its work, over the last [`LOAD_WINDOW`].
///
/// `stuck::run` looks every second while a shard does anything, and when the first one begins to:
/// so the window is the same however often readiness is asked for. Where the control thread could
/// not look for longer than that, the time since its last look is judged.
///
/// Peers are told apart, so that one alone makes no load, neither by what it is refused nor by what
/// it is served: the share is the mean of theirs. Behind a proxy all are one.
///
/// One request in a quiet second that had bad luck is no load, however great its share is; so both
/// a rate and a share must be reached, unless nearly all of several requests were turned away. What
/// was overload stays so until both have clearly fallen.
#[derive(Debug)]
struct Load {
    /// The looks of the window, and the last before it.
    looks: VecDeque<(Instant, Work)>,
    before: Work,
    overload: bool,
}

impl Load {
    /// What was done before this begins is no load of now.
    fn new(before: Work) -> Load {
        Load { looks: VecDeque::new(), before, overload: false }
    }

    fn look(&mut self, work: Work, now: Instant) -> bool {
        let Some((last, _)) = self.looks.back() else {
            self.looks.push_back((now, self.before.clone()));
            return self.look(work, now);
        };
        let is_new = now.saturating_duration_since(*last) >= LOAD_LOOK_EVERY;
        while let Some((oldest, _)) = self.looks.front()
            && self.looks.len() > 1
            && now.saturating_duration_since(*oldest) > LOAD_WINDOW
        {
            self.looks.pop_front();
        }
        let Some((since, before)) = self.looks.front() else { return self.overload };
        let done = work.since(before);
        // Less than a second is taken for one: a moment has no rate.
        let seconds = now.saturating_duration_since(*since).as_secs_f64().max(1.0);
        let (rate, share, connections) =
            (done.turned_away() as f64 / seconds, done.share(), done.connections as f64 / seconds);
        let limit = if self.overload { LOAD_LEAVE } else { LOAD_ENTER };
        let nearly_all = done.turned_away() >= LOAD_ALL_MIN && share >= LOAD_ALL_SHARE;
        self.overload = nearly_all
            || rate >= limit.rate && share >= limit.share
            || connections >= limit.connections;
        if is_new {
            self.looks.push_back((now, work));
        }
        self.overload
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ron_io::{
        ports::PartitionState,
        stats::{Op, Proto},
    };

    use super::*;
    use crate::storage::SetAside;

    fn over(stats: &[Arc<Stats>]) -> HealthState {
        let storage = StorageState::new(stats.to_vec(), 2, SetAside::new(|| 0));
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

    /// A node, and a clock that goes on by a look at a time.
    struct Loaded {
        stats: Vec<Arc<Stats>>,
        health: HealthState,
        now: Instant,
    }

    /// So many requests of a peer are served, and turned away.
    fn answer(stats: &Stats, peer: u8, served: u64, turned_away: u64) {
        let bucket = stats.peers.bucket(peer);
        let asked = (Proto::Http, Op::Get);
        (0..served + turned_away).for_each(|_| stats.request(bucket, asked, 200, 1));
        (0..turned_away).for_each(|_| stats.turn_away(bucket));
    }

    impl Loaded {
        fn new() -> Loaded {
            let (stats, health) = node(1);
            stats[0].set_phase(Phase::Serving);
            Loaded { stats, health, now: Instant::now() }
        }

        /// So much happens each second, for so long, with a look every second.
        fn runs(&mut self, seconds: u64, served: u64, turned_away: u64) -> bool {
            let mut overload = false;
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                answer(&self.stats[0], 1, served, turned_away);
                let look = self.health.look(self.now);
                overload = look.overload;
                assert_eq!(look.ready, !overload);
                assert_eq!(look.reasons.contains(&Reason::Overload), overload);
                assert_eq!(look.retry_after, overload.then(|| LOAD_WINDOW.as_secs()));
            }
            overload
        }
    }

    #[test]
    fn one_unlucky_request_is_no_overload() {
        let mut node = Loaded::new();
        assert!(!node.runs(1, 0, 1), "all of the work of this second, and one request");
        assert!(!node.runs(30, 100, 8), "a writer that meets a deletion again and again");
        node.stats[0].reject(Rejected::Timeout);
        assert!(!node.runs(1, 0, 0), "a slow peer");
        node.stats[0].reject(Rejected::Connections);
        assert!(!node.runs(1, 0, 0), "one connection");
    }

    #[test]
    fn overload_needs_a_rate_and_a_share_and_ends_when_both_have_fallen() {
        let mut node = Loaded::new();
        assert!(!node.runs(20, 1000, 100), "a tenth");
        assert!(node.runs(20, 100, 100), "a half");
        assert!(node.runs(20, 900, 100), "a tenth is still too much");
        assert!(!node.runs(20, 1000, 1), "next to nothing");
        assert!(!node.runs(20, 1000, 100), "a tenth is not enough again");
    }

    #[test]
    fn a_node_that_turns_nearly_everything_away_is_not_ready_however_little_it_is_asked() {
        let mut node = Loaded::new();
        assert!(!node.runs(1, 0, 1) && !node.runs(1, 0, 1), "two");
        assert!(node.runs(1, 0, 1), "three, and nothing else");
        assert!(!node.runs(2 * LOAD_WINDOW.as_secs(), 1, 0));
        assert!(!node.runs(8, 1, 1), "every other");
    }

    #[test]
    fn a_peer_alone_makes_no_load_and_hides_none() {
        let mut node = Loaded::new();
        // Each of the others asks ten times a second.
        let mut second = |greedy: (u64, u64), turned_away: u64| {
            answer(&node.stats[0], 0, greedy.0, greedy.1);
            (2..40).for_each(|peer| answer(&node.stats[0], peer, 10 - turned_away, turned_away));
            node.runs(1, 0, 0)
        };
        assert!(!(0..20).any(|_| second((0, 20_000), 0)), "one is refused all that it asks");
        assert!((0..20).any(|_| second((20_000, 0), 5)), "one asks for what is cheap");
        assert!(!(0..30).fold(true, |_, _| second((0, 20_000), 0)), "the others are served again");
    }

    #[test]
    fn overload_that_nobody_looked_at_is_judged_over_all_of_its_time() {
        let mut node = Loaded::new();
        assert!(!node.runs(1, 0, 0));
        answer(&node.stats[0], 1, 100, 100);
        node.now += Duration::from_secs(100);
        assert!(!node.health.look(node.now).overload, "one a second");
        answer(&node.stats[0], 1, 0, 1000);
        node.now += Duration::from_secs(100);
        assert!(node.health.look(node.now).overload, "ten a second");
        assert!(!node.runs(2 * LOAD_WINDOW.as_secs(), 0, 0), "nothing any more");
    }

    #[test]
    fn a_quiet_hour_is_no_part_of_the_window() {
        let mut node = Loaded::new();
        node.health.measure(node.now);
        node.now += Duration::from_secs(3600);
        // The first work of an hour wakes who measures.
        node.health.measure(node.now);
        for _ in 0..5 {
            node.now += Duration::from_secs(1);
            answer(&node.stats[0], 1, 0, 100);
            node.health.measure(node.now);
        }
        assert!(node.health.look(node.now).overload, "a hundred a second");
        // And what was is none of the window as soon as that has passed.
        for _ in 0..12 {
            node.now += Duration::from_secs(1);
            node.health.measure(node.now);
        }
        node.now += Duration::from_secs(3600);
        node.health.measure(node.now);
        assert!(!node.health.look(node.now).overload);
    }

    #[test]
    fn connections_that_find_no_place_are_overload_by_themselves() {
        let mut node = Loaded::new();
        for _ in 0..60 {
            node.stats[0].reject(Rejected::Connections);
        }
        assert!(node.runs(1, 100_000, 0));
        assert!(!node.runs(2 * LOAD_WINDOW.as_secs(), 1, 0));
    }

    #[test]
    fn many_looks_in_a_moment_are_kept_as_few() {
        let (stats, _) = node(1);
        let (mut load, mut now) = (Load::new(Work::of(&stats)), Instant::now());
        for _ in 0..10_000 {
            now += Duration::from_millis(7);
            load.look(Work::of(&stats), now);
        }
        let most = LOAD_WINDOW.as_millis() / LOAD_LOOK_EVERY.as_millis() + 2;
        assert!(load.looks.len() as u128 <= most, "{}", load.looks.len());
    }

    #[test]
    fn a_turn_that_does_not_end_makes_the_node_unready_and_names_the_shard() {
        let (stats, health) = node(2);
        stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
        stats[1].watch.turn(clock_ns() + TURN_STALL.as_nanos() as u64);
        stats[1].watch.begin(ron_io::watch::Work::Tls);
        assert!(health.look(Instant::now()).ready, "it has just begun");
        // Nothing here moves the clock: the turn began long ago instead.
        stats[1].watch.turn(1);
        let begun = Instant::now();
        while health.look(Instant::now()).ready {
            stats[1].watch.begin(ron_io::watch::Work::Tls);
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
