//! Threads that may block. The disk gives them what the ring has no operation for, and what nobody
//! waits for.
//!
//! ```text
//!   loop ── jobs ──► threads ── results, and the waker ──► loop
//! ```
//!
//! They decide nothing and share nothing with the loop but these two queues, whose lengths are
//! bounded by the operations that the disk has in progress.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{Builder, JoinHandle},
};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::lane::Waker;

/// What a thread is to do.
pub(super) type Job<T> = Box<dyn FnOnce() -> io::Result<T> + Send>;

/// The threads, and the two queues. `K` says what a job is about.
pub(in crate::ring) struct Workers<K, T> {
    /// `None` only while it is dropped.
    jobs: Option<Sender<(K, Job<T>)>>,
    results: Receiver<(K, io::Result<T>)>,
    threads: Vec<JoinHandle<()>>,
}

impl<K: Send + 'static, T: Send + 'static> Workers<K, T> {
    /// Starts threads with the affinity of the caller. `waker` rings when there is a result.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub(in crate::ring) fn start(name: &str, count: usize, waker: &Arc<Waker>) -> io::Result<Self> {
        let (jobs, waiting) = unbounded::<(K, Job<T>)>();
        let (done, results) = unbounded();
        let mut workers = Workers { jobs: Some(jobs), results, threads: Vec::new() };
        for _ in 0..count {
            let (waiting, done, waker) = (waiting.clone(), done.clone(), Arc::clone(waker));
            let work = move || {
                for (about, job) in waiting {
                    let result = catch_unwind(AssertUnwindSafe(job));
                    let panicked = |_| Err(io::Error::other("an operation of the disk panicked"));
                    if done.send((about, result.unwrap_or_else(panicked))).is_err() {
                        return;
                    }
                    waker.wake();
                }
            };
            workers.threads.push(Builder::new().name(format!("{name}/io")).spawn(work)?);
        }
        Ok(workers)
    }
}

impl<K, T> Workers<K, T> {
    pub(super) fn give(&self, about: K, job: Job<T>) {
        let jobs = self.jobs.as_ref().expect("only a drop takes it");
        assert!(jobs.send((about, job)).is_ok(), "the threads of the disk are gone");
    }

    /// The next result.
    pub(super) fn result(&self) -> Option<(K, io::Result<T>)> {
        self.results.try_recv().ok()
    }

    pub(super) fn has_result(&self) -> bool {
        !self.results.is_empty()
    }
}

impl<K, T> Drop for Workers<K, T> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Jobs that panic are caught.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_done_and_a_panic_is_an_error() {
        let waker = Arc::new(Waker::new().unwrap());
        waker.prepare_park();
        let workers: Workers<u32, u32> = Workers::start("test", 2, &waker).unwrap();
        for n in 0..100 {
            workers.give(n, Box::new(move || if n == 7 { panic!("seven") } else { Ok(2 * n) }));
        }
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let Ok((n, result)) = workers.results.recv() else { panic!("the threads ended") };
            assert_eq!(result.ok(), (n != 7).then_some(2 * n));
            seen.push(n);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100));
        assert!(!workers.has_result() && workers.result().is_none());
    }
}
