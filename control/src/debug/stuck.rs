//! Shards that hang in one step.
//!
//! A shard reports a step that held it too long when the step is over. One that is not over is
//! seen from here: a look every so often compares which step each shard is in with the look before.
//! The same step at two looks that are further apart than it may take is reported, once, and again
//! every [`HELD_AGAIN`] while it lasts. What shorter steps do is left to the shard's own report.
//! While all shards sleep nobody looks: the first that wakes rings a bell.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ron_io::{lane::Bell, stats::Stats, watch::Work};
use tokio::io::unix::AsyncFd;

use crate::{
    Kernel,
    limits::{HELD_AGAIN, HELD_LOOK_EVERY},
    pump::{self, BellFd},
};

/// What was seen of each shard.
#[derive(Debug)]
pub(crate) struct Looks(Vec<Option<Seen>>);

/// A step that was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    step: u64,
    since: Instant,
    told: Option<Instant>,
}

/// A shard that is held by one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) shard: usize,
    pub(crate) work: Work,
    /// For at least so long.
    pub(crate) at_least: Duration,
}

impl Looks {
    pub(crate) fn new(shards: usize) -> Looks {
        Looks(vec![None; shards])
    }

    /// Looks at all shards. Returns those that are to be reported now.
    pub(crate) fn look(&mut self, stats: &[Arc<Stats>], now: Instant) -> Vec<Held> {
        let shards = self.0.iter_mut().zip(stats).enumerate();
        shards.filter_map(|(shard, (seen, stats))| look_at(shard, seen, stats, now)).collect()
    }
}

fn look_at(shard: usize, seen: &mut Option<Seen>, stats: &Stats, now: Instant) -> Option<Held> {
    let (limit, doing) = (stats.watch.limit(), stats.watch.doing());
    let Some(doing) = doing.filter(|_| !limit.is_zero()) else {
        *seen = None;
        return None;
    };
    let Some(same) = seen.as_mut().filter(|seen| seen.step == doing.step) else {
        *seen = Some(Seen { step: doing.step, since: now, told: None });
        return None;
    };
    let at_least = now.saturating_duration_since(same.since);
    let again = same.told.is_none_or(|told| now.saturating_duration_since(told) >= HELD_AGAIN);
    if at_least <= limit || !again {
        return None;
    }
    same.told = Some(now);
    Some(Held { shard, work: doing.work, at_least })
}

/// The bell that the shards ring when they wake; `None` when there is no limit to what may hold
/// them. Must be called inside a tokio runtime.
///
/// # Errors
/// What `eventfd(2)` or `epoll_ctl(2)` answered.
pub(crate) fn bell(stats: &[Arc<Stats>]) -> io::Result<Option<AsyncFd<BellFd>>> {
    if stats.iter().all(|stats| stats.watch.limit().is_zero()) {
        return Ok(None);
    }
    let bell = Arc::new(Bell::new()?);
    stats.iter().for_each(|stats| stats.watch.set_watcher(Arc::clone(&bell)));
    pump::watch(bell).map(Some)
}

/// Looks at the shards until it is dropped.
pub(crate) async fn run(bell: AsyncFd<BellFd>, kernel: Arc<Kernel>) {
    let stats = &kernel.stats;
    let mut looks = Looks::new(stats.len());
    loop {
        looks.look(stats, Instant::now()).iter().for_each(log);
        bell.get_ref().0.sleepy();
        if stats.iter().all(|stats| stats.watch.doing().is_none()) {
            match bell.readable().await {
                Ok(mut rung) => rung.clear_ready(),
                Err(error) => {
                    tracing::error!("shards that hang are no longer noticed: {error}");
                    return;
                }
            }
        }
        bell.get_ref().0.awake();
        tokio::time::sleep(HELD_LOOK_EVERY).await;
    }
}

/// Writes to the log that a shard is held.
pub(crate) fn log(held: &Held) {
    let at_least_ms = u64::try_from(held.at_least.as_millis()).unwrap_or(u64::MAX);
    let (shard, what) = (held.shard, held.work.name());
    tracing::error!(
        shard,
        what,
        at_least_ms,
        "the shard is held by one step and does nothing else"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Vec<Arc<Stats>> {
        let stats: Vec<Arc<Stats>> = vec![Arc::default(), Arc::default()];
        stats.iter().for_each(|stats| stats.watch.set_limit(Duration::from_millis(20)));
        stats
    }

    #[test]
    fn a_step_that_does_not_end_is_told_and_told_again() {
        let (stats, begin) = (stats(), Instant::now());
        let mut looks = Looks::new(2);
        stats[1].watch.begin(Work::Disk);
        assert_eq!(looks.look(&stats, begin), [], "it may have begun just now");
        let soon = begin + Duration::from_millis(20);
        assert_eq!(looks.look(&stats, soon), []);
        let late = begin + Duration::from_millis(21);
        let at_least = Duration::from_millis(21);
        assert_eq!(looks.look(&stats, late), [Held { shard: 1, work: Work::Disk, at_least }]);
        assert_eq!(looks.look(&stats, late + Duration::from_secs(1)), [], "it was told");
        let again = looks.look(&stats, late + HELD_AGAIN);
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].at_least, HELD_AGAIN + at_least);
    }

    #[test]
    fn shards_that_go_on_or_rest_are_not_told() {
        let (stats, begin) = (stats(), Instant::now());
        let mut looks = Looks::new(2);
        for second in 0..100 {
            // One begins a new step of the same kind again and again; the other rests in between.
            stats[0].watch.begin(Work::Bytes);
            match second % 2 {
                0 => stats[1].watch.begin(Work::Tick),
                _ => stats[1].watch.rest(),
            }
            assert_eq!(looks.look(&stats, begin + Duration::from_secs(second)), []);
        }
        // A limit of nothing is none.
        stats[0].watch.set_limit(Duration::ZERO);
        for second in 100..110 {
            assert_eq!(looks.look(&stats[..1], begin + Duration::from_secs(second)), []);
        }
    }
}
