//! The counters of one shard, written by its thread alone and read by any.
//!
//! Readers see values that may be a moment old, never torn.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{
    arena::Owner,
    counter::Counter,
    latency::{HISTOGRAM_LEN, Latencies},
    limits::{FAILURE_REPORT_EVERY, FAILURE_REPORTS_BURST},
    peers::{PeerBucket, PeerCounts},
    watch::Watch,
};

/// Lets through a burst of reports and then one every so often, and counts the others. Written by
/// the shard's thread alone.
#[derive(Debug, Default)]
pub struct Gate {
    /// When the next report would be on time, in `Now::mono_ns`; later by one period for each that
    /// was early.
    on_time_ns: Counter,
    unreported: Counter,
}

impl Gate {
    /// Whether something that happens at `now_ns` may be reported, and if so, how many were not
    /// since the last that was.
    pub fn admit(&self, now_ns: u64) -> Option<u64> {
        let every_ns = FAILURE_REPORT_EVERY.as_nanos() as u64;
        let on_time_ns = self.on_time_ns.get().max(now_ns);
        if on_time_ns - now_ns > (FAILURE_REPORTS_BURST - 1) * every_ns {
            self.unreported.add(1);
            return None;
        }
        self.on_time_ns.set(on_time_ns.saturating_add(every_ns));
        let unreported = self.unreported.get();
        self.unreported.set(0);
        Some(unreported)
    }
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    Http,
    Https,
    Oap,
}

impl Proto {
    pub const ALL: [Proto; 3] = [Proto::Http, Proto::Https, Proto::Oap];

    pub fn name(self) -> &'static str {
        match self {
            Proto::Http => "http",
            Proto::Https => "https",
            Proto::Oap => "oap",
        }
    }
}

/// What a request wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Get,
    Head,
    Put,
    Delete,
    Has,
    Hello,
    Other,
}

impl Op {
    pub const ALL: [Op; 7] =
        [Op::Get, Op::Head, Op::Put, Op::Delete, Op::Has, Op::Hello, Op::Other];

    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Head => "head",
            Op::Put => "put",
            Op::Delete => "delete",
            Op::Has => "has",
            Op::Hello => "hello",
            Op::Other => "other",
        }
    }
}

/// The codes requests are counted under; the last stands for every other.
pub const CODES: [u16; 31] = [
    0, 200, 201, 204, 206, 301, 304, 400, 401, 402, 403, 404, 405, 406, 408, 409, 412, 413, 414,
    416, 417, 429, 431, 500, 501, 502, 503, 504, 505, 507, 599,
];

/// Upper bounds of the request-time buckets, in microseconds; one more bucket has no bound.
pub const SECONDS_BUCKETS_US: [u64; 18] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// Request times of one protocol and operation. The few buckets are those that are exported: their
/// bounds are decimal and those of the many are not, so neither can be had from the other.
#[derive(Debug, Default)]
pub struct Times {
    pub buckets: [Counter; SECONDS_BUCKETS_US.len() + 1],
    pub sum_ns: Counter,
    pub latencies: Latencies,
}

/// Bytes of all `Times::latencies` of one shard.
pub const LATENCIES_LEN: usize = Proto::ALL.len() * Op::ALL.len() * HISTOGRAM_LEN;

/// How an encoded copy is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    Br,
    Zstd,
}

impl Encoded {
    pub const ALL: [Encoded; 2] = [Encoded::Br, Encoded::Zstd];

    /// What `Content-Encoding` says.
    pub const fn name(self) -> &'static str {
        match self {
            Encoded::Br => "br",
            Encoded::Zstd => "zstd",
        }
    }
}

/// Why something was turned away before it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// The shard has its most connections.
    Connections,
    /// The queue to another shard, or the memory for blocks, is full.
    Overload,
    /// A deadline passed.
    Timeout,
    /// The peer broke the protocol.
    Protocol,
    /// The node is shutting down.
    Draining,
    /// The peer has its most connections of the shard.
    PeerConnections,
    /// The peer has as many uploads with files as are left for all.
    PeerUploads,
    /// Connections buffer more than they may together, and this one took least of its own.
    Memory,
    /// An object that was sent again was deleted meanwhile.
    Raced,
    /// The connection was idle, and hardly any place was left for others.
    Idle,
}

impl Rejected {
    pub const ALL: [Rejected; 10] = [
        Rejected::Connections,
        Rejected::Overload,
        Rejected::Timeout,
        Rejected::Protocol,
        Rejected::Draining,
        Rejected::PeerConnections,
        Rejected::PeerUploads,
        Rejected::Memory,
        Rejected::Raced,
        Rejected::Idle,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Rejected::Connections => "connections",
            Rejected::Overload => "overload",
            Rejected::Timeout => "timeout",
            Rejected::Protocol => "protocol",
            Rejected::Draining => "draining",
            Rejected::PeerConnections => "peer_connections",
            Rejected::PeerUploads => "peer_uploads",
            Rejected::Memory => "memory",
            Rejected::Raced => "raced",
            Rejected::Idle => "idle",
        }
    }
}

