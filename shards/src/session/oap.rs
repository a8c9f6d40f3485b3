//! OAP/1 on one connection: frames in, streams served in turn, frames out.
//!
//! The session reads frames as they come, opens a stream for each request, and sends what the
//! store verified, one chunk a stream, round and round. It refuses what is out of order, too much
//! at once, not allowed or not served, each on its own stream; what breaks the framing ends the
//! connection. Its memory is bounded: streams by `OAP_INFLIGHT_MAX`, queued bytes by
//! `UNSENT_LEN_MAX`, and when it cannot take more of the peer's bytes it pauses the connection.
//!
//! ```text
//!               ┌───────────── OapSession ─────────────┐
//!  bytes ─────► │ inbox: frames ─► streams ─► asks ────┼──► store
//!  frames ◄──── │ wire ◄── serve: chunks in turn ◄─────┼─── replies
//!               └──────────────────────────────────────┘
//! ```

use std::{collections::VecDeque, io, mem, net::SocketAddr};

use ron_codec::oap::{Deframer, FrameHeader};
use ron_io::ports::{Act, ConnId, DiskDone};
use ron_io::stats::{Op, Proto, Rejected};

use super::{failure, pace::Pace};
use crate::{
    cache::Memory,
    config::Listener,
    flow::{Cx, Peer, Reply, StreamId},
    limits::{LINGER_LEAST_NS, LINGER_LEN_MAX, PIPELINE_LEN_MAX},
};

mod inbox;
mod serve;
mod streams;
mod time;
mod wire;

#[cfg(test)]
mod tests;

use streams::{Get, Job, Kind, Stream, Streams};
use wire::{Refusal, Wire};

/// The session of one OAP/1 connection.
///
/// ```text
///  accept ─► Handshake ─► Open ──► Lingering ──► Gone
///    └─ plain ────────────►┘  └─ nothing is read ─►┘
/// ```
#[derive(Debug)]
pub struct OapSession {
    phase: Phase,
    peer: SocketAddr,
    wire: Wire,
    deframer: Deframer,
    /// The frame whose header has come and whose end has not.
    frame: Option<(FrameHeader, Kind)>,
    /// How fast that frame comes. The payload of a put has the put's own pace.
    frame_pace: Pace,
    /// Capability and payload of that frame, if they came in parts.
    cap: Vec<u8>,
    gathered: Vec<u8>,
    streams: Streams,
    /// Puts that were refused before their END, oldest first, by the client's numbers.
    refused: VecDeque<u64>,
    /// Bytes of the peer that could not be taken yet. The first `owed` of them are payload of the
    /// frame in progress, counted by the deframer already.
    held: Vec<u8>,
    owed: usize,
    /// Whether bytes or the end of a frame wait for us, so that the peer's silence is our doing.
    blocked: bool,
    paused: bool,
    draining: bool,
    eof: bool,
    /// When things happened, in `Now::mono_ns`: the connection became usable, its bytes came last,
    /// an incomplete header began, and we became able to take bytes again.
    ready_at: u64,
    received_at: u64,
    header_at: Option<u64>,
    unblocked_at: u64,
    /// Nanoseconds for which uploads that were full held the peer back, and since when one does.
    /// That time counts against no put.
    full_ns: u64,
    full_at: Option<u64>,
    /// Whether the header of any frame has come.
    greeted: bool,
    deadline: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// TLS, since this time.
    Handshake {
        since: u64,
    },
    Open,
    /// Nothing more will be sent; the peer's bytes are dropped until it closes.
    Lingering {
        since: u64,
        discarded: usize,
    },
    /// The connection was dropped, or is about to be.
    Gone,
}

impl OapSession {
    /// The session of a connection that was just accepted.
    pub fn new(conn: ConnId, listener: Listener, peer: SocketAddr, cx: &mut Cx<'_>) -> OapSession {
        let now = cx.now.mono_ns;
        let counted = cx.stats.peers.bucket(Peer::of(peer.ip()));
        let mut session = OapSession {
            phase: if listener.tls { Phase::Handshake { since: now } } else { Phase::Open },
            peer,
            wire: Wire::new(conn, listener, counted, now),
            deframer: Deframer::new(),
            frame: None,
            frame_pace: Pace::new(now),
            cap: Vec::new(),
            gathered: Vec::new(),
            streams: Streams::default(),
            refused: VecDeque::new(),
            held: Vec::new(),
            owed: 0,
            blocked: false,
            paused: false,
            draining: false,
            eof: false,
            ready_at: now,
            received_at: now,
            header_at: None,
            unblocked_at: now,
            greeted: false,
            full_ns: 0,
            full_at: None,
            deadline: None,
        };
        session.settle(cx);
        session
    }

