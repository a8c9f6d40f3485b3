//! The open streams of a connection: what each one does, and whose turn it is.
//!
//! The table has a place for each stream that may be open at once, finds one by the client's
//! number or by ours, and never grows beyond that. It decides nothing about frames.

use ron_codec::{
    address::Address,
    oap::{
        Flags, FrameHeader, GetRequest,
        limits::{OAP_INFLIGHT_MAX, OAP_WINDOW_LEN_DEFAULT},
    },
};
use ron_io::stats::Op;

use super::super::pace::Pace;
use crate::{download::Download, ingest::Ingest};

/// What a frame in progress is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello,
    /// The first frame of a stream.
    Request,
    /// Bytes of the put with this number of ours.
    Data(u32),
    /// A later frame that is no data: credit, or the client's END.
    Grant,
    /// It was refused, or is not wanted any more.
    Skip,
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Stream {
    /// Our number: replies of the store carry it. The client's is in `head`.
    pub(super) number: u32,
    /// The header of the START frame. Answers repeat its ids (OAP/1 §2.6).
    pub(super) head: FrameHeader,
    /// When it began, in `Now::mono_ns`.
    pub(super) opened_at: u64,
    pub(super) job: Job,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a get allocates nothing")]
pub(super) enum Job {
    Get(Get),
    Has,
    Put(Box<Put>),
}

/// A get by address.
///
/// ```text
///   asked ── Opened ──► begun ── first verified bytes ──► started ── last bytes ──► closed
///     └── Missing, Failed, bad offset ──► closed by an error, as at any later time
/// ```
#[derive(Debug)]
pub(super) struct Get {
    pub(super) address: Address,
    pub(super) request: GetRequest,
    pub(super) download: Download,
    /// Bytes of the whole object, once they are known; the range is chosen then.
    pub(super) size: Option<u64>,
    /// Whether the START frame of the answer was sent.
    pub(super) started: bool,
    /// Bytes that may still be sent; `None` without flow control.
    pub(super) credit: Option<u64>,
    /// Since when there is no credit, in `Now::mono_ns`.
    pub(super) starved_at: Option<u64>,
    /// Bytes that were granted since. A few of them are no sign that the client takes what is sent.
    pub(super) granted: u64,
    /// Since when it could be sent more, and nothing of it is there or asked for, because memory
    /// is short; in `Now::mono_ns`.
    pub(super) waits_since: Option<u64>,
}

/// A put.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) ingest: Ingest,
    /// Bytes of the object, as the client announced them.
    pub(super) len: u64,
    /// Bytes of the payloads of its frames, by their headers.
    pub(super) framed: u64,
    /// Whether the END frame came whole.
    pub(super) ended: bool,
    /// When its bytes came last, in `Now::mono_ns`.
    pub(super) received_at: u64,
    /// How fast they come, by the session's listening time.
    pub(super) pace: Pace,
}

impl Stream {
    /// What the request is counted as.
    pub(super) fn op(&self) -> Op {
        match self.job {
            Job::Get(_) => Op::Get,
            Job::Has => Op::Has,
            Job::Put(_) => Op::Put,
        }
    }
}

impl Job {
    /// Bytes of memory that are kept besides the value itself and blocks.
    fn heap(&self) -> usize {
        match self {
            Job::Get(get) => get.download.heap(),
            Job::Has => 0,
            Job::Put(put) => size_of::<Put>() + put.ingest.heap(),
        }
    }
}

impl Get {
    /// Status of a good answer: 0, or 206 for a part of the object.
    pub(super) fn code(&self) -> u16 {
        // OAP/1 §6.4
        if self.request.is_range() { 206 } else { 0 }
    }

    /// What a stream under credit may send at first; `None` without flow control.
    pub(super) fn first_credit(head: &FrameHeader) -> Option<u64> {
        // OAP/1 §7.1, and OAP/1 §7.3 without ACK_REQ
        head.flags.contains(Flags::ACK_REQ).then_some(OAP_WINDOW_LEN_DEFAULT)
    }

    /// Bytes that may be sent now, as far as the client's credit goes.
    pub(super) fn allowance(&self) -> usize {
        self.credit.map_or(usize::MAX, |credit| usize::try_from(credit).unwrap_or(usize::MAX))
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// At most `OAP_INFLIGHT_MAX` places; the last one is never empty.
    places: Vec<Option<Stream>>,
    open: usize,
    /// The place that is served next.
    turn: usize,
    last_number: u32,
}

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.open >= OAP_INFLIGHT_MAX as usize
    }

    /// Bytes of memory of the table and of what its streams keep, but for blocks, which have a
    /// budget of their own.
    pub(super) fn held(&self) -> usize {
        let of_streams: usize = self.iter().map(|stream| stream.job.heap()).sum();
        self.places.capacity() * size_of::<Option<Stream>>() + of_streams
    }

    /// Places, empty ones included.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// The place of the stream that the client calls `corr_id`.
    pub(super) fn by_corr(&self, corr_id: u64) -> Option<usize> {
        self.position(|stream| stream.head.corr_id == corr_id)
    }

    /// The place of the stream that we call `number`.
    pub(super) fn by_number(&self, number: u32) -> Option<usize> {
        self.position(|stream| stream.number == number)
    }

    fn position(&self, is_it: impl Fn(&Stream) -> bool) -> Option<usize> {
        self.places.iter().position(|place| place.as_ref().is_some_and(&is_it))
    }

    /// A number that no open stream has, and none had for four billion streams.
    pub(super) fn fresh_number(&mut self) -> u32 {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if self.by_number(self.last_number).is_none() {
                return self.last_number;
            }
        }
    }

    /// # Panics
    /// If the table is full, which is to be asked first.
    pub(super) fn insert(&mut self, stream: Stream) -> usize {
        assert!(!self.is_full(), "{} streams are open", self.open);
        self.open += 1;
        let place = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(stream);
        place
    }

    pub(super) fn get(&self, place: usize) -> Option<&Stream> {
        self.places.get(place)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Stream> {
        self.places.get_mut(place)?.as_mut()
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Stream> {
        let stream = self.places.get_mut(place)?.take()?;
        self.open -= 1;
        while matches!(self.places.last(), Some(None)) {
            self.places.pop();
        }
        Some(stream)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.places.iter().flatten()
    }

    /// Gets among the streams.
    pub(super) fn gets(&self) -> usize {
        self.iter().filter(|stream| matches!(stream.job, Job::Get(_))).count()
    }

    /// All places, that whose turn it is first.
    pub(super) fn by_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let turn = if self.turn < self.places.len() { self.turn } else { 0 };
        (turn..self.places.len()).chain(0..turn)
    }

    /// Bytes that gets with credit keep or have asked for.
    pub(super) fn in_progress(&self) -> usize {
        let in_progress = |stream: &Stream| match &stream.job {
            Job::Get(get) if get.allowance() > 0 => get.download.in_progress() as usize,
            Job::Get(_) | Job::Has | Job::Put(_) => 0,
        };
        self.iter().map(in_progress).sum()
    }

    /// Gets that keep a group which waits to be sent.
    pub(super) fn kept(&self) -> usize {
        let keeps = |stream: &&Stream| match &stream.job {
            Job::Get(get) => get.download.held().is_some(),
            Job::Has | Job::Put(_) => false,
        };
        self.iter().filter(keeps).count()
    }

    /// The place whose turn it is; the next one follows it. `None` when there are none.
    pub(super) fn take_turn(&mut self) -> Option<usize> {
        let place = if self.turn < self.places.len() { self.turn } else { 0 };
        self.turn = place + 1;
        (place < self.places.len()).then_some(place)
    }
}
