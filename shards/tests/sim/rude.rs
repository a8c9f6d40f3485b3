//! Peers that are slow, silent, greedy or rude: what each does to the node, and when it does more.
//!
//! They are clients all the same: whatever they read is checked byte by byte. What they upload
//! never becomes an object, because no upload of theirs is ever complete.

use std::collections::VecDeque;

use ron_codec::oap::{APP_STORAGE, Flags, FrameHeader, write_put_request};
use ron_io::sim::Chance;
use ron_shards::config::Deadlines;

use super::{http::Http, oap, oap::Oap, objects, stage::Stage};

const MILLISECOND_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds after a deadline within which the connection must be closed. A session may be held
/// up before its peer is late: by a handshake, by memory that it waits for.
const GRACE_NS: u64 = 15 * SECOND_NS;

/// Bytes a peer may have on their way to the node: the buffers of its socket and of the node's.
pub const WAY_LEN_MAX: usize = 64 * 1024;

/// Streams of one OAP/1 connection, as many as the node allows.
const STREAMS_MAX: usize = 64;

/// Requests that are written in one go.
const REQUESTS_AT_ONCE: usize = 16;

/// Bytes of an object that will never come to its end.
const UPLOAD_LEN: u64 = 1 << 30;

/// Bytes of a data frame that will never come to its end.
const FRAME_LEN: u32 = 1_000_000;

/// Most bytes that an upload brings at once before it slows down or stops.
const BURST_LEN: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Says nothing.
    Silent,
    /// Begins a head or a frame and goes silent.
    Stammers,
    /// Asks for large objects for as long as it can write, and reads nothing.
    NeverReads,
    /// The same with questions whose answers are short.
    NeverReadsShort,
    /// Asks for large objects and reads a few bytes now and then.
    Sips,
    /// Begins an upload, and goes on with a byte now and then.
    Trickles,
    /// Begins an upload, and goes silent.
    Stops,
    /// Asks, and is gone before it is answered.
    Leaves,
    /// Asks, says that it will send no more, and reads a few bytes now and then.
    HalfCloses,
    /// Sends what breaks the protocol, then sends on.
    SendsOn,
    /// Over TLS, sends its first record a byte at a time.
    Handshakes,
    /// Asks, says over TLS that it will send no more, then sends on.
    NotifiesThenSends,
    /// Asks, then sends what is no record of TLS.
    Garbles,
}

impl Habit {
    pub const ALL: [Habit; 13] = [
        Habit::Silent,
        Habit::Stammers,
        Habit::NeverReads,
        Habit::NeverReadsShort,
        Habit::Sips,
        Habit::Trickles,
        Habit::Stops,
        Habit::Leaves,
        Habit::HalfCloses,
        Habit::SendsOn,
        Habit::Handshakes,
        Habit::NotifiesThenSends,
        Habit::Garbles,
    ];
}

impl Habit {
    /// Nanoseconds after which the node must have closed the connection of such a peer: what its
    /// deadlines allow, and some for what comes before they begin.
    fn lasts_ns(self, allowed: &Deadlines) -> Option<u64> {
        let ns = match self {
            Habit::Silent | Habit::Stammers | Habit::Handshakes => allowed.head_ns,
            // What fits the sockets was sent, and then the connection is idle.
            Habit::NeverReads | Habit::NeverReadsShort => allowed.send_ns.max(allowed.idle_ns),
            Habit::Stops => allowed.body_ns,
            Habit::SendsOn => allowed.linger_ns,
            Habit::NotifiesThenSends | Habit::Garbles => allowed.send_ns + allowed.linger_ns,
            // The first span may have brought enough, in the next the upload is refused, and in a
            // third the rest of its frame does not come.
            Habit::Trickles => 4 * allowed.body_ns + allowed.linger_ns,
            Habit::Sips | Habit::Leaves | Habit::HalfCloses => return None,
        };
        Some(ns + GRACE_NS)
    }
}

/// What a rude peer does next.
#[derive(Debug, Default)]
pub struct Misdeed {
    pub write: Vec<u8>,
    /// It says over TLS that it sends no more.
    pub notify: bool,
    /// Bytes it writes past its TLS, behind the others.
    pub raw: Vec<u8>,
    /// Bytes it reads, at most.
    pub read: usize,
    /// It sends no more.
    pub end: bool,
    /// It drops the connection.
    pub reset: bool,
}

