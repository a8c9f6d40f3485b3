//! Profiles: one at a time, all by one thread.
//!
//! ```text
//!   begin ─► thread: sample for so long, or until cut ─► names ─► picture ─► outcome
//! ```
//!
//! The thread that samples and looks up names is neither a shard nor the control thread. The first
//! profile starts it and it stays: the allocator keeps some MiB for each thread that looked up
//! names, and may leak them when it ends. A client that stops waiting cuts the profile short, and
//! so does the end of the node; what was sampled until then is still sent to a client that waits.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use ron_io::{
    sample::{self, SampleError, Sampler, Samples, Stack},
    stats::Stats,
};
use tokio::sync::oneshot;

use super::{
    ask::{Ask, Form},
    flame::Stacks,
};
use crate::limits::{PROFILE_LOOK_EVERY, PROFILE_WORK_S, RETRY_GONE_S};

/// The profile in progress, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    state: Mutex<State>,
    /// Where the thread that takes profiles gets its work.
    taker: Mutex<Option<mpsc::Sender<Work>>>,
}

type Work = Box<dyn FnOnce() + Send>;

#[derive(Debug, Default)]
struct State {
    last: u64,
    running: Option<Running>,
    /// The node is ending: no profile begins any more.
    has_ended: bool,
}

#[derive(Debug)]
struct Running {
    id: u64,
    until: Instant,
    /// Dropped to cut it short.
    go_on: Option<mpsc::Sender<()>>,
}

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoProfile {
    #[error("a profile is being taken; there is one at a time")]
    Busy { retry_after_s: u64 },
    #[error("shard {shard} does not run")]
    NotRunning { shard: usize },
    #[error("the node is shutting down")]
    Draining,
    #[error("no profile could be taken: {why}")]
    Failed { why: String },
}

impl NoProfile {
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        match self {
            NoProfile::Busy { retry_after_s } => Some(*retry_after_s),
            NoProfile::NotRunning { .. } => Some(1),
            NoProfile::Draining => Some(RETRY_GONE_S),
            NoProfile::Failed { .. } => None,
        }
    }
}

/// A profile in progress; it is cut short when this is dropped.
#[derive(Debug)]
pub(crate) struct Profile {
    place: Place,
    outcome: oneshot::Receiver<Result<String, NoProfile>>,
}

impl Profiles {
    /// Begins a profile of the shards that count in `stats`.
    ///
    /// # Errors
    /// There is one already, or the thread that is wanted does not run.
    pub(crate) fn begin(
        self: &Arc<Self>,
        ask: Ask,
        stats: &[Arc<Stats>],
    ) -> Result<Profile, NoProfile> {
        let threads = Threads::new(stats);
        let only = ask.shard.map(|shard| threads.of(shard)).transpose()?;
        let (go_on, stopped) = mpsc::channel();
        let id = self.enter(ask.duration(), go_on)?;
        let (tell, outcome) = oneshot::channel();
        let place = Place { profiles: Arc::clone(self), id, is_taker: true };
        let work = Box::new(move || {
            let outcome = take(ask, only, &threads, &stopped);
            // Its receiver may ask for the next one at once.
            drop(place);
            // The only error is that nobody waits any more.
            let _ = tell.send(outcome);
        });
        self.hand(work).map_err(|error| NoProfile::Failed { why: error.to_string() })?;
        let place = Place { profiles: Arc::clone(self), id, is_taker: false };
        Ok(Profile { place, outcome })
    }

