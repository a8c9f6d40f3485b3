//! The sending side of a connection: response heads, bodies, and how much of them is on its way.

use ron_codec::{
    address::Address,
    error::ErrorEnvelope,
    http::{
        range::ByteRange,
        response::{DateCache, ResponseHead},
    },
    limits::GROUP_LEN,
};
use ron_io::{limits::COPY_LEN_MAX, ports::ConnId, stats::Proto};

use super::{refusal::Refusal, request::Request, shown::Shown};
use crate::{
    flow::{Body, Cx},
    limits::{
        TIGHT_SHORT_LEN_MAX, TIGHT_UNSENT_LEN_MAX, UNSENT_HEAD_LEN, UNSENT_HOT_LEN_MAX,
        UNSENT_LEN_MAX, UNSENT_SHORT_LEN_MAX,
    },
    session::queued::{Blocks, Queued, Taken},
};

/// What is true now may not be later: an object that is missing can be stored.
const JSON_LINES: &str = "Content-Type: application/json\r\n\
    Cache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\n";

/// The client may ask there at once, and again later.
const REDIRECT_LINES: &str = "Cache-Control: public, max-age=60\r\n";

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the session sends by. All sends of a connection go through here, so `unsent` is exact.
#[derive(Debug)]
pub(super) struct Wire {
    conn: ConnId,
    proto: Proto,
    /// Bytes queued that the kernel has not taken.
    queued: Queued,
    /// When the kernel last took some, or was first given some to take, in `Now::mono_ns`.
    progress_ns: u64,
    taken: Taken,
    /// Whether the last piece of a body was hot.
    hot: bool,
    /// Whether the last answer had a short body, or none.
    short: bool,
    blocks: Blocks,
    /// Whether answers end the connection because the node is going.
    draining: bool,
    date: DateCache,
}

