//! TLS: the session of the ring, and its loop over what was received, fed with what a peer may
//! send.
//!
//! An input is a script of what the peer does, one letter a step, numbers with their high byte
//! first. What it sends waits until a step delivers it, so that records share a receive buffer.
//!
//! | step | |
//! |---|---|
//! | `h`, `H` | deliver; the peer takes one step of its handshake, or all of them |
//! | `f` | deliver |
//! | `d` len16 | application data |
//! | `s` type pad len16 bytes | a record of any type, with 16 × pad bytes of padding |
//! | `z` type len16 | a record of any type, of zeros |
//! | `u` byte | a KeyUpdate that asks for one in return (1), does not (0), or is no KeyUpdate |
//! | `c` | close_notify |
//! | `a` level code | an alert |
//! | `r` len16 bytes | bytes as they are |
//! | `x` at16 bits | the next bytes that are sent are garbled at one place |
//! | `t` len16 | of the next bytes that are sent, these many are |
//! | `2` | the next bytes that are sent are sent twice |
//! | `w` len16 | deliver; the node sends plaintext |
//! | `e` | deliver; the node sends close_notify |
//! | `b` | the peer stops reading, or goes on |
//!
//! What must hold: each round takes bytes or ends the connection; the shard is given exactly what
//! the peer encrypted as application data, or less of it when the peer broke the rules; a peer that
//! keeps them is never refused; what follows a close_notify is ignored; what the session holds is
//! bounded.

mod peer;

use std::io::{self, Write};

use ron_io::{
    limits::{HANDSHAKE_LEN_MAX, RECV_BUFFER_LEN},
    sim::{heap, tls::server_config},
    tls::{self, Decrypted, Receiver, Tls},
};

use self::peer::{ALERT, DATA, HANDSHAKE, Peer};
use super::Cuts;

/// Steps of one input that are taken.
const STEPS_MAX: usize = 200;

/// KeyUpdates of a peer that is sure to be served; a session that sees more may give up.
const KEY_UPDATES_MAX: usize = 20;

/// Longest plaintext of a record.
const RECORD_LEN_MAX: usize = 16 * 1024;

/// Most bytes that the node sends in one step.
const SAID_LEN_MAX: usize = 40_000;

/// Bytes of the heap that a session may hold, beside what is to be sent: keys and state, and a
/// record that is not whole yet, in a vector that grows by doubling.
const HELD_LEN_MAX: usize = 16 * 1024 + 2 * HANDSHAKE_LEN_MAX;

pub fn tls(input: &[u8]) {
    let (cuts, script) = Cuts::of(input);
    let mut run = Run::new(cuts);
    let mut rest = script;
    for _ in 0..STEPS_MAX {
        if !run.step(&mut rest) {
            break;
        }
    }
    run.deliver();
    run.check();
}

/// A peer, a node, and what one sent the other.
struct Run {
    cuts: Cuts,
    peer: Peer,
    node: Node,
    /// Bytes of the peer that were not delivered yet.
    wire: Vec<u8>,
    /// What is done to the next bytes that are sent.
    garble: Option<(usize, u8)>,
    keep: Option<usize>,
    twice: bool,
    /// Whatever the peer has encrypted as application data, until it said that this was all.
    written: Vec<u8>,
    key_updates: usize,
    /// The peer said that it sends no more.
    over: bool,
    /// The peer has kept all rules so far.
    lawful: bool,
}

impl Run {
    fn new(cuts: Cuts) -> Run {
        Run {
            cuts,
            peer: Peer::new(),
            node: Node::new(),
            wire: Vec::new(),
            garble: None,
            keep: None,
            twice: false,
            written: Vec::new(),
            key_updates: 0,
            over: false,
            lawful: true,
        }
    }

