//! What is counted in a run. Each thread counts for itself; in the end the counts are added.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::fault::Fault;

/// Decimal digits that latencies are kept with.
const DIGITS: u8 = 3;

/// Longest latency that is recorded; longer ones count as this.
const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// Different texts of errors that are kept, of each thread.
const SAMPLES_MAX: usize = 5;

/// Errors that are put into words to find them.
const SAMPLED_MAX: u32 = 200;

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        let max = LATENCY_MAX.as_nanos() as u64;
        Self(Histogram::new_with_bounds(1, max, DIGITS).expect("the bounds are constants"))
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// What the document says of them, in microseconds.
    pub(super) fn summary(&self) -> Value {
        let at = |quantile| micros(self.0.value_at_quantile(quantile).min(self.0.max()));
        json!({
            "min": micros(self.0.min()),
            "p50": at(0.5),
            "p90": at(0.9),
            "p99": at(0.99),
            "p999": at(0.999),
            "p9999": at(0.9999),
            "max": micros(self.0.max()),
            "mean": (self.0.mean() / 100.0).round() / 10.0,
        })
    }

    /// Pairs of an upper bound in microseconds and how many latencies are up to it but beyond the
    /// bound before. The bounds are about 1 % apart, which is finer than any picture.
    pub(super) fn pairs(&self) -> Vec<(f64, u64)> {
        let max = LATENCY_MAX.as_nanos() as u64;
        let mut coarse: Histogram<u64> =
            Histogram::new_with_bounds(1, max, 2).expect("the bounds are constants");
        for value in self.0.iter_recorded() {
            coarse.saturating_record_n(value.value_iterated_to(), value.count_at_value());
        }
        let recorded = coarse.iter_recorded();
        recorded.map(|value| (micros(value.value_iterated_to()), value.count_at_value())).collect()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }
}

/// Microseconds with one digit behind the point.
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

/// What went wrong, by kind. The whole run counts, its warm-up too: a server that fails while
/// nobody measures has failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Errors {
    /// No connection came about.
    pub(super) connect: u64,
    /// A connection broke before its answer began, or was reset.
    pub(super) read: u64,
    /// Nothing arrived for too long, or was answered by the end of an open loop.
    pub(super) timeout: u64,
    /// The bytes were not those of the object.
    pub(super) verify: u64,
    /// A body ended early, or its length was not the object's.
    pub(super) short: u64,
    /// Another status than the one wanted, by status.
    pub(super) status: BTreeMap<u16, u64>,
    /// What was not understood, by kind.
    pub(super) protocol: BTreeMap<&'static str, u64>,
    /// Processes of the server that ended meanwhile.
    pub(super) server_ended: u64,
    /// The first different errors in words.
    pub(super) samples: Vec<String>,
    sampled: u32,
}

impl Errors {
    pub(super) fn total(&self) -> u64 {
        let Self { connect, read, timeout, verify, short, server_ended, .. } = self;
        let (status, protocol) = (&self.status, &self.protocol);
        let kinds: u64 = status.values().sum::<u64>() + protocol.values().sum::<u64>();
        connect + read + timeout + verify + short + server_ended + kinds
    }

    /// Counts why a connection is of no more use.
    pub(super) fn fault(&mut self, fault: &Fault) {
        match fault {
            Fault::Connect(_) | Fault::Handshake(_) => self.connect += 1,
            Fault::Io(_) | Fault::Tls(_) | Fault::Closed => self.read += 1,
            Fault::Short => self.short += 1,
            Fault::Odd(odd) => *self.protocol.entry(odd.kind()).or_default() += 1,
            Fault::Timeout => self.timeout += 1,
            Fault::Idle => return,
        }
        self.sample(|| fault.to_string());
    }

    /// Keeps a text if it is new and there are few.
    pub(super) fn sample(&mut self, text: impl FnOnce() -> String) {
        if self.samples.len() == SAMPLES_MAX || self.sampled == SAMPLED_MAX {
            return;
        }
        self.sampled += 1;
        let text = text();
        if !self.samples.contains(&text) {
            self.samples.push(text);
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "connect": self.connect,
            "read": self.read,
            "status": self.status,
            "timeout": self.timeout,
            "verify": self.verify,
            "short": self.short,
            "protocol": self.protocol,
            "server_ended": self.server_ended,
            "samples": self.samples,
        })
    }

    fn add(&mut self, other: Self) {
        self.connect += other.connect;
        self.read += other.read;
        self.timeout += other.timeout;
        self.verify += other.verify;
        self.short += other.short;
        self.server_ended += other.server_ended;
        for (status, count) in other.status {
            *self.status.entry(status).or_default() += count;
        }
        for (kind, count) in other.protocol {
            *self.protocol.entry(kind).or_default() += count;
        }
        for sample in other.samples {
            self.sample(|| sample);
        }
    }
}