/// How far a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Opening its partitions.
    Booting = 0,
    Serving = 1,
    Draining = 2,
    Stopped = 3,
    /// It ended with an error.
    Failed = 4,
}

/// All that one shard counts.
#[derive(Debug, Default)]
pub struct Stats {
    phase: AtomicU8,
    requests: [[[Counter; CODES.len()]; Op::ALL.len()]; Proto::ALL.len()],
    times: [[Times; Op::ALL.len()]; Proto::ALL.len()],
    rejected: [Counter; Rejected::ALL.len()],
    /// How many peers asked, and how many were turned away.
    pub peers: PeerCounts,
    pub bytes_in: [Counter; Proto::ALL.len()],
    pub bytes_out: [Counter; Proto::ALL.len()],
    pub connections: [Counter; Proto::ALL.len()],
    /// Bytes that connections buffer now.
    pub connection_buffer_bytes: Counter,
    /// Requests in progress.
    pub inflight: Counter,
    pub open_streams: Counter,
    pub oversize: Counter,
    pub not_modified: Counter,
    pub ranges: Counter,
    /// Answers with an encoded copy, by `Encoded`.
    encoded: [Counter; Encoded::ALL.len()],
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub cache_bytes: Counter,
    /// Pages of the arena that are handed out, by owner.
    pub memory_pages: [Counter; Owner::ALL.len()],
    /// Reads and uploads that had to wait for memory, and that were refused for lack of it.
    pub memory_waits: Counter,
    pub memory_refusals: Counter,
    /// Readers that took nothing and were cut for the memory they held.
    pub readers_cut: Counter,
    /// Uploads ended because others waited for memory that they filled slowly.
    pub uploads_cut: Counter,
    pub verify_groups: Counter,
    pub verify_bytes: Counter,
    pub integrity_fail: Counter,
    /// Bytes of bodies that were sent by reference, without a copy.
    pub lent_bytes: Counter,
    pub verify_sends: Counter,
    pub verify_send_failures: Counter,
    pub reports_dropped: Counter,
    /// What bounds the reports of failures that are the node's, and those that are a peer's.
    pub failures: Gate,
    pub refusals: Gate,
    pub mesh_hops: Counter,
    /// The version of the names that the shard has.
    pub names_version: Counter,
    pub objects: Counter,
    pub object_bytes: Counter,
    /// Bytes of all segments, and of the records in them that count.
    pub segment_bytes: Counter,
    pub segment_live_bytes: Counter,
    pub segments: Counter,
    /// Bytes of the files of objects that have one of their own.
    pub file_bytes: Counter,
    /// Bytes of memory that the index takes, and that it may take.
    pub index_bytes: Counter,
    pub index_limit_bytes: Counter,
    pub deletes: Counter,
    /// Segments given back by compaction, and bytes moved and given back by it.
    pub compactions: Counter,
    pub compact_moved_bytes: Counter,
    pub compact_freed_bytes: Counter,
    /// What the scrub has read and looked at since the start.
    pub scrub_bytes: Counter,
    pub scrub_objects: Counter,
    /// Objects found damaged by any reader, and those the scrub could repair.
    pub damaged_objects: Counter,
    /// Objects that are known to be damaged now.
    pub damaged_now: Counter,
    pub scrub_repaired: Counter,
    /// Rounds over everything that came to their end, and when the last did, in Unix seconds
    /// (0: never).
    pub scrub_rounds: Counter,
    pub scrub_finished_unix_s: Counter,
    /// 1 while a round is in progress.
    pub scrub_running: Counter,
    /// Bytes that the shard's volumes have free, the least of them, as last asked.
    pub disk_free_bytes: Counter,
    /// Partitions that take no writes for lack of space; that take none since a failure; and that
    /// are absent.
    pub partitions_full: Counter,
    pub partitions_read_only: Counter,
    pub partitions_absent: Counter,
    pub syncs: Counter,
    pub sync_writes: Counter,
    /// Nanoseconds the loop was awake, and asleep.
    pub busy_ns: Counter,
    pub idle_ns: Counter,
    /// Nanoseconds of the longest single turn of the loop.
    pub stall_max_ns: Counter,
    /// What the shard is doing.
    pub watch: Watch,
}