/// One peer's habit, and how far it is.
#[derive(Debug)]
pub struct Rude {
    pub habit: Habit,
    /// When the node must have closed the connection, if it must.
    pub closed_by: Option<u64>,
    /// When it does something next.
    pub next_at: u64,
    every_ns: u64,
    sip_len: usize,
    begun: bool,
    /// Its handshake is complete, if there is one.
    pub secured: bool,
    /// Its first record, as far as it was not sent.
    pub hello: VecDeque<u8>,
}

impl Rude {
    pub fn new(habit: Habit, now: u64, allowed: &Deadlines, chance: &mut Chance) -> Rude {
        let every_ns = match habit {
            Habit::Leaves => chance.magnitude(100 * MILLISECOND_NS),
            // Many are never late enough to be cut for the memory they hold.
            Habit::Sips if chance.toss() => chance.between(50, 250) * MILLISECOND_NS,
            Habit::Sips | Habit::HalfCloses => chance.magnitude(20 * SECOND_NS),
            Habit::Trickles => chance.between(allowed.body_ns / 30, allowed.body_ns * 2 / 3),
            _ => chance.between(10 * MILLISECOND_NS, SECOND_NS),
        };
        let closed_by = habit.lasts_ns(allowed).map(|lasts| now + lasts);
        let sip_len = if chance.toss() { 1 } else { chance.magnitude(20_000) as usize };
        Rude {
            habit,
            closed_by,
            next_at: now,
            every_ns,
            sip_len,
            begun: false,
            secured: false,
            hello: VecDeque::new(),
        }
    }

    /// Whether some of what reaches its session is never a whole request.
    pub fn asks_for_nothing(&self, is_tls: bool) -> bool {
        match self.habit {
            Habit::Silent | Habit::Stammers | Habit::Trickles | Habit::Stops => true,
            Habit::SendsOn | Habit::Handshakes => true,
            Habit::NotifiesThenSends | Habit::Garbles => !is_tls,
            _ => false,
        }
    }

    /// Whether it does not begin with the handshake that TLS wants.
    pub fn withholds_hello(&self) -> bool {
        matches!(self.habit, Habit::Silent | Habit::Handshakes)
    }

    /// What it does now over HTTP; `on_the_way` bytes of it have not been taken by the node.
    pub fn http(&mut self, http: &mut Http, on_the_way: usize, stage: &mut Stage<'_>) -> Misdeed {
        let mut deed = self.begin(stage);
        let may_send = on_the_way < WAY_LEN_MAX;
        let first = !std::mem::replace(&mut self.begun, true);
        match self.habit {
            Habit::Stammers if first => deed.write = b"GET /o/b3:00".to_vec(),
            Habit::NeverReads | Habit::Leaves if may_send && !deed.reset => {
                for _ in 0..stage.chance.between(1, REQUESTS_AT_ONCE as u64) {
                    deed.write.extend(http.get(large(stage), stage));
                }
            }
            Habit::NeverReadsShort if may_send => {
                for _ in 0..stage.chance.between(1, 4 * REQUESTS_AT_ONCE as u64) {
                    let object = small(stage);
                    deed.write.extend(http.short_read(object, stage));
                }
            }
            Habit::Sips | Habit::HalfCloses | Habit::NotifiesThenSends | Habit::Garbles
                if first =>
            {
                deed.write = http.get(large(stage), stage);
            }
            Habit::Trickles | Habit::Stops if first => {
                deed.write = begin_put_http();
                deed.write.resize(deed.write.len() + burst(stage.chance), b'u');
            }
            Habit::SendsOn if first => deed.write = b"GET\0/ HTTP/1.1\r\n\r\n".to_vec(),
            Habit::Trickles => deed.write = b"u".to_vec(),
            Habit::SendsOn if may_send => deed.write = vec![b'x'; WAY_LEN_MAX],
            _ => {}
        }
        deed
    }

