//! A node under a flood: what it keeps in memory, and whether another client is still served.
//!
//! A test measures before, during and after: `Target::measure` asks the node as an honest client
//! does, on a connection that is kept and on new ones, and returns a `Phase`, which prints itself.
//! At its end `Target::finish` prints the figures of the whole case on one line, which
//! `perf/scripts/redteam.sh` collects:
//!
//! ```text
//! redteam | blocks::uploads_that_stop | 30.1/31.0/30.2 MiB | 0.9/4.1/0.8 ms | 62.5 MiB
//! ```
//!
//! They are the case; what is resident before, at most during, and after; the p99 of the honest
//! client's requests before, during and after; and the memory bill of the node.
//!
//! Assert facts only: that everything was answered, that memory stays within the bill, that it is
//! given back. Latencies are printed for people; the machine is shared, so no test compares them.
//! The peers that flood are in `rude`.

use std::{
    fmt, fs,
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{DEADLINE, Data, KIB, MIB, Node, Object, Setup, addr_of, http::Peer, object};

/// An honest client that waits this long gives up: it counts as not answered.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Questions of each kind in a phase.
const ROUNDS: usize = 25;
/// A phase ends early after so many questions that were not answered: each takes a long time.
const UNANSWERED_MAX: usize = 4;

/// A node, what is stored on it for the honest client, and that client's kept connection.
pub struct Target {
    pub node: Node,
    pub data: Data,
    /// 4 KiB, asked for all the time, and therefore in the cache.
    pub small: Object,
    /// What the node said at its start that it may use, in bytes.
    pub bill: u64,
    kept: Mutex<Option<Peer>>,
    figures: Mutex<Figures>,
}

/// What is printed of a case at its end.
#[derive(Default)]
struct Figures {
    before: Part,
    during: Part,
    after: Part,
}

/// The figures of all phases before, during or after a flood.
#[derive(Default)]
struct Part {
    resident: u64,
    times: Vec<Duration>,
}

impl Figures {
    fn add(&mut self, phase: &Phase) {
        let part = match phase.name {
            "before" => &mut self.before,
            "after" => &mut self.after,
            _ => &mut self.during,
        };
        let resident = if phase.name == "after" { phase.resident } else { phase.peak };
        part.resident = part.resident.max(resident);
        part.times.extend(phase.kept.times.iter().chain(&phase.new.times));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.before, &self.during, &self.after];
        let [before, during, after] = parts.map(|part| part.resident as f64 / MIB as f64);
        write!(f, "{before:.1}/{during:.1}/{after:.1} MiB | ")?;
        let p99 = |part: &Part| percentile(&part.times, 99).as_secs_f64() * 1000.0;
        let [before, during, after] = parts.map(p99);
        write!(f, "{before:.1}/{during:.1}/{after:.1} ms")
    }
}

impl Target {
    /// A node with so many shards and little memory, unless `args` say otherwise.
    pub fn start(shards: usize, args: &[&str]) -> Target {
        let data = Data::new();
        let node = Target::setup(&data, shards, args).start();
        Target::on(data, node)
    }

    /// How such a node is started. What it may have is little, so that the bill says something.
    pub fn setup(data: &Data, shards: usize, args: &[&str]) -> Setup {
        let little = [
            ["--cache", "16MiB"],
            ["--connection-buffers", "32MiB"],
            ["--storage-index-memory", "32MiB"],
            ["--connections-max", "2000"],
            // All peers of a test have one address.
            ["--connections-per-peer", "2000"],
        ];
        let little = little.iter().filter(|[name, _]| !args.contains(name));
        let mut all: Vec<&str> = little.flatten().copied().collect();
        all.extend(args);
        data.setup().shards(shards).args(&all)
    }

    /// A node that was started in a way of its own.
    pub fn on(data: Data, node: Node) -> Target {
        let bill = bill(&node.wait_stderr("memory "));
        let (kept, figures) = Default::default();
        let target = Target { node, data, small: object(1, 4 * KIB), bill, kept, figures };
        target.store(&target.small);
        target
    }

    /// A node as `start` makes it, warm and measured.
    pub fn warm(shards: usize, args: &[&str]) -> Target {
        Target::start(shards, args).warmed(24)
    }

    /// The same node after so many MiB: what is resident does not grow by mere use any more when
    /// they fill its cache. It is measured, too.
    pub fn warmed(self, mebibytes: usize) -> Target {
        self.fill_cache(mebibytes);
        let before = self.measure("before");
        before.expect_served();
        before.expect_within_bill();
        self
    }