impl Stats {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Booting,
            1 => Phase::Serving,
            2 => Phase::Draining,
            3 => Phase::Stopped,
            _ => Phase::Failed,
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Counts one answered request of a peer, which took so long until the present turn of the
    /// loop began.
    #[inline]
    pub fn request(&self, peer: PeerBucket, (proto, op): (Proto, Op), code: u16, took_ns: u64) {
        // To the shard a turn is one moment. What the cache answers would take no time at all.
        let took_ns = took_ns.saturating_add(self.watch.into_turn_ns());
        self.peers.asked(peer);
        let at = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len() - 1);
        self.requests[proto as usize][op as usize][at].add(1);
        let times = &self.times[proto as usize][op as usize];
        let us = took_ns.div_ceil(1000);
        let bucket = SECONDS_BUCKETS_US.iter().position(|bound| us <= *bound);
        times.buckets[bucket.unwrap_or(SECONDS_BUCKETS_US.len())].add(1);
        times.sum_ns.add(took_ns);
        times.latencies.record(us);
    }

    pub fn requests(&self, proto: Proto, op: Op, code_at: usize) -> u64 {
        self.requests[proto as usize][op as usize][code_at].get()
    }

    pub fn times(&self, proto: Proto, op: Op) -> &Times {
        &self.times[proto as usize][op as usize]
    }

    pub fn reject(&self, why: Rejected) {
        self.rejected[why as usize].add(1);
    }

    /// Counts a request of a peer that is turned away for lack of memory or of space in a queue. It
    /// is answered, and counted so, as well.
    pub fn turn_away(&self, peer: PeerBucket) {
        self.reject(Rejected::Overload);
        self.peers.turned_away(peer);
    }

    /// Counts a connection of a peer that is refused because there are too many.
    pub fn refuse_connection(&self, peer: PeerBucket) {
        self.reject(Rejected::Connections);
        self.peers.unconnected(peer);
    }

    pub fn rejected(&self, why: Rejected) -> u64 {
        self.rejected[why as usize].get()
    }

    /// Answers with an encoded copy.
    pub fn encoded(&self, encoded: Encoded) -> &Counter {
        &self.encoded[encoded as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{peers::PeerWork, watch::clock_ns};

    #[test]
    fn requests_are_counted_by_their_labels() {
        let stats = Stats::default();
        let peer = stats.peers.bucket(1);
        stats.request(peer, (Proto::Oap, Op::Has), 404, 10_001);
        stats.request(peer, (Proto::Oap, Op::Has), 499, u64::from(u32::MAX) * 1000);
        stats.turn_away(peer);
        let of_peer = stats.peers.all().find(|work| work.asked > 0);
        assert_eq!(of_peer, Some(PeerWork { asked: 2, turned_away: 1, unconnected: 0 }));
        assert_eq!(stats.rejected(Rejected::Overload), 1);
        let at = CODES.iter().position(|code| *code == 404).unwrap();
        assert_eq!(stats.requests(Proto::Oap, Op::Has, at), 1);
        assert_eq!(stats.requests(Proto::Oap, Op::Has, CODES.len() - 1), 1);
        let buckets = &stats.times(Proto::Oap, Op::Has).buckets;
        assert_eq!(buckets[1].get(), 1, "10.001 µs is above the bound of 10");
        assert_eq!(buckets[SECONDS_BUCKETS_US.len()].get(), 1);
        let latencies: Vec<u64> =
            stats.times(Proto::Oap, Op::Has).latencies.counts().map(|(us, _)| us).collect();
        assert_eq!(latencies.len(), 2);
        assert_eq!(latencies[0], 11, "the times of both are rounded up to microseconds");
    }

    #[test]
    fn a_request_takes_its_part_of_the_turn() {
        let stats = Stats::default();
        stats.watch.turn(clock_ns());
        std::thread::sleep(std::time::Duration::from_millis(2));
        stats.request(stats.peers.bucket(1), (Proto::Http, Op::Get), 200, 3_000_000);
        let times = stats.times(Proto::Http, Op::Get);
        assert!(times.sum_ns.get() >= 5_000_000, "{} ns", times.sum_ns.get());
    }

    #[test]
    fn the_histograms_of_a_shard_take_little() {
        assert_eq!(LATENCIES_LEN, 21 * 3287 * 8, "539 KiB");
        // They are not on the stack while a shard's counters are made.
        assert!(size_of::<Stats>() < 64 * 1024);
    }

    #[test]
    fn a_gate_lets_a_burst_through_and_then_one_a_period() {
        let (gate, every_ns) = (Gate::default(), FAILURE_REPORT_EVERY.as_nanos() as u64);
        let begin_ns = 1_000_000 * every_ns;
        let let_through = |at_ns| (0..1000).filter(|_| gate.admit(at_ns).is_some()).count() as u64;
        assert_eq!(let_through(begin_ns), FAILURE_REPORTS_BURST);
        assert_eq!(gate.admit(begin_ns + every_ns - 1), None);
        let missed = 1000 - FAILURE_REPORTS_BURST + 1;
        assert_eq!(gate.admit(begin_ns + every_ns), Some(missed));
        assert_eq!(let_through(begin_ns + 4 * every_ns), 3);
        let rested_ns = begin_ns + 1000 * every_ns;
        assert_eq!(let_through(rested_ns), FAILURE_REPORTS_BURST, "no more after a long rest");
    }

    #[test]
    fn labels_stand_at_their_own_index() {
        assert!(Proto::ALL.iter().enumerate().all(|(n, proto)| *proto as usize == n));
        assert!(Op::ALL.iter().enumerate().all(|(n, op)| *op as usize == n));
        assert!(Rejected::ALL.iter().enumerate().all(|(n, why)| *why as usize == n));
    }
}
