//! What the store answers, and the sending of bodies: one chunk a stream, in turn.

use std::io;

use ron_codec::{
    error::ErrorCode,
    limits::{GROUP_LEN, OAP_CHUNK_LEN_MAX},
    oap::{Flags, FrameHeader, PutAnswer, Window, write_has, write_meta, write_put_done},
};
use ron_io::{limits::COPY_LEN_MAX, ports::DiskDone};

use super::{
    OapSession,
    streams::{Get, Job, Stream},
    wire::{Refusal, Wire},
};
use crate::{
    flow::{Cx, Fault, Reply, Verified},
    ingest::{Outcome, Progress},
    limits::OAP_SHORT_KEPT_MAX,
};

/// Objects have no media type of their own.
const CONTENT_TYPE: &str = "application/octet-stream";

const NOT_FOUND: Refusal = Refusal::new(ErrorCode::NotFound, "there is no such object");

/// An answer that does not fit its question is our own mistake; the stream ends, not the node.
const CONFUSED: Refusal = Refusal::new(ErrorCode::Internal, "internal: unexpected reply");

impl OapSession {
    /// An answer for the stream at `place`.
    pub(super) fn reply_to(&mut self, place: usize, reply: Reply, cx: &mut Cx<'_>) {
        let Some(stream) = self.streams.get_mut(place) else { return };
        match (&mut stream.job, reply) {
            (Job::Put(put), reply) => {
                let outcome = put.ingest.on_reply(reply, cx);
                self.put_done(place, outcome, cx);
            }
            (Job::Get(get), Reply::Opened { size, first }) => {
                get.download.answered();
                self.begin(place, size, first, cx);
            }
            (Job::Get(_), Reply::Missing) => self.fail(place, &NOT_FOUND, cx),
            (Job::Get(get), Reply::Group(group)) => get.download.on_group(group),
            (Job::Get(get), Reply::MemoryPressure)
                if self.wire.unsent() > 0 && get.download.is_local(cx) =>
            {
                get.download.withdraw(cx);
            }
            (Job::Get(get), Reply::MemoryPressure) => get.download.drop_readahead(cx),
            (Job::Get(get), Reply::Late { index, ahead: true }) => get.download.crowded(index, cx),
            (Job::Get(get), Reply::Late { index, .. }) => match get.download.wants(index) {
                true if get.download.is_ahead(index) => get.download.drop_readahead(cx),
                true if self.wire.unsent() > 0 => get.download.withdraw(cx),
                true => self.fail(place, &Fault::Busy.into(), cx),
                false => {}
            },
            (Job::Has, Reply::Opened { size, .. }) => self.has_done(place, Some(size), cx),
            (Job::Has, Reply::Missing) => self.has_done(place, None, cx),
            (_, Reply::Failed(fault)) => self.fail(place, &fault.into(), cx),
            (
                _,
                Reply::Group(_)
                | Reply::MemoryPressure
                | Reply::Late { .. }
                | Reply::Stored { .. }
                | Reply::Deleted,
            ) => {
                self.fail(place, &CONFUSED, cx);
            }
        }
    }

    /// A disk act of the put at `place` is complete.
    pub(super) fn disk_for(
        &mut self,
        place: usize,
        tag: u32,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) {
        let stream = self.streams.get_mut(place);
        let Some(Stream { job: Job::Put(put), .. }) = stream else { return };
        if let Progress::Failed(fault) = put.ingest.on_disk(tag, done, cx) {
            self.fail(place, &fault.into(), cx);
        }
    }

    /// The put at `place` waits for memory no longer.
    pub(super) fn memory_for(&mut self, place: usize, cx: &mut Cx<'_>) {
        let stream = self.streams.get_mut(place);
        let Some(Stream { job: Job::Put(put), .. }) = stream else { return };
        if let Progress::Failed(fault) = put.ingest.on_memory(cx) {
            self.fail(place, &fault.into(), cx);
        }
    }

    fn put_done(&mut self, place: usize, outcome: Outcome, cx: &mut Cx<'_>) {
        let (addr, size, new) = match outcome {
            Outcome::Done { address, size, new } => (address, size, new),
            Outcome::Failed(fault) => return self.fail(place, &fault.into(), cx),
            Outcome::Going => return,
        };
        let Some(stream) = self.close(place, 0, cx) else { return };
        // OAP/1 §6.9
        let done = PutAnswer { addr, size, new };
        let flags = Flags::START | Flags::END;
        self.wire.send_json(&stream.head, flags, 0, cx, |out| write_put_done(out, &done));
    }

    fn has_done(&mut self, place: usize, size: Option<u64>, cx: &mut Cx<'_>) {
        let Some(stream) = self.close(place, 0, cx) else { return };
        // OAP/1 §6.7
        let flags = Flags::START | Flags::END;
        self.wire.send_json(&stream.head, flags, 0, cx, |out| write_has(out, size));
    }

