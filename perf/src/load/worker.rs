//! One thread of a run: its connections, and the loop that drives them.
//!
//! ```text
//!            ┌─────────────────── connect ◄──────────── broken, closed ──┐
//!            ▼                                                           │
//!   slot: connecting ──ready──► free ──a request is due──► waiting ──────┤
//!                                ▲                            │          │
//!                                └───────── answered ─────────┘          │
//!                                └── --reconnect: closed, connected anew ┘
//! ```
//!
//! In a closed loop a free slot asks at once. In an open loop free slots wait for arrivals, and
//! arrivals for free slots. The loop sleeps in epoll, whose timeouts are whole milliseconds; close
//! to the next arrival it spins instead, so that requests leave at their time. An open loop that is
//! faster than about a request a millisecond therefore keeps its core wholly busy, by choice.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};
use rustls::HandshakeKind;

use super::{
    conn::{Conn, Progress, READ_LEN, Setup},
    fault::Fault,
    mix::{Job, Op},
    pace::Schedule,
    reply::Reply,
    source::Source,
    stats::Stats,
};
use crate::cpu;

/// Time between looks at what should have happened and did not.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// How long a slot waits after it could not connect.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Closer than this to an arrival the loop does not sleep.
const SPIN_BEFORE: Duration = Duration::from_micros(200);

/// Most reads of one connection before the others have their turn.
const READS_MAX: u32 = 16;

/// Most events of one look.
const EVENTS_MAX: usize = 1024;

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The measured window.
    pub(super) opens: Instant,
    pub(super) closes: Instant,
    pub(super) connect_timeout: Duration,
    pub(super) answer_timeout: Duration,
}

impl Times {
    fn within(&self, at: Instant) -> bool {
        (self.opens..self.closes).contains(&at)
    }
}

/// A place for a connection.
#[derive(Debug)]
struct Slot<'a> {
    conn: Conn<'a>,
    /// From when the latency of the request in progress counts.
    intended: Instant,
    /// A request that waits for its connection.
    waiting: Option<Job>,
    /// When anything last happened, to within a sweep.
    stirred: Instant,
    /// When to connect again after that failed.
    retry_at: Option<Instant>,
}

impl Slot<'_> {
    fn is_busy(&self) -> bool {
        self.waiting.is_some() || self.conn.job().is_some()
    }
}

/// One thread's part of a run.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    setup: Setup<'a>,
    source: Source<'a>,
    /// `None` for a closed loop.
    schedule: Option<Schedule>,
    times: Times,
    reconnect: bool,
    poll: Poll,
    slots: Vec<Slot<'a>>,
    /// Slots that wait for an arrival, the longest first.
    free: VecDeque<usize>,
    /// Slots that are to be driven again.
    again: VecDeque<usize>,
    buffer: Vec<u8>,
    stats: Stats,
    /// When the last request of the window was answered.
    last: Instant,
    cpu_at_opening: Option<Option<Duration>>,
}

impl<'a> Worker<'a> {
    /// # Errors
    /// When the system has no epoll for it.
    pub(super) fn new(
        setup: Setup<'a>,
        source: Source<'a>,
        schedule: Option<Schedule>,
        times: Times,
        connections: usize,
        reconnect: bool,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let slot = || Slot {
            conn: Conn::new(setup.target.scheme, READS_MAX),
            intended: now,
            waiting: None,
            stirred: now,
            retry_at: None,
        };
        Ok(Self {
            slots: std::iter::repeat_with(slot).take(connections).collect(),
            setup,
            source,
            schedule,
            times,
            reconnect,
            poll: Poll::new()?,
            free: VecDeque::with_capacity(connections),
            again: VecDeque::with_capacity(connections),
            buffer: vec![0; READ_LEN],
            stats: Stats::new(),
            last: times.opens,
            cpu_at_opening: None,
        })
    }

    /// Runs until the window has closed; then until every request that was due in it is answered,
    /// if arrivals are counted, or until everything is stored, if that is the source. Returns what
    /// was counted, when the last answer came, and the source.
    ///
    /// # Errors
    /// Those of epoll.
    pub(super) fn run(mut self) -> io::Result<(Stats, Instant, Source<'a>)> {
        for index in 0..self.slots.len() {
            self.begin(index);
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut swept = Instant::now();
        loop {
            let now = Instant::now();
            if self.cpu_at_opening.is_none() && now >= self.times.opens {
                self.cpu_at_opening = Some(cpu::own_thread());
            }
            if self.has_ended(now) {
                break;
            }
            self.issue(now);
            let timeout = self.timeout(now);
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                self.drive(event.token().0, event.is_read_closed());
            }
            for _ in 0..self.again.len() {
                if let Some(index) = self.again.pop_front() {
                    self.drive(index, false);
                }
            }
            if now - swept >= SWEEP_EVERY {
                self.sweep(now);
                swept = now;
            }
        }
        self.give_up();
        if let (Some(before), Some(after)) = (self.cpu_at_opening.flatten(), cpu::own_thread()) {
            self.stats.cpu = Some(after.saturating_sub(before));
        }
        Ok((self.stats, self.last, self.source))
    }

