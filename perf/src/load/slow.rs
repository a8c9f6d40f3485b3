//! Readers that take their time: connections that fetch like the others but read only so many bytes
//! a second, and keep the kernel's buffer small, so that the server must hold what they leave.
//!
//! They are no part of what is measured. A server may lose patience with them, so a connection that
//! ends is counted and made anew, but is no error of the run.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    conn::{Conn, Progress, READ_LEN, Setup},
    mix::Mix,
};

/// Time between two readings of one reader.
const TICK: Duration = Duration::from_millis(50);

/// Bytes that a reader asks the kernel to hold for it.
pub(super) const RECEIVE_LEN: usize = 64 * 1024;

/// What became of the slow readers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slow {
    connections: usize,
    rate: usize,
    bytes: u64,
    answers: u64,
    dropped: u64,
}

impl Slow {
    pub(super) fn json(&self) -> Value {
        json!({
            "connections": self.connections,
            "rate": self.rate,
            "bytes": self.bytes,
            "answers": self.answers,
            "dropped": self.dropped,
        })
    }
}

/// Keeps `connections` slow readers of `rate` bytes a second each until `stop`. The caller unparks
/// the thread when it sets that.
pub(super) fn read_slowly(
    setup: &Setup<'_>,
    mut mix: Mix<'_>,
    connections: usize,
    rate: usize,
    stop: &AtomicBool,
) -> Slow {
    let mut slow = Slow { connections, rate, ..Slow::default() };
    let make = || Reader { conn: Conn::new(setup.target.scheme, 1), allowance: 0.0 };
    let mut readers: Vec<Reader<'_>> = std::iter::repeat_with(make).take(connections).collect();
    let mut buffer = vec![0; READ_LEN];
    let mut before = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let now = Instant::now();
        let earned = (now - before).as_secs_f64() * rate as f64;
        before = now;
        for reader in &mut readers {
            // What was not used within a second is lost: a reader does not catch up.
            reader.allowance = (reader.allowance + earned).min(rate as f64);
            reader.turn(setup, &mut mix, &mut buffer, &mut slow);
        }
        thread::park_timeout(TICK);
    }
    slow
}

struct Reader<'a> {
    conn: Conn<'a>,
    /// Bytes that it may read.
    allowance: f64,
}

impl<'a> Reader<'a> {
    fn turn(&mut self, setup: &Setup<'a>, mix: &mut Mix<'_>, buffer: &mut [u8], slow: &mut Slow) {
        if !self.conn.is_open() && !self.conn.is_connecting() {
            // One that cannot be made is tried again at the next tick.
            let _ = self.conn.connect(setup, None);
            return;
        }
        // Handshakes are not held back.
        let allowed = self.allowance as usize;
        let len = if self.conn.is_open() { allowed.min(READ_LEN) } else { READ_LEN };
        if len == 0 {
            return;
        }
        let received = self.conn.received;
        let progress = self.conn.drive(&mut buffer[..len], false);
        let read = self.conn.received - received;
        self.allowance -= read as f64;
        slow.bytes += read;
        let sent = match progress {
            Ok(Progress::Idle | Progress::Again) => return,
            Ok(Progress::Ready(_)) => self.conn.send(setup, mix.next()),
            Ok(Progress::Done(reply)) => {
                slow.answers += 1;
                let (_, sent) = self.conn.finish();
                if reply.close || !sent {
                    self.conn.close();
                    return;
                }
                self.conn.send(setup, mix.next())
            }
            Err(fault) => Err(fault),
        };
        if sent.is_err() {
            slow.dropped += 1;
            self.conn.close();
        }
    }
}
