//! One PUT, from the end of its head to its answer.
//!
//! ```text
//!  Asking ──the condition holds──► Receiving ──last byte, digest right──► Storing ──durable─► done
//!     └─ 412                        │ ▲  └─ malformed, too long, too slow, wrong  └─ failed, 412
//!                         last byte ▼ │ still there
//!                                 Asking
//! ```
//!
//! Only a PUT with a condition asks first whether the object is there. That is looked at again in
//! the end, because somebody else may have stored or deleted the object meanwhile: that it was not
//! there when it has been stored, and that it was there before that.

use std::{io, mem};

use ron_codec::{address::Address, http::request::BodyKind, limits::OBJECT_LEN_MAX};
use ron_io::ports::DiskDone;

use super::{
    framing::{Framing, Leftover},
    refusal::Refusal,
    request::{Existence, Request},
    wire::Stored,
};
use crate::{
    flow::{Ask, Cx, Peer, Reply, StreamId},
    ingest::{Ingest, Outcome, Progress},
};

/// A PUT in progress.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) request: Request,
    /// The address that the client gave.
    expected: Option<Address>,
    condition: Option<Existence>,
    /// Whether the client waits for 100 Continue before it sends the body.
    pub(super) awaited: bool,
    /// Whether the store is asked if the condition holds.
    asking: bool,
    /// Whether the object was found there after the last byte had come, or need not be.
    confirmed: bool,
    ingest: Ingest,
    framing: Framing,
    /// Bytes of payload that were taken.
    taken: u64,
    receiving: bool,
}

impl Put {
    pub(super) fn begin(
        request: Request,
        (stream, peer): (StreamId, Peer),
        expected: Option<Address>,
        condition: Option<Existence>,
        body: BodyKind,
        cx: &mut Cx<'_>,
    ) -> Result<Put, Refusal> {
        let len = match body {
            BodyKind::None => Some(0),
            BodyKind::Length(len) => Some(len),
            BodyKind::Chunked => None,
        };
        let ingest = Ingest::new(stream, peer, expected, len, cx);
        let ingest = ingest.map_err(|error| Refusal::of_upload(error, expected))?;
        let asked = expected.filter(|_| condition.is_some());
        if let Some(address) = asked {
            cx.asks.push_back((stream, Ask::Open { address, first: None }));
        }
        let (asking, framing) = (asked.is_some(), Framing::new(body));
        Ok(Put {
            request,
            expected,
            condition,
            awaited: false,
            asking,
            confirmed: condition != Some(Existence::There),
            ingest,
            framing,
            taken: 0,
            receiving: true,
        })
    }

    /// Whether the client gave the address.
    pub(super) fn is_named(&self) -> bool {
        self.expected.is_some()
    }

    /// Whether the body is not wanted yet.
    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    /// Whether the body is not complete.
    pub(super) fn is_receiving(&self) -> bool {
        self.receiving
    }

    /// Whether nothing more of the body is to come, though it may not be finished: one without
    /// bytes has all of them before the store has said whether it is wanted.
    pub(super) fn has_all(&self) -> bool {
        self.framing.is_done()
    }

    /// Whether more of the body is to come.
    pub(super) fn awaits_body(&self) -> bool {
        self.receiving && !self.has_all()
    }

    /// Bytes of payload that were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of memory that are kept for it, but for blocks, which have a budget of their own.
    pub(super) fn held(&self) -> usize {
        size_of::<Put>() + self.ingest.heap()
    }

    /// Whether more of the body can be used now.
    pub(super) fn wants_more(&self) -> bool {
        self.receiving && !self.asking && self.ingest.wants_more()
    }

    /// What to do about the rest of the body if it is not wanted any more. A client that still
    /// waits for 100 Continue may send it or not.
    pub(super) fn leftover(&self) -> Leftover {
        if self.awaited { Leftover::Close } else { self.framing.leftover() }
    }

