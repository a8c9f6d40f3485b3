//! Deadlines: the phase that ends first, and what happens when it does. OAP/1 §10.1
//!
//! Silence counts against the peer only while we listen: what it sent and we could not take yet
//! is our delay, not its own.

use ron_codec::{error::ErrorCode, oap::FrameHeader};
use ron_io::stats::{Op, Rejected};

use super::{
    OapSession, Phase,
    streams::{Job, Kind, Stream},
    wire::Refusal,
};
use crate::{
    config::Deadlines,
    flow::{Cx, Fault},
    limits::{READ_NEXT_WAIT_NS, READ_WAIT_NS},
};

/// What ends when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Handshake,
    FirstFrame,
    /// The present frame: its header is too slow, or its peer is silent within it.
    Frame,
    /// The rest of the present frame comes below the least rate.
    FramePace,
    /// A connection that takes nothing of what was sent.
    Send,
    /// A put whose bytes come too slowly, by our number.
    Pace(u32),
    /// A get that memory is too short for, by our number.
    Memory(u32),
    /// One stream, by our number.
    Stream(u32),
    /// A connection with nothing to do.
    Idle,
    Linger,
}

impl Due {
    /// Kinds that are not a stream's.
    const OF_CONNECTION: usize = 6;
    /// Kinds that one stream has.
    const OF_STREAM: usize = 3;
}

/// The earlier of two, the first when they are equal.
fn earlier(first: Option<(u64, Due)>, at: u64, due: Due) -> Option<(u64, Due)> {
    Some(first.filter(|(first_at, _)| *first_at <= at).unwrap_or((at, due)))
}

/// When a get has waited too long for others of its connection, which have what memory there is.
fn memory_due(stream: &Stream) -> Option<u64> {
    let Job::Get(get) = &stream.job else { return None };
    let wait_ns = if get.started { READ_NEXT_WAIT_NS } else { READ_WAIT_NS };
    get.waits_since.map(|since| since.saturating_add(wait_ns))
}

impl OapSession {
    /// The deadline that comes first, in `Now::mono_ns`, and what it ends.
    pub(super) fn due(&self, limits: &Deadlines) -> Option<(u64, Due)> {
        let send_at = self.wire.progress_at.saturating_add(limits.send_ns);
        match self.phase {
            Phase::Handshake { since } => {
                Some((since.saturating_add(limits.handshake_ns), Due::Handshake))
            }
            Phase::Open => {
                let send = (self.wire.unsent() > 0).then_some((send_at, Due::Send));
                let first = self.frame_due(limits, send);
                self.streams.iter().fold(first, |first, stream| {
                    let number = stream.number;
                    let first = match self.pace_due(limits, stream) {
                        Some(at) => earlier(first, at, Due::Pace(number)),
                        None => first,
                    };
                    let first = match memory_due(stream) {
                        Some(at) => earlier(first, at, Due::Memory(number)),
                        None => first,
                    };
                    earlier(first, self.stream_due(limits, stream), Due::Stream(number))
                })
            }
            Phase::Lingering { .. } if self.wire.unsent() > 0 => Some((send_at, Due::Linger)),
            Phase::Lingering { since, .. } => {
                let since = since.max(self.wire.progress_at);
                Some((since.saturating_add(limits.linger_ns), Due::Linger))
            }
            Phase::Gone => None,
        }
    }

    /// The deadline of the peer's next frame, or of the rest of one.
    fn frame_due(&self, limits: &Deadlines, first: Option<(u64, Due)>) -> Option<(u64, Due)> {
        if self.blocked || self.eof {
            return first;
        }
        let first = match (self.header_at, self.frame) {
            (Some(at), _) => {
                let since = at.max(self.unblocked_at);
                earlier(first, since.saturating_add(limits.head_ns), Due::Frame)
            }
            (None, Some((_, kind))) => {
                let since = self.received_at.max(self.unblocked_at);
                let first = earlier(first, since.saturating_add(limits.body_ns), Due::Frame);
                match self.frame_pace.due(limits) {
                    Some(at) if !matches!(kind, Kind::Data(_)) => {
                        let listened_at = self.unblocked_at.saturating_add(limits.body_ns);
                        earlier(first, at.max(listened_at), Due::FramePace)
                    }
                    _ => first,
                }
            }
            (None, None) if self.greeted && self.streams.is_empty() && self.wire.unsent() == 0 => {
                let since = self.received_at.max(self.wire.progress_at);
                earlier(first, since.saturating_add(limits.idle_ns), Due::Idle)
            }
            (None, None) => first,
        };
        if self.greeted {
            return first;
        }
        earlier(first, self.ready_at.saturating_add(limits.head_ns), Due::FirstFrame)
    }

