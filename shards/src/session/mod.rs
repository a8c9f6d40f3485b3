//! One connection each: what its bytes ask for, and what is sent back.
//!
//! A session gets the events of its connection and the replies to its questions, and answers into
//! the [`Cx`]: bytes and bodies to send, questions to route, disk acts of uploads. It never holds a
//! reference to the store. One deadline a session is kept by the shard: after every call the shard
//! reads [`Session::deadline`] and files it.

use std::io;

use ron_io::{
    ports::{ConnId, DiskDone},
    stats::{Proto, Rejected},
};

use crate::{
    cache::Memory,
    flow::{Cx, Reply, StreamId},
};

mod failure;
pub mod http;
mod lookup;
pub mod oap;
mod pace;
mod queued;

/// A connection's session, by what is spoken on it.
#[derive(Debug)]
pub enum Session {
    Http(Box<http::HttpSession>),
    Oap(Box<oap::OapSession>),
}

macro_rules! each {
    ($self:ident, $session:ident => $call:expr) => {
        match $self {
            Session::Http($session) => $call,
            Session::Oap($session) => $call,
        }
    };
}

impl Session {
    /// The connection this session serves.
    pub fn conn(&self) -> ConnId {
        each!(self, session => session.conn())
    }

    /// What is spoken on it.
    pub fn proto(&self) -> Proto {
        each!(self, session => session.proto())
    }

    /// The TLS handshake is done.
    pub fn on_secured(&mut self, cx: &mut Cx<'_>) {
        each!(self, session => session.on_secured(cx));
    }

    /// Bytes of the peer.
    pub fn on_bytes(&mut self, data: &[u8], cx: &mut Cx<'_>) {
        each!(self, session => session.on_bytes(data, cx));
    }

    /// `len` bytes of what was to be sent went to the kernel.
    pub fn on_sent(&mut self, len: usize, cx: &mut Cx<'_>) {
        each!(self, session => session.on_sent(len, cx));
    }

    /// The peer will send no more.
    pub fn on_eof(&mut self, cx: &mut Cx<'_>) {
        each!(self, session => session.on_eof(cx));
    }

    /// The answer to a question of a stream. A stream that is gone ignores it.
    pub fn on_reply(&mut self, stream: u32, reply: Reply, cx: &mut Cx<'_>) {
        each!(self, session => session.on_reply(stream, reply, cx));
    }

    /// The outcome of a disk act of a stream's upload.
    pub fn on_disk(&mut self, stream: u32, tag: u32, done: io::Result<DiskDone>, cx: &mut Cx<'_>) {
        each!(self, session => session.on_disk(stream, tag, done, cx));
    }

    /// A stream's upload waits for memory no longer.
    pub fn on_memory(&mut self, stream: u32, cx: &mut Cx<'_>) {
        each!(self, session => session.on_memory(stream, cx));
    }

    /// The uploads whose peers are behind with a group that was begun before `before_ns`, by the
    /// bytes a second that come of it. Returns how many uploads hold blocks, slow or not.
    pub fn slow_uploads(
        &self,
        before_ns: u64,
        now_ns: u64,
        found: &mut Vec<(u64, StreamId)>,
    ) -> usize {
        each!(self, session => session.slow_uploads(before_ns, now_ns, found))
    }

    /// Others need the memory of a stream's upload, which comes too slowly.
    pub fn end_slow_upload(&mut self, stream: u32, cx: &mut Cx<'_>) {
        each!(self, session => session.end_slow_upload(stream, cx));
    }

    /// Since when the peer takes nothing, in `Now::mono_ns`, if blocks are held for it: with
    /// `own` of this shard's memory, otherwise of others'.
    pub fn stale_since(&self, own: bool, memory: &Memory) -> Option<u64> {
        each!(self, session => session.stale_since(own, memory))
    }

    /// The deadline has passed.
    pub fn on_deadline(&mut self, cx: &mut Cx<'_>) {
        each!(self, session => session.on_deadline(cx));
    }

    /// The node is shutting down: finish what is in progress, take nothing new, then close.
    pub fn on_drain(&mut self, cx: &mut Cx<'_>) {
        each!(self, session => session.on_drain(cx));
    }

    /// The shard has its most connections: say so and end.
    pub fn turn_away(&mut self, cx: &mut Cx<'_>) {
        match self {
            Session::Http(session) => session.turn_away(cx),
            Session::Oap(session) => session.shed(cx),
        }
    }

    /// Others need the memory that this connection keeps: drop it.
    pub fn shed(&mut self, cx: &mut Cx<'_>) {
        cx.stats.reject(Rejected::Memory);
        each!(self, session => session.shed(cx));
    }

    /// Since when the peer asks for nothing and has nothing to take, in `Now::mono_ns`.
    pub fn idle_since(&self) -> Option<u64> {
        each!(self, session => session.idle_since())
    }

    /// Others need the place of this idle connection: drop it.
    pub fn drop_idle(&mut self, cx: &mut Cx<'_>) {
        cx.stats.reject(Rejected::Idle);
        each!(self, session => session.shed(cx));
    }

    /// Bytes of memory that are kept for this connection, beside what every connection has.
    pub fn held(&self) -> usize {
        each!(self, session => session.held())
    }

    /// When the peer last did something about what is kept for it, in `Now::mono_ns`: it took
    /// bytes that are queued, or, where there are none, sent some. Where there are none, and it is
    /// not read because of us, that is `now_ns`.
    pub fn progress_ns(&self, now_ns: u64) -> u64 {
        each!(self, session => session.progress_ns(now_ns))
    }

    /// The connection is gone: release everything, send nothing.
    pub fn on_closed(&mut self, cx: &mut Cx<'_>) {
        each!(self, session => session.on_closed(cx));
    }

    /// When the session is to get `on_deadline`, in `Now::mono_ns`; `None` for never.
    pub fn deadline(&self) -> Option<u64> {
        each!(self, session => session.deadline())
    }
}
