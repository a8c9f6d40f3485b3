//! HTTP/1.1 on one connection: objects out with GET and HEAD, in with PUT, away with DELETE.
//!
//! One request is served at a time; what a client sends ahead waits in the session, and beyond a
//! limit in the kernel. An answer that is a cache hit costs one pass over the head where it was
//! received and one head written where it is sent from: nothing is copied in between and nothing
//! is allocated.
//!
//! ```text
//!  Handshake ──► Head ──► Get ─────┬─ kept ──► Head
//!    (TLS)        │  ├──► Find ──► Get (a path of a bundle)
//!                 │  ├──► Put ─────┤
//!                 │  └──► Delete ──┤
//!                 │                └─ not kept ─┐
//!                 └─ malformed, idle, late ─────┴─► Linger ──► Gone
//! ```
//!
//! Refused: paths outside of `/o/`, methods other than GET, HEAD, PUT and DELETE, the latter two
//! without the authority to write, and whatever two readers of a request could understand
//! differently.

use std::{io, mem, net::SocketAddr};

use ron_codec::{
    error::ErrorCode,
    http::request::{Parsed, RequestHead, parse_head},
    limits::HEAD_LEN_MAX,
};
use ron_io::{
    peers::PeerBucket,
    ports::{Act, ConnId, DiskDone, Report, Severity},
    progress::Progress,
    stats::Proto,
};

use super::failure;
use crate::{
    cache::Memory,
    config::Listener,
    flow::{Cx, Fault, Peer, Reply, StreamId},
    limits::{LINGER_LEAST_NS, LINGER_LEN_MAX, PIPELINE_LEN_MAX, TIGHT_PIPELINE_LEN_MAX},
};

mod accept;
mod delete;
mod find;
mod framing;
mod get;
mod goal;
mod inbox;
mod late;
mod parts;
mod put;
mod refusal;
mod request;
mod shown;
mod terms;
mod wire;

#[cfg(test)]
mod tests;

use delete::Delete;
use find::{Begun, Find};
use framing::Leftover;
use get::{Get, Turn};
use inbox::Inbox;
use put::Put;
use refusal::Refusal;
use request::{Plan, Request, Wanted};
use shown::Shown;
use wire::Wire;

use super::pace::Pace;

/// The status under which requests are counted that ended without an answer, or with part of one
/// because the client was gone or did not take it.
const STATUS_NONE: u16 = 0;

// An unfinished head never pauses the peer who must finish it.
const _: () = assert!(HEAD_LEN_MAX < PIPELINE_LEN_MAX);

/// One HTTP connection.
#[derive(Debug)]
pub struct HttpSession {
    wire: Wire,
    state: State,
    /// Bytes that wait: an unfinished head, requests sent ahead, a body the disk is behind with.
    inbox: Inbox,
    /// Bytes at the start of the inbox that are known to hold no whole head.
    scanned: usize,
    /// Bytes of an unwanted body before the next head.
    skip: usize,
    /// The number of the request in progress, or of the last one.
    stream: u32,
    peer: SocketAddr,
    /// What the peer is counted as.
    counted: PeerBucket,
    /// Since when the peer is paused, in `Now::mono_ns`.
    paused_ns: Option<u64>,
    /// The peer will send no more.
    eof: bool,
    /// When the state's phase began, and when bytes last came, in `Now::mono_ns`.
    phase_ns: u64,
    received_ns: u64,
    /// How fast the body of an upload comes.
    pace: Pace,
    due: Option<u64>,
}

// Boxing a GET would put an allocation on the path of every request.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum State {
    Handshake,
    /// Between two requests, or within a head.
    Head,
    /// A path of a bundle is looked for.
    Find(Box<Find>),
    Get(Get),
    Put(Box<Put>),
    Delete(Delete),
    /// The last answer is queued. What still comes is discarded, `taken` bytes so far, because a
    /// connection that is closed over unread bytes takes its last answer with it. However much
    /// comes, the answer leaves first, and then gets a while to arrive.
    Linger {
        taken: usize,
    },
    /// Dropped, or about to be.
    Gone,
}