    /// When the next bytes of a put must have come. It stands still while an upload is full, and
    /// not while the peer leaves its answers unread, which is its own doing.
    fn pace_due(&self, limits: &Deadlines, stream: &Stream) -> Option<u64> {
        let Job::Put(put) = &stream.job else { return None };
        let waits = !put.ended && self.full_at.is_none() && !self.eof;
        let due = if waits { put.pace.due(limits) } else { None };
        due.map(|at| at.saturating_add(self.full_ns))
    }

    /// Nanoseconds, from where `Now::mono_ns` begins, in which no upload held the peer back.
    pub(super) fn listening_ns(&self, cx: &Cx<'_>) -> u64 {
        let until = self.full_at.unwrap_or(cx.now.mono_ns);
        until.saturating_sub(self.full_ns)
    }

    /// Stops the time of the puts while one of them waits for the disk. One that waits for memory
    /// is no reason to keep what the others hold.
    pub(super) fn keep_time(&mut self, cx: &Cx<'_>) {
        if self.blocked && !self.wire.is_behind(cx) && !self.waits_for_memory() {
            self.full_at.get_or_insert(cx.now.mono_ns);
        } else if let Some(since) = self.full_at.take() {
            self.full_ns += cx.now.mono_ns.saturating_sub(since);
        }
    }

    /// Whether the put of the present frame waits for memory.
    fn waits_for_memory(&self) -> bool {
        let place = self.data_number().and_then(|number| self.streams.by_number(number));
        let stream = place.and_then(|place| self.streams.get(place));
        matches!(stream, Some(Stream { job: Job::Put(put), .. }) if put.ingest.waits_for_memory())
    }

    /// Whether the peer can do nothing but wait: for the disk, or for memory that is not held by
    /// its own other puts.
    pub(super) fn waits_for_us(&self) -> bool {
        if self.blocked {
            let number = self.data_number();
            let short = self.waits_for_memory() && !self.others_hold_blocks(number);
            return self.full_at.is_some() || short;
        }
        let is_stored = |stream: &Stream| matches!(&stream.job, Job::Put(put) if put.ended);
        let between = self.frame.is_none() && self.deframer.is_between_frames();
        between && !self.streams.is_empty() && self.streams.iter().all(is_stored)
    }

    fn stream_due(&self, limits: &Deadlines, stream: &Stream) -> u64 {
        let whole = stream.opened_at.saturating_add(limits.stream_ns);
        let listening = !self.blocked && !self.eof;
        let silence = match &stream.job {
            Job::Put(put) if !put.ended && listening => {
                let since = put.received_at.max(self.unblocked_at);
                Some(since.saturating_add(limits.body_ns))
            }
            // Grants are the sign that the client takes what is sent. They may lie unread while we
            // are blocked.
            Job::Get(get) if !self.blocked => {
                let since = get.starved_at.map(|at| at.max(self.unblocked_at));
                since.map(|at| at.saturating_add(limits.send_ns))
            }
            Job::Get(_) | Job::Put(_) | Job::Has => None,
        };
        silence.map_or(whole, |silence| silence.min(whole))
    }

