//! What a shard is doing, for readers on other threads.
//!
//! Like the counters beside it, all of this is plain memory that the shard's thread writes and
//! others read at any time: looking never locks and never slows a shard. What is read may be a
//! moment old, and values that belong together may be a turn of the loop apart.
//!
//! ```text
//!   turn ─► step (an event applied, or other work) ─► step ─► … ─► rest
//!            └ `doing` counts up and names it                       └ `doing` names nothing
//! ```

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

use crate::{
    counter::Counter,
    lane::{Depth, Waker},
    limits::SLOWEST_SPAN,
    seqlock::SeqLock,
    work::Work,
};

/// Nanoseconds of the clock that all threads of the process share for this.
pub fn clock_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // It never is 0, which stands for never.
    1 + START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// The watch over one shard.
#[derive(Debug, Default)]
pub struct Watch {
    /// Nanoseconds that one step may take before it is reported; 0 for no matter.
    limit_ns: AtomicU64,
    /// Steps begun so far, above a byte that is 0 at rest, else one more than the work.
    doing: AtomicU64,
    /// When the turn began that is in progress.
    turn_began_ns: Counter,
    /// The shard's thread, as the system knows it; 0 before it runs.
    pub thread: Counter,
    /// Turns of the loop so far.
    pub turns: Counter,
    /// When the shard wants to be woken, in `clock_ns`; 0 for never.
    pub wake_at_ns: Counter,
    pub ring: RingFigures,
    pub disk: DiskFigures,
    load: Load,
    slowest: [Slow; SLOWEST_BUCKETS],
    stalls: [Counter; Work::ALL.len()],
    lanes: OnceLock<Vec<Depth>>,
    watcher: OnceLock<Arc<Waker>>,
}

/// What the ring of sockets and files did, and has before it.
#[derive(Debug, Default)]
pub struct RingFigures {
    /// System calls into the ring.
    pub enters: Counter,
    pub completions: Counter,
    /// Calls that found completions waiting in the kernel because the queue was full.
    pub overflows: Counter,
    /// Receives that found no free buffer.
    pub starved: Counter,
    /// Submissions that wait for space in the queue.
    pub waiting: Counter,
    /// Connections in the driver's table.
    pub conns: Counter,
    /// Accepts that failed, and listeners that accept nothing until it is tried again.
    pub accept_failures: Counter,
    pub accept_paused: Counter,
}

/// Disk operations, by where they are.
#[derive(Debug, Default)]
pub struct DiskFigures {
    /// On the ring.
    pub transfers: Counter,
    /// With threads that may block.
    pub tasks: Counter,
    /// Waiting until fewer are in progress.
    pub waiting: Counter,
    /// Background reads that wait to be started.
    pub background: Counter,
}

/// How busy the thread was: its CPU time at three moments, the last two at most half a second
/// apart while it runs. Of the first two the time, and the CPU time until then.
#[derive(Debug, Default)]
struct Load {
    from: SeqLock<2>,
    mid: SeqLock<2>,
    last_busy_ns: Counter,
}

/// The slowest step of one stretch of time: nanoseconds, above a byte for the work, and when it
/// ended, in `clock_ns`.
#[derive(Debug, Default)]
struct Slow(SeqLock<2>);

/// Stretches that the slowest steps are kept for. One is being filled, the others cover the span.
const SLOWEST_BUCKETS: usize = 7;
const SLOWEST_BUCKET_NS: u64 = SLOWEST_SPAN.as_nanos() as u64 / (SLOWEST_BUCKETS as u64 - 1);

/// A step, and how long it held the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub work: Work,
    pub held_ns: u64,
    /// When it ended, in `clock_ns`.
    pub at_ns: u64,
}

/// What a shard is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doing {
    /// Which step of its life it is: the same number is the same step.
    pub step: u64,
    pub work: Work,
    /// When the turn began that the step belongs to.
    pub turn_began_ns: u64,
}

/// Half of the time that the busy ratio is about.
const LOAD_HALF_NS: u64 = 500_000_000;