    /// Uses what it can of `input`, and returns how much that was, whatever came of it.
    pub(super) fn feed(&mut self, input: &[u8], cx: &mut Cx<'_>) -> (usize, Result<(), Refusal>) {
        let mut used = 0;
        if self.asking {
            return (used, Ok(()));
        }
        let max = cx.config.object_len_max.min(OBJECT_LEN_MAX);
        loop {
            let part = match self.framing.next(&input[used..]) {
                Ok(part) => part,
                Err(error) => return (used, Err(Refusal::Chunk(error))),
            };
            used += part.before;
            // What a chunk announces is judged before it comes.
            if self.taken.saturating_add(self.framing.announced()) > max {
                return (used, Err(Refusal::TooLarge { max }));
            }
            if part.payload.is_empty() {
                break;
            }
            match self.ingest.push(part.payload, cx) {
                Ok(0) => return (used, Ok(())),
                Ok(took) => {
                    self.framing.took(took);
                    self.taken += took as u64;
                    used += took;
                }
                Err(error) => return (used, Err(Refusal::of_upload(error, self.expected))),
            }
        }
        if !self.framing.is_done() || !self.is_confirmed(cx) {
            return (used, Ok(()));
        }
        self.receiving = false;
        let finished = self.ingest.finish(cx);
        (used, finished.map_err(|error| Refusal::of_upload(error, self.expected)))
    }

    /// Whether the whole body may be stored. Asks if that is not known.
    fn is_confirmed(&mut self, cx: &mut Cx<'_>) -> bool {
        // One question at a time: that of the upload itself comes first.
        if let (false, false, Some(address)) =
            (self.confirmed, self.ingest.is_asking(), self.expected)
        {
            self.asking = true;
            let stream = self.ingest.stream();
            cx.asks.push_back((stream, Ask::Open { address, first: None }));
        }
        self.confirmed
    }

    /// The store answered.
    pub(super) fn on_reply(&mut self, reply: Reply, cx: &mut Cx<'_>) -> Turn {
        if mem::take(&mut self.asking) {
            return self.on_existence(&reply);
        }
        match self.ingest.on_reply(reply, cx) {
            Outcome::Done { new: false, .. } if self.condition == Some(Existence::NotThere) => {
                Turn::Refuse(Refusal::Precondition)
            }
            Outcome::Done { address, size, new } => Turn::Stored(Stored { address, size, new }),
            Outcome::Failed(fault) => Turn::Refuse(fault.into()),
            Outcome::Going => Turn::Wait,
        }
    }

    /// Whether the object is there is known.
    fn on_existence(&mut self, reply: &Reply) -> Turn {
        self.confirmed |= self.has_all();
        match (reply, self.condition) {
            (Reply::Failed(fault), _) => Turn::Refuse((*fault).into()),
            (Reply::Missing, Some(Existence::There))
            | (Reply::Opened { .. }, Some(Existence::NotThere)) => {
                Turn::Refuse(Refusal::Precondition)
            }
            _ => Turn::Receive,
        }
    }

    /// The disk answered; more of the body may be wanted now.
    pub(super) fn on_disk(
        &mut self,
        tag: u32,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) -> Turn {
        match self.ingest.on_disk(tag, done, cx) {
            Progress::Going => Turn::Wait,
            Progress::Failed(fault) => Turn::Refuse(fault.into()),
        }
    }

    /// There may be memory again; more of the body may be wanted now.
    pub(super) fn on_memory(&mut self, cx: &mut Cx<'_>) -> Turn {
        match self.ingest.on_memory(cx) {
            Progress::Going => Turn::Wait,
            Progress::Failed(fault) => Turn::Refuse(fault.into()),
        }
    }

    /// See [`Ingest::rate`].
    pub(super) fn rate(&self, before_ns: u64, now_ns: u64) -> Option<u64> {
        self.ingest.rate(before_ns, now_ns).filter(|_| self.awaits_body())
    }

    pub(super) fn holds_blocks(&self) -> bool {
        self.ingest.holds_blocks()
    }

    /// Drops what was received.
    pub(super) fn abort(&mut self, cx: &mut Cx<'_>) {
        self.ingest.abort(cx);
    }
}

/// Where a PUT stands after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Wait,
    /// The condition holds: the body may come.
    Receive,
    Stored(Stored),
    Refuse(Refusal),
}
