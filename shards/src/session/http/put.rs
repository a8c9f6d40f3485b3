//! One PUT, from the end of its head to its answer.
//!
//! ```text
//!   Receiving ──last byte, digest right──► Storing ──durable──► done
//!       └─ malformed, too long, too slow, wrong digest   └─ failed
//! ```

use std::io;

use ron_codec::{address::Address, http::request::BodyKind};
use ron_io::ports::DiskDone;

use super::{
    framing::{Framing, Leftover},
    refusal::Refusal,
    request::Request,
    wire::Stored,
};
use crate::{
    flow::{Cx, Reply, StreamId},
    ingest::{Ingest, Outcome, Progress},
};

/// A PUT under way.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) request: Request,
    /// Whether the client gave the address.
    pub(super) named: bool,
    ingest: Ingest,
    framing: Framing,
    receiving: bool,
}

impl Put {
    pub(super) fn begin(
        request: Request,
        stream: StreamId,
        expected: Option<Address>,
        body: BodyKind,
        cx: &mut Cx<'_>,
    ) -> Result<Put, Refusal> {
        let len = match body {
            BodyKind::None => Some(0),
            BodyKind::Length(len) => Some(len),
            BodyKind::Chunked => None,
        };
        let ingest = Ingest::new(stream, expected, len, cx)?;
        let (named, framing) = (expected.is_some(), Framing::new(body));
        Ok(Put { request, named, ingest, framing, receiving: true })
    }

    /// Whether the body is not complete.
    pub(super) fn is_receiving(&self) -> bool {
        self.receiving
    }

    /// Whether more of the body can be used now.
    pub(super) fn wants_more(&self) -> bool {
        self.receiving && self.ingest.wants_more()
    }

    /// What to do about the rest of the body if it is not wanted any more.
    pub(super) fn leftover(&self) -> Leftover {
        self.framing.leftover()
    }

    /// Uses what it can of `input`, and returns how much that was, whatever came of it.
    pub(super) fn feed(&mut self, input: &[u8], cx: &mut Cx<'_>) -> (usize, Result<(), Refusal>) {
        let mut used = 0;
        loop {
            let part = match self.framing.next(&input[used..]) {
                Ok(part) => part,
                Err(error) => return (used, Err(Refusal::Chunk(error))),
            };
            used += part.before;
            if part.payload.is_empty() {
                break;
            }
            match self.ingest.push(part.payload, cx) {
                Ok(0) => return (used, Ok(())),
                Ok(took) => {
                    self.framing.took(took);
                    used += took;
                }
                Err(error) => return (used, Err(error.into())),
            }
        }
        if !self.framing.is_done() {
            return (used, Ok(()));
        }
        self.receiving = false;
        (used, self.ingest.finish(cx).map_err(Refusal::from))
    }

    /// The store answered.
    pub(super) fn on_reply(&mut self, reply: Reply, cx: &mut Cx<'_>) -> Turn {
        match self.ingest.on_reply(reply, cx) {
            Outcome::Done { address, size, new } => Turn::Stored(Stored { address, size, new }),
            Outcome::Failed(fault) => Turn::Refuse(fault.into()),
            Outcome::Going => Turn::Wait,
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

    /// Drops what was received.
    pub(super) fn abort(&mut self, cx: &mut Cx<'_>) {
        self.ingest.abort(cx);
    }
}

/// Where a PUT stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Wait,
    Stored(Stored),
    Refuse(Refusal),
}