impl Watch {
    /// Steps that hold the shard longer are reported; zero for none.
    pub fn set_limit(&self, limit: Duration) {
        let ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.limit_ns.store(ns, Ordering::Relaxed);
    }

    pub fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit_ns.load(Ordering::Relaxed))
    }

    /// A turn begins. The shard's thread calls this, and all below down to `stalled`.
    #[inline]
    pub fn turn(&self, now_ns: u64) {
        self.turns.add(1);
        self.turn_began_ns.set(now_ns);
    }

    /// Nanoseconds since the present turn began, asked by the shard's thread; 0 where nobody says
    /// when turns begin.
    #[inline]
    pub fn into_turn_ns(&self) -> u64 {
        match self.turn_began_ns.get() {
            0 => 0,
            began_ns => clock_ns().saturating_sub(began_ns),
        }
    }

    /// A step begins.
    #[inline]
    pub fn begin(&self, work: Work) {
        let steps = (self.doing.load(Ordering::Relaxed) >> 8) + 1;
        self.doing.store(steps << 8 | (work as u64 + 1), Ordering::Relaxed);
    }

    /// The shard slept and collects what woke it. A watcher who sleeps is woken, after there is
    /// something to see: it looks once more before it sleeps.
    #[inline]
    pub fn wake(&self, now_ns: u64) {
        // The turn begins in a moment; the last one was over before the sleep.
        self.turn_began_ns.set(now_ns);
        fence(Ordering::Release);
        self.begin(Work::Ring);
        if let Some(watcher) = self.watcher.get() {
            watcher.wake();
        }
    }

    /// Nothing is being done.
    #[inline]
    pub fn rest(&self) {
        self.doing.store(self.doing.load(Ordering::Relaxed) & !0xff, Ordering::Relaxed);
    }

    /// Keeps a step if it is the slowest of its stretch of time.
    #[inline]
    pub fn took(&self, step: Step) {
        let bucket = step.at_ns / SLOWEST_BUCKET_NS;
        let slow = &self.slowest[(bucket % SLOWEST_BUCKETS as u64) as usize];
        let [held, at_ns] = slow.0.own();
        if at_ns / SLOWEST_BUCKET_NS != bucket || step.held_ns > held >> 8 {
            slow.0.set([step.held_ns << 8 | step.work as u64, step.at_ns]);
        }
    }

    /// Notes how much CPU time the thread has used; now and then.
    pub fn loaded(&self, now_ns: u64, busy_ns: u64) {
        let load = &self.load;
        let mid = load.mid.own();
        if now_ns.saturating_sub(mid[0]) >= LOAD_HALF_NS {
            load.from.set(mid);
            load.mid.set([now_ns, busy_ns]);
        }
        load.last_busy_ns.set(busy_ns);
    }

    /// Begins to count CPU time, when the thread has used this much.
    pub fn load_begins(&self, now_ns: u64, busy_ns: u64) {
        let load = &self.load;
        [&load.from, &load.mid].iter().for_each(|at| at.set([now_ns, busy_ns]));
        load.last_busy_ns.set(busy_ns);
    }

    /// The lanes that the shard reads. Only the first call counts.
    pub fn set_lanes(&self, lanes: Vec<Depth>) {
        let _ = self.lanes.set(lanes);
    }

    /// Whom to wake when the shard wakes. Only the first call counts.
    pub fn set_watcher(&self, waker: Arc<Waker>) {
        let _ = self.watcher.set(waker);
    }

    /// A step held the shard longer than it may.
    pub fn stalled(&self, work: Work) {
        self.stalls[work as usize].add(1);
    }

    /// Steps of this kind that held the shard longer than they may.
    pub fn stalls(&self, work: Work) -> u64 {
        self.stalls[work as usize].get()
    }

    /// What is being done; `None` at rest.
    pub fn doing(&self) -> Option<Doing> {
        let word = self.doing.load(Ordering::Acquire);
        let work = Work::ALL.get(usize::from(word as u8).checked_sub(1)?)?;
        Some(Doing { step: word >> 8, work: *work, turn_began_ns: self.turn_began_ns.get() })
    }

    /// For how long the present turn of the loop lasts; `None` at rest.
    pub fn turn_lasts(&self, now_ns: u64) -> Option<Duration> {
        let began_ns = self.doing()?.turn_began_ns;
        Some(Duration::from_nanos(now_ns.saturating_sub(began_ns)))
    }

    /// The slowest step that ended in the last [`SLOWEST_SPAN`].
    pub fn slowest(&self, now_ns: u64) -> Option<Step> {
        let since = now_ns.saturating_sub(SLOWEST_SPAN.as_nanos() as u64);
        let steps = self.slowest.iter().filter_map(Slow::step);
        steps.filter(|step| step.at_ns >= since).max_by_key(|step| step.held_ns)
    }

    /// The share of the last second or so, 0 to 1, that the thread had a CPU. Of a thread that
    /// slept longer, the share of the time since.
    pub fn busy_ratio(&self, now_ns: u64) -> f64 {
        let load = &self.load;
        let busy_ns = thread_cpu_ns(self.thread.get()).unwrap_or(load.last_busy_ns.get());
        // It is replaced twice a second: there is no time at which it cannot be read.
        let [from_ns, from_busy_ns] = load.from.get().unwrap_or_default();
        let busy = busy_ns.saturating_sub(from_busy_ns) as f64;
        let time = now_ns.saturating_sub(from_ns).max(1) as f64;
        (busy / time).min(1.0)
    }

    /// Messages in each lane that the shard reads, in the order it has them.
    pub fn lanes(&self) -> Vec<usize> {
        self.lanes.get().map_or_else(Vec::new, |lanes| lanes.iter().map(Depth::len).collect())
    }
}