impl HttpSession {
    /// The session of a connection that was just accepted.
    pub fn new(conn: ConnId, listener: Listener, peer: SocketAddr, cx: &mut Cx<'_>) -> HttpSession {
        let mut session = HttpSession {
            wire: Wire::new(conn, listener.proto, cx),
            state: if listener.tls { State::Handshake } else { State::Head },
            inbox: Inbox::default(),
            scanned: 0,
            skip: 0,
            stream: 0,
            peer,
            counted: cx.stats.peers.bucket(Peer::of(peer.ip())),
            paused_ns: None,
            eof: false,
            phase_ns: cx.now.mono_ns,
            received_ns: cx.now.mono_ns,
            pace: Pace::new(cx.now.mono_ns),
            due: None,
        };
        session.due = session.next_deadline(cx);
        session
    }

    /// Whether the peer is on this machine.
    fn is_local(&self) -> bool {
        self.peer.ip().to_canonical().is_loopback()
    }

    pub fn conn(&self) -> ConnId {
        self.wire.conn()
    }

    pub fn proto(&self) -> Proto {
        self.wire.proto()
    }

    pub fn deadline(&self) -> Option<u64> {
        self.due
    }

    pub fn on_secured(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.state, State::Handshake) {
            self.state = State::Head;
            self.phase_ns = cx.now.mono_ns;
        }
        self.settle(cx);
    }

    pub fn on_bytes(&mut self, data: &[u8], cx: &mut Cx<'_>) {
        cx.stats.bytes_in[self.wire.proto() as usize].add(data.len() as u64);
        self.received_ns = cx.now.mono_ns;
        if self.inbox.is_empty() {
            let used = self.work_off(data, cx);
            if used < data.len() {
                self.inbox.push(&data[used..]);
            }
        } else {
            self.inbox.push(data);
        }
        self.settle(cx);
    }

    pub fn on_sent(&mut self, len: usize, cx: &mut Cx<'_>) {
        self.wire.on_sent(len, cx);
        match &mut self.state {
            State::Get(get) => {
                let turn = get.send_more(&mut self.wire, cx);
                self.turn(turn, cx);
            }
            // Only now does the time of the peer begin to run.
            State::Head | State::Linger { .. } if self.wire.unsent() == 0 => {
                self.phase_ns = cx.now.mono_ns;
            }
            _ => {}
        }
        self.settle(cx);
    }

    pub fn on_eof(&mut self, cx: &mut Cx<'_>) {
        self.eof = true;
        self.settle(cx);
    }

    pub fn on_reply(&mut self, stream: u32, reply: Reply, cx: &mut Cx<'_>) {
        match &mut self.state {
            State::Get(get) if stream == self.stream => {
                let turn = get.on_reply(reply, &mut self.wire, cx);
                self.turn(turn, cx);
            }
            State::Find(find) if stream == self.stream => {
                let turn = find.on_reply(reply, cx);
                self.find_turn(turn, cx);
            }
            State::Put(put) if stream == self.stream => {
                let turn = put.on_reply(reply, cx);
                self.put_turn(turn, cx);
            }
            State::Delete(delete) if stream == self.stream => {
                let turn = delete.on_reply(&reply);
                self.delete_turn(turn, cx);
            }
            _ => {}
        }
        self.settle(cx);
    }

    pub fn on_disk(&mut self, stream: u32, tag: u32, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        if let State::Put(put) = &mut self.state
            && stream == self.stream
        {
            let turn = put.on_disk(tag, done, cx);
            self.put_turn(turn, cx);
        }
        self.settle(cx);
    }

    pub fn on_memory(&mut self, stream: u32, cx: &mut Cx<'_>) {
        if let State::Put(put) = &mut self.state
            && stream == self.stream
        {
            let turn = put.on_memory(cx);
            self.put_turn(turn, cx);
        }
        self.settle(cx);
    }

    pub fn slow_uploads(
        &self,
        before_ns: u64,
        now_ns: u64,
        found: &mut Vec<(u64, StreamId)>,
    ) -> usize {
        let State::Put(put) = &self.state else { return 0 };
        let stream = StreamId { conn: self.conn(), stream: self.stream };
        found.extend(put.rate(before_ns, now_ns).map(|rate| (rate, stream)));
        usize::from(put.holds_blocks())
    }

    pub fn end_slow_upload(&mut self, stream: u32, cx: &mut Cx<'_>) {
        if stream == self.stream {
            self.refuse_put(&Refusal::Slow(refusal::Slow::Body), cx);
        }
        self.settle(cx);
    }

    /// Since when the peer takes too little, in `Now::mono_ns`, if blocks are held for it, of this
    /// shard's memory or of others'.
    pub fn stale_since(&self, own: bool, memory: &Memory) -> Option<u64> {
        let keeps = match &self.state {
            State::Get(get) => get.held().is_some_and(|block| memory.owns(block) == own),
            _ => false,
        };
        let stale = self.wire.unsent() > 0 && (keeps || self.wire.holds(own));
        stale.then(|| self.wire.too_little_since())
    }

    pub fn on_drain(&mut self, cx: &mut Cx<'_>) {
        self.wire.drain();
        self.settle(cx);
    }

    pub fn on_deadline(&mut self, cx: &mut Cx<'_>) {
        if self.due.is_some_and(|due| due <= cx.now.mono_ns) {
            self.run_late(cx);
        }
        self.settle(cx);
    }

    /// Says that there are too many connections, and ends this one.
    pub fn turn_away(&mut self, cx: &mut Cx<'_>) {
        cx.stats.inflight.add(1);
        let mut request = Request::unread(cx);
        request.keep_alive = false;
        let refusal = Refusal::Store(Fault::Busy);
        self.wire.send_refusal(&request, &refusal, cx);
        self.answered(&request, refusal.code().status(), cx);
        self.settle(cx);
    }

    /// Drops the connection, because others need its memory.
    pub fn shed(&mut self, cx: &mut Cx<'_>) {
        self.abort(STATUS_NONE, cx);
        self.settle(cx);
    }

    /// Since when it is between two requests, with nothing on its way.
    pub fn idle_since(&self) -> Option<u64> {
        // One that is to send the rest of a body nobody wants is owed nothing either.
        let waits = matches!(self.state, State::Head) && self.inbox.is_empty();
        (waits && self.wire.unsent() == 0).then(|| self.phase_ns.max(self.received_ns))
    }

    /// Bytes of memory that are kept for this connection, beside what every one has.
    pub fn held(&self) -> usize {
        // What a dropped connection had queued is gone with it.
        let queued = if matches!(self.state, State::Gone) { 0 } else { self.wire.held() };
        let request = match &self.state {
            State::Put(put) => put.held(),
            State::Find(find) => find.held(),
            State::Get(get) => get.heap(),
            _ => 0,
        };
        self.inbox.held() + queued + request
    }

    /// When the peer last took something, or sent something where there is nothing to take. While
    /// it waits for us that is now: a pause with nothing unsent is no doing of its own.
    pub fn progress_ns(&self, now_ns: u64) -> u64 {
        let stores = matches!(&self.state, State::Put(put) if !put.is_receiving());
        match self.paused_ns.is_some() || stores {
            _ if self.wire.unsent() > 0 => self.wire.progress_ns(),
            true => now_ns,
            false => self.received_ns,
        }
    }

    pub fn on_closed(&mut self, cx: &mut Cx<'_>) {
        self.drop_request(STATUS_NONE, cx);
        self.inbox.clear();
        self.due = None;
    }

    /// Restores what holds between events: nothing usable waits, an ended connection is closed,
    /// the peer is paused exactly while too much waits, and the deadline is that of the state.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        let is_whole = matches!(&self.state, State::Put(put) if put.has_all());
        if (is_whole || !self.inbox.is_empty()) && self.is_hungry(cx) {
            let mut inbox = mem::take(&mut self.inbox);
            let used = self.work_off(inbox.rest(), cx);
            inbox.consume(used);
            self.inbox = inbox;
        }
        self.end_if_over(cx);
        self.throttle(cx);
        self.due = self.next_deadline(cx);
    }

    /// Pauses the peer when too much waits, and resumes it when that has ended.
    fn throttle(&mut self, cx: &mut Cx<'_>) {
        let paused = self.is_flooded(cx);
        if paused == self.paused_ns.is_some() || matches!(self.state, State::Gone) {
            return;
        }
        let conn = self.conn();
        match self.paused_ns.take() {
            None => {
                self.paused_ns = Some(cx.now.mono_ns);
                cx.acts.push(Act::Pause { conn });
            }
            Some(since) => {
                // A peer that was held back was not late.
                self.received_ns = cx.now.mono_ns;
                self.pace.extend(cx.now.mono_ns.saturating_sub(since));
                cx.acts.push(Act::Resume { conn });
            }
        }
    }

    /// Whether something can come of the bytes that wait.
    fn is_hungry(&self, cx: &Cx<'_>) -> bool {
        match &self.state {
            State::Head => {
                self.wire.takes_request(cx) && (self.skip > 0 || self.inbox.len() > self.scanned)
            }
            State::Put(put) => put.wants_more(),
            State::Linger { .. } | State::Gone => true,
            State::Handshake | State::Find(_) | State::Get(_) | State::Delete(_) => false,
        }
    }

    /// Whether the peer must wait before it sends more.
    fn is_flooded(&self, cx: &Cx<'_>) -> bool {
        let max = if cx.is_tight() { TIGHT_PIPELINE_LEN_MAX } else { PIPELINE_LEN_MAX };
        match &self.state {
            State::Handshake | State::Linger { .. } | State::Gone => false,
            State::Put(put) if put.is_receiving() => !self.inbox.is_empty() && !put.wants_more(),
            // What waits is an unfinished head, whose rest must come.
            State::Head if self.wire.takes_request(cx) => false,
            State::Head | State::Find(_) | State::Get(_) | State::Put(_) | State::Delete(_) => {
                self.inbox.len() >= max
            }
        }
    }

    /// Uses what it can of `data` and returns how much that was.
    fn work_off(&mut self, data: &[u8], cx: &mut Cx<'_>) -> usize {
        let (mut used, mut progress) = (0, Progress::default());
        while let Some(step) = self.step(&data[used..], cx) {
            used += step;
            if !progress.made(step) {
                let (shard, severity) = (cx.config.shard, Severity::Error);
                let message = "internal: an HTTP session makes no progress".to_owned();
                cx.acts.push(Act::Report(Report::Note { shard, severity, message }));
                self.abort(STATUS_NONE, cx);
                return data.len();
            }
        }
        used
    }

    /// Does the next thing with bytes that begin with `rest` and returns how many it used; `None`
    /// when there is nothing to do.
    fn step(&mut self, rest: &[u8], cx: &mut Cx<'_>) -> Option<usize> {
        match &mut self.state {
            State::Head if rest.is_empty() || !self.wire.takes_request(cx) => None,
            State::Head if self.skip > 0 => {
                let len = rest.len().min(self.skip);
                self.skip -= len;
                self.pace.count(len as u64);
                self.phase_ns = cx.now.mono_ns;
                Some(len)
            }
            State::Head => self.take_head(rest, cx),
            State::Put(put) if put.is_receiving() => {
                let before = put.taken();
                let (used, result) = put.feed(rest, cx);
                self.pace.count(put.taken() - before);
                match result {
                    Err(refusal) => self.refuse_put(&refusal, cx),
                    Ok(()) if used == 0 => return None,
                    Ok(()) => {}
                }
                Some(used)
            }
            State::Linger { taken } if !rest.is_empty() => {
                *taken = taken.saturating_add(rest.len());
                let has_arrived = self.wire.unsent() == 0
                    && cx.now.mono_ns >= self.phase_ns.saturating_add(LINGER_LEAST_NS);
                if *taken > LINGER_LEN_MAX && has_arrived {
                    self.abort(STATUS_NONE, cx);
                }
                Some(rest.len())
            }
            State::Gone if !rest.is_empty() => Some(rest.len()),
            _ => None,
        }
    }

    fn take_head(&mut self, rest: &[u8], cx: &mut Cx<'_>) -> Option<usize> {
        match parse_head(rest, self.scanned) {
            Ok(Parsed::Partial) => {
                // RFC 9112 §2.2: empty lines are no part of a head, and nobody who sent one asks.
                let lines = rest.chunks(2).take_while(|line| *line == b"\r\n").count();
                if lines > 0 || rest == b"\r" {
                    self.scanned = 0;
                    return (lines > 0).then_some(2 * lines);
                }
                if self.scanned == 0 && self.stream > 0 {
                    self.phase_ns = cx.now.mono_ns;
                }
                self.scanned = rest.len();
                None
            }
            Ok(Parsed::Head { head, len }) => {
                self.scanned = 0;
                self.begin(&head, cx);
                Some(len)
            }
            Err(error) => {
                self.refuse_unread(&Refusal::Head(error), cx);
                Some(0)
            }
        }
    }

    /// Begins the request of a head.
    fn begin(&mut self, head: &RequestHead<'_>, cx: &mut Cx<'_>) {
        let request = Request::new(head, cx);
        cx.stats.inflight.add(1);
        self.stream = self.stream.wrapping_add(1).max(1);
        let stream = StreamId { conn: self.conn(), stream: self.stream };
        let leftover = Leftover::of(head.body, head.expect_continue);
        match request::plan(head).map(|plan| plan.on_terms(cx.config)) {
            Ok(Plan::Get { address }) => {
                let request = self.pass_over(request, leftover);
                let (wanted, shown) = (Wanted::new(head, &address), Shown::bare(address));
                self.state = State::Get(Get::begin(request, stream, shown, (wanted, None), cx));
            }
            Ok(Plan::Find { bundle, goal }) => {
                let request = self.pass_over(request, leftover);
                let begun = find::begin(request, stream, (bundle, goal), head, cx);
                self.find_begun(request, begun, cx);
            }
            Ok(Plan::Named { path }) => {
                let request = self.pass_over(request, leftover);
                let begun = find::begin_named(request, stream, path, head, cx);
                self.find_begun(request, begun, cx);
            }
            Ok(Plan::Delete { address }) => {
                match request::check_write(head, Some(&address), self.is_local(), cx.config) {
                    Ok(condition) => {
                        let request = self.pass_over(request, leftover);
                        let what = (address, condition);
                        self.state = State::Delete(Delete::begin(request, stream, what, cx));
                    }
                    Err(refusal) => self.refuse(request, leftover, &refusal, cx),
                }
            }
            Ok(Plan::Options) => {
                let mut request = self.pass_over(request, leftover);
                request.keep_alive &= !self.wire.is_draining();
                self.wire.send_methods(&request, cx);
                self.answered(&request, 204, cx);
            }
            Ok(Plan::Put { expected }) => {
                let from = (stream, Peer::of(self.peer.ip()));
                let may = request::check_write(head, expected.as_ref(), self.is_local(), cx.config);
                let put = may.and_then(|condition| {
                    Put::begin(request, from, expected, condition, head.body, cx)
                });
                match put {
                    Ok(mut put) => {
                        put.awaited = head.expect_continue;
                        self.state = State::Put(Box::new(put));
                        self.pace.restart(cx.now.mono_ns);
                        self.invite(cx);
                    }
                    Err(refusal) => self.refuse(request, leftover, &refusal, cx),
                }
            }
            Err(refusal) => self.refuse(request, leftover, &refusal, cx),
        }
    }

    /// Goes on as a step of a GET says.
    fn turn(&mut self, turn: Turn, cx: &mut Cx<'_>) {
        let State::Get(get) = &mut self.state else { return };
        let request = get.request;
        if matches!(turn, Turn::Refuse(_) | Turn::Cut(_)) {
            get.cancel(cx);
        }
        match turn {
            Turn::Wait => {}
            Turn::FallBack => {
                self.stream = self.stream.wrapping_add(1).max(1);
                get.fall_back(StreamId { conn: self.wire.conn(), stream: self.stream }, cx);
            }
            Turn::Answered { status } => self.answered(&request, status, cx),
            Turn::Refuse(refusal) => self.refuse(request, Leftover::Skip(self.skip), &refusal, cx),
            Turn::Cut(refusal) => {
                refusal.count(self.counted, cx.stats);
                self.tell(&request, refusal.code(), cx);
                self.count(&request, refusal.code().status(), cx);
                // The client sees by its length that the answer is not whole. What is queued of it,
                // and of the answers before it, still leaves.
                self.close(cx);
            }
        }
    }

    /// Goes on as the beginning of the search for a path says.
    fn find_begun(&mut self, request: Request, begun: Begun, cx: &mut Cx<'_>) {
        match begun {
            Begun::Looking(find) => self.state = State::Find(find),
            Begun::Get(get) => self.state = State::Get(get),
            Begun::Refuse(refusal) => {
                self.refuse(request, Leftover::Skip(self.skip), &refusal, cx);
            }
        }
    }

    /// Goes on as a step of the search for a path says.
    fn find_turn(&mut self, turn: find::Turn, cx: &mut Cx<'_>) {
        let State::Find(find) = &mut self.state else { return };
        let mut request = find.request;
        match turn {
            find::Turn::Wait => {}
            find::Turn::Get(get) => self.state = State::Get(get),
            find::Turn::Redirect(target) => {
                request.keep_alive &= !self.wire.is_draining();
                let name = find.named();
                self.wire.send_redirect(&request, &target, name.as_ref(), cx);
                self.answered(&request, 301, cx);
            }
            find::Turn::Refuse(refusal) => {
                find.cancel(cx);
                self.refuse(request, Leftover::Skip(self.skip), &refusal, cx);
            }
        }
    }

    /// Goes on as a step of a PUT says.
    fn put_turn(&mut self, turn: put::Turn, cx: &mut Cx<'_>) {
        let State::Put(put) = &self.state else { return };
        match turn {
            put::Turn::Wait => {}
            put::Turn::Receive => self.invite(cx),
            put::Turn::Refuse(refusal) => self.refuse_put(&refusal, cx),
            put::Turn::Stored(stored) => {
                let (mut request, named) = (put.request, put.is_named());
                request.keep_alive &= !self.wire.is_draining();
                self.wire.send_stored(&request, &stored, named, cx);
                self.answered(&request, if stored.new { 201 } else { 200 }, cx);
            }
        }
    }

    /// Tells a client that waits to send its body, as soon as it is wanted.
    fn invite(&mut self, cx: &mut Cx<'_>) {
        let State::Put(put) = &mut self.state else { return };
        if !put.is_asking() && mem::take(&mut put.awaited) {
            self.wire.send_continue(cx);
            // The time of the peer begins to run.
            self.pace.restart(cx.now.mono_ns);
        }
    }

    /// Goes on as the answer to a DELETE says.
    fn delete_turn(&mut self, turn: delete::Turn, cx: &mut Cx<'_>) {
        let State::Delete(delete) = &self.state else { return };
        let mut request = delete.request;
        match turn {
            delete::Turn::Deleted => {
                request.keep_alive &= !self.wire.is_draining();
                self.wire.send_deleted(&request, cx);
                self.answered(&request, 204, cx);
            }
            delete::Turn::Refuse(refusal) => {
                self.refuse(request, Leftover::Skip(self.skip), &refusal, cx);
            }
        }
    }

    /// Ends a PUT with an error; what was received is dropped.
    fn refuse_put(&mut self, refusal: &Refusal, cx: &mut Cx<'_>) {
        let State::Put(put) = &mut self.state else { return };
        put.abort(cx);
        let (request, leftover) = (put.request, put.leftover());
        self.refuse(request, leftover, refusal, cx);
    }

    /// Answers with an error because of bytes that are no request.
    fn refuse_unread(&mut self, refusal: &Refusal, cx: &mut Cx<'_>) {
        cx.stats.inflight.add(1);
        let request = Request::unread(cx);
        self.refuse(request, Leftover::Close, refusal, cx);
    }

    /// Answers a request with an error, passing over what is left of its body.
    fn refuse(&mut self, request: Request, leftover: Leftover, refusal: &Refusal, cx: &mut Cx<'_>) {
        let mut request = self.pass_over(request, leftover);
        request.keep_alive &= !refusal.closes() && !self.wire.is_draining();
        refusal.count(self.counted, cx.stats);
        self.wire.send_refusal(&request, refusal, cx);
        self.tell(&request, refusal.code(), cx);
        self.answered(&request, refusal.code().status(), cx);
    }

    /// Tells of a request that failed.
    fn tell(&self, request: &Request, code: ErrorCode, cx: &mut Cx<'_>) {
        let kind = (self.wire.proto(), request.op);
        failure::tell(kind, code, self.peer, request.corr.as_str(), cx);
    }

    /// Arranges for a body, or the rest of one, that nobody wants.
    fn pass_over(&mut self, mut request: Request, leftover: Leftover) -> Request {
        match leftover {
            Leftover::Skip(len) => self.skip = len,
            Leftover::Close => request.keep_alive = false,
        }
        request
    }

    /// All of an answer is queued.
    fn answered(&mut self, request: &Request, status: u16, cx: &mut Cx<'_>) {
        self.count(request, status, cx);
        self.phase_ns = cx.now.mono_ns;
        self.pace.restart(cx.now.mono_ns);
        if request.keep_alive {
            self.state = State::Head;
        } else {
            self.close(cx);
        }
    }

    fn count(&self, request: &Request, status: u16, cx: &Cx<'_>) {
        let took_ns = cx.now.mono_ns.saturating_sub(request.began_ns);
        cx.stats.inflight.sub(1);
        cx.stats.request(self.counted, (self.wire.proto(), request.op), status, took_ns);
    }

    /// Ends the sending side behind what is queued.
    fn close(&mut self, cx: &mut Cx<'_>) {
        cx.acts.push(Act::Finish { conn: self.conn() });
        self.state = State::Linger { taken: 0 };
        self.phase_ns = cx.now.mono_ns;
    }

    /// Drops the connection, and with it a request in progress, which is counted under `status`.
    fn abort(&mut self, status: u16, cx: &mut Cx<'_>) {
        self.drop_request(status, cx);
        self.inbox.clear();
        cx.acts.push(Act::Abort { conn: self.conn() });
    }

    fn drop_request(&mut self, status: u16, cx: &mut Cx<'_>) {
        let request = match &mut self.state {
            State::Find(find) => {
                find.cancel(cx);
                Some(find.request)
            }
            State::Get(get) => {
                get.cancel(cx);
                Some(get.request)
            }
            State::Delete(delete) => Some(delete.request),
            State::Put(put) => {
                put.abort(cx);
                Some(put.request)
            }
            State::Handshake | State::Head | State::Linger { .. } | State::Gone => None,
        };
        self.state = State::Gone;
        if let Some(request) = request {
            self.count(&request, status, cx);
        }
    }

    /// Closes a connection on which nothing more can happen.
    fn end_if_over(&mut self, cx: &mut Cx<'_>) {
        let drained = self.wire.is_draining() && self.inbox.is_empty();
        match &self.state {
            // What the peer left is no whole request.
            State::Head if self.eof && self.wire.takes_request(cx) => self.close(cx),
            State::Head if drained => {
                let idle = self.wire.unsent() == 0 && self.skip == 0;
                self.close(cx);
                // Nothing is on its way to a peer that asked for nothing.
                if idle {
                    self.abort(STATUS_NONE, cx);
                }
            }
            State::Put(put) if self.eof && put.awaits_body() && self.inbox.is_empty() => {
                self.refuse_put(&Refusal::BodyEnded, cx);
            }
            State::Handshake if self.eof || drained => self.abort(STATUS_NONE, cx),
            _ => {}
        }
        if matches!(self.state, State::Linger { .. }) && self.eof && self.wire.unsent() == 0 {
            self.abort(STATUS_NONE, cx);
        }
    }
}
