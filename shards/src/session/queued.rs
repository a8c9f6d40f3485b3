//! How much of what a connection has queued is memory of its own.
//!
//! Bytes are sent in the order they were queued. Heads and short bodies are copied into buffers of
//! the connection, and under TLS everything is; longer bodies are sent from the cache's blocks,
//! which are accounted for where they are lent. So the queue is kept as runs of either kind:
//!
//! ```text
//!   runs   │ copied 340 │ lent 131072 │ copied 4436 │      sent from the left
//! ```

use std::collections::VecDeque;

use ron_io::limits::{COPY_LEN_MAX, OUT_BUFFER_LEN, TLS_GATHER_LEN, TLS_RECORD_LEN, TLS_SHORT_LEN};

use crate::{
    flow::{Body, Cx},
    limits::READER_LEAST_LEN,
};

/// Bytes of the longest record that holds short pieces alone.
const SHORT_RECORD_LEN: usize = TLS_GATHER_LEN + TLS_SHORT_LEN;

/// Bytes queued to one connection and not sent, by whose memory they lie in.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Whether everything is encrypted into memory of the connection.
    tls: bool,
    unsent: usize,
    /// Under TLS: bytes that are unsent up to the end of the last piece that is not short.
    until_long: usize,
    /// Bytes of the runs that are copied, and how many such runs there are. Not kept under TLS.
    copied: usize,
    copied_runs: usize,
    runs: VecDeque<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    copied: bool,
    len: usize,
}

impl Queued {
    pub(super) fn new(tls: bool) -> Queued {
        Queued { tls, ..Queued::default() }
    }

    /// Bytes that the kernel has not taken.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Bytes of memory that are kept for them, at most: copies lie in buffers of a fixed length,
    /// records of TLS each have a header, a tag and a place in a list. Short pieces that are not
    /// encrypted lie in one such buffer, and of the first record a part may have been sent.
    pub(super) fn held(&self) -> usize {
        let first = if self.until_long > 0 { TLS_RECORD_LEN } else { SHORT_RECORD_LEN };
        match self.tls {
            true if self.unsent == 0 => 0,
            true => self.unsent + self.unsent / 8 + TLS_GATHER_LEN + first,
            false => self.copied + self.copied_runs * OUT_BUFFER_LEN,
        }
    }

    /// A head of `head_len` bytes was queued, and behind it a body of `body_len` in one piece.
    pub(super) fn push(&mut self, head_len: usize, body_len: usize) {
        self.unsent += head_len + body_len;
        if self.tls {
            let is_long = head_len + body_len >= TLS_SHORT_LEN;
            self.until_long = if is_long { self.unsent } else { self.until_long };
            return;
        }
        let is_short = body_len <= COPY_LEN_MAX;
        let (copied, lent) = if is_short { (head_len + body_len, 0) } else { (head_len, body_len) };
        self.push_run(true, copied);
        self.push_run(false, lent);
    }

    fn push_run(&mut self, copied: bool, len: usize) {
        if len == 0 {
            return;
        }
        self.copied += if copied { len } else { 0 };
        if let Some(last) = self.runs.back_mut().filter(|last| last.copied == copied) {
            last.len += len;
            return;
        }
        self.copied_runs += usize::from(copied);
        self.runs.push_back(Run { copied, len });
    }

    /// The kernel took `len` bytes.
    ///
    /// # Panics
    /// If that is more than were queued.
    pub(super) fn sent(&mut self, len: usize) {
        assert!(len <= self.unsent, "{len} bytes were sent of {}", self.unsent);
        self.unsent -= len;
        if self.tls {
            self.until_long = self.until_long.saturating_sub(len);
            return;
        }
        let mut left = len;
        while left > 0 {
            let Some(run) = self.runs.front_mut() else { break };
            let now = left.min(run.len);
            run.len -= now;
            left -= now;
            let (copied, done) = (run.copied, run.len == 0);
            self.copied -= if copied { now } else { 0 };
            if done {
                self.copied_runs -= usize::from(copied);
                self.runs.pop_front();
            }
        }
        assert_eq!(left, 0, "the runs add up to what is queued");
    }
}

/// Whether a peer takes what is queued for it. A byte now and then does not count: it must take
/// `READER_LEAST_LEN` in a row, or all that there is.
#[derive(Debug)]
pub(super) struct Taken {
    since_ns: u64,
    len: usize,
}