impl Slow {
    /// The step; `None` when there is none, or it is being replaced all the time.
    fn step(&self) -> Option<Step> {
        let [held, at_ns] = self.0.get()?;
        let work = Work::ALL.get(usize::from(held as u8))?;
        (at_ns > 0).then_some(Step { work: *work, held_ns: held >> 8, at_ns })
    }
}

/// CPU time of this thread, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// The clock of a thread's CPU time, as the kernel numbers them.
pub(crate) fn cpu_clock(thread: i32) -> libc::clockid_t {
    const SCHEDULED: i32 = 2;
    const OF_A_THREAD: i32 = 4;
    !thread << 3 | SCHEDULED | OF_A_THREAD
}

/// CPU time of a thread of this process; `None` when there is no such thread.
fn thread_cpu_ns(thread: u64) -> Option<u64> {
    let thread = i32::try_from(thread).ok().filter(|thread| *thread > 0)?;
    cpu_ns(cpu_clock(thread))
}

fn cpu_ns(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills one timespec; a clock that does not exist is an error.
    let answer = unsafe { libc::clock_gettime(clock, &mut time) };
    (answer == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The id of the calling thread, as the system knows it.
pub fn own_thread() -> i32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn step(work: Work, held_ns: u64, at_ns: u64) -> Step {
        Step { work, held_ns, at_ns }
    }

    #[test]
    fn each_step_has_a_number_and_rest_has_none() {
        let watch = Watch::default();
        assert_eq!(watch.doing(), None);
        watch.turn(7);
        watch.begin(Work::Opened);
        let first = watch.doing().unwrap();
        assert_eq!((first.work, first.turn_began_ns), (Work::Opened, 7));
        watch.begin(Work::Opened);
        let second = watch.doing().unwrap();
        assert_ne!(first.step, second.step);
        watch.rest();
        assert_eq!(watch.doing(), None);
        watch.begin(Work::Ring);
        let third = watch.doing().unwrap();
        assert!(third.work == Work::Ring && third.step > second.step);
    }

    #[test]
    fn a_turn_lasts_from_its_beginning_and_not_from_before_the_sleep() {
        let watch = Watch::default();
        watch.turn(1000);
        watch.begin(Work::Bytes);
        assert_eq!(watch.turn_lasts(1500), Some(Duration::from_nanos(500)));
        // A loop that begins step after step does not hide how long the turn lasts.
        watch.begin(Work::Tls);
        assert_eq!(watch.turn_lasts(9000), Some(Duration::from_nanos(8000)));
        watch.rest();
        assert_eq!(watch.turn_lasts(9000), None);
        watch.wake(20_000);
        assert_eq!(watch.turn_lasts(20_001), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn a_watcher_who_sleeps_is_woken_and_then_sees_something() {
        let (watch, waker) = (Watch::default(), Arc::new(Waker::new().unwrap()));
        watch.wake(1);
        watch.set_watcher(Arc::clone(&waker));
        watch.rest();
        let rung = || {
            let mut poll = libc::pollfd { fd: waker.eventfd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            unsafe { libc::poll(&mut poll, 1, 0) == 1 }
        };
        watch.wake(2);
        assert!(!rung(), "the watcher is awake");
        watch.rest();
        waker.prepare_park();
        assert!(!rung());
        watch.wake(3);
        assert!(rung() && watch.doing().is_some());
    }

    #[test]
    fn the_slowest_step_is_kept_for_its_time_and_then_the_next_is() {
        let watch = Watch::default();
        assert_eq!(watch.slowest(SECOND), None);
        let slow = step(Work::Disk, 9_000, 5 * SECOND);
        let next = step(Work::Mail, 700, 17 * SECOND);
        watch.took(slow);
        watch.took(step(Work::Bytes, 8_999, 6 * SECOND));
        watch.took(next);
        watch.took(step(Work::Bytes, 0, 18 * SECOND));
        assert_eq!(watch.slowest(19 * SECOND), Some(slow));
        assert_eq!(watch.slowest(65 * SECOND), Some(slow));
        assert_eq!(watch.slowest(65 * SECOND + 1), Some(next));
        assert_eq!(watch.slowest(500 * SECOND), None);
        // The place of the first stretch is used again by a later one, from its start.
        watch.took(step(Work::Tick, 3, 72 * SECOND));
        assert_eq!(watch.slowest(72 * SECOND), Some(next));
        assert_eq!(watch.slowest(90 * SECOND), Some(step(Work::Tick, 3, 72 * SECOND)));
    }

    #[test]
    fn the_busy_ratio_is_that_of_the_last_second() {
        let watch = Watch::default();
        watch.load_begins(10 * SECOND, 5 * SECOND);
        assert_eq!(watch.busy_ratio(10 * SECOND), 0.0);
        let (mut now, mut busy) = (10 * SECOND, 5 * SECOND);
        let mut run = |share: u64, tenths: u64| {
            for _ in 0..tenths {
                now += SECOND / 10;
                busy += SECOND / 1000 * share;
                watch.loaded(now, busy);
            }
            watch.busy_ratio(now)
        };
        assert_eq!(run(100, 30), 1.0);
        assert_eq!(run(25, 30), 0.25);
        assert_eq!(run(0, 20), 0.0);
        assert!(run(100, 5) > 0.4);
    }

    #[test]
    fn the_cpu_time_of_a_thread_is_read_from_outside() {
        let watch = Watch::default();
        watch.thread.set(own_thread() as u64);
        let began = clock_ns();
        watch.load_begins(began, own_cpu_ns());
        let mut spun = 0u64;
        while own_cpu_ns() == 0 || clock_ns() - began < 5_000_000 {
            spun += 1;
        }
        let ratio = std::thread::scope(|scope| {
            scope.spawn(|| watch.busy_ratio(clock_ns())).join().unwrap()
        });
        assert!(ratio > 0.0 && spun > 0, "{ratio}");
        watch.thread.set(u64::MAX);
        assert_eq!(watch.busy_ratio(clock_ns()), 0.0, "there is no such thread");
    }

    #[test]
    fn stalls_are_counted_by_what_they_were() {
        let watch = Watch::default();
        watch.set_limit(Duration::from_millis(20));
        assert_eq!(watch.limit(), Duration::from_millis(20));
        watch.stalled(Work::Ring);
        watch.stalled(Work::Ring);
        let stalls: Vec<u64> = Work::ALL.iter().map(|work| watch.stalls(*work)).collect();
        assert_eq!((stalls[Work::Ring as usize], stalls.iter().sum()), (2, 2));
    }
}