    /// The object of a get is there: decides what to send of it.
    fn begin(&mut self, place: usize, size: u64, first: Option<Verified>, cx: &mut Cx<'_>) {
        // Where nothing can be sent now it is not kept either, but for a few short ones: it is
        // asked for when its turn comes.
        let can_send = self.wire.unsent() < self.bodies_max(cx);
        let keeps_short = !can_send && self.streams.kept() < OAP_SHORT_KEPT_MAX;
        let stream = self.streams.get_mut(place);
        let Some(Stream { job: Job::Get(get), head, .. }) = stream else { return };
        let window = match get.request.window(size) {
            Ok(window) => window,
            Err(error) => return self.fail(place, &error.into(), cx),
        };
        get.size = Some(size);
        let first = first.filter(|group| can_send || (keeps_short && group.len() <= COPY_LEN_MAX));
        get.download.begin(window.offset..window.offset + window.len, size, first);
        if window.len > 0 {
            return;
        }
        // OAP/1 §6.5
        if get.request.meta {
            get.send_meta(head, window, &mut self.wire, cx);
        }
        let start = if get.started { Flags::NONE } else { Flags::START };
        let code = get.code();
        self.wire.send_data(&head.answer(start | Flags::END, code, 0), None, cx);
        self.end_get(place, cx);
    }

    /// The last frame of a get was sent.
    fn end_get(&mut self, place: usize, cx: &mut Cx<'_>) {
        let code = match self.streams.get(place).map(|stream| &stream.job) {
            Some(Job::Get(get)) => get.code(),
            _ => return,
        };
        if code == 206 {
            cx.stats.ranges.add(1);
        }
        self.close(place, code, cx);
    }

    /// Bytes beyond which no more of bodies is queued: less while blocks are short.
    fn bodies_max(&self, cx: &Cx<'_>) -> usize {
        let max = self.wire.bodies_max(cx);
        if cx.memory.is_tight() { max.min(GROUP_LEN) } else { max }
    }

    /// Sends what may be sent, in turn, then asks for more of what will be sent next.
    pub(super) fn serve(&mut self, cx: &mut Cx<'_>) {
        // OAP/1 §6.10
        let mut passed = 0;
        while passed < self.streams.places() && self.wire.unsent() < self.bodies_max(cx) {
            let Some(place) = self.streams.take_turn() else { break };
            passed = if self.send_chunk(place, cx) { 0 } else { passed + 1 };
        }
        self.read_ahead(cx);
    }

    /// Asks for what will be sent next, for every stream its share of what may still be queued.
    fn read_ahead(&mut self, cx: &mut Cx<'_>) {
        let space = self.bodies_max(cx).saturating_sub(self.wire.unsent());
        let gets = self.streams.gets();
        let share = space.div_ceil(gets.max(1));
        // While memory is short, what all of them keep together fits what may be queued, and those
        // ask first whose turn comes first.
        let mut budget = match cx.memory.is_tight() {
            true => space.saturating_sub(self.streams.in_progress()),
            false => usize::MAX,
        };
        let idle = self.wire.unsent() == 0;
        for place in self.streams.by_turn() {
            let stream = self.streams.get_mut(place);
            let Some(Stream { job: Job::Get(get), .. }) = stream else { continue };
            if get.size.is_none() {
                continue;
            }
            let before = get.download.in_progress();
            let space = if budget > 0 { share.min(get.allowance()) } else { 0 };
            match gets {
                // A client that gives little credit, or none, holds no memory by it.
                _ if get.allowance() == 0 => get.download.release(cx),
                _ if get.download.is_under_pressure() && !idle => {}
                1 => get.download.pump_ahead(space, cx),
                // Groups of one that come far ahead would leave before those of the others.
                _ => get.download.pump(space, cx),
            }
            let after = get.download.in_progress();
            budget = budget.saturating_sub(after.saturating_sub(before) as usize);
            let waits = idle && after == 0 && get.allowance() > 0 && !get.download.is_done();
            get.waits_since = waits.then(|| get.waits_since.unwrap_or(cx.now.mono_ns));
        }
    }

    /// Sends the next chunk of the stream at `place`, if it is a get that has one.
    fn send_chunk(&mut self, place: usize, cx: &mut Cx<'_>) -> bool {
        let stream = self.streams.get_mut(place);
        let Some(Stream { job: Job::Get(get), head, .. }) = stream else { return false };
        if get.size.is_none() || get.download.is_done() {
            return false;
        }
        // OAP/1 §7.1
        let max = OAP_CHUNK_LEN_MAX.min(get.allowance());
        if max == 0 {
            if get.starved_at.is_none() {
                (get.starved_at, get.granted) = (Some(cx.now.mono_ns), 0);
            }
            return false;
        }
        // Nothing of the answer leaves before its first bytes are verified: until then it can
        // still be an error alone.
        let Some(slice) = get.download.take(max) else { return false };
        if get.request.meta && !get.started {
            let sent = get.download.remaining() + slice.len() as u64;
            let window = Window { offset: get.request.offset, len: sent };
            get.send_meta(head, window, &mut self.wire, cx);
        }
        let is_last = get.download.is_done();
        let start = if get.started { Flags::NONE } else { Flags::START };
        let end = if is_last { Flags::END } else { Flags::NONE };
        get.started = true;
        get.credit = get.credit.map(|credit| credit - slice.len() as u64);
        let head = head.answer(start | end, get.code(), slice.len() as u32);
        self.wire.send_data(&head, Some(slice), cx);
        if is_last {
            self.end_get(place, cx);
        }
        true
    }
}

impl Get {
    /// Sends the frame that describes the answer, as its first. OAP/1 §6.6
    fn send_meta(&mut self, head: &FrameHeader, window: Window, wire: &mut Wire, cx: &mut Cx<'_>) {
        let (address, size) = (self.address, self.size.unwrap_or(0));
        wire.send_json(head, Flags::START, self.code(), cx, |out| {
            write_meta(out, &address, size, window, CONTENT_TYPE);
        });
        self.started = true;
    }
}
