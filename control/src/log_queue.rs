//! Lines of the log on their way to standard error, where a thread of its own writes them.
//!
//! Standard error may take nothing for as long as it likes: a pipe that nobody reads, a journal
//! that hangs. Who logs does not wait for it. What waits is bounded; lines beyond that are lost,
//! and counted.
//!
//! ```text
//!  who logs ── push ──► lines ── one at a time ──► standard error
//!                │ full                  │ it fails
//!                └──► dropped ◄──────────┘
//! ```

use std::{
    collections::VecDeque,
    io::Write,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::limits::LOG_LEN_MAX;

/// Lines that wait, and how many were lost.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of memory of the lines.
    len: usize,
    /// Whether a line was taken and is not written yet.
    writing: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.lines.is_empty() && !self.writing
    }
}

/// Bytes of memory of a line that waits.
fn cost(line: &[u8]) -> usize {
    line.len() + size_of::<Vec<u8>>()
}

impl Queue {
    pub(crate) const fn new() -> Queue {
        let state = State { lines: VecDeque::new(), len: 0, writing: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    /// Takes a line, or counts it as lost when too much waits.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.len + cost(line) > LOG_LEN_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.len += cost(line);
        state.lines.push_back(line.to_vec());
        self.changed.notify_all();
    }

    /// Lines that were lost so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, but not for long. Returns whether they are.
    pub(crate) fn flush(&self, at_most: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, |s| !s.is_done());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_done()
    }

    /// Writes the lines, now and from now on. When all that waited are written and some were lost,
    /// `lost` gets their number.
    pub(crate) fn write_to(&self, mut out: impl Write, lost: impl Fn(u64)) -> ! {
        let mut reported = 0;
        loop {
            let line = self.take();
            // Who reads the log is gone, or it was never there: the line is lost.
            let written = out.write_all(&line).and_then(|()| out.flush()).is_ok();
            if !written {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            let dropped = self.dropped();
            if self.written() && written && dropped > reported {
                lost(dropped - reported);
                reported = dropped;
            }
        }
    }

    /// The next line, once there is one.
    fn take(&self) -> Vec<u8> {
        let waited = self.changed.wait_while(self.lock(), |state| state.lines.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let line = state.lines.pop_front().unwrap_or_default();
        state.len -= cost(&line);
        state.writing = true;
        line
    }

    /// The line that was taken is written, or lost. Returns whether it was the last one.
    fn written(&self) -> bool {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        state.lines.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, mpsc},
        thread,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Takes a line whenever it is let, and shows it.
    struct Slow {
        may_go: mpsc::Receiver<io::Result<()>>,
        seen: mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.may_go.recv().unwrap_or(Ok(()))?;
            self.seen.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A queue with a thread that writes it; it reports lost lines in a line.
    #[allow(clippy::type_complexity)]
    fn queue() -> (Arc<Queue>, mpsc::Sender<io::Result<()>>, mpsc::Receiver<String>) {
        let queue = Arc::new(Queue::new());
        let ((go, may_go), (seen, lines)) = (mpsc::channel(), mpsc::channel());
        let writer = Arc::clone(&queue);
        thread::spawn(move || {
            let reports = Arc::clone(&writer);
            let lost = move |count| reports.push(format!("lost {count}").as_bytes());
            writer.write_to(Slow { may_go, seen }, lost)
        });
        (queue, go, lines)
    }

    #[test]
    fn who_logs_does_not_wait_for_who_reads() {
        let (queue, go, lines) = queue();
        let long = "x".repeat(LOG_LEN_MAX / 4);
        // Of these three wait, and one more if the writer has taken the first already.
        (0..10).for_each(|_| queue.push(long.as_bytes()));
        let dropped = queue.dropped();
        assert!((6..=7).contains(&dropped), "{dropped}");
        assert!(!queue.flush(Duration::from_millis(1)), "nobody took anything");
        drop(go);
        assert!(queue.flush(LONG));
        for _ in dropped..10 {
            assert_eq!(lines.recv_timeout(LONG).unwrap(), long);
        }
        assert_eq!(lines.recv_timeout(LONG).unwrap(), format!("lost {dropped}"));
        queue.push(b"next");
        assert_eq!(lines.recv_timeout(LONG).unwrap(), "next");
        assert_eq!(queue.dropped(), dropped, "what is written gives its space back");
    }

    #[test]
    fn lines_that_cannot_be_written_are_lost_and_reported_when_one_can() {
        let (queue, go, lines) = queue();
        go.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        queue.push(b"one");
        assert!(queue.flush(LONG));
        assert_eq!((queue.dropped(), lines.try_recv().is_err()), (1, true));
        drop(go);
        queue.push(b"two");
        let said = [lines.recv_timeout(LONG).unwrap(), lines.recv_timeout(LONG).unwrap()];
        assert_eq!(said, ["two", "lost 1"]);
    }

    #[test]
    fn a_line_longer_than_all_that_may_wait_is_lost() {
        let queue = Queue::new();
        queue.push(&vec![b'x'; LOG_LEN_MAX]);
        assert_eq!((queue.dropped(), queue.flush(Duration::ZERO)), (1, true));
    }
}
