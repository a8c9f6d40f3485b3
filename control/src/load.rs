//! Whether the node turns away a good part of its work.
//!
//! Peers are counted apart, so that one alone makes no load, neither by what it is refused nor by
//! what it is served: the share of refusals is the mean of theirs, and the few that are refused
//! most are left out. Behind a proxy all are one, and that one counts.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use ron_io::{
    peers::{PEER_BUCKETS, PeerWork},
    stats::Stats,
};

use crate::limits::{
    LOAD_ALL_MIN, LOAD_ALL_SHARE, LOAD_ENTER, LOAD_LEAVE, LOAD_LOOK_EVERY, LOAD_PEERS_SPARED,
    LOAD_WINDOW,
};

/// Who asks the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Each from an address of its own.
    Direct,
    /// Many from one address: no address is left out for being refused most.
    Proxied,
}

/// What the shards did since they began, of the peers in each bucket.
#[derive(Clone, Debug)]
pub(crate) struct Work(Vec<PeerWork>);

impl Work {
    pub(crate) fn of(stats: &[Arc<Stats>]) -> Work {
        let mut peers = vec![PeerWork::default(); PEER_BUCKETS];
        for stats in stats {
            for (sum, work) in peers.iter_mut().zip(stats.peers.all()) {
                sum.asked = sum.asked.wrapping_add(work.asked);
                sum.turned_away = sum.turned_away.wrapping_add(work.turned_away);
                sum.unconnected = sum.unconnected.wrapping_add(work.unconnected);
            }
        }
        Work(peers)
    }

    fn since(&self, before: &Work) -> Work {
        let since = |(now, then): (&PeerWork, &PeerWork)| PeerWork {
            asked: now.asked.wrapping_sub(then.asked),
            turned_away: now.turned_away.wrapping_sub(then.turned_away),
            unconnected: now.unconnected.wrapping_sub(then.unconnected),
        };
        Work(self.0.iter().zip(&before.0).map(since).collect())
    }

    /// Without the `spared` peers with the most requests turned away: how many requests were,
    /// and which share of their requests that is, in the mean of all peers that asked. One that
    /// asks again and again weighs no more than one that asks now and then, served or not.
    fn turned_away(&self, spared: usize) -> (u64, f64) {
        let active = self.0.iter().filter(|work| work.asked + work.turned_away > 0);
        let mut active: Vec<&PeerWork> = active.collect();
        active.sort_unstable_by_key(|work| std::cmp::Reverse(work.turned_away));
        // Those that are turned away nothing weigh as before: only refusals are left out.
        let left =
            active.iter().enumerate().filter(|(nth, work)| *nth >= spared || work.turned_away == 0);
        let (mut refused, mut shares, mut peers) = (0, 0.0, 0);
        for (_, work) in left {
            refused += work.turned_away;
            shares += work.turned_away as f64 / work.asked.max(work.turned_away) as f64;
            peers += 1;
        }
        (refused, shares / f64::from(peers.max(1)))
    }

    /// Connections that were refused because there were too many, but for those of the `spared`
    /// peers with the most of them. A connection that is dropped because it buffers too much is no
    /// sign of load: a single peer could make a node unready by it.
    fn unconnected(&self, spared: usize) -> u64 {
        let mut refused: Vec<u64> = self.0.iter().map(|work| work.unconnected).collect();
        refused.sort_unstable_by_key(|refused| std::cmp::Reverse(*refused));
        refused.into_iter().skip(spared).sum()
    }
}

/// Whether the node turns away a good part of its work, over the last [`LOAD_WINDOW`].
///
/// `stuck::run` looks every second while a shard does anything, and when the first one begins to:
/// so the window is the same however often readiness is asked for. Where the control thread could
/// not look for longer than that, the time since its last look is judged.
///
/// One request in a quiet second that had bad luck is no load, however great its share is; so both
/// a rate and a share must be reached, unless nearly all of several requests were turned away. What
/// was overload stays so until both have clearly fallen.
#[derive(Debug)]
pub(crate) struct Load {
    /// How many of the peers that are refused most are left out.
    spared: usize,
    /// The looks of the window, and the last before it.
    looks: VecDeque<(Instant, Work)>,
    before: Work,
    overload: bool,
}

impl Load {
    /// What was done before this begins is no load of now.
    pub(crate) fn new(before: Work, clients: Clients) -> Load {
        let spared = match clients {
            Clients::Direct => LOAD_PEERS_SPARED,
            Clients::Proxied => 0,
        };
        Load { spared, looks: VecDeque::new(), before, overload: false }
    }

