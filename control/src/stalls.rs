//! Steps that held a shard: the log has one line a minute about them.
//!
//! Every stall is counted by its shard and shown in the metrics. The log is for those that somebody
//! can do something about: not while a shard is still opening its partitions, and not when its
//! thread ran for much less than it was held, because then the machine had no core or no page for
//! it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ron_io::{
    ports::Stall,
    stats::{Phase, Stats},
};

use crate::limits::STALLS_EVERY;

/// What was not said yet.
#[derive(Debug, Default)]
pub(crate) struct Stalls(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    said: Option<Instant>,
    count: u64,
    longest: Option<(u16, Stall)>,
}

/// What the log is to say: how many there were, and the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) shard: u16,
    pub(crate) longest: Stall,
}

/// What to do about a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Say(Summary),
    /// Ask for the summary after this time; it is the first since the last one.
    SayIn(Duration),
    Nothing,
}

impl Stalls {
    pub(crate) fn add(&self, shard: u16, stall: Stall, stats: &[Arc<Stats>], now: Instant) -> Next {
        let booting = stats.iter().any(|stats| stats.phase() == Phase::Booting);
        if booting || stall.ran_ns < stall.held_ns / 2 {
            return Next::Nothing;
        }
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = pending.count == 0;
        pending.count += 1 + stall.unreported;
        if pending.longest.is_none_or(|(_, longest)| longest.held_ns < stall.held_ns) {
            pending.longest = Some((shard, stall));
        }
        let since = pending.said.map(|said| now.saturating_duration_since(said));
        match since.and_then(|since| STALLS_EVERY.checked_sub(since)) {
            Some(left) if !left.is_zero() => {
                if is_first {
                    Next::SayIn(left)
                } else {
                    Next::Nothing
                }
            }
            _ => take(&mut pending, now).map_or(Next::Nothing, Next::Say),
        }
    }

    /// All there was since the last summary.
    pub(crate) fn take(&self, now: Instant) -> Option<Summary> {
        take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

fn take(pending: &mut Pending, now: Instant) -> Option<Summary> {
    let (shard, longest) = pending.longest.take()?;
    pending.said = Some(now);
    Some(Summary { count: std::mem::take(&mut pending.count), shard, longest })
}

#[cfg(test)]
mod tests {
    use ron_io::work::Work;

    use super::*;

    fn stall(held_ms: u64, ran_ms: u64) -> Stall {
        let (held_ns, ran_ns) = (held_ms * 1_000_000, ran_ms * 1_000_000);
        Stall { work: Work::Disk, held_ns, ran_ns, within_ns: held_ns, unreported: 2 }
    }

    fn serving() -> Vec<Arc<Stats>> {
        let stats: Vec<Arc<Stats>> = (0..2).map(|_| Arc::default()).collect();
        stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
        stats
    }

    #[test]
    fn there_is_one_summary_a_minute() {
        let (stalls, stats, begin) = (Stalls::default(), serving(), Instant::now());
        let first = Summary { count: 3, shard: 1, longest: stall(50, 50) };
        assert_eq!(stalls.add(1, stall(50, 50), &stats, begin), Next::Say(first));
        let later = begin + Duration::from_secs(10);
        let left = STALLS_EVERY - Duration::from_secs(10);
        assert_eq!(stalls.add(0, stall(30, 30), &stats, later), Next::SayIn(left));
        for shard in [1, 0] {
            assert_eq!(stalls.add(shard, stall(40, 40), &stats, later), Next::Nothing);
        }
        let all = Summary { count: 9, shard: 1, longest: stall(40, 40) };
        assert_eq!(stalls.take(begin + STALLS_EVERY), Some(all));
        assert_eq!(stalls.take(begin + STALLS_EVERY), None);
        let again = begin + 3 * STALLS_EVERY;
        assert!(matches!(stalls.add(0, stall(30, 30), &stats, again), Next::Say(_)));
    }

    #[test]
    fn what_nobody_can_help_is_not_said() {
        let (stalls, stats, now) = (Stalls::default(), serving(), Instant::now());
        assert_eq!(stalls.add(0, stall(50, 24), &stats, now), Next::Nothing, "it waited");
        stats[1].set_phase(Phase::Booting);
        assert_eq!(stalls.add(0, stall(50, 50), &stats, now), Next::Nothing, "it is starting");
        assert_eq!(stalls.take(now), None);
        stats[1].set_phase(Phase::Draining);
        assert!(matches!(stalls.add(0, stall(50, 25), &stats, now), Next::Say(_)));
    }
}
