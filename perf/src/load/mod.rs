//! The load generator: many connections on few threads, measured.
//!
//! ```text
//!   options ──► target, corpus ──► [store] ──► workers ──► stats ──► report
//!               where to, what      once        one a thread           JSON, table
//! ```
//!
//! Each thread has connections, dice and counts of its own and shares nothing while it runs. A
//! request goes out when the pace says so, closed or open loop; an answer is read, counted, and
//! checked by share. What is not as it should be is an error by kind; a result with errors is a
//! result of something else, and says so.
//!
//! Refused: chunked bodies, pipelining, HTTP/2, more than one stream at a time over OAP/1.

mod answer;
mod conn;
mod fault;
mod http;
mod mix;
mod oap;
pub mod options;
mod pace;
mod reply;
mod report;
mod slow;
mod source;
mod stats;
mod target;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::TcpStream,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use thiserror::Error;

use self::{
    conn::Setup,
    mix::{Corpus, Mix},
    options::{Options, UsageError},
    pace::Schedule,
    report::Outcome,
    source::{Source, Store},
    stats::Stats,
    target::Target,
    worker::{Times, Worker},
};
pub use self::{report::Report, source::StoreError, target::TargetError};
use crate::{
    cpu::{self, CpuError},
    objects::ObjectsError,
};

/// Why a run could not be.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("nobody answers at {node}: {source}")]
    Unreachable { node: String, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("CPU time of the server: {0}")]
    Cpu(#[from] CpuError),
    #[error("waiting for events: {0}")]
    Poll(io::Error),
}

/// Performs a run.
///
/// # Errors
/// When it cannot begin. Whatever fails later is counted in the report.
pub fn run(options: &Options) -> Result<Report, RunError> {
    options.check()?;
    let corpus = Corpus::new(options)?;
    if options.node.scheme == options::Scheme::Oap
        && options.path.as_deref().is_some_and(|path| mix::path_address(path).is_none())
    {
        return Err(UsageError::OapPath.into());
    }
    let target = Target::new(options)?;
    let timeout = Duration::from_secs_f64(options.connect_timeout);
    TcpStream::connect_timeout(&target.address, timeout)
        .map_err(|source| RunError::Unreachable { node: options.node.to_string(), source })?;
    cpu::Snapshot::take(&options.server_pid)?;
    let stored = options.store.then(|| store(options, &target, &corpus)).transpose()?;
    let mut outcome = measure(options, &target, &corpus)?;
    outcome.stored = stored;
    Ok(Report::new(options, outcome))
}

/// Stores what is not there. Returns how many objects that were.
fn store(options: &Options, target: &Target, corpus: &Corpus) -> Result<u64, RunError> {
    let kept = Options { reconnect: None, ..options.clone() };
    let setup = Setup::new(target, corpus, &kept, None)?;
    let never = Instant::now() + Duration::from_secs_f64(options::SECONDS_MAX);
    let times = times(options, never, never);
    let source = Source::Store(Store::new(corpus));
    let connections = options.connections as usize;
    let worker = Worker::new(setup, source, None, times, connections, false);
    let (_, _, source) = worker.and_then(Worker::run).map_err(RunError::Poll)?;
    match source {
        Source::Store(Store { error: Some(error), .. }) => Err(error.into()),
        Source::Store(store) => Ok(store.stored),
        Source::Mix(_) => Ok(0),
    }
}

fn times(options: &Options, opens: Instant, closes: Instant) -> Times {
    Times {
        opens,
        closes,
        connect_timeout: Duration::from_secs_f64(options.connect_timeout),
        answer_timeout: Duration::from_secs_f64(options.answer_timeout),
    }
}

/// Runs the threads through warm-up and window.
fn measure(options: &Options, target: &Target, corpus: &Corpus) -> Result<Outcome, RunError> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = options.slow_readers as usize;
        let slow = match options.slow_rate {
            Some(rate) if readers > 0 => {
                let calm = Options { range: None, put_share: 0.0, verify: 0.0, ..options.clone() };
                let setup = Setup::new(target, corpus, &calm, Some(slow::RECEIVE_LEN))?;
                let mix = Mix::new(corpus, &calm, 0, 1);
                let stop = &stop;
                Some(scope.spawn(move || slow::read_slowly(&setup, mix, readers, rate, stop)))
            }
            _ => None,
        };
        let result = measure_fast(options, target, corpus);
        stop.store(true, Ordering::Release);
        let slow = slow.map(|slow| {
            slow.thread().unpark();
            join(slow)
        });
        result.map(|outcome| Outcome { slow, ..outcome })
    })
}

fn measure_fast(options: &Options, target: &Target, corpus: &Corpus) -> Result<Outcome, RunError> {
    let threads = options.threads.min(options.connections);
    let begin = Instant::now();
    let opens = begin + Duration::from_secs_f64(options.warmup);
    let closes = opens + Duration::from_secs_f64(options.seconds);
    let times = times(options, opens, closes);
    let worker = |thread: u32| {
        let setup = Setup::new(target, corpus, options, None)?;
        let source = Source::Mix(Mix::new(corpus, options, thread, threads));
        let schedule = options.rate.map(|rate| Schedule::new(begin, closes, rate, thread, threads));
        // Connections are dealt like cards.
        let connections = (options.connections + threads - 1 - thread) / threads;
        let reconnect = options.reconnect.is_some();
        Worker::new(setup, source, schedule, times, connections as usize, reconnect)
            .map_err(RunError::Poll)
    };
    let workers = (0..threads).map(worker).collect::<Result<Vec<_>, RunError>>()?;
    let (ended, ends) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let ended = ended.clone();
                scope.spawn(move || {
                    let result = worker.run();
                    // Its end is reported even if nobody listens any more.
                    let _ = ended.send(());
                    result
                })
            })
            .collect();
        drop(ended);
        wait_until(opens, &ends);
        let started = SystemTime::now();
        let before = cpu::Snapshot::take(&options.server_pid);
        if options.rate.is_none() {
            wait_until(closes, &ends);
        } else {
            // All ends have been reported when the channel closes.
            while ends.recv().is_ok() {}
        }
        let after = cpu::Snapshot::take(&options.server_pid);
        let mut stats = Stats::new();
        let mut last = closes;
        for thread in threads {
            let (counted, answered, _) = join(thread).map_err(RunError::Poll)?;
            stats.add(counted);
            last = last.max(answered);
        }
        let server_cpu = server_cpu(options, before, after, &mut stats);
        let window = last - opens;
        Ok(Outcome { started, stats, window, server_cpu, slow: None, stored: None })
    })
}

/// Waits until this time, or until no thread is left.
fn wait_until(at: Instant, ends: &mpsc::Receiver<()>) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if ends.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// What the server used in the window. A server that ended is an error of the run.
fn server_cpu(
    options: &Options,
    before: Result<cpu::Snapshot, CpuError>,
    after: Result<cpu::Snapshot, CpuError>,
    stats: &mut Stats,
) -> Option<Duration> {
    if options.server_pid.is_empty() {
        return None;
    }
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => {
            stats.errors.server_ended += 1;
            stats.errors.sample(|| error.to_string());
            return None;
        }
    };
    let ended = after.ended(&before);
    if !ended.is_empty() {
        stats.errors.server_ended += ended.len() as u64;
        stats.errors.sample(|| format!("processes of the server ended: {ended:?}"));
        return None;
    }
    Some(after.since(&before))
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