    fn has_ended(&self, now: Instant) -> bool {
        let idle = || !self.slots.iter().any(Slot::is_busy);
        if let Source::Store(_) = self.source {
            return self.source.is_exhausted() && idle();
        }
        if now < self.times.closes {
            return false;
        }
        match &self.schedule {
            None => true,
            Some(schedule) => {
                now >= self.times.closes + self.times.answer_timeout
                    || (schedule.next_at().is_none() && idle())
            }
        }
    }

    /// How long there is nothing to do, unless a socket says otherwise.
    fn timeout(&self, now: Instant) -> Duration {
        if !self.again.is_empty() {
            return Duration::ZERO;
        }
        let due = self.schedule.as_ref().and_then(Schedule::next_at);
        let due = due.filter(|_| !self.free.is_empty());
        let Some(due) = due else {
            let closes = self.times.closes.saturating_duration_since(now);
            return if closes.is_zero() { SWEEP_EVERY } else { closes.min(SWEEP_EVERY) };
        };
        // Rounded down: a timeout that ends late would make the request late.
        let sleep = due.saturating_duration_since(now + SPIN_BEFORE).as_millis() as u64;
        Duration::from_millis(sleep).min(SWEEP_EVERY)
    }

    /// Gives arrivals that are due to free slots.
    fn issue(&mut self, now: Instant) {
        let Some(schedule) = &mut self.schedule else { return };
        if self.free.is_empty() {
            self.stats.backlog_max = self.stats.backlog_max.max(schedule.backlog(now));
            return;
        }
        while let Some(index) = self.free.front().copied() {
            let Some(schedule) = &mut self.schedule else { return };
            let Some(intended) = schedule.take(now) else { return };
            self.free.pop_front();
            if self.times.within(intended) {
                self.stats.lag_max = self.stats.lag_max.max(now - intended);
            }
            self.ask(index, intended);
        }
    }

    /// A slot is there, or broke: it connects, or waits until it is to.
    fn begin(&mut self, index: usize) {
        if self.reconnect { self.freed(index) } else { self.connect(index) }
    }

    fn connect(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.stirred = Instant::now();
        slot.retry_at = None;
        let registry = Some((self.poll.registry(), Token(index)));
        if let Err(fault) = slot.conn.connect(&self.setup, registry) {
            self.failed(index, &fault);
        }
    }

    /// A slot has nothing to do.
    fn freed(&mut self, index: usize) {
        let now = Instant::now();
        let Some(schedule) = &mut self.schedule else { return self.ask(index, now) };
        // While others are free nothing waits for this one; the loop issues what is due.
        if !self.free.is_empty() {
            return self.free.push_back(index);
        }
        let backlog = schedule.backlog(now);
        let Some(intended) = schedule.take(now) else { return self.free.push_back(index) };
        // It became due while nobody was free.
        if self.times.within(intended) {
            self.stats.late += 1;
            self.stats.backlog_max = self.stats.backlog_max.max(backlog);
        }
        self.ask(index, intended);
    }

    /// Sends the next request on this slot, whose latency counts from `intended`.
    fn ask(&mut self, index: usize, intended: Instant) {
        let slot = &mut self.slots[index];
        slot.intended = intended;
        let Some(job) = self.source.next() else { return self.free.push_back(index) };
        if slot.conn.is_open() {
            if let Err(fault) = slot.conn.send(&self.setup, job) {
                self.failed(index, &fault);
            }
        } else {
            slot.waiting = Some(job);
            self.connect(index);
        }
    }

    /// Something happened on a slot's socket.
    fn drive(&mut self, index: usize, closing: bool) {
        loop {
            let Some(slot) = self.slots.get_mut(index) else { return };
            match slot.conn.drive(&mut self.buffer, closing) {
                Ok(Progress::Idle) => return,
                Ok(Progress::Again) => return self.again.push_back(index),
                Ok(Progress::Ready(kind)) => self.ready(index, kind),
                Ok(Progress::Done(reply)) => return self.done(index, reply, closing),
                Err(fault) => return self.failed(index, &fault),
            }
        }
    }

