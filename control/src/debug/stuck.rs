//! Shards that hang.
//!
//! A shard reports a step that took too long when the step has ended. One that does not end is
//! seen from here: a look every so often compares what each shard does with the look before.
//!
//! * The same *step* at two looks that are further apart than it may take is reported, once, and
//!   again every [`HELD_AGAIN`] while it lasts. What shorter steps do is left to the shard's own
//!   report.
//! * The same *turn* of the event loop for [`TURN_STALL`], in however many steps, is an event loop
//!   stall: it is reported likewise, and the node is not ready meanwhile (`health`).
//! * The same turn for longer than the hang limit: the shard will not come back, and its clients
//!   wait with it. The node ends, so that its supervisor starts it anew.
//!
//! Time counts only as far as it was looked: a machine that slept has hung no shard. While all
//! shards sleep nobody looks: the first that wakes wakes this thread.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ron_io::{lane::Waker, stats::Stats, watch::Doing, work::Work};
use tokio::io::unix::AsyncFd;

use crate::{
    kernel::{Ending, Kernel},
    limits::{HELD_AGAIN, HELD_LOOK_EVERY, TURN_STALL},
    waker::{self, WakerFd},
};

/// What was seen of each shard.
#[derive(Debug)]
pub(crate) struct Looks(Vec<Option<Seen>>);

/// What a shard was seen doing.
#[derive(Clone, Copy, Debug)]
struct Seen {
    step: Span,
    turn: Span,
    looked: Instant,
}

/// One step or turn that was seen, by its number.
#[derive(Clone, Copy, Debug)]
struct Span {
    number: u64,
    lasted: Duration,
    reported: Option<Instant>,
}

/// A shard that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) shard: usize,
    pub(crate) by: By,
    /// For at least so long.
    pub(crate) at_least: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// One step, of this kind.
    Step(Work),
    /// One turn of the event loop, which is in a step of this kind now.
    Turn(Work),
}

impl Looks {
    pub(crate) fn new(shards: usize) -> Looks {
        Looks(vec![None; shards])
    }

    /// Looks at all shards. Returns those that are to be reported now.
    pub(crate) fn look(&mut self, stats: &[Arc<Stats>], now: Instant) -> Vec<Held> {
        let mut held = Vec::new();
        for (shard, (seen, stats)) in self.0.iter_mut().zip(stats).enumerate() {
            *seen = stats.watch.doing().map(|doing| Seen::next(*seen, doing, stats, now));
            let Some(seen) = seen else { continue };
            let work = stats.watch.doing().map_or(Work::Ring, |doing| doing.work);
            let limit = stats.watch.limit();
            let spans = [
                (&mut seen.step, By::Step(work), limit),
                (&mut seen.turn, By::Turn(work), TURN_STALL),
            ];
            held.extend(spans.into_iter().filter_map(|(span, by, limit)| {
                let at_least = span.due(limit, now)?;
                Some(Held { shard, by, at_least })
            }));
        }
        held
    }

    /// The shard whose turn has lasted longest, if that is at least so long.
    pub(crate) fn hung(&self, limit: Duration) -> Option<(usize, Duration)> {
        let lasted = |(shard, seen): (usize, &Option<Seen>)| Some((shard, (*seen)?.turn.lasted));
        let longest = self.0.iter().enumerate().filter_map(lasted).max_by_key(|(_, for_)| *for_)?;
        (!limit.is_zero() && longest.1 >= limit).then_some(longest)
    }

    /// All shards were at rest.
    fn forget(&mut self) {
        self.0.fill(None);
    }
}

impl Seen {
    fn next(before: Option<Seen>, doing: Doing, stats: &Stats, now: Instant) -> Seen {
        let fresh = |number| Span { number, lasted: Duration::ZERO, reported: None };
        let (step, turn) = (doing.step, stats.watch.turns.get());
        let Some(before) = before else {
            return Seen { step: fresh(step), turn: fresh(turn), looked: now };
        };
        // What lies beyond that was a pause of this thread, and may be one of all.
        let passed = now.saturating_duration_since(before.looked).min(2 * HELD_LOOK_EVERY);
        let next = |span: Span, number| match span.number == number {
            true => Span { lasted: span.lasted + passed, ..span },
            false => fresh(number),
        };
        Seen { step: next(before.step, step), turn: next(before.turn, turn), looked: now }
    }
}

impl Span {
    /// How long it lasts, if that is to be reported now. A limit of zero means no limit.
    fn due(&mut self, limit: Duration, now: Instant) -> Option<Duration> {
        let again = self.reported.is_none_or(|at| now.saturating_duration_since(at) >= HELD_AGAIN);
        if limit.is_zero() || self.lasted <= limit || !again {
            return None;
        }
        self.reported = Some(now);
        Some(self.lasted)
    }
}

/// The waker that shards use when they wake. Must be called inside a tokio runtime.
///
/// # Errors
/// What `eventfd(2)` or `epoll_ctl(2)` answered.
pub(crate) fn watch(stats: &[Arc<Stats>]) -> io::Result<AsyncFd<WakerFd>> {
    let waker = Arc::new(Waker::new()?);
    stats.iter().for_each(|stats| stats.watch.set_watcher(Arc::clone(&waker)));
    waker::watch(waker)
}