    /// Gives work to the thread that takes profiles, and starts it if there is none.
    fn hand(&self, mut work: Work) -> io::Result<()> {
        let mut taker = self.taker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taker) = &*taker {
            match taker.send(work) {
                Ok(()) => return Ok(()),
                // It panicked.
                Err(mpsc::SendError(back)) => work = back,
            }
        }
        let (hand, handed) = mpsc::channel::<Work>();
        thread::Builder::new()
            .name("ron-profile".to_owned())
            .spawn(move || handed.iter().for_each(|work| work()))?;
        // The only error is that it panicked already, which the one who waits learns.
        let _ = hand.send(work);
        *taker = Some(hand);
        Ok(())
    }

    /// Cuts short what is in progress, and lets nothing begin any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.has_ended = true;
        if let Some(running) = &mut state.running {
            running.go_on = None;
        }
    }

    fn enter(&self, lasts: Duration, go_on: mpsc::Sender<()>) -> Result<u64, NoProfile> {
        let mut state = self.state();
        if state.has_ended {
            return Err(NoProfile::Draining);
        }
        if let Some(running) = &state.running {
            let left = running.until.saturating_duration_since(Instant::now());
            return Err(NoProfile::Busy { retry_after_s: left.as_secs() + PROFILE_WORK_S });
        }
        state.last += 1;
        let id = state.last;
        state.running = Some(Running { id, until: Instant::now() + lasts, go_on: Some(go_on) });
        Ok(id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Profile {
    /// Waits for the profile.
    pub(crate) async fn outcome(self) -> Result<String, NoProfile> {
        let Profile { place: _place, outcome } = self;
        let panicked = || NoProfile::Failed { why: "its thread panicked".to_owned() };
        outcome.await.unwrap_or_else(|_| Err(panicked()))
    }
}

/// Somebody's part in the profile in progress: when the taker's goes, the place is free; when the
/// asker's goes, the profile is cut short.
#[derive(Debug)]
struct Place {
    profiles: Arc<Profiles>,
    id: u64,
    is_taker: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.profiles.state();
        let Some(running) = state.running.as_mut().filter(|running| running.id == self.id) else {
            return;
        };
        match self.is_taker {
            true => state.running = None,
            false => running.go_on = None,
        }
    }
}

/// The shards' threads.
struct Threads(Vec<Option<i32>>);

impl Threads {
    fn new(stats: &[Arc<Stats>]) -> Threads {
        let thread = |stats: &Arc<Stats>| i32::try_from(stats.watch.thread.get()).ok();
        Threads(stats.iter().map(|stats| thread(stats).filter(|id| *id > 0)).collect())
    }

    fn of(&self, shard: usize) -> Result<i32, NoProfile> {
        self.0.get(shard).copied().flatten().ok_or(NoProfile::NotRunning { shard })
    }

    /// What to call a thread: the one that a shard runs on by its number, others by their names.
    fn label(&self, thread: i32, name: &str) -> String {
        match self.0.iter().position(|shard| *shard == Some(thread)) {
            Some(shard) => format!("shard {shard}"),
            None => name.to_owned(),
        }
    }
}

/// Takes a profile on the calling thread.
fn take(
    ask: Ask,
    only: Option<i32>,
    threads: &Threads,
    stopped: &mpsc::Receiver<()>,
) -> Result<String, NoProfile> {
    let failed = |error: SampleError| NoProfile::Failed { why: error.to_string() };
    let begun = Instant::now();
    let mut sampler = Sampler::start(ask.hz, only).map_err(failed)?;
    loop {
        let left = ask.duration().saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        match stopped.recv_timeout(left.min(PROFILE_LOOK_EVERY)) {
            Err(RecvTimeoutError::Timeout) => sampler.look().map_err(failed)?,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let samples = sampler.finish();
    let took = begun.elapsed();
    let lost = samples.lost;
    let stacks = named(samples, threads);
    sample::forget_functions();
    Ok(match ask.form {
        Form::Folded => stacks.folded(),
        Form::Svg => {
            let whom = match ask.shard {
                Some(shard) => format!("shard {shard}"),
                None => "all threads".to_owned(),
            };
            let title = format!(
                "{whom}: {} samples in {:.1} s, {} for each second of CPU time, {lost} lost",
                stacks.samples(),
                took.as_secs_f64(),
                ask.hz,
            );
            stacks.svg(&title)
        }
    })
}

/// The samples with names in place of addresses, under their threads.
fn named(samples: Samples, threads: &Threads) -> Stacks {
    let label = |(id, name): (&i32, &String)| (*id, Arc::from(threads.label(*id, name)));
    let labels: BTreeMap<i32, Arc<str>> = samples.names.iter().map(label).collect();
    let mut known = Functions::default();
    let mut stacks = Stacks::default();
    for Stack { thread, addresses } in samples.stacks {
        let mut functions = Vec::with_capacity(addresses.len() * 2);
        functions.extend(labels.get(&thread).cloned());
        for (at, address) in addresses.iter().enumerate().rev() {
            functions.extend(known.at(*address, at == 0).iter().rev().cloned());
        }
        stacks.add(functions);
    }
    stacks
}

/// Names that were looked up, by address and whether it is the first of its stack.
#[derive(Default)]
struct Functions(HashMap<(usize, bool), Vec<Arc<str>>>);

impl Functions {
    fn at(&mut self, address: usize, is_first: bool) -> &[Arc<str>] {
        self.0.entry((address, is_first)).or_insert_with(|| {
            sample::functions(address, is_first).into_iter().map(Arc::from).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use ron_io::watch::own_thread;

    use super::*;

    fn ask(seconds: u64, shard: Option<usize>) -> Ask {
        Ask { seconds, hz: 999, shard, form: Form::Folded }
    }

    fn outcome_of(profile: Profile) -> Result<String, NoProfile> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(profile.outcome())
    }

    #[inline(never)]
    fn a_function_that_burns(until: Instant) {
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    /// What must be tried one after the other, because samples are taken once at a time.
    #[test]
    fn profiles_are_taken_one_at_a_time_and_cut_short() {
        let profiles = Arc::new(Profiles::default());
        let stats: Vec<Arc<Stats>> = vec![Arc::default(), Arc::default()];
        stats[1].watch.thread.set(own_thread() as u64);
        let no = profiles.begin(ask(1, Some(0)), &stats).unwrap_err();
        assert_eq!((&no, no.retry_after_s()), (&NoProfile::NotRunning { shard: 0 }, Some(1)));

        let profile = profiles.begin(ask(1, Some(1)), &stats).unwrap();
        let no = profiles.begin(ask(1, None), &stats).unwrap_err();
        assert!(matches!(no, NoProfile::Busy { retry_after_s: 1..=4 }), "{no:?}");
        a_function_that_burns(Instant::now() + Duration::from_millis(1100));
        let folded = outcome_of(profile).unwrap();
        assert!(folded.lines().all(|line| line.starts_with("shard 1;")), "{folded}");
        assert!(folded.contains("a_function_that_burns"), "{folded}");

        // A client that goes frees its place, though not at once.
        let begun = Instant::now();
        drop(profiles.begin(ask(60, None), &stats).unwrap());
        let next = loop {
            match profiles.begin(ask(60, None), &stats) {
                Ok(next) => break next,
                Err(NoProfile::Busy { .. }) => thread::yield_now(),
                Err(other) => panic!("{other:?}"),
            }
        };
        profiles.end();
        assert!(outcome_of(next).is_ok(), "what was sampled is sent");
        assert!(begun.elapsed() < Duration::from_secs(50));
        assert_eq!(profiles.begin(ask(1, None), &stats).unwrap_err(), NoProfile::Draining);
    }

    #[test]
    fn threads_are_called_what_they_are() {
        let stats: Vec<Arc<Stats>> = vec![Arc::default(), Arc::default()];
        stats[1].watch.thread.set(77);
        let threads = Threads::new(&stats);
        assert_eq!(threads.label(77, "ron-shard-1"), "shard 1");
        assert_eq!(threads.label(78, "ron-shard-1/io"), "ron-shard-1/io");
        assert_eq!(threads.label(79, "rond"), "rond");
        assert_eq!((threads.of(1), threads.of(2).is_err()), (Ok(77), true));
    }
}