    /// Takes one step of the script; false when there is none.
    fn step(&mut self, script: &mut &[u8]) -> bool {
        let Some(letter) = byte(script) else { return false };
        match letter {
            b'h' => self.shake(),
            b'H' => (0..3).for_each(|_| self.shake()),
            b'f' => self.deliver(),
            b'd' => self.data(number(script)),
            b's' => {
                let (kind, padding) = (byte(script).unwrap_or(0), byte(script).unwrap_or(0));
                let bytes = take(script);
                self.lawful &= self.over;
                self.seal(kind, bytes, usize::from(padding) * 16);
            }
            b'z' => {
                self.lawful &= self.over;
                let kind = byte(script).unwrap_or(0);
                self.seal(kind, &vec![0; number(script)], 0);
            }
            b'u' => self.key_update(byte(script).unwrap_or(0)),
            b'c' => self.alert([1, 0]),
            b'a' => self.alert([byte(script).unwrap_or(1), byte(script).unwrap_or(0)]),
            b'r' => {
                let bytes = take(script);
                self.lawful &= self.over || bytes.is_empty();
                self.send(bytes);
            }
            b'x' => self.garble = Some((number(script), byte(script).unwrap_or(0))),
            b't' => self.keep = Some(number(script)),
            b'2' => self.twice = true,
            b'w' => {
                self.deliver();
                self.node.say(number(script) % SAID_LEN_MAX);
                self.answer();
            }
            b'e' => {
                self.deliver();
                self.node.end();
                self.answer();
                self.lawful = false;
            }
            b'b' => {
                self.node.blocked = !self.node.blocked;
                self.answer();
            }
            _ => {}
        }
        true
    }

    /// What waits is delivered, the peer reads the answer, and sends what its handshake wants.
    fn shake(&mut self) {
        self.deliver();
        let bytes = self.peer.shakes();
        if !bytes.is_empty() {
            self.send(&bytes);
        }
        self.deliver();
    }

    fn data(&mut self, len: usize) {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 31 + self.written.len()) as u8).collect();
        // Before its handshake is done a peer must not send any.
        let may = self.peer.is_secure() && (1..=RECORD_LEN_MAX).contains(&len);
        self.lawful &= may || self.over;
        self.seal(DATA, &bytes, 0);
    }

    fn key_update(&mut self, request: u8) {
        self.key_updates += 1;
        let may = self.peer.is_secure() && request < 2 && self.key_updates < KEY_UPDATES_MAX;
        self.lawful &= may || self.over;
        self.seal(HANDSHAKE, &[24, 0, 0, 1, request], 0);
        self.peer.next_key();
    }

    fn alert(&mut self, alert: [u8; 2]) {
        let ends = alert == [1, 0] && self.peer.is_secure();
        self.lawful &= ends || self.over;
        self.seal(ALERT, &alert, 0);
        self.over |= ends;
    }

    /// Sends a record.
    fn seal(&mut self, kind: u8, bytes: &[u8], padding: usize) {
        let (record, data) = self.peer.record(kind, bytes, padding);
        if !self.over {
            self.written.extend_from_slice(&data);
        }
        self.send(&record);
    }

    /// Sends bytes, with what is to be done to them.
    fn send(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if let Some((at, bits)) = self.garble.take().filter(|_| !bytes.is_empty()) {
            let at = at % bytes.len();
            bytes[at] ^= bits;
            self.lawful &= bits == 0 || self.over;
        }
        if let Some(len) = self.keep.take().filter(|len| *len < bytes.len()) {
            bytes.truncate(len);
            self.lawful &= self.over;
        }
        if std::mem::take(&mut self.twice) {
            bytes.extend_from_within(..);
            self.lawful &= self.over || bytes.is_empty();
        }
        self.wire.extend_from_slice(&bytes);
    }

    /// The node receives what was sent, and its answer is read.
    fn deliver(&mut self) {
        let wire = std::mem::take(&mut self.wire);
        for piece in self.cuts.pieces(&wire) {
            for buffer in piece.chunks(RECV_BUFFER_LEN) {
                self.node.receive(buffer);
                self.node.check_memory();
            }
        }
        self.answer();
        self.check();
    }

    fn answer(&mut self) {
        let answer = self.node.flush();
        self.peer.reads(&answer, self.lawful);
        let said = &self.node.said[..];
        assert!(said.starts_with(&self.peer.read), "the peer reads what the node did not say");
        let is_all = !self.node.blocked && self.lawful && !self.peer.is_handshaking();
        assert!(!is_all || self.peer.read.len() == said.len(), "all that was said arrives");
    }

    fn check(&self) {
        let (read, written) = (&self.node.read, &self.written);
        assert!(written.starts_with(read), "{} of {} bytes", read.len(), written.len());
        if self.lawful {
            assert!(!self.node.failed, "a peer that keeps the rules is refused");
            assert_eq!(read.len(), written.len(), "all that has arrived is delivered");
            assert_eq!(self.node.ended, self.over);
        }
    }
}

/// The node's side of the connection, and the shard in it.
struct Node {
    tls: Tls,
    /// Bytes of the heap that were the node's before.
    heap: isize,
    secured: bool,
    /// The node said that it sends no more.
    finished: bool,
    /// The shard knows that the peer sends no more.
    ended: bool,
    /// The peer broke TLS. Its connection is given up.
    failed: bool,
    read: Vec<u8>,
    said: Vec<u8>,
    /// Of what was said, the bytes that the kernel has not taken.
    unsent: usize,
    blocked: bool,
}