/// Looks at the shards, and at their load, until it is dropped, or one hangs for `hang_limit`.
pub(crate) async fn run(waker: AsyncFd<WakerFd>, hang_limit: Duration, kernel: Arc<Kernel>) {
    let stats = &kernel.stats;
    let mut looks = Looks::new(stats.len());
    loop {
        kernel.health.measure(Instant::now());
        looks.look(stats, Instant::now()).iter().for_each(log);
        if let Some((shard, lasted)) = looks.hung(hang_limit) {
            let at_least_s = lasted.as_secs();
            tracing::error!(shard, at_least_s, "event loop hang: the node ends");
            kernel.end(Ending::Hung { shard });
            return;
        }
        waker.get_ref().0.prepare_park();
        if stats.iter().all(|stats| stats.watch.doing().is_none()) {
            looks.forget();
            match waker.readable().await {
                Ok(mut rung) => {
                    rung.clear_ready();
                    // The quiet time before is no part of the load that begins.
                    kernel.health.measure(Instant::now());
                }
                Err(error) => {
                    tracing::error!("shards that hang are no longer noticed: {error}");
                    return;
                }
            }
        }
        waker.get_ref().0.unpark();
        tokio::time::sleep(HELD_LOOK_EVERY).await;
    }
}

/// Writes to the log that a shard is held.
pub(crate) fn log(held: &Held) {
    let at_least_ms = u64::try_from(held.at_least.as_millis()).unwrap_or(u64::MAX);
    let shard = held.shard;
    match held.by {
        By::Step(work) => {
            let what = work.name();
            tracing::error!(shard, what, at_least_ms, "event loop stall: one step does not end");
        }
        By::Turn(work) => {
            let what = work.name();
            tracing::error!(shard, what, at_least_ms, "event loop stall: the node is not ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Vec<Arc<Stats>> {
        let stats: Vec<Arc<Stats>> = vec![Arc::default(), Arc::default()];
        stats.iter().for_each(|stats| stats.watch.set_limit(Duration::from_millis(20)));
        stats
    }

    fn steps(held: Vec<Held>) -> Vec<Held> {
        held.into_iter().filter(|held| matches!(held.by, By::Step(_))).collect()
    }

    #[test]
    fn a_step_that_does_not_end_is_reported_again_and_again() {
        let (stats, begin) = (stats(), Instant::now());
        let mut looks = Looks::new(2);
        stats[1].watch.begin(Work::Disk);
        assert_eq!(looks.look(&stats, begin), [], "it may have begun just now");
        let soon = begin + Duration::from_millis(20);
        assert_eq!(looks.look(&stats, soon), []);
        let late = begin + Duration::from_millis(21);
        let (by, at_least) = (By::Step(Work::Disk), Duration::from_millis(21));
        assert_eq!(looks.look(&stats, late), [Held { shard: 1, by, at_least }]);
        let mut again = Vec::new();
        for second in 1..=HELD_AGAIN.as_secs() {
            again.extend(steps(looks.look(&stats, late + Duration::from_secs(second))));
        }
        let at_least = at_least + HELD_AGAIN;
        assert_eq!(again, [Held { shard: 1, by, at_least }], "it was reported");
    }

    #[test]
    fn shards_that_go_on_or_rest_are_not_reported() {
        let (stats, begin) = (stats(), Instant::now());
        let mut looks = Looks::new(2);
        for second in 0..100 {
            // One begins a new turn of the same kind again and again; the other rests in between.
            stats[0].watch.turn(1);
            stats[0].watch.begin(Work::Bytes);
            match second % 2 {
                0 => stats[1].watch.begin(Work::Tick),
                _ => stats[1].watch.rest(),
            }
            assert_eq!(looks.look(&stats, begin + Duration::from_secs(second)), []);
            assert_eq!(looks.hung(Duration::from_secs(1)), None);
        }
        // A limit of zero means no limit.
        stats[0].watch.set_limit(Duration::ZERO);
        for second in 100..103 {
            assert_eq!(looks.look(&stats[..1], begin + Duration::from_secs(second)), []);
        }
    }

    #[test]
    fn a_turn_that_does_not_end_is_seen_whatever_steps_it_takes() {
        let (stats, begin) = (stats(), Instant::now());
        let (mut looks, mut reported) = (Looks::new(2), Vec::new());
        stats[1].watch.turn(1);
        let limit = Duration::from_secs(60);
        for second in 0..=60 {
            assert_eq!(looks.hung(limit), None, "{second}");
            stats[1].watch.begin(Work::Tls);
            reported.extend(looks.look(&stats, begin + Duration::from_secs(second)));
        }
        let at_least = TURN_STALL + Duration::from_secs(1);
        assert_eq!(reported, [Held { shard: 1, by: By::Turn(Work::Tls), at_least }]);
        assert_eq!(looks.hung(limit), Some((1, limit)));
        assert_eq!(looks.hung(Duration::ZERO), None, "no limit");
        stats[1].watch.turn(2);
        looks.look(&stats, begin + Duration::from_secs(61));
        assert_eq!(looks.hung(TURN_STALL), None, "it goes on");
    }

    #[test]
    fn a_machine_that_slept_has_hung_no_shard() {
        let (stats, begin) = (stats(), Instant::now());
        let mut looks = Looks::new(2);
        stats[0].watch.turn(1);
        stats[0].watch.begin(Work::Mail);
        looks.look(&stats, begin);
        looks.look(&stats, begin + Duration::from_secs(3600));
        assert_eq!(looks.hung(TURN_STALL), None);
    }
}