    /// The node after the peers have gone: it serves as before, what they took is given back, and
    /// it ends in good order. Prints the figures of the case.
    pub fn finish(self) {
        // The connection that the measuring keeps stays, and that of the question itself.
        self.wait_connections(2);
        self.expect_given_back();
        let after = self.measure("after");
        after.expect_served();
        after.expect_within_bill();
        let figures = self.figures.lock().expect("no observer panics");
        for part in [&figures.before, &figures.during] {
            assert!(!part.times.is_empty(), "a case is measured before and during");
        }
        let test = thread::current();
        let case = test.name().unwrap_or_default();
        let bill = mib(self.bill);
        eprintln!("redteam | {}::{case} | {figures} | {bill}", env!("CARGO_CRATE_NAME"));
        drop(figures);
        self.node.terminate();
    }

    /// Stores an object; the node must take it.
    pub fn store(&self, object: &Object) {
        let answer = Peer::new(self.node.connect()).try_put(&object.addr, &object.bytes);
        let status = answer.expect("a put is answered").status;
        assert!(matches!(status, 200 | 201), "a put of {} bytes: {status}", object.bytes.len());
    }

    /// Stores and reads so many objects of 1 MiB, so that every block of the cache was touched:
    /// what is resident from then on does not grow by mere use.
    pub fn fill_cache(&self, count: usize) {
        for seed in 0..count as u64 {
            let object = object(1_000_000 + seed, MIB);
            self.store(&object);
            let answer = Peer::new(self.node.connect()).get(&format!("/o/{}", object.addr));
            assert_eq!(answer.status, 200);
        }
    }

    /// Bytes of the node that only it holds: neither files nor code.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.node.pid()));
        let status = status.expect("the node runs");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number =
                line.and_then(|line| line.split_whitespace().next()).map(str::parse::<u64>);
            number.expect("the kernel has this line").expect("it is a number")
        };
        (kib("RssAnon:") + kib("RssShmem:")) * KIB as u64
    }

    /// Asks the node as an honest client would, some times; panics only when it cannot connect
    /// to a node that has died.
    pub fn measure(&self, name: &'static str) -> Phase {
        let mut phase = Phase::new(name, self);
        for _ in 0..ROUNDS {
            self.round(&mut phase);
            if phase.unanswered() >= UNANSWERED_MAX {
                break;
            }
        }
        self.note(&phase);
        phase
    }

    fn note(&self, phase: &Phase) {
        eprintln!("{phase}");
        self.figures.lock().expect("no observer panics").add(phase);
    }

    /// Asks the node over and over while `flood` runs, and at least a few times.
    pub fn measure_while<T>(&self, name: &'static str, flood: impl FnOnce() -> T) -> (Phase, T) {
        let done = AtomicBool::new(false);
        let mut phase = Phase::new(name, self);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) || phase.asked() < 4 * ROUNDS {
                    self.round(&mut phase);
                    if phase.unanswered() >= UNANSWERED_MAX {
                        break;
                    }
                }
            });
            let _done = SetOnDrop(&done);
            flood()
        });
        self.note(&phase);
        (phase, result)
    }

    /// Each question once.
    fn round(&self, phase: &mut Phase) {
        let found = format!("/o/{}", self.small.addr);
        let missing = format!("/o/{}", addr_of(b"never stored by any test of a flood"));
        for (method, path, status) in
            [("GET", &found, 200), ("HEAD", &found, 200), ("GET", &missing, 404)]
        {
            let began = Instant::now();
            let mut kept = self.kept.lock().expect("no observer panics");
            let mut peer = kept.take().or_else(|| self.connection());
            let answer = peer.as_mut().and_then(|peer| self.ask(peer, method, path));
            if answer.is_some_and(|(_, keeps)| keeps) {
                *kept = peer;
            }
            phase.kept.add(began.elapsed(), answer.map(|(status, _)| status), status);
        }
        let began = Instant::now();
        let answer = self.connection().and_then(|mut peer| self.ask(&mut peer, "GET", &found));
        phase.new.add(began.elapsed(), answer.map(|(status, _)| status), 200);
        phase.resident = self.resident();
        phase.peak = phase.peak.max(phase.resident);
    }

    fn connection(&self) -> Option<Peer> {
        let stream = TcpStream::connect_timeout(&self.node.at("http"), ANSWER_WITHIN).ok()?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a time can be set");
        stream.set_write_timeout(Some(ANSWER_WITHIN)).expect("a time can be set");
        stream.set_nodelay(true).expect("it is TCP");
        Some(Peer::new(stream))
    }

    /// The status of the answer, and whether the connection may be used again.
    fn ask(&self, peer: &mut Peer, method: &str, path: &str) -> Option<(u16, bool)> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = peer.try_send(head.as_bytes()).then(|| peer.try_response(method))??;
        if method == "GET" && answer.status == 200 {
            super::assert_same(&answer.body, &self.small.bytes, "the honest client's object");
        }
        Some((answer.status, answer.keeps()))
    }

    /// Bytes that were resident before the flood.
    pub fn resident_before(&self) -> u64 {
        self.figures.lock().expect("no observer panics").before.resident
    }

    /// Waits until no more is resident than was before the flood, a tenth, and what tables and
    /// free lists may have grown by.
    pub fn expect_given_back(&self) {
        let before = self.resident_before();
        let limit = before + before / 10 + MIB as u64;
        self.wait(
            "memory is given back",
            || self.resident() <= limit,
            || format!("{} are resident, at most {} may be", mib(self.resident()), mib(limit)),
        );
    }

    /// Waits until the node has so many connections at most, the kept one included.
    pub fn wait_connections(&self, at_most: u64) {
        let open = || self.node.metrics().sum("ron_connections");
        self.wait("connections end", || open() <= at_most, || format!("{} are open", open()));
    }

    /// Waits until the first shard sleeps, as one that spins never does.
    pub fn wait_rest(&self) {
        let turns = || self.node.admin("/debug/shards").json()["shards"][0]["turns"].as_u64();
        let slept = || {
            let before = turns();
            thread::sleep(Duration::from_millis(50));
            turns() == before
        };
        self.wait("the shard is at rest", slept, || format!("{:?} turns and no rest", turns()));
    }

    /// Asks again and again until something is so.
    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool, found: impl Fn() -> String) {
        let until = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < until, "not so in time: {what}: {}", found());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Ends the measuring even when the flood panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The total of the memory bill in what the node said.