impl Node {
    fn new() -> Node {
        let config = server_config();
        let heap = heap::node_len();
        let tls = heap::as_node(|| Tls::new(&config)).expect("a session can be made");
        assert!(heap::node_len() > heap, "the memory of a session is counted");
        Node {
            tls,
            heap,
            secured: false,
            finished: false,
            ended: false,
            failed: false,
            read: Vec::new(),
            said: Vec::new(),
            unsent: 0,
            blocked: false,
        }
    }

    /// A receive buffer, through the loop that the ring has.
    fn receive(&mut self, buffer: &[u8]) {
        // What a peer breaks behind our close_notify stops rustls in builds with its assertions: it
        // sends one alert more than it expects. In others that alert is all that comes of it.
        if !self.failed && !self.finished {
            let mut turn = Turn { node: self, buffer, rounds: 0 };
            self.failed = tls::receive(&mut turn, buffer.len()).is_err();
            self.finished |= self.failed;
        }
    }

    /// Sends plaintext, unless it has sent all.
    fn say(&mut self, len: usize) {
        if self.secured && !self.finished {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7 + self.said.len()) as u8).collect();
            let said = heap::as_node(|| self.tls.say(&bytes, &[]));
            said.expect("no connection here uses its keys up");
            self.said.extend_from_slice(&bytes);
            self.unsent += len;
        }
    }

    fn end(&mut self) {
        self.finished = true;
        self.tls.close_notify();
    }

    /// What the kernel takes.
    fn flush(&mut self) -> Vec<u8> {
        let mut socket = Socket { taken: Vec::new(), is_full: self.blocked };
        let flushed = heap::as_node(|| self.tls.flush_into(&mut socket));
        let flushed = flushed.expect("a socket that is full says so");
        assert!(!flushed.full || self.blocked);
        assert!(flushed.len <= self.unsent, "more is reported as sent than was said");
        self.unsent -= flushed.len;
        assert!(self.blocked || self.unsent == 0, "all is reported as sent when all was taken");
        socket.taken
    }

    fn check_memory(&self) {
        if self.failed {
            // The driver drops it in the same turn.
            return;
        }
        let held = heap::node_len() - self.heap;
        // Records are a little longer than what is in them, and vectors grow by doubling.
        let bound = HELD_LEN_MAX + 2 * self.unsent;
        assert!(held <= bound as isize, "the session holds {held} bytes, {} unsent", self.unsent);
    }
}

/// One receive buffer in the loop.
struct Turn<'a> {
    node: &'a mut Node,
    buffer: &'a [u8],
    rounds: usize,
}

impl Receiver for Turn<'_> {
    fn decrypt(&mut self, at: usize) -> io::Result<Option<(usize, Decrypted)>> {
        self.rounds += 1;
        assert!(self.rounds <= self.buffer.len(), "a round takes nothing");
        let mut rest = &self.buffer[at..];
        let decrypted = heap::as_node(|| self.node.tls.decrypt(&mut rest))?;
        Ok(Some((self.buffer.len() - at - rest.len(), decrypted)))
    }

    fn secured(&mut self) {
        assert!(!self.node.secured, "a handshake ends once");
        self.node.secured = true;
    }

    fn tell_plaintext(&mut self) -> bool {
        let mut bytes = [0; RECV_BUFFER_LEN];
        let len = self.node.tls.read(&mut bytes);
        assert!(len == 0 || (self.node.secured && !self.node.ended), "plaintext out of its time");
        self.node.read.extend_from_slice(&bytes[..len]);
        len > 0
    }

    fn answer(&mut self) {}

    fn closed(&mut self) {
        self.node.ended = true;
    }
}

/// A socket that takes everything or nothing.
struct Socket {
    taken: Vec<u8>,
    is_full: bool,
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn byte(script: &mut &[u8]) -> Option<u8> {
    let (first, rest) = script.split_first()?;
    *script = rest;
    Some(*first)
}

fn number(script: &mut &[u8]) -> usize {
    let high = byte(script).unwrap_or(0);
    usize::from(high) << 8 | usize::from(byte(script).unwrap_or(0))
}

/// A number, and as many bytes, as far as there are.
fn take<'a>(script: &mut &'a [u8]) -> &'a [u8] {
    let len = number(script).min(script.len());
    let (bytes, rest) = script.split_at(len);
    *script = rest;
    bytes
}