    /// Ends everything whose deadline has passed.
    pub(super) fn miss_deadlines(&mut self, cx: &mut Cx<'_>) {
        // The deadlines of the streams and those of the connection, each once; what is due besides
        // has its turn at the next tick.
        for _ in 0..Due::OF_STREAM * self.streams.places() + Due::OF_CONNECTION {
            match self.due(&cx.config.deadlines) {
                Some((at, due)) if at <= cx.now.mono_ns => self.miss(due, cx),
                _ => break,
            }
        }
    }

    /// Ends what `due` names. Whatever it is, it is not due a second time.
    fn miss(&mut self, due: Due, cx: &mut Cx<'_>) {
        if let Due::Pace(number) = due
            && !self.is_slow(number, cx)
        {
            return;
        }
        if due == Due::FramePace && !self.frame_pace.is_late(cx.now.mono_ns, &cx.config.deadlines) {
            return;
        }
        if !matches!(due, Due::Idle | Due::Linger | Due::Memory(_)) {
            cx.stats.reject(Rejected::Timeout);
        }
        match due {
            // OAP/1 §10.2: no answer in the handshake; and nobody reads one who takes nothing.
            Due::Handshake | Due::Send | Due::Linger => self.abort(cx),
            Due::FirstFrame if self.header_at.is_none() && self.frame.is_none() => self.finish(cx),
            Due::FirstFrame | Due::Frame => self.miss_frame(cx),
            // A request that was refused has its answer.
            Due::FramePace if matches!(self.frame, Some((_, Kind::Skip))) => self.finish(cx),
            Due::FramePace => self.miss_frame(cx),
            Due::Idle => self.finish(cx),
            Due::Memory(number) => {
                if let Some(place) = self.streams.by_number(number) {
                    cx.stats.memory_refusals.add(1);
                    self.fail(place, &Fault::Busy.into(), cx);
                }
            }
            Due::Pace(number) => self.fail_slow(number, cx),
            Due::Stream(number) => {
                const LATE: Refusal = Refusal::new(ErrorCode::Timeout, "the stream took too long");
                if let Some(place) = self.streams.by_number(number) {
                    self.fail(place, &LATE, cx);
                }
            }
        }
    }

    /// Ends a put because others need its memory. Silent if it has ended.
    pub(super) fn end_slow(&mut self, number: u32, cx: &mut Cx<'_>) {
        if self.streams.by_number(number).is_some() {
            cx.stats.reject(Rejected::Timeout);
            self.fail_slow(number, cx);
        }
    }

    fn fail_slow(&mut self, number: u32, cx: &mut Cx<'_>) {
        const SLOW: Refusal = Refusal::new(ErrorCode::Timeout, "the put comes too slowly");
        let within = matches!(self.frame, Some((_, Kind::Data(data))) if data == number);
        if let Some(place) = self.streams.by_number(number) {
            self.fail(place, &SLOW, cx);
        }
        // The rest of its frame would come no faster. OAP/1 §10.2
        if within {
            self.finish(cx);
        }
    }

    /// Whether a put's span has ended with too few bytes. With enough, the next begins.
    fn is_slow(&mut self, number: u32, cx: &Cx<'_>) -> bool {
        let now_ns = self.listening_ns(cx);
        let place = self.streams.by_number(number);
        let stream = place.and_then(|place| self.streams.get_mut(place));
        let Some(Stream { job: Job::Put(put), .. }) = stream else { return false };
        put.pace.is_late(now_ns, &cx.config.deadlines)
    }

    /// The peer went silent inside a frame. OAP/1 §10.2
    fn miss_frame(&mut self, cx: &mut Cx<'_>) {
        const LATE: Refusal = Refusal::new(ErrorCode::Timeout, "the frame took too long");
        let head = self.frame.map_or_else(FrameHeader::default, |(head, _)| head);
        match self.frame.and_then(|_| self.stream_of(&head)) {
            Some(place) => self.fail(place, &LATE, cx),
            None => {
                self.wire.send_error(&head, &LATE, cx);
                self.tell(&head, Op::Other, &LATE, cx);
                cx.stats.request(
                    self.wire.peer,
                    (self.wire.proto, Op::Other),
                    LATE.code.status(),
                    0,
                );
            }
        }
        self.finish(cx);
    }
}