impl Wire {
    pub(super) fn new(conn: ConnId, proto: Proto, cx: &Cx<'_>) -> Wire {
        Wire {
            conn,
            proto,
            queued: Queued::new(proto != Proto::Http),
            progress_ns: cx.now.mono_ns,
            taken: Taken::new(cx.now.mono_ns),
            hot: false,
            short: true,
            blocks: Blocks::default(),
            draining: false,
            date: DateCache::new(cx.now.unix_ms / 1000),
        }
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(super) fn proto(&self) -> Proto {
        self.proto
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn unsent(&self) -> usize {
        self.queued.unsent()
    }

    /// Bytes of memory that are kept for what is queued.
    pub(super) fn held(&self) -> usize {
        self.queued.held()
    }

    pub(super) fn progress_ns(&self) -> u64 {
        self.progress_ns
    }

    /// Since when the peer has taken too little of what is queued.
    pub(super) fn too_little_since(&self) -> u64 {
        self.taken.too_little_since()
    }

    /// Bytes of bodies that may be queued now, whole groups of them: what the socket took of one
    /// makes space for no piece of the next.
    pub(super) fn space(&self, cx: &Cx<'_>) -> usize {
        let limit = match self.hot {
            // Under TLS a body is a copy of the connection's own.
            _ if self.proto != Proto::Http && cx.is_tight() => TIGHT_UNSENT_LEN_MAX,
            true => UNSENT_HOT_LEN_MAX,
            false => UNSENT_LEN_MAX,
        };
        let space = (limit + UNSENT_HEAD_LEN).saturating_sub(self.unsent());
        space - space % GROUP_LEN
    }

    /// Whether another request may begin: a peer that does not read its answers gets no more.
    pub(super) fn takes_request(&self, cx: &Cx<'_>) -> bool {
        let short_max = if cx.is_tight() { TIGHT_SHORT_LEN_MAX } else { UNSENT_SHORT_LEN_MAX };
        self.unsent() < short_max || (!self.short && self.space(cx) > 0)
    }

    /// As `space`, for the next piece of a body: one at a time where memory is `tight`.
    pub(super) fn body_space(&self, tight: bool, cx: &Cx<'_>) -> usize {
        match tight {
            true if self.unsent() > UNSENT_HEAD_LEN => 0,
            true => GROUP_LEN,
            false => self.space(cx),
        }
    }

    /// Whether blocks are queued, of this shard's memory or of others'.
    pub(super) fn holds(&self, own: bool) -> bool {
        self.blocks.are_queued(own, self.unsent())
    }

    /// The kernel took `len` bytes.
    pub(super) fn on_sent(&mut self, len: usize, cx: &Cx<'_>) {
        self.queued.sent(len);
        self.progress_ns = cx.now.mono_ns;
        self.taken.add(len, cx.now.mono_ns);
        cx.stats.bytes_out[self.proto as usize].add(len as u64);
    }

    /// Queues a part of a body.
    pub(super) fn send_slice(&mut self, body: Body, cx: &mut Cx<'_>) {
        let start = cx.acts.scratch().len();
        self.send(start, Some(body), cx);
    }

    /// Asks the client to go on with its body.
    pub(super) fn send_continue(&mut self, cx: &mut Cx<'_>) {
        let start = cx.acts.scratch().len();
        cx.acts.scratch().extend_from_slice(CONTINUE);
        self.send(start, None, cx);
    }

    /// Queues the head of an answer with all of a representation of `size` bytes, or with `part`
    /// of it, and the start of its body.
    pub(super) fn send_content(
        &mut self,
        request: &Request,
        shown: &Shown,
        (size, part): (u64, Option<ByteRange>),
        body: Option<Body>,
        cx: &mut Cx<'_>,
    ) {
        let start = cx.acts.scratch().len();
        let status = if part.is_some() { 206 } else { 200 };
        let mut head = shown.describe(self.head(status, request, cx));
        if let Some(range) = part {
            head = head.content_range(range, size);
        }
        head.number("Content-Length", part.map_or(size, |range| range.len())).end();
        self.send(start, body, cx);
    }

    /// Queues a 304.
    pub(super) fn send_not_modified(&mut self, request: &Request, shown: &Shown, cx: &mut Cx<'_>) {
        let start = cx.acts.scratch().len();
        shown.describe_unchanged(self.head(304, request, cx)).end();
        self.send(start, None, cx);
    }

    /// Queues a redirect to a path, below a name if `named` is what it is given to.
    pub(super) fn send_redirect(
        &mut self,
        request: &Request,
        path: &str,
        named: Option<&Address>,
        cx: &mut Cx<'_>,
    ) {
        let start = cx.acts.scratch().len();
        let head = self.head(301, request, cx).lines(REDIRECT_LINES).field("Location", path);
        let head = match named {
            Some(address) => head.field("X-Ron-Address", address.to_text()),
            None => head,
        };
        head.number("Content-Length", 0).end();
        self.send(start, None, cx);
    }

    /// Queues the answer to a PUT: what the object is called, and where, if the client did not say.
    pub(super) fn send_stored(
        &mut self,
        request: &Request,
        stored: &Stored,
        named: bool,
        cx: &mut Cx<'_>,
    ) {
        let start = cx.acts.scratch().len();
        let text = stored.address.to_text();
        let scratch = cx.acts.scratch();
        scratch.extend_from_slice(b"{\"addr\":\"");
        scratch.extend_from_slice(&text);
        scratch.extend_from_slice(b"\",\"size\":");
        scratch.extend_from_slice(stored.size.to_string().as_bytes());
        scratch.extend_from_slice(b"}\n");
        let json_len = scratch.len() - start;
        let status = if stored.new { 201 } else { 200 };
        let mut head = self.head(status, request, cx).lines(JSON_LINES);
        if !named {
            let mut location = [0; LOCATION_LEN];
            let (path, place) = location.split_at_mut(OBJECT_PATH.len());
            path.copy_from_slice(OBJECT_PATH);
            place.copy_from_slice(&text);
            head = head.field("Location", location);
        }
        head.number("Content-Length", json_len as u64).end();
        cx.acts.scratch()[start..].rotate_left(json_len);
        self.send(start, None, cx);
    }

    /// Queues the answer to a DELETE. RFC 9110 §8.6: a 204 has no length.
    pub(super) fn send_deleted(&mut self, request: &Request, cx: &mut Cx<'_>) {
        let start = cx.acts.scratch().len();
        self.head(204, request, cx).end();
        self.send(start, None, cx);
    }

    /// Queues the answer to `OPTIONS *`.
    pub(super) fn send_methods(&mut self, request: &Request, cx: &mut Cx<'_>) {
        let start = cx.acts.scratch().len();
        self.head(204, request, cx).field("Allow", "GET, HEAD, PUT, DELETE, OPTIONS").end();
        self.send(start, None, cx);
    }

    /// Queues an error answer, without its envelope if the request was a HEAD.
    pub(super) fn send_refusal(&mut self, request: &Request, refusal: &Refusal, cx: &mut Cx<'_>) {
        let start = cx.acts.scratch().len();
        let (code, message) = (refusal.code(), refusal.message());
        let corr_id = request.corr.as_str();
        ErrorEnvelope { code, message: &message, corr_id, retry_after_ms: None }
            .write_json(cx.acts.scratch());
        cx.acts.scratch().push(b'\n');
        let json_len = cx.acts.scratch().len() - start;
        let head = self.head(code.status(), request, cx).lines(JSON_LINES);
        refusal.fields(head).number("Content-Length", json_len as u64).end();
        // The head needs the length of the body, so the body was written first.
        let scratch = cx.acts.scratch();
        scratch[start..].rotate_left(json_len);
        if request.is_head() {
            scratch.truncate(scratch.len() - json_len);
        }
        self.send(start, None, cx);
    }

    /// The start of a head, with the fields that every answer has.
    pub(super) fn head<'o>(
        &mut self,
        status: u16,
        request: &Request,
        cx: &'o mut Cx<'_>,
    ) -> ResponseHead<'o> {
        ResponseHead::new(cx.acts.scratch(), status)
            .connection(request.version, request.keep_alive)
            .field("Date", self.date.at(cx.now.unix_ms / 1000))
            .field("Server", &cx.config.server)
            .field("X-Corr-Id", request.corr.as_bytes())
    }

    /// Queues what was written to the scratch since `start`, and a body behind it.
    pub(super) fn send(&mut self, start: usize, body: Option<Body>, cx: &mut Cx<'_>) {
        let head_len = cx.acts.scratch().len() - start;
        if self.unsent() == 0 {
            self.progress_ns = cx.now.mono_ns;
            self.taken.begin(cx.now.mono_ns);
        }
        let body_len = body.as_ref().map_or(0, Body::len);
        self.queued.push(head_len, body_len);
        self.short = body_len <= COPY_LEN_MAX;
        self.blocks.push(head_len, body.as_ref(), self.proto != Proto::Http, cx);
        // Under TLS bodies are encrypted into memory of their own, so none leaves by reference.
        self.hot = self.proto == Proto::Http && body.as_ref().is_some_and(Body::is_hot);
        cx.acts.send(self.conn, start, body);
    }
}

/// An object that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) address: Address,
    pub(super) size: u64,
    pub(super) new: bool,
}

const OBJECT_PATH: &[u8] = b"/o/";
const LOCATION_LEN: usize = OBJECT_PATH.len() + ron_codec::address::ADDRESS_TEXT_LEN;
