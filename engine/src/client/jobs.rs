//! Work that several threads share, and one that is notified of what came of it.
//!
//! ```text
//!   items ─► one lock ─► each thread takes the next ─► outcome ─► the caller's thread, as it comes
//! ```
//!
//! A failure that ends all of it stops the transfers of the batch, and what is left is not begun.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use super::{
    error::ClientError,
    progress::{Batch, Progress},
};

/// How often the bar is drawn while no item is done.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Outcomes that wait to be looked at, before threads wait.
const OUTCOMES_MAX: usize = 64;

/// Has `jobs` threads do `work` on all `items`. Each thread has what `begin` makes. `done` gets the
/// outcomes, in whatever order they come.
///
/// # Errors
///
/// The first of `done`: the rest is given up then.
pub(super) fn run<W, T, R: Send>(
    jobs: usize,
    items: impl Iterator<Item = T> + Send,
    (batch, progress): (&Batch, &mut Progress),
    begin: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, T) -> R + Sync,
    mut done: impl FnMut(R) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let items = Mutex::new(items);
    let next = || {
        // The lock is not kept while the item is worked on.
        let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
        if batch.is_stopped() { None } else { items.next() }
    };
    let (sender, outcomes) = sync_channel(OUTCOMES_MAX);
    thread::scope(|scope| {
        for _ in 0..jobs {
            let sender = sender.clone();
            scope.spawn(|| {
                let (sender, mut own) = (sender, begin());
                while let Some(item) = next() {
                    // The receiver stays until the last sender is gone.
                    let _ = sender.send(work(&mut own, item));
                }
            });
        }
        drop(sender);
        let mut result = Ok(());
        loop {
            match outcomes.recv_timeout(DRAW_EVERY) {
                Ok(outcome) if result.is_ok() => {
                    result = done(outcome).inspect_err(|_| batch.stop());
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return result,
            }
            progress.set(batch.done());
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn quiet() -> Progress {
        Progress::new("test", None, true)
    }

    #[test]
    fn every_item_is_worked_on_once() {
        for jobs in [1, 2, 7] {
            let (begun, mut sum, mut count) = (AtomicUsize::new(0), 0, 0);
            let begin = || begun.fetch_add(1, Ordering::Relaxed);
            let batch = Batch::default();
            let result = run(
                jobs,
                1..=1000_u64,
                (&batch, &mut quiet()),
                begin,
                |_, item| item * 2,
                |item| {
                    (sum, count) = (sum + item, count + 1);
                    Ok(())
                },
            );
            result.unwrap();
            assert_eq!((sum, count), (1000 * 1001, 1000));
            assert_eq!(begun.into_inner(), jobs);
        }
    }

    #[test]
    fn a_failure_ends_the_rest() {
        let (batch, worked) = (Batch::default(), AtomicUsize::new(0));
        let result = run(
            2,
            0..1_000_000,
            (&batch, &mut quiet()),
            || (),
            |(), item| {
                worked.fetch_add(1, Ordering::Relaxed);
                item
            },
            |item| if item == 5 { Err(ClientError::CaMissing) } else { Ok(()) },
        );
        assert!(matches!(result, Err(ClientError::CaMissing)));
        assert!(batch.is_stopped());
        assert!(worked.into_inner() < 1_000_000);
    }
}