/// What one thread, or all of them, counted.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    /// Good answers in the window.
    pub(super) requests: u64,
    /// Those of them that stored an object.
    pub(super) puts: u64,
    /// Those of them whose bytes were checked.
    pub(super) verified: u64,
    /// Bytes of objects in the window, fetched and stored.
    pub(super) bytes: u64,
    pub(super) latencies: Latencies,
    pub(super) errors: Errors,
    /// Connections that were opened in the window.
    pub(super) opened: u64,
    /// TLS handshakes in the window, and those of them that resumed a session.
    pub(super) handshakes: u64,
    pub(super) resumed: u64,
    /// Open loop: arrivals of the window that found no free connection at their time.
    pub(super) late: u64,
    /// Open loop: most arrivals that waited at once on one thread.
    pub(super) backlog_max: u64,
    /// Open loop: how long at most an arrival with a free connection waited for the generator.
    pub(super) lag_max: Duration,
    /// CPU time of the thread in the window, where the kernel reports it.
    pub(super) cpu: Option<Duration>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            requests: 0,
            puts: 0,
            verified: 0,
            bytes: 0,
            latencies: Latencies::new(),
            errors: Errors::default(),
            opened: 0,
            handshakes: 0,
            resumed: 0,
            late: 0,
            backlog_max: 0,
            lag_max: Duration::ZERO,
            cpu: None,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.puts += other.puts;
        self.verified += other.verified;
        self.bytes += other.bytes;
        self.latencies.add(&other.latencies);
        self.errors.add(other.errors);
        self.opened += other.opened;
        self.handshakes += other.handshakes;
        self.resumed += other.resumed;
        self.late += other.late;
        self.backlog_max = self.backlog_max.max(other.backlog_max);
        self.lag_max = self.lag_max.max(other.lag_max);
        self.cpu = match (self.cpu, other.cpu) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_agree_with_the_sorted_row() {
        let mut latencies = Latencies::new();
        for micros in 1..=10_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let summary = latencies.summary();
        let near = |name: &str, expected: f64| {
            let found = summary[name].as_f64().unwrap();
            assert!((found / expected - 1.0).abs() < 0.002, "{name} {found}");
        };
        near("p50", 5000.0);
        near("p90", 9000.0);
        near("p99", 9900.0);
        near("p999", 9990.0);
        near("max", 10_000.0);
        near("mean", 5000.5);
        near("min", 1.0);
        let pairs = latencies.pairs();
        assert_eq!(pairs.iter().map(|(_, count)| count).sum::<u64>(), 10_000);
        assert!(pairs.is_sorted_by(|one, next| one.0 < next.0) && pairs.len() < 1500);
    }

    #[test]
    fn no_latencies_and_endless_ones_are_no_trouble() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.summary()["p99"], 0.0);
        latencies.record(Duration::MAX);
        latencies.record(Duration::ZERO);
        assert_eq!(latencies.len(), 2);
    }

    #[test]
    fn counts_add_up() {
        let mut all = Stats::new();
        for status in [404, 404, 500] {
            let mut one = Stats::new();
            one.requests = 2;
            one.latencies.record(Duration::from_millis(1));
            one.cpu = Some(Duration::from_secs(1));
            one.errors.status.insert(status, 1);
            one.errors.fault(&Fault::Short);
            one.errors.fault(&Fault::Idle);
            all.add(one);
        }
        assert_eq!((all.requests, all.latencies.len()), (6, 3));
        assert_eq!(all.cpu, Some(Duration::from_secs(3)));
        assert_eq!((all.errors.status[&404], all.errors.short), (2, 3));
        assert_eq!(all.errors.total(), 6);
        assert_eq!(all.errors.json()["status"]["500"], 1);
        assert_eq!(all.errors.samples.len(), 1);
    }
}
