//! A bar on the terminal for transfers that take a while.
//!
//! It appears only when stderr is a terminal, and only once a transfer proves long, so that short
//! commands print nothing but their result.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Transfers that take longer than this are shown.
const SHORT_TIME_MAX: Duration = Duration::from_secs(1);

/// Transfers of more bytes than this are shown.
const SHORT_LEN_MAX: u64 = 8 * 1024 * 1024;

const KNOWN: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN: &str = "{msg} {spinner} {bytes} {bytes_per_sec} {elapsed}";

/// What the transfers of several threads have done together. Clones are of the same batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    done: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Batch {
    /// Bytes that are done.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// `len` more bytes are done.
    pub(super) fn add(&self, len: u64) {
        self.done.fetch_add(len, Ordering::Relaxed);
    }

    /// One of the transfers failed for good: the others need not go on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// One that is stopped with this one, and whose bytes are not counted here.
    pub(super) fn aside(&self) -> Batch {
        Batch { done: Arc::default(), stopped: Arc::clone(&self.stopped) }
    }

    /// The progress of one transfer of the batch, which shows no bar of its own.
    pub(super) fn part(&self) -> Progress {
        let mut progress = Progress::new("", None, true);
        progress.batch = Some(self.clone());
        progress
    }
}

/// Where what a transfer does is shown.
#[derive(Clone, Debug)]
pub(super) enum Show {
    /// On a bar of its own.
    Alone { quiet: bool },
    /// On that of a batch.
    Part(Batch),
}

impl Show {
    /// Begins a transfer of `total` bytes, if that is known.
    pub(super) fn begin(&self, label: &'static str, total: Option<u64>) -> Progress {
        match self {
            Show::Alone { quiet } => Progress::new(label, total, *quiet),
            Show::Part(batch) => batch.part(),
        }
    }

    /// `len` bytes need not be transferred.
    pub(super) fn skip(&self, len: u64) {
        if let Show::Part(batch) = self {
            batch.add(len);
        }
    }
}

/// How far one transfer has come.
pub(super) struct Progress {
    label: &'static str,
    total: Option<u64>,
    done: u64,
    started: Instant,
    /// Whether a bar may be shown at all.
    allowed: bool,
    bar: Option<ProgressBar>,
    /// What it is a part of.
    batch: Option<Batch>,
}

impl Progress {
    /// Begins a transfer of `total` bytes, if that is known.
    pub(super) fn new(label: &'static str, total: Option<u64>, quiet: bool) -> Self {
        let allowed = !quiet && io::stderr().is_terminal();
        Self { label, total, done: 0, started: Instant::now(), allowed, bar: None, batch: None }
    }

    /// `len` more bytes are done.
    pub(super) fn advance(&mut self, len: usize) {
        self.set(self.done + len as u64);
        if let Some(batch) = &self.batch {
            batch.add(len as u64);
        }
    }

    /// Whether the batch that it is a part of is given up.
    pub(super) fn is_stopped(&self) -> bool {
        self.batch.as_ref().is_some_and(Batch::is_stopped)
    }

    /// So many bytes are done.
    pub(super) fn set(&mut self, done: u64) {
        self.done = done;
        if !self.allowed {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if is_long(self.total, self.done, self.started.elapsed()) {
            self.bar = Some(self.show());
        }
    }

    fn show(&self) -> ProgressBar {
        let bar = self.total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if self.total.is_some() { KNOWN } else { UNKNOWN };
        // A template that is wrong is no reason not to transfer.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_message(self.label).with_position(self.done).with_elapsed(self.started.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether a transfer is worth a bar.
fn is_long(total: Option<u64>, done: u64, elapsed: Duration) -> bool {
    total.unwrap_or(0).max(done) > SHORT_LEN_MAX || elapsed > SHORT_TIME_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_for_long_transfers() {
        let second = Duration::from_secs(1);
        assert!(!is_long(None, 0, Duration::ZERO));
        assert!(!is_long(Some(SHORT_LEN_MAX), SHORT_LEN_MAX, second));
        assert!(is_long(Some(SHORT_LEN_MAX + 1), 0, Duration::ZERO));
        assert!(is_long(None, SHORT_LEN_MAX + 1, Duration::ZERO));
        assert!(is_long(Some(1), 0, second + Duration::from_nanos(1)));
    }

    #[test]
    fn both_templates_are_sound() {
        for total in [None, Some(9)] {
            let template = if total.is_some() { KNOWN } else { UNKNOWN };
            assert!(ProgressStyle::with_template(template).is_ok());
            let progress = Progress::new("test", total, true);
            assert_eq!(progress.show().length(), total);
        }
    }

    #[test]
    fn a_quiet_transfer_counts_and_shows_nothing() {
        let mut progress = Progress::new("test", None, true);
        progress.advance(SHORT_LEN_MAX as usize + 1);
        assert_eq!(progress.done, SHORT_LEN_MAX + 1);
        assert!(progress.bar.is_none());
    }
    #[test]
    fn the_parts_of_a_batch_count_together() {
        let batch = Batch::default();
        batch.part().advance(3);
        let mut other = batch.clone().part();
        other.advance(4);
        assert_eq!(batch.done(), 7);
        assert!(!other.is_stopped() && !Progress::new("alone", None, true).is_stopped());
        let aside = batch.aside();
        aside.part().advance(9);
        assert_eq!(batch.done(), 7);
        batch.stop();
        assert!(aside.is_stopped());
        assert!(other.is_stopped());
    }
}
