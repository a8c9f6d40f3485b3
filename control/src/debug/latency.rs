//! Quantiles of how long requests took, out of the buckets that each shard counts them in.

use std::{collections::BTreeMap, sync::Arc};

use hdrhistogram::Histogram;
use ron_io::{
    latency::{DIGITS, MAX_US},
    stats::{Op, Proto, Stats},
};
use serde::{Deserialize, Serialize};

/// Latencies by protocol, and then by operation. What did not occur is absent.
pub type Latencies = BTreeMap<String, BTreeMap<String, Latency>>;

/// How long requests of one kind took since the start, in microseconds. Of 100 requests, 99 took
/// `p99` at most; each value is up to one in a hundred too high, never too low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Latency {
    fn new(times: &Histogram<u64>) -> Latency {
        Latency {
            count: times.len(),
            p50: times.value_at_quantile(0.5),
            p90: times.value_at_quantile(0.9),
            p99: times.value_at_quantile(0.99),
            p999: times.value_at_quantile(0.999),
            max: times.max(),
        }
    }
}

/// The latencies of these shards together.
pub(crate) fn since_start(shards: &[Arc<Stats>]) -> Latencies {
    let of_proto = |proto: Proto| {
        let times = Op::ALL.into_iter().filter_map(|op| Some((op, gather(shards, proto, op)?)));
        times.map(|(op, times)| (op.name().to_owned(), Latency::new(&times))).collect()
    };
    let all = Proto::ALL.map(|proto| (proto.name().to_owned(), of_proto(proto)));
    let all = all.into_iter().filter(|(_, ops): &(_, BTreeMap<_, _>)| !ops.is_empty());
    all.collect()
}

/// `None` when there was no such request.
fn gather(shards: &[Arc<Stats>], proto: Proto, op: Op) -> Option<Histogram<u64>> {
    let counts = shards.iter().flat_map(|stats| stats.times(proto, op).latencies.counts());
    let mut counts = counts.peekable();
    counts.peek()?;
    let mut times = empty();
    counts.for_each(|(us, count)| times.saturating_record_n(us, count));
    Some(times)
}

/// One whose buckets are those of `ron_io::latency`.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_US, DIGITS).expect("the bounds are constants")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use proptest::{collection::vec, prelude::*};

    use super::*;

    const KIND: (Proto, Op) = (Proto::Https, Op::Put);

    fn record(stats: &Stats, took_ns: u64) {
        stats.request(stats.peers.bucket(1), KIND, 201, took_ns);
    }

    /// What is reported of these shards; they were asked for nothing else.
    fn reported(shards: &[Arc<Stats>]) -> Latency {
        let latencies = since_start(shards);
        assert_eq!((latencies.len(), latencies["https"].len()), (1, 1));
        latencies["https"]["put"]
    }

    /// Nanoseconds of every magnitude, up to two hours or so.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let time = (0..43u32, any::<u64>()).prop_map(|(bits, any)| any & ((1 << bits) - 1));
        vec(time, 1..2000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn quantiles_are_those_of_a_histogram_that_recorded_the_same(times in times()) {
            let shards = [Arc::<Stats>::default(), Arc::default()];
            let mut same = empty();
            for (at, took_ns) in times.iter().enumerate() {
                record(&shards[at % 2], *took_ns);
                same.record(took_ns.div_ceil(1000).min(MAX_US)).unwrap();
            }
            prop_assert_eq!(reported(&shards), Latency::new(&same));
        }

        #[test]
        fn quantiles_are_at_most_one_in_a_hundred_too_high(mut times in times()) {
            let stats = Arc::<Stats>::default();
            times.iter().for_each(|took_ns| record(&stats, *took_ns));
            times.sort_unstable();
            let latency = reported(&[stats]);
            let rank = |of_1000: usize| (times.len() * of_1000).div_ceil(1000) - 1;
            let known = [(500, latency.p50), (900, latency.p90), (990, latency.p99),
                (999, latency.p999), (1000, latency.max)];
            for (of_1000, shown_us) in known {
                let us = times[rank(of_1000)].div_ceil(1000).min(MAX_US);
                prop_assert!(us <= shown_us && (shown_us - us) * 100 <= us, "{us} {shown_us}");
            }
        }
    }

    #[test]
    fn what_did_not_occur_is_absent() {
        assert!(since_start(&[Arc::default()]).is_empty());
        assert!(since_start(&[]).is_empty());
    }

    #[test]
    fn a_shard_that_records_meanwhile_is_read_and_loses_nothing() {
        const REQUESTS: u64 = 200_000;
        let stats = Arc::<Stats>::default();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                (0..REQUESTS).for_each(|n| record(&stats, n * 1000));
                done.store(true, Ordering::Release);
            });
            let mut before = 0;
            while !done.load(Ordering::Acquire) {
                let count =
                    gather(&[Arc::clone(&stats)], KIND.0, KIND.1).map_or(0, |all| all.len());
                assert!((before..=REQUESTS).contains(&count), "{count} after {before}");
                before = count;
            }
        });
        let latency = reported(&[stats]);
        assert_eq!(latency.count, REQUESTS);
        assert!((99_000..=101_000).contains(&latency.p50), "{latency:?}");
    }
}
