//! How long each step of a turn holds the shard.
//!
//! A step ends where the next begins, so one look at a counter of the CPU is enough for each: some
//! nanoseconds, where a clock takes twenty. What a count is worth in time is learnt from the clock,
//! which is read once a turn anyway. What the steps of a turn took is looked at when it has ended,
//! and acted on only when one took longer than it may.

use std::sync::Arc;

use crate::{
    limits::STALL_REPORT_EVERY,
    ports::{Report, ShardId, Stall},
    stats::Stats,
    watch::{Step, own_cpu_ns},
    work::Work,
};

const WORKS: usize = Work::ALL.len();

/// A time long enough to learn from it how fast the ticks are.
const LEARN_NS: u64 = 100_000_000;

/// The laps of one shard.
pub(super) struct Laps {
    stats: Arc<Stats>,
    shard: ShardId,
    limit_ns: u64,
    /// A moment long ago, in ticks and in nanoseconds.
    start: (u64, u64),
    ns_per_tick: f64,
    learnt_over_ns: u64,
    /// When the last step ended.
    last: u64,
    /// Ticks of the longest step of each kind in this turn.
    longest: [u64; WORKS],
    /// When each kind of stall was last reported, and how many there were since.
    reported_ns: [Option<u64>; WORKS],
    unreported: [u64; WORKS],
    /// The CPU time of the thread as it was known last, and when that was.
    cpu: Cpu,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    pub(super) at_ns: u64,
    pub(super) busy_ns: u64,
}

impl Laps {
    /// Times are those of `watch::clock_ns`, here and below.
    pub(super) fn new(stats: Arc<Stats>, shard: ShardId, now_ns: u64) -> Laps {
        let limit = stats.watch.limit();
        let cpu = Cpu { at_ns: now_ns, busy_ns: own_cpu_ns() };
        stats.watch.load_begins(cpu.at_ns, cpu.busy_ns);
        let start = ticks();
        Laps {
            stats,
            shard,
            limit_ns: if limit.is_zero() { u64::MAX } else { limit.as_nanos() as u64 },
            start: (start, now_ns),
            ns_per_tick: 0.0,
            learnt_over_ns: 0,
            last: start,
            longest: [0; WORKS],
            reported_ns: [None; WORKS],
            unreported: [0; WORKS],
            cpu,
        }
    }

    /// The steps of a turn are about to begin.
    #[inline]
    pub(super) fn start(&mut self, now_ns: u64) {
        self.stats.watch.turn(now_ns);
        self.last = ticks();
    }

    #[inline]
    pub(super) fn begin(&self, work: Work) {
        self.stats.watch.begin(work);
    }

    /// What was done since the last step, or since the start, was this.
    #[inline]
    pub(super) fn end(&mut self, work: Work) {
        let now = ticks();
        let took = now.saturating_sub(self.last);
        self.last = now;
        let longest = &mut self.longest[work as usize];
        *longest = took.max(*longest);
    }

    /// The turn has ended. Stalls are handed to `tell`.
    #[inline]
    pub(super) fn finish(&mut self, now_ns: u64, tell: impl FnMut(Report)) {
        // What was learnt over a short time is not known well.
        if self.learnt_over_ns < LEARN_NS {
            self.learn(now_ns);
        }
        let (at, ticks) = longest_of(&self.longest);
        let held_ns = self.ns(ticks);
        if held_ns > 0 {
            self.stats.watch.took(Step { work: Work::ALL[at], held_ns, at_ns: now_ns });
        }
        if held_ns > self.limit_ns {
            self.stalled(now_ns, tell);
        }
        self.longest = [0; WORKS];
    }

    /// Something was done outside of a turn's steps, and took this long.
    pub(super) fn span(
        &mut self,
        work: Work,
        held_ns: u64,
        now_ns: u64,
        mut tell: impl FnMut(Report),
    ) {
        self.stats.watch.took(Step { work, held_ns, at_ns: now_ns });
        if held_ns > self.limit_ns
            && let Some(stall) = self.stall(work, held_ns, now_ns)
        {
            tell(Report::Stalled { shard: self.shard, stall });
        }
    }

    /// When the CPU time was last looked at.
    pub(super) fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Looks at the CPU time, and at how fast the ticks are.
    pub(super) fn sample(&mut self, now_ns: u64) -> Cpu {
        self.cpu = Cpu { at_ns: now_ns, busy_ns: own_cpu_ns() };
        self.stats.watch.loaded(now_ns, self.cpu.busy_ns);
        self.learn(now_ns);
        self.cpu
    }

    fn learn(&mut self, now_ns: u64) {
        let (ticks_then, then_ns) = self.start;
        let passed = ticks().saturating_sub(ticks_then).max(1);
        self.learnt_over_ns = now_ns.saturating_sub(then_ns);
        self.ns_per_tick = self.learnt_over_ns as f64 / passed as f64;
    }