    /// The connection this session serves.
    pub fn conn(&self) -> ConnId {
        self.wire.conn
    }

    /// What is spoken on it.
    pub fn proto(&self) -> Proto {
        self.wire.proto
    }

    /// The TLS handshake is done.
    pub fn on_secured(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.phase, Phase::Handshake { .. }) {
            self.phase = Phase::Open;
            self.ready_at = cx.now.mono_ns;
            self.received_at = cx.now.mono_ns;
        }
        self.settle(cx);
    }

    /// Bytes of the peer.
    pub fn on_bytes(&mut self, data: &[u8], cx: &mut Cx<'_>) {
        cx.stats.bytes_in[self.wire.proto as usize].add(data.len() as u64);
        self.received_at = cx.now.mono_ns;
        self.frame_pace.count(data.len() as u64);
        match &mut self.phase {
            Phase::Open if self.held.is_empty() => {
                let taken = self.take_in(data, cx);
                self.held.extend_from_slice(&data[taken..]);
            }
            // The connection is paused: these were with the driver already, which bounds them.
            Phase::Open => self.held.extend_from_slice(data),
            // However much comes, the last answer leaves first, and then gets a while to arrive.
            Phase::Lingering { since, discarded } => {
                *discarded = discarded.saturating_add(data.len());
                let sent_at = self.wire.progress_at.max(*since);
                let has_arrived = self.wire.unsent() == 0
                    && cx.now.mono_ns >= sent_at.saturating_add(LINGER_LEAST_NS);
                if *discarded > LINGER_LEN_MAX && has_arrived {
                    self.abort(cx);
                }
            }
            Phase::Handshake { .. } | Phase::Gone => {}
        }
        self.settle(cx);
    }

    /// `len` bytes of what was to be sent went to the kernel.
    pub fn on_sent(&mut self, len: usize, cx: &mut Cx<'_>) {
        self.wire.sent(len, cx);
        self.settle(cx);
    }

    /// The peer will send no more.
    pub fn on_eof(&mut self, cx: &mut Cx<'_>) {
        self.eof = true;
        self.settle(cx);
    }

    /// The answer to a question of a stream. A stream that is gone ignores it.
    pub fn on_reply(&mut self, stream: u32, reply: Reply, cx: &mut Cx<'_>) {
        if let Some(place) = self.streams.by_number(stream) {
            self.reply_to(place, reply, cx);
        }
        self.settle(cx);
    }

    /// The outcome of a disk act of a stream's upload.
    pub fn on_disk(&mut self, stream: u32, tag: u32, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        if let Some(place) = self.streams.by_number(stream) {
            self.disk_for(place, tag, done, cx);
        }
        self.settle(cx);
    }

    /// An upload that waits for memory is to try again.
    pub fn on_memory(&mut self, stream: u32, cx: &mut Cx<'_>) {
        if let Some(place) = self.streams.by_number(stream) {
            self.memory_for(place, cx);
        }
        self.settle(cx);
    }

    /// Nobody is slow while another upload of the connection holds it back.
    pub fn slow_uploads(
        &self,
        before_ns: u64,
        now_ns: u64,
        found: &mut Vec<(u64, StreamId)>,
    ) -> usize {
        let may_be_slow = self.phase == Phase::Open && self.full_at.is_none();
        let mut holding = 0;
        for stream in self.streams.iter() {
            let Job::Put(put) = &stream.job else { continue };
            holding += usize::from(put.ingest.holds_blocks());
            let rate = put.ingest.rate(before_ns, now_ns).filter(|_| may_be_slow && !put.ended);
            let stream = StreamId { conn: self.conn(), stream: stream.number };
            found.extend(rate.map(|rate| (rate, stream)));
        }
        holding
    }

    pub fn end_slow_upload(&mut self, stream: u32, cx: &mut Cx<'_>) {
        self.end_slow(stream, cx);
        self.settle(cx);
    }

    /// Since when the peer takes too little, in `Now::mono_ns`, if blocks are held for it, of this
    /// shard's memory or of others'. Streams that have no credit hold none.
    pub fn stale_since(&self, own: bool, memory: &Memory) -> Option<u64> {
        if !matches!(self.phase, Phase::Open | Phase::Lingering { .. }) {
            return None;
        }
        let keeps = |get: &Get| get.download.held().is_some_and(|block| memory.owns(block) == own);
        let keep = |stream: &Stream| matches!(&stream.job, Job::Get(get) if keeps(get));
        let holds = self.wire.holds(own) || self.streams.iter().any(keep);
        (self.wire.unsent() > 0 && holds).then(|| self.wire.too_little_since())
    }

    /// The deadline has passed.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>) {
        self.miss_deadlines(cx);
        self.settle(cx);
    }

    /// The node is shutting down: finish what is in progress, take nothing new, then close.
    pub fn on_drain(&mut self, cx: &mut Cx<'_>) {
        self.draining = true;
        if matches!(self.phase, Phase::Handshake { .. }) {
            self.abort(cx);
        }
        self.settle(cx);
    }

    /// Drops the connection, because others need its memory.
    pub fn shed(&mut self, cx: &mut Cx<'_>) {
        self.abort(cx);
        self.settle(cx);
    }

    /// Since when it has no stream and no frame, with nothing on its way.
    pub fn idle_since(&self) -> Option<u64> {
        let waits = self.phase == Phase::Open
            && self.streams.is_empty()
            && self.frame.is_none()
            && self.held.is_empty()
            && self.deframer.is_between_frames();
        (waits && self.wire.unsent() == 0).then(|| self.received_at.max(self.wire.progress_at))
    }

    /// Bytes of memory that are kept for this connection, beside what every one has.
    pub fn held(&self) -> usize {
        // What a dropped connection had queued is gone with it.
        let queued = if self.phase == Phase::Gone { 0 } else { self.wire.queued.held() };
        let kept = self.held.capacity() + self.gathered.capacity() + self.cap.capacity();
        let refused = self.refused.capacity() * size_of::<u64>();
        kept + refused + self.streams.held() + queued
    }

    /// When the peer last took something, or sent something where there is nothing to take. While
    /// it waits for us that is now.
    pub fn progress_ns(&self, now_ns: u64) -> u64 {
        match self.waits_for_us() {
            _ if self.wire.unsent() > 0 => self.wire.progress_at,
            true => now_ns,
            false => self.received_at.max(self.unblocked_at),
        }
    }

    /// The connection is gone: release everything, send nothing.
    pub fn on_closed(&mut self, cx: &mut Cx<'_>) {
        self.release(cx);
        self.phase = Phase::Gone;
        self.settle(cx);
    }

    /// When the session is to get `on_deadline`, in `Now::mono_ns`; `None` for never.
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Restores what holds between events: nothing that could be taken is held, nothing that could
    /// be sent is kept, a connection without a purpose is ended, and the deadline is known.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        if self.phase == Phase::Open {
            if self.blocked {
                self.take_held(cx);
            }
            self.serve(cx);
            self.conclude(cx);
            self.keep_time(cx);
        }
        let done = self.eof && self.wire.unsent() == 0;
        if done && matches!(self.phase, Phase::Lingering { .. }) {
            self.abort(cx);
        }
        let pause = self.blocked && !self.eof && self.phase == Phase::Open;
        if pause != self.paused && self.phase != Phase::Gone {
            let conn = self.wire.conn;
            cx.acts.push(if pause { Act::Pause { conn } } else { Act::Resume { conn } });
            self.paused = pause;
        }
        self.deadline = self.due(&cx.config.deadlines).map(|(at, _)| at);
    }

    /// Takes what was held, as far as that is possible now.
    fn take_held(&mut self, cx: &mut Cx<'_>) {
        let mut held = mem::take(&mut self.held);
        let taken = self.take_in(&held, cx);
        held.drain(..taken);
        // A burst must not keep its memory for as long as the connection lives.
        if !held.is_empty() || held.capacity() <= PIPELINE_LEN_MAX {
            self.held = held;
        }
        if !self.blocked {
            self.unblocked_at = cx.now.mono_ns;
        }
    }

    /// Ends the connection when it has no further purpose.
    fn conclude(&mut self, cx: &mut Cx<'_>) {
        let no_more = self.eof && !self.blocked;
        if no_more {
            self.cut_short(cx);
        }
        if self.phase == Phase::Open && self.streams.is_empty() && (no_more || self.draining) {
            let idle = !no_more && self.wire.unsent() == 0 && self.frame.is_none();
            self.finish(cx);
            // Nothing is on its way to a peer that asked for nothing.
            if idle && self.deframer.is_between_frames() {
                self.abort(cx);
            }
        }
    }

    /// The peer has ended: what it began and did not finish takes no effect (OAP/1 §10.3), and a
    /// get that has used up its credit gets no more.
    fn cut_short(&mut self, cx: &mut Cx<'_>) {
        if !self.deframer.is_between_frames() && self.frame.take().is_some() {
            cx.stats.reject(Rejected::Protocol);
        }
        const CUT: Refusal = Refusal::bad("the connection ended before the put did");
        const STARVED: Refusal = Refusal::bad("the connection ended before more credit came");
        for place in 0..self.streams.places() {
            match self.streams.get(place).map(|stream| &stream.job) {
                Some(Job::Put(put)) if !put.ended => self.fail(place, &CUT, cx),
                Some(Job::Get(get)) if get.allowance() == 0 => self.fail(place, &STARVED, cx),
                _ => {}
            }
        }
    }

    /// Answers a stream with an error, which ends it.
    fn fail(&mut self, place: usize, why: &Refusal, cx: &mut Cx<'_>) {
        let Some(stream) = self.close(place, why.code.status(), cx) else { return };
        // OAP/1 §9.2, and OAP/1 §6.11 when bytes were sent before
        self.wire.send_error(&stream.head, why, cx);
        self.tell(&stream.head, stream.op(), why, cx);
        if let Job::Put(mut put) = stream.job {
            put.ingest.abort(cx);
            if !put.ended {
                self.remember_refused(stream.head.corr_id);
            }
        }
    }

    /// Tells of a request that failed.
    fn tell(&self, head: &FrameHeader, op: Op, why: &Refusal, cx: &mut Cx<'_>) {
        let corr_id = head.corr_id.to_string();
        failure::tell((self.wire.proto, op), why.code, self.peer, &corr_id, cx);
    }

    /// Takes a stream out of the table, counted as answered with `code`.
    fn close(&mut self, place: usize, code: u16, cx: &mut Cx<'_>) -> Option<Stream> {
        let mut stream = self.streams.remove(place)?;
        if let Job::Get(get) = &mut stream.job {
            get.download.cancel(cx);
        }
        let took = cx.now.mono_ns.saturating_sub(stream.opened_at);
        cx.stats.request(self.wire.peer, (self.wire.proto, stream.op()), code, took);
        cx.stats.inflight.sub(1);
        cx.stats.open_streams.sub(1);
        Some(stream)
    }

    /// Drops all streams without an answer.
    fn release(&mut self, cx: &mut Cx<'_>) {
        for place in (0..self.streams.places()).rev() {
            let Some(stream) = self.streams.remove(place) else { continue };
            cx.stats.inflight.sub(1);
            cx.stats.open_streams.sub(1);
            match stream.job {
                Job::Put(mut put) => put.ingest.abort(cx),
                Job::Get(mut get) => get.download.cancel(cx),
                Job::Has => {}
            }
        }
        self.frame = None;
        self.held = Vec::new();
        self.owed = 0;
        self.blocked = false;
    }

    /// Sends what is queued and no more, then waits for the peer to close: closing at once, with
    /// its bytes unread, would reset the connection and might take our last answer with it.
    fn finish(&mut self, cx: &mut Cx<'_>) {
        self.release(cx);
        cx.acts.push(Act::Finish { conn: self.wire.conn });
        self.phase = Phase::Lingering { since: cx.now.mono_ns, discarded: 0 };
    }

    /// Drops the connection.
    fn abort(&mut self, cx: &mut Cx<'_>) {
        self.release(cx);
        cx.acts.push(Act::Abort { conn: self.wire.conn });
        self.phase = Phase::Gone;
    }
}
