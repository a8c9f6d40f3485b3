//! What each shard is doing, out of the memory it shows it in. Nothing is asked of a shard, so one
//! that hangs is seen as well as one that runs.

use std::{collections::BTreeMap, sync::Arc};

use ron_io::{
    stats::{Phase, Proto, Stats},
    watch::clock_ns,
    work::Work,
};
use serde::{Deserialize, Serialize};

use super::latency;
pub use super::latency::{Latencies, Latency};

/// What `GET /debug/shards` answers, in the order of the shards' numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardsReport {
    /// Latencies of all shards together, in microseconds.
    #[serde(default)]
    pub latency_us: Latencies,
    pub shards: Vec<ShardReport>,
}

/// One shard. Figures are a moment old and may not fit each other exactly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardReport {
    pub shard: usize,
    /// `booting`, `serving`, `draining`, `stopped` or `failed`.
    pub phase: String,
    /// The shard's thread, as the system numbers them; 0 before it runs.
    pub thread: u64,
    /// The share of the last second or so that the thread had a CPU; of a thread that slept longer,
    /// of the time since.
    pub busy_ratio: f64,
    /// Turns of the loop since the start.
    pub turns: u64,
    /// What it is in the middle of; absent at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<DoingReport>,
    /// Microseconds until it wants to be woken; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wakes_in_us: Option<u64>,
    /// Connections open, by protocol.
    pub connections: BTreeMap<String, u64>,
    /// Requests and OAP streams in progress.
    pub inflight: u64,
    pub open_streams: u64,
    pub queues: Queues,
    pub ring: Ring,
    /// Steps that held the shard longer than `stall_limit`, by what they were, since the start.
    pub stalls: BTreeMap<String, u64>,
    /// The slowest step of the last minute; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowest: Option<SlowestReport>,
    /// Latencies of the requests that the shard answered, in microseconds.
    #[serde(default)]
    pub latency_us: Latencies,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DoingReport {
    pub what: String,
    /// Microseconds that the present turn of the loop lasts.
    pub turn_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlowestReport {
    pub what: String,
    pub held_us: f64,
    pub ago_s: f64,
}

/// What waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Queues {
    /// Messages in each mailbox: from the other shards in their order, then orders, then the order
    /// to end.
    pub mail: Vec<usize>,
    /// Submissions that wait for a free entry of the ring.
    pub submissions: u64,
    /// Disk operations on the ring, with threads that may block, and waiting for either; and
    /// background reads that wait.
    pub disk_ring: u64,
    pub disk_threads: u64,
    pub disk_waiting: u64,
    pub disk_idle: u64,
}

/// What the ring did since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// Connections in the driver's table, with those that are being ended.
    pub conns: u64,
    /// System calls into it.
    pub enters: u64,
    pub completions: u64,
    /// Turns that found completions waiting in the kernel because the ring was full.
    pub overflows: u64,
    /// Receives that found no free buffer.
    pub starved: u64,
}

impl ShardsReport {
    pub(crate) fn new(stats: &[Arc<Stats>]) -> ShardsReport {
        let shards = stats.iter().enumerate().map(|(shard, stats)| report(shard, stats));
        ShardsReport { latency_us: latency::since_start(stats), shards: shards.collect() }
    }
}

fn report(shard: usize, stats: &Arc<Stats>) -> ShardReport {
    let (watch, now_ns) = (&stats.watch, clock_ns());
    let (ring, disk) = (&watch.ring, &watch.disk);
    let us = |ns: u64| ns / 1000;
    let wake_at_ns = watch.wake_at_ns.get();
    let stalls = Work::ALL.map(|work| (work.name().to_owned(), watch.stalls(work)));
    ShardReport {
        shard,
        phase: phase_name(stats.phase()).to_owned(),
        thread: watch.thread.get(),
        busy_ratio: watch.busy_ratio(now_ns),
        turns: watch.turns.get(),
        doing: watch.doing().map(|doing| DoingReport {
            what: doing.work.name().to_owned(),
            turn_us: us(now_ns.saturating_sub(doing.turn_began_ns)),
        }),
        wakes_in_us: (wake_at_ns > 0).then(|| us(wake_at_ns.saturating_sub(now_ns))),
        connections: Proto::ALL
            .map(|proto| (proto.name().to_owned(), stats.connections[proto as usize].get()))
            .into(),
        inflight: stats.inflight.get(),
        open_streams: stats.open_streams.get(),
        queues: Queues {
            mail: watch.lanes(),
            submissions: ring.waiting.get(),
            disk_ring: disk.transfers.get(),
            disk_threads: disk.tasks.get(),
            disk_waiting: disk.waiting.get(),
            disk_idle: disk.background.get(),
        },
        ring: Ring {
            conns: ring.conns.get(),
            enters: ring.enters.get(),
            completions: ring.completions.get(),
            overflows: ring.overflows.get(),
            starved: ring.starved.get(),
        },
        stalls: stalls.into_iter().filter(|(_, count)| *count > 0).collect(),
        latency_us: latency::since_start(std::slice::from_ref(stats)),
        slowest: watch.slowest(now_ns).map(|step| SlowestReport {
            what: step.work.name().to_owned(),
            held_us: step.held_ns as f64 / 1e3,
            ago_s: now_ns.saturating_sub(step.at_ns) as f64 / 1e9,
        }),
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Booting => "booting",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use ron_io::watch::Step;

    use super::*;

    #[test]
    fn a_shard_is_shown_as_it_is() {
        let stats = Arc::new(Stats::default());
        let idle = &ShardsReport::new(&[Arc::clone(&stats)]).shards[0];
        assert_eq!((idle.phase.as_str(), &idle.doing, &idle.slowest), ("booting", &None, &None));
        assert!(idle.stalls.is_empty() && idle.wakes_in_us.is_none() && idle.busy_ratio == 0.0);
        stats.set_phase(Phase::Serving);
        stats.connections[Proto::Oap as usize].add(3);
        let (watch, now_ns) = (&stats.watch, clock_ns());
        watch.turn(now_ns);
        watch.begin(Work::Mail);
        watch.took(Step { work: Work::Disk, held_ns: 1500, at_ns: now_ns });
        watch.stalled(Work::Disk);
        watch.wake_at_ns.set(now_ns + 3_600_000_000_000);
        watch.ring.starved.set(7);
        watch.disk.tasks.set(8);
        let report = ShardsReport::new(&[Arc::default(), Arc::clone(&stats)]);
        let shard = &report.shards[1];
        assert_eq!((shard.shard, shard.phase.as_str(), shard.turns), (1, "serving", 1));
        assert_eq!((shard.connections["oap"], shard.connections["http"]), (3, 0));
        assert_eq!((shard.ring.starved, shard.queues.disk_threads), (7, 8));
        assert_eq!(shard.stalls, BTreeMap::from([("disk".to_owned(), 1)]));
        assert_eq!(shard.doing.as_ref().unwrap().what, "mail");
        let slowest = shard.slowest.as_ref().unwrap();
        assert_eq!((slowest.what.as_str(), slowest.held_us), ("disk", 1.5));
        assert!(shard.wakes_in_us.unwrap() > 1_000_000_000);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ShardsReport>(&json).unwrap(), report);
    }
}