    fn ready(&mut self, index: usize, kind: Option<HandshakeKind>) {
        if self.times.within(Instant::now()) {
            self.stats.opened += 1;
            self.stats.handshakes += u64::from(kind.is_some());
            self.stats.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
        }
        let slot = &mut self.slots[index];
        match slot.waiting.take() {
            Some(job) => {
                if let Err(fault) = slot.conn.send(&self.setup, job) {
                    self.failed(index, &fault);
                }
            }
            None => self.freed(index),
        }
    }

    fn done(&mut self, index: usize, reply: Reply, closing: bool) {
        let now = Instant::now();
        let slot = &mut self.slots[index];
        let genuine = slot.conn.body.finish();
        let (job, sent) = slot.conn.finish();
        let intended = slot.intended;
        if let Some(job) = job {
            self.judge(&job, reply, genuine, index, intended, now);
        }
        if reply.close || closing || self.reconnect || !sent {
            self.slots[index].conn.close();
            self.begin(index);
        } else {
            self.freed(index);
        }
    }

    /// Counts an answer as good or as wrong.
    fn judge(
        &mut self,
        job: &Job,
        reply: Reply,
        genuine: bool,
        index: usize,
        intended: Instant,
        now: Instant,
    ) {
        let seen = self.slots[index].conn.body.seen;
        let errors = &mut self.stats.errors;
        if !self.source.answered(job, reply.status) {
            *errors.status.entry(reply.status).or_default() += 1;
            errors.sample(|| format!("status {} to {:?}", reply.status, job.op));
            return;
        }
        let expected = self.setup.corpus.answer_len(job);
        if expected.is_some_and(|expected| expected != seen) {
            errors.short += 1;
            errors.sample(|| format!("{seen} bytes in answer to {:?}", job.op));
            return;
        }
        if !genuine {
            errors.verify += 1;
            errors.sample(|| format!("the bytes are not those asked for by {:?}", job.op));
            return;
        }
        let counts = if self.schedule.is_some() { intended } else { now };
        if !self.times.within(counts) {
            return;
        }
        self.last = self.last.max(now);
        self.stats.requests += 1;
        self.stats.verified += u64::from(job.verify);
        self.stats.puts += u64::from(job.op == Op::Put);
        self.stats.bytes += match job.op {
            Op::Put => self.setup.corpus.classes[job.class].spec.size as u64,
            _ => seen,
        };
        self.stats.latencies.record(now - intended);
    }

    fn failed(&mut self, index: usize, fault: &Fault) {
        let slot = &mut self.slots[index];
        let idle = !slot.is_busy();
        self.stats.errors.fault(fault);
        if let Source::Store(store) = &mut self.source
            && !matches!(fault, Fault::Idle)
        {
            store.fail(fault.to_string());
        }
        slot.conn.close();
        slot.waiting = None;
        if matches!(fault, Fault::Connect(_) | Fault::Handshake(_)) {
            slot.retry_at = Some(Instant::now() + RETRY_DELAY);
            return;
        }
        if idle {
            self.free.retain(|free| *free != index);
        }
        self.begin(index);
    }

    /// Finds what should have happened and did not.
    fn sweep(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.conn.take_stirred() {
                slot.stirred = now;
            }
            let silent = now.saturating_duration_since(slot.stirred);
            let timeout = io::Error::from(io::ErrorKind::TimedOut);
            if slot.retry_at.is_some_and(|at| at <= now) {
                slot.retry_at = None;
                self.begin(index);
            } else if slot.conn.is_connecting() && silent > self.times.connect_timeout {
                self.failed(index, &Fault::Connect(timeout));
            } else if slot.conn.job().is_some() && silent > self.times.answer_timeout {
                self.failed(index, &Fault::Timeout);
            }
        }
    }

    /// Counts what an open loop leaves unanswered: to leave it out would be to flatter.
    fn give_up(&mut self) {
        let Some(schedule) = &self.schedule else { return };
        let waiting = schedule.backlog(self.times.closes);
        let within = |slot: &&Slot<'_>| slot.is_busy() && self.times.within(slot.intended);
        let unanswered = waiting + self.slots.iter().filter(within).count() as u64;
        if unanswered > 0 {
            self.stats.errors.timeout += unanswered;
            self.stats.errors.sample(|| format!("{unanswered} requests were not answered"));
        }
    }
}