    /// The same over OAP/1.
    pub fn oap(&mut self, oap: &mut Oap, on_the_way: usize, stage: &mut Stage<'_>) -> Misdeed {
        let mut deed = self.begin(stage);
        let may_send = on_the_way < WAY_LEN_MAX && oap.in_progress() < STREAMS_MAX;
        let first = !std::mem::replace(&mut self.begun, true);
        match self.habit {
            Habit::Stammers if first => deed.write = vec![60, 0, 0, 0, 1],
            Habit::NeverReads | Habit::Leaves if may_send && !deed.reset => {
                while oap.in_progress() < STREAMS_MAX {
                    deed.write.extend(oap.get_whole(large(stage), stage));
                }
            }
            Habit::NeverReadsShort if may_send => {
                for _ in 0..REQUESTS_AT_ONCE {
                    deed.write.extend(oap.short_read(small(stage), stage));
                }
            }
            Habit::Sips | Habit::HalfCloses | Habit::NotifiesThenSends | Habit::Garbles
                if first =>
            {
                for _ in 0..stage.chance.magnitude(STREAMS_MAX as u64 - 1) {
                    deed.write.extend(oap.get_whole(large(stage), stage));
                }
            }
            Habit::Trickles | Habit::Stops if first => {
                deed.write = begin_put_oap();
                deed.write.resize(deed.write.len() + burst(stage.chance), b'u');
            }
            Habit::SendsOn if first => deed.write = vec![0; 100],
            Habit::Trickles => deed.write = b"u".to_vec(),
            Habit::SendsOn if may_send => deed.write = vec![b'x'; WAY_LEN_MAX],
            _ => {}
        }
        deed
    }

    /// What the habit is whatever is spoken.
    fn begin(&mut self, stage: &mut Stage<'_>) -> Misdeed {
        let mut deed = Misdeed::default();
        self.next_at += self.every_ns / 2 + stage.chance.magnitude(self.every_ns);
        match self.habit {
            Habit::Silent => self.next_at = u64::MAX,
            Habit::Stammers | Habit::Stops if self.begun => self.next_at = u64::MAX,
            Habit::Leaves => deed.reset = self.begun,
            Habit::Sips if self.begun => deed.read = self.sip_len,
            Habit::HalfCloses if self.begun => deed.read = self.sip_len,
            Habit::HalfCloses => deed.end = true,
            Habit::NotifiesThenSends | Habit::Garbles if self.begun && self.secured => {
                deed.notify = self.habit == Habit::NotifiesThenSends;
                deed.raw = junk(stage.chance);
            }
            Habit::Handshakes => deed.raw = self.hello.pop_front().into_iter().collect(),
            _ => {}
        }
        deed
    }
}

/// Bytes that mean nothing, few or many.
fn junk(chance: &mut Chance) -> Vec<u8> {
    let byte = chance.next_u64() as u8;
    vec![byte; chance.magnitude(2 * WAY_LEN_MAX as u64) as usize]
}

/// Bytes with which an upload begins.
fn burst(chance: &mut Chance) -> usize {
    chance.magnitude(BURST_LEN - 1) as usize
}

fn large(stage: &mut Stage<'_>) -> objects::ObjectId {
    let all = objects::all();
    let ids = &stage.plan.objects;
    let longest = ids.iter().copied().max_by_key(|id| all[*id].len()).unwrap_or_default();
    let id = stage.chance.pick(ids);
    if stage.chance.one_in(4) { longest } else { id }
}

fn small(stage: &mut Stage<'_>) -> objects::ObjectId {
    stage.chance.pick(&stage.plan.objects)
}

fn begin_put_http() -> Vec<u8> {
    let fields = format!("Host: 127.0.0.1\r\nContent-Length: {UPLOAD_LEN}\r\n");
    format!("PUT /o/ HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

/// A put, and the header of a long frame of its data.
fn begin_put_oap() -> Vec<u8> {
    let mut json = Vec::new();
    write_put_request(&mut json, UPLOAD_LEN, None);
    let header = FrameHeader { app_proto_id: APP_STORAGE, corr_id: 1, ..FrameHeader::default() };
    let start = FrameHeader { flags: Flags::REQ | Flags::START, ..header };
    let mut bytes = oap::encode(&start, &json);
    let data = FrameHeader { flags: Flags::REQ, ..header };
    let mut frame = oap::encode(&data, &vec![0; FRAME_LEN as usize]);
    frame.truncate(frame.len() - FRAME_LEN as usize);
    bytes.extend(frame);
    bytes
}