impl Taken {
    pub(super) fn new(now_ns: u64) -> Taken {
        Taken { since_ns: now_ns, len: 0 }
    }

    /// There is something to take, after there was nothing.
    pub(super) fn begin(&mut self, now_ns: u64) {
        *self = Taken::new(now_ns);
    }

    /// It took `len` bytes.
    pub(super) fn add(&mut self, len: usize, now_ns: u64) {
        self.len += len;
        if self.len >= READER_LEAST_LEN {
            *self = Taken::new(now_ns);
        }
    }

    /// Since when it has taken less than it must, in `Now::mono_ns`.
    pub(super) fn too_little_since(&self) -> u64 {
        self.since_ns
    }
}

/// Which of the bytes queued to one connection lie in blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Bytes queued since the start, and how many had been when a block was queued last: of another
    /// shard's memory, and of this one's.
    total: u64,
    until: [u64; 2],
}

impl Blocks {
    /// A head and a body were queued. Short bodies are copied, and under TLS all are.
    pub(super) fn push(&mut self, head_len: usize, body: Option<&Body>, tls: bool, cx: &Cx<'_>) {
        self.total += (head_len + body.map_or(0, Body::len)) as u64;
        if let Some(body) = body.filter(|body| !tls && body.len() > COPY_LEN_MAX) {
            self.until[usize::from(cx.memory.owns(body.block()))] = self.total;
        }
    }

    /// Whether some of the `unsent` bytes lie in blocks, of this shard's memory or of others'.
    pub(super) fn are_queued(&self, own: bool, unsent: usize) -> bool {
        self.until[usize::from(own)] > self.total - unsent as u64
    }
}

#[cfg(test)]
mod tests {
    use ron_io::limits::BLOCK_LEN;

    use super::*;

    #[test]
    fn only_copies_are_memory_of_the_connection() {
        let mut queued = Queued::new(false);
        queued.push(100, BLOCK_LEN);
        queued.push(0, BLOCK_LEN);
        assert_eq!((queued.unsent(), queued.held()), (100 + 2 * BLOCK_LEN, 100 + OUT_BUFFER_LEN));
        queued.push(50, COPY_LEN_MAX);
        queued.push(70, 0);
        let tail = 120 + COPY_LEN_MAX;
        assert_eq!(queued.held(), 100 + tail + 2 * OUT_BUFFER_LEN);
        queued.sent(99);
        assert_eq!(queued.held(), 1 + tail + 2 * OUT_BUFFER_LEN);
        queued.sent(1 + BLOCK_LEN);
        assert_eq!(queued.held(), tail + OUT_BUFFER_LEN);
        queued.sent(BLOCK_LEN + tail - 1);
        assert_eq!((queued.unsent(), queued.held()), (1, 1 + OUT_BUFFER_LEN));
        queued.sent(1);
        assert_eq!((queued.unsent(), queued.held()), (0, 0));
    }

    #[test]
    fn a_byte_now_and_then_is_too_little() {
        let mut taken = Taken::new(5);
        for now_ns in 6..100 {
            taken.add(1, now_ns);
            assert_eq!(taken.too_little_since(), 5);
        }
        taken.add(READER_LEAST_LEN - 94, 100);
        assert_eq!(taken.too_little_since(), 100);
        taken.add(READER_LEAST_LEN - 1, 101);
        assert_eq!(taken.too_little_since(), 100, "what it took before counts once");
        taken.begin(102);
        assert_eq!(taken.too_little_since(), 102);
    }

    #[test]
    fn under_tls_all_is_memory_of_the_connection() {
        let mut queued = Queued::new(true);
        queued.push(80, BLOCK_LEN);
        assert!(queued.held() >= queued.unsent() && queued.unsent() == 80 + BLOCK_LEN);
        // All but the end of its last record was sent, and a short piece is gathered.
        queued.push(40, 0);
        queued.sent(80 + BLOCK_LEN - 1);
        assert!(queued.held() >= 1 + TLS_RECORD_LEN + TLS_GATHER_LEN, "{}", queued.held());
        queued.sent(1);
        assert!(queued.held() >= 40 + TLS_GATHER_LEN && queued.held() < TLS_RECORD_LEN);
        queued.sent(40);
        assert_eq!(queued.held(), 0);
    }
}