    /// Takes note of what was done up to `now`. Returns whether the node is overloaded.
    pub(crate) fn look(&mut self, work: Work, now: Instant) -> bool {
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
        let (turned_away, share) = done.turned_away(self.spared);
        let rate = turned_away as f64 / seconds;
        let connections = done.unconnected(self.spared) as f64 / seconds;
        let limit = if self.overload { LOAD_LEAVE } else { LOAD_ENTER };
        let nearly_all = turned_away >= LOAD_ALL_MIN && share >= LOAD_ALL_SHARE;
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
impl Load {
    pub(crate) fn looks_kept(&self) -> usize {
        self.looks.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ron_io::{
        peers::{PeerBucket, PeerCounts},
        stats::{Op, Proto, Rejected},
    };

    use super::*;

    /// So many peers, each in a bucket of its own.
    fn apart(peers: usize) -> Vec<PeerBucket> {
        let counts = PeerCounts::default();
        let mut apart: Vec<PeerBucket> = Vec::new();
        for bucket in (0u32..).map(|peer| counts.bucket(peer)) {
            if apart.len() == peers {
                break;
            }
            if !apart.contains(&bucket) {
                apart.push(bucket);
            }
        }
        apart
    }

    /// So many requests of a peer are served, and turned away.
    fn answer(stats: &Stats, peer: PeerBucket, served: u64, turned_away: u64) {
        let asked = (Proto::Http, Op::Get);
        (0..served + turned_away).for_each(|_| stats.request(peer, asked, 200, 1));
        (0..turned_away).for_each(|_| stats.turn_away(peer));
    }

    /// Two shards, and a clock that goes on by a look at a time.
    struct Loaded {
        stats: Vec<Arc<Stats>>,
        load: Load,
        now: Instant,
    }

    impl Loaded {
        fn new(clients: Clients) -> Loaded {
            let stats: Vec<Arc<Stats>> = (0..2).map(|_| Arc::default()).collect();
            let load = Load::new(Work::of(&stats), clients);
            Loaded { stats, load, now: Instant::now() }
        }

        fn look(&mut self) -> bool {
            self.load.look(Work::of(&self.stats), self.now)
        }

        fn second(&mut self) -> bool {
            self.now += Duration::from_secs(1);
            self.look()
        }

        /// One peer, which is a proxy or not, has so much done each second for so long.
        fn runs(&mut self, seconds: u64, served: u64, turned_away: u64) -> bool {
            let peer = self.stats[0].peers.bucket(1);
            (0..seconds).fold(false, |_, _| {
                answer(&self.stats[0], peer, served, turned_away);
                self.second()
            })
        }
    }

    #[test]
    fn one_unlucky_request_is_no_overload() {
        let mut node = Loaded::new(Clients::Proxied);
        assert!(!node.runs(1, 0, 1), "all of the work of this second, and one request");
        assert!(!node.runs(30, 100, 8), "a writer that meets a deletion again and again");
        node.stats[0].reject(Rejected::Timeout);
        assert!(!node.runs(1, 0, 0), "a slow peer");
        node.stats[0].refuse_connection(node.stats[0].peers.bucket(1));
        assert!(!node.runs(1, 0, 0), "one connection");
    }

    #[test]
    fn overload_needs_a_rate_and_a_share_and_ends_when_both_have_fallen() {
        let mut node = Loaded::new(Clients::Proxied);
        assert!(!node.runs(20, 1000, 100), "a tenth");
        assert!(node.runs(20, 100, 100), "a half");
        assert!(node.runs(20, 900, 100), "a tenth is still too much");
        assert!(!node.runs(20, 1000, 1), "next to nothing");
        assert!(!node.runs(20, 1000, 100), "a tenth is not enough again");
    }

    #[test]
    fn a_node_that_turns_nearly_everything_away_is_not_ready_however_little_it_is_asked() {
        let mut node = Loaded::new(Clients::Proxied);
        assert!(!node.runs(1, 0, 1) && !node.runs(1, 0, 1), "two");
        assert!(node.runs(1, 0, 1), "three, and nothing else");
        assert!(!node.runs(2 * LOAD_WINDOW.as_secs(), 1, 0));
        assert!(!node.runs(8, 1, 1), "every other");
    }

    #[test]
    fn a_peer_alone_makes_no_load_and_hides_none() {
        let mut node = Loaded::new(Clients::Direct);
        let peers = apart(40);
        // Each of the others asks ten times a second.
        let mut second = |greedy: (u64, u64), turned_away: u64| {
            answer(&node.stats[0], peers[0], greedy.0, greedy.1);
            for peer in &peers[1..] {
                answer(&node.stats[0], *peer, 10 - turned_away, turned_away);
            }
            node.second()
        };
        assert!(!(0..20).any(|_| second((0, 20_000), 0)), "one is refused all that it asks");
        assert!((0..20).any(|_| second((20_000, 0), 5)), "one asks for what is cheap");
        assert!(!(0..30).fold(true, |_, _| second((0, 20_000), 0)), "the others are served again");
    }

    /// Few or none are served beside them, and a proxy would be in their place.
    #[test]
    fn the_peers_that_are_refused_most_are_left_out() {
        for others in [0, 1, 3] {
            let mut node = Loaded::new(Clients::Direct);
            let peers = apart(LOAD_PEERS_SPARED + others + 1);
            let (greedy, honest) = peers.split_at(LOAD_PEERS_SPARED);
            let mut second = |honest_refused: u64| {
                for (nth, peer) in greedy.iter().enumerate() {
                    let stats = &node.stats[nth % 2];
                    answer(stats, *peer, 0, 1000);
                    (0..1000).for_each(|_| stats.refuse_connection(*peer));
                }
                for peer in &honest[..others] {
                    answer(&node.stats[0], *peer, 10 - honest_refused, honest_refused);
                }
                node.second()
            };
            assert!(!(0..20).any(|_| second(0)), "{others} others are served");
            // The share of every other is a half.
            assert_eq!((0..20).any(|_| second(5)), others > 0);
            assert!(!(0..30).fold(true, |_, _| second(0)), "{others} are served again");
        }
        for connections in [false, true] {
            let mut node = Loaded::new(Clients::Direct);
            for peer in apart(LOAD_PEERS_SPARED + 1) {
                match connections {
                    true => (0..60).for_each(|_| node.stats[1].refuse_connection(peer)),
                    false => answer(&node.stats[1], peer, 0, 60),
                }
            }
            assert!(node.second(), "one more than that are refused");
        }
    }

    #[test]
    fn a_peer_of_two_shards_is_one() {
        let mut node = Loaded::new(Clients::Direct);
        for peer in 0..LOAD_PEERS_SPARED {
            for stats in &node.stats {
                let peer = stats.peers.bucket(peer);
                answer(stats, peer, 0, 1000);
                (0..1000).for_each(|_| stats.refuse_connection(peer));
            }
        }
        assert!(!node.second());
    }

    #[test]
    fn overload_that_nobody_looked_at_is_judged_over_all_of_its_time() {
        let mut node = Loaded::new(Clients::Proxied);
        let peer = node.stats[0].peers.bucket(1);
        assert!(!node.runs(1, 0, 0));
        answer(&node.stats[0], peer, 100, 100);
        node.now += Duration::from_secs(100);
        assert!(!node.look(), "one a second");
        answer(&node.stats[0], peer, 0, 1000);
        node.now += Duration::from_secs(100);
        assert!(node.look(), "ten a second");
        assert!(!node.runs(2 * LOAD_WINDOW.as_secs(), 0, 0), "nothing any more");
    }

    #[test]
    fn a_quiet_hour_is_no_part_of_the_window() {
        let mut node = Loaded::new(Clients::Proxied);
        node.look();
        node.now += Duration::from_secs(3600);
        // The first work of an hour wakes who measures.
        node.look();
        assert!(node.runs(5, 0, 100), "a hundred a second");
        // And the past leaves the window as soon as that has passed.
        node.runs(12, 0, 0);
        node.now += Duration::from_secs(3600);
        assert!(!node.look());
    }

    #[test]
    fn connections_that_find_no_place_are_overload_by_themselves() {
        let mut node = Loaded::new(Clients::Proxied);
        for _ in 0..60 {
            node.stats[0].refuse_connection(node.stats[0].peers.bucket(1));
        }
        assert!(node.runs(1, 100_000, 0));
        assert!(!node.runs(2 * LOAD_WINDOW.as_secs(), 1, 0));
    }

    #[test]
    fn many_looks_in_a_moment_are_kept_as_few() {
        let mut node = Loaded::new(Clients::Direct);
        for _ in 0..10_000 {
            node.now += Duration::from_millis(7);
            node.look();
        }
        let most = LOAD_WINDOW.as_millis() / LOAD_LOOK_EVERY.as_millis() + 2;
        assert!(node.load.looks.len() as u128 <= most, "{}", node.load.looks.len());
    }
}