fn bill(said: &str) -> u64 {
    let totals = said.match_indices("memory ").filter_map(|(at, word)| {
        let mut words = said[at + word.len()..].split_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        let unit: u64 = match words.next()? {
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        (words.next()? == "of").then_some((value * unit as f64) as u64)
    });
    totals.last().expect("the node says what memory it may use")
}

fn mib(len: u64) -> String {
    format!("{:.1} MiB", len as f64 / MIB as f64)
}

/// What an honest client met in one part of a flood.
pub struct Phase {
    pub name: &'static str,
    /// At the end of the phase, and the most that was seen in it.
    pub resident: u64,
    pub peak: u64,
    pub bill: u64,
    pub kept: Answers,
    pub new: Answers,
}

/// Answers to one kind of questions.
#[derive(Default)]
pub struct Answers {
    pub times: Vec<Duration>,
    /// What had to come.
    pub served: usize,
    /// 503: answered at least.
    pub refused: usize,
    pub unanswered: usize,
    /// Other statuses.
    pub odd: Vec<u16>,
}

impl Answers {
    fn add(&mut self, time: Duration, status: Option<u16>, wanted: u16) {
        self.times.push(time);
        match status {
            Some(status) if status == wanted => self.served += 1,
            Some(503) => self.refused += 1,
            Some(status) => self.odd.push(status),
            None => self.unanswered += 1,
        }
    }

    /// The time that so many percent of the questions took at most.
    pub fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.times, percent)
    }
}

/// The time that is longer than or equal to so many percent of these.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        write!(f, "p50 {:.1} p99 {:.1} max {:.1} ms", ms(50), ms(99), ms(100))?;
        let asked = self.times.len();
        write!(f, ", served {} of {asked}", self.served)?;
        for (what, count) in [("503", self.refused), ("unanswered", self.unanswered)] {
            if count > 0 {
                write!(f, ", {what} {count}")?;
            }
        }
        if self.odd.is_empty() { Ok(()) } else { write!(f, ", odd {:?}", self.odd) }
    }
}

impl Phase {
    fn new(name: &'static str, target: &Target) -> Phase {
        let resident = target.resident();
        let (kept, new) = <(Answers, Answers)>::default();
        Phase { name, resident, peak: resident, bill: target.bill, kept, new }
    }

    pub fn asked(&self) -> usize {
        self.kept.times.len() + self.new.times.len()
    }

    pub fn unanswered(&self) -> usize {
        self.kept.unanswered + self.new.unanswered
    }

    /// Everything was answered with what was asked for, or with 503 where memory was short.
    #[track_caller]
    pub fn expect_answered(&self) {
        assert!(self.unanswered() == 0, "not answered within {ANSWER_WITHIN:?}: {self}");
        assert!(self.kept.odd.is_empty() && self.new.odd.is_empty(), "odd answers: {self}");
    }

    /// Everything was answered with what was asked for.
    #[track_caller]
    pub fn expect_served(&self) {
        self.expect_answered();
        assert_eq!(self.kept.refused + self.new.refused, 0, "refused: {self}");
    }

    /// The node never held more than it said it would.
    #[track_caller]
    pub fn expect_within_bill(&self) {
        assert!(self.peak <= self.bill, "more than the bill: {self}");
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phase { name, kept, new, .. } = self;
        let (resident, peak, bill) = (mib(self.resident), mib(self.peak), mib(self.bill));
        write!(f, "{name:<8} resident {resident} (peak {peak}, bill {bill})")?;
        write!(f, " | kept connection: {kept} | new ones: {new}")
    }
}