    fn ns(&self, ticks: u64) -> u64 {
        (ticks as f64 * self.ns_per_tick) as u64
    }

    #[cold]
    fn stalled(&mut self, now_ns: u64, mut tell: impl FnMut(Report)) {
        for work in Work::ALL {
            let held_ns = self.ns(self.longest[work as usize]);
            if held_ns > self.limit_ns
                && let Some(stall) = self.stall(work, held_ns, now_ns)
            {
                tell(Report::Stalled { shard: self.shard, stall });
            }
        }
    }

    /// Counts a stall. Returns it if it is time to report one of its kind.
    #[cold]
    fn stall(&mut self, work: Work, held_ns: u64, now_ns: u64) -> Option<Stall> {
        self.stats.watch.stalled(work);
        let reported_ns = &mut self.reported_ns[work as usize];
        let again_ns = STALL_REPORT_EVERY.as_nanos() as u64;
        if reported_ns.is_some_and(|then| now_ns.saturating_sub(then) < again_ns) {
            self.unreported[work as usize] += 1;
            return None;
        }
        *reported_ns = Some(now_ns);
        Some(Stall {
            work,
            held_ns,
            ran_ns: own_cpu_ns().saturating_sub(self.cpu.busy_ns),
            within_ns: now_ns.saturating_sub(self.cpu.at_ns),
            unreported: std::mem::take(&mut self.unreported[work as usize]),
        })
    }
}

/// The place of the greatest, and it.
fn longest_of(ticks: &[u64; WORKS]) -> (usize, u64) {
    let mut found = (0, 0);
    for (at, ticks) in ticks.iter().enumerate() {
        if *ticks > found.1 {
            found = (at, *ticks);
        }
    }
    found
}

/// A counter that goes on at one pace, cheaper to read than a clock.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ticks() -> u64 {
    // SAFETY: every CPU of this kind has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn ticks() -> u64 {
    crate::watch::clock_ns()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::watch::clock_ns;

    fn laps(limit: Duration) -> Laps {
        let stats = Arc::new(Stats::default());
        stats.watch.set_limit(limit);
        Laps::new(stats, ShardId(3), clock_ns())
    }

    fn spin(for_long: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < for_long {
            std::hint::spin_loop();
        }
    }

    /// One turn with a long step between two short ones; yields what was reported.
    fn turn(laps: &mut Laps, long: Duration) -> Vec<Stall> {
        laps.start(clock_ns());
        laps.begin(Work::Opened);
        laps.end(Work::Opened);
        laps.begin(Work::Disk);
        spin(long);
        laps.end(Work::Disk);
        laps.begin(Work::Sent);
        laps.end(Work::Sent);
        let mut told = Vec::new();
        laps.finish(clock_ns(), |report| match report {
            Report::Stalled { shard: ShardId(3), stall } => told.push(stall),
            other => panic!("{other:?}"),
        });
        told
    }

    #[test]
    fn the_longest_step_is_known_with_its_time() {
        let mut laps = laps(Duration::ZERO);
        assert_eq!(turn(&mut laps, Duration::from_millis(3)), []);
        let slowest = laps.stats.watch.slowest(clock_ns()).unwrap();
        assert_eq!(slowest.work, Work::Disk);
        let held = Duration::from_nanos(slowest.held_ns);
        // The pace of the ticks was learnt from this very turn.
        assert!(held > Duration::from_micros(2900) && held < Duration::from_secs(3), "{held:?}");
        assert_eq!(laps.stats.watch.turns.get(), 1);
    }

    #[test]
    fn a_stall_is_told_once_a_second_and_counted_always() {
        let mut laps = laps(Duration::from_millis(2));
        laps.start(clock_ns());
        laps.finish(clock_ns(), |report| panic!("{report:?}"));
        let told = turn(&mut laps, Duration::from_millis(5));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].work == Work::Disk && told[0].held_ns > 4_500_000, "{told:?}");
        assert!(told[0].ran_ns > 0 && told[0].within_ns >= told[0].held_ns / 2, "{told:?}");
        assert_eq!(turn(&mut laps, Duration::from_millis(5)), []);
        assert_eq!(laps.stats.watch.stalls(Work::Disk), 2);
        // Another kind has a time of its own.
        let mut told = Vec::new();
        let now_ns = clock_ns();
        laps.span(Work::Ring, 2_000_001, now_ns, |report| told.push(report));
        laps.span(Work::Ring, 2_000_000, now_ns, |report| told.push(report));
        assert!(matches!(told[..], [Report::Stalled { .. }]), "{told:?}");
        let later_ns = now_ns + STALL_REPORT_EVERY.as_nanos() as u64;
        let stall = laps.stall(Work::Disk, 2_000_001, later_ns).unwrap();
        assert_eq!((stall.unreported, laps.stats.watch.stalls(Work::Disk)), (1, 3));
        assert!(laps.stall(Work::Disk, 2_000_001, later_ns + 1).is_none());
    }
}
