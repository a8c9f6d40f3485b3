//! An answer of several parts of one object, one after the other (RFC 9110 §15.3.7.2).
//!
//! The download delivers each part as it delivers an answer of one: every group verified. What
//! stands between them is sent as heads are, with the first bytes that come behind it.

use ron_codec::http::{
    multipart::Multipart,
    range::{ByteRange, Ranges},
};

use super::{request::Request, shown::Shown, wire::Wire};
use crate::flow::{Body, Cx};

/// The parts of an answer, and how far it is.
#[derive(Debug)]
pub(super) struct Parts {
    shown: Shown,
    /// Bytes of the representation.
    size: u64,
    ranges: Ranges,
    /// The part that is sent now, and whether its head was.
    at: usize,
    has_head: bool,
}

impl Parts {
    pub(super) fn new(shown: Shown, size: u64, ranges: Ranges) -> Parts {
        Parts { shown, size, ranges, at: 0, has_head: false }
    }

    /// The part that is sent now.
    pub(super) fn now(&self) -> ByteRange {
        self.ranges.as_slice()[self.at]
    }

    /// Goes on to the part behind this one, if there is one.
    pub(super) fn next(&mut self) -> Option<ByteRange> {
        let next = *self.ranges.as_slice().get(self.at + 1)?;
        self.at += 1;
        self.has_head = false;
        Some(next)
    }

    fn multipart(&self) -> Multipart<'_> {
        let (digest, media_type) = (&self.shown.address, self.shown.media_type());
        Multipart { digest, size: self.size, media_type }
    }
}

impl Wire {
    /// Queues the next bytes of an answer in parts, and before them the head of their part; before
    /// the first of all, the head of the answer to `request`.
    pub(super) fn send_part(
        &mut self,
        request: Option<&Request>,
        parts: &mut Parts,
        body: Body,
        cx: &mut Cx<'_>,
    ) {
        let start = cx.acts.scratch().len();
        if let Some(request) = request {
            let multipart = parts.multipart();
            let head = self.head(206, request, cx);
            let head = head.field("Content-Type", multipart.content_type());
            let head = parts.shown.describe_but_type(head);
            head.number("Content-Length", multipart.body_len(parts.ranges.as_slice())).end();
        }
        if !parts.has_head {
            let scratch = cx.acts.scratch();
            parts.multipart().write_part_head(scratch, parts.now(), parts.at == 0);
            parts.has_head = true;
        }
        self.send(start, Some(body), cx);
    }

    /// Queues what ends an answer in parts.
    pub(super) fn send_parts_end(&mut self, parts: &Parts, cx: &mut Cx<'_>) {
        let start = cx.acts.scratch().len();
        parts.multipart().write_end(cx.acts.scratch());
        self.send(start, None, cx);
    }
}
