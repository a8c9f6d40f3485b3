//! Runs seeds, one after another on each of several threads, until some have failed.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    trace::Telling,
    world::{Summary, World},
};

/// One world in so many is a flood, unless it is asked for more or fewer. A seed stands for another
/// world when that changes.
pub const FLOODS: u32 = 16;

/// A seed whose run ended in a violation, or in a panic of the node.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub seeds: u64,
    pub steps: u64,
    pub boots: u64,
    pub answers: u64,
    pub took: Duration,
    pub failures: Vec<Failure>,
}

/// Which seeds are run, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    pub from: u64,
    /// How many; without end, when none is given.
    pub seeds: Option<u64>,
    pub time: Option<Duration>,
    pub jobs: usize,
    /// One world in so many is a flood; 0 for none.
    pub floods: u32,
    /// Failures after which it ends.
    pub failures_max: usize,
}

impl Default for Errand {
    /// Seeds from 0 on, one after another, until one fails.
    fn default() -> Errand {
        Errand { from: 0, seeds: None, time: None, jobs: 1, floods: FLOODS, failures_max: 1 }
    }
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static LAST_WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed.
///
/// # Errors
/// The words of the violation or panic that ended it.
pub fn run_seed(seed: u64, floods: u32, telling: Telling) -> Result<Summary, Failure> {
    let run = AssertUnwindSafe(|| World::new(seed, floods, telling).run());
    panic::catch_unwind(run).map_err(|_| {
        let what = LAST_WORDS.with(|words| words.borrow_mut().take()).unwrap_or_default();
        Failure { seed, what }
    })
}

/// Keeps the words of panics in place of printing them, from now on and for the whole process.
pub fn keep_words() {
    panic::set_hook(Box::new(|info| {
        LAST_WORDS.with(|words| words.borrow_mut().replace(info.to_string()));
    }));
}

/// Runs seeds until they are all done, time is up, or too many have failed. `progress` is called
/// about every second.
pub fn run(errand: Errand, progress: impl Fn(&Tally) + Sync) -> Tally {
    let (next, over) = (AtomicU64::new(errand.from), AtomicBool::new(false));
    let begun = Instant::now();
    let tally = Mutex::new(Tally::default());
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    let until = errand.seeds.map(|seeds| errand.from.saturating_add(seeds));
    let work = |first: bool| {
        let mut told = Instant::now();
        while !over.load(Ordering::Relaxed) {
            if errand.time.is_some_and(|time| begun.elapsed() >= time) {
                break;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if until.is_some_and(|until| seed >= until) {
                break;
            }
            let outcome = run_seed(seed, errand.floods, Telling::Off);
            let mut tally = lock();
            tally.seeds += 1;
            tally.took = begun.elapsed();
            match outcome {
                Ok(Summary { steps, boots, answers, .. }) => {
                    tally.steps += steps;
                    tally.boots += boots;
                    tally.answers += answers;
                }
                Err(failure) => {
                    tally.failures.push(failure);
                    over.store(tally.failures.len() >= errand.failures_max, Ordering::Relaxed);
                }
            }
            if first && told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                progress(&tally);
            }
        }
    };
    std::thread::scope(|scope| {
        for job in 0..errand.jobs.max(1) {
            let work = &work;
            scope.spawn(move || work(job == 0));
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// How a failed seed is run again.
pub fn replay(seed: u64, floods: u32) -> String {
    let floods = if floods == FLOODS { String::new() } else { format!(" --floods {floods}") };
    format!("cargo run --release -p ron-shards --example sim -- --seed {seed}{floods} --trace")
}
