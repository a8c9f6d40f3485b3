//! What goes out: frames into the acts, and the count of what the peer has not taken yet.
//!
//! Headers and JSON are written into the scratch of the acts, bodies are passed on as slices of
//! blocks. Here every frame gets the ids of its request, and every error its envelope. When a
//! frame may be sent is decided elsewhere.

use std::borrow::Cow;

use ron_codec::{
    error::{ErrorCode, ErrorEnvelope},
    oap::{Flags, FrameHeader, HEADER_LEN, RequestError, encode_header},
};
use ron_io::{
    peers::PeerBucket,
    ports::ConnId,
    stats::{Proto, Rejected},
};

use crate::{
    config::Listener,
    flow::{Body, Cx, Fault},
    ingest::IngestError,
    limits::{OAP_SHORT_LEN_MAX, TIGHT_SHORT_LEN_MAX, TIGHT_UNSENT_LEN_MAX, UNSENT_LEN_MAX},
    session::queued::{Blocks, Queued, Taken},
};

/// When a client may try again what was more than the node's limit; as `Retry-After` of HTTP.
const RETRY_AFTER_MS: u64 = 1000;

const RACED: &str = "the object was deleted meanwhile, send it again";
const PEER_UPLOADS: &str = "too many large uploads of this address";

/// Why a request is not served: the code, and the message for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: Cow<'static, str>,
}

impl Refusal {
    pub(super) const fn new(code: ErrorCode, message: &'static str) -> Refusal {
        Refusal { code, message: Cow::Borrowed(message) }
    }

    /// What the client did is out of order or makes no sense.
    pub(super) const fn bad(message: &'static str) -> Refusal {
        Refusal::new(ErrorCode::BadRequest, message)
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Refusal {
        Refusal { code: error.code(), message: Cow::Owned(error.to_string()) }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        // OAP/1 §9.2
        match fault {
            Fault::Integrity => {
                Refusal::new(ErrorCode::Integrity, "stored bytes failed verification")
            }
            Fault::Disk => Refusal::new(ErrorCode::Internal, "the disk failed"),
            Fault::Full => Refusal::new(ErrorCode::StorageFull, "there is no room to store it"),
            Fault::Busy => Refusal::new(ErrorCode::Overload, "the node is busy"),
            Fault::PeerUploads => Refusal::new(ErrorCode::Overload, PEER_UPLOADS),
            Fault::Raced => Refusal::new(ErrorCode::Overload, RACED),
            Fault::Absent => {
                Refusal::new(ErrorCode::NotReady, "the volume of this object cannot be used")
            }
        }
    }
}

impl From<IngestError> for Refusal {
    fn from(error: IngestError) -> Refusal {
        // OAP/1 §9.2
        let code = match error {
            IngestError::Failed(fault) => return fault.into(),
            IngestError::NotEnough { .. } => ErrorCode::StorageFull,
            IngestError::TooLarge { .. } => ErrorCode::TooLarge,
            IngestError::Excess { .. } | IngestError::Truncated { .. } => ErrorCode::BadRequest,
            IngestError::BadDigest { .. } => ErrorCode::BadDigest,
        };
        Refusal { code, message: Cow::Owned(error.to_string()) }
    }
}

/// The sending side of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) conn: ConnId,
    pub(super) proto: Proto,
    /// What the peer is counted as.
    pub(super) peer: PeerBucket,
    /// Bytes queued and not yet handed to the kernel.
    pub(super) queued: Queued,
    /// Bytes of short answers among them, at most; and all bytes that stood before the end of the
    /// last one and are not sent.
    pub(super) short: usize,
    pub(super) before_short_end: usize,
    /// When the peer last took something, or when there was something to take after there was
    /// nothing; in `Now::mono_ns`.
    pub(super) progress_at: u64,
    taken: Taken,
    tls: bool,
    blocks: Blocks,
}

impl Wire {
    /// The sending side of a connection that was just accepted.
    pub(super) fn new(conn: ConnId, listener: Listener, peer: PeerBucket, now_ns: u64) -> Wire {
        let queued = Queued::new(listener.tls);
        let (short, before_short_end) = (0, 0);
        let (tls, blocks) = (listener.tls, Blocks::default());
        Wire {
            conn,
            proto: listener.proto,
            peer,
            tls,
            queued,
            blocks,
            short,
            before_short_end,
            progress_at: now_ns,
            taken: Taken::new(now_ns),
        }
    }

    /// Whether blocks are queued, of this shard's memory or of others'.
    pub(super) fn holds(&self, own: bool) -> bool {
        self.blocks.are_queued(own, self.unsent())
    }

    /// Since when the peer has taken too little of what is queued.
    pub(super) fn too_little_since(&self) -> u64 {
        self.taken.too_little_since()
    }

    /// Sends a frame whose payload is the bytes of `body`, from where they lie.
    pub(super) fn send_data(&mut self, head: &FrameHeader, body: Option<Body>, cx: &mut Cx<'_>) {
        let len = body.as_ref().map_or(0, Body::len);
        assert_eq!(len, head.payload_len as usize, "a frame is as long as its header says");
        self.queued(HEADER_LEN, len, cx);
        let start = cx.acts.scratch().len();
        let header = encode_header(head).expect("a chunk fits a frame");
        cx.acts.scratch().extend_from_slice(&header);
        self.blocks.push(HEADER_LEN, body.as_ref(), self.tls, cx);
        cx.acts.send(self.conn, start, body);
    }

    /// Sends a frame whose short payload `write` appends. `head` is that of the request.
    pub(super) fn send_json(
        &mut self,
        head: &FrameHeader,
        flags: Flags,
        code: u16,
        cx: &mut Cx<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let scratch = cx.acts.scratch();
        let start = scratch.len();
        scratch.resize(start + HEADER_LEN, 0);
        write(scratch);
        let len = scratch.len() - start;
        let head = head.answer(flags, code, (len - HEADER_LEN) as u32);
        let header = encode_header(&head).expect("a short answer fits a frame");
        scratch[start..start + HEADER_LEN].copy_from_slice(&header);
        cx.acts.send(self.conn, start, None);
        self.blocks.push(len, None, self.tls, cx);
        self.queued(len, 0, cx);
        self.short += len;
        self.before_short_end = self.unsent();
    }

    /// Sends an error frame, which ends the stream of the request with this header.
    pub(super) fn send_error(&mut self, head: &FrameHeader, why: &Refusal, cx: &mut Cx<'_>) {
        if why.code == ErrorCode::Overload {
            match &*why.message {
                RACED => cx.stats.reject(Rejected::Raced),
                PEER_UPLOADS => cx.stats.reject(Rejected::PeerUploads),
                _ => cx.stats.turn_away(self.peer),
            }
        }
        let corr_id = head.corr_id.to_string();
        let is_limit = matches!(why.code.status(), 429 | 503);
        let envelope = ErrorEnvelope {
            code: why.code,
            message: &why.message,
            corr_id: &corr_id,
            retry_after_ms: is_limit.then_some(RETRY_AFTER_MS),
        };
        // OAP/1 §9.2
        self.send_json(head, Flags::END, why.code.status(), cx, |out| envelope.write_json(out));
    }

    /// Bytes queued and not yet handed to the kernel.
    pub(super) fn unsent(&self) -> usize {
        self.queued.unsent()
    }

    /// Whether the peer must take answers before more of its frames are read. Bodies have a limit
    /// of their own: a peer that takes no body for a while may go on writing.
    pub(super) fn is_behind(&self, cx: &Cx<'_>) -> bool {
        let max = if cx.is_tight() { TIGHT_SHORT_LEN_MAX } else { OAP_SHORT_LEN_MAX };
        self.short >= max
    }

    /// Bytes beyond which no more of bodies is queued.
    pub(super) fn bodies_max(&self, cx: &Cx<'_>) -> usize {
        if cx.is_tight() { TIGHT_UNSENT_LEN_MAX } else { UNSENT_LEN_MAX }
    }

    fn queued(&mut self, head_len: usize, body_len: usize, cx: &Cx<'_>) {
        if self.unsent() == 0 {
            self.progress_at = cx.now.mono_ns;
            self.taken.begin(cx.now.mono_ns);
        }
        self.queued.push(head_len, body_len);
    }

    /// The kernel took `len` bytes.
    pub(super) fn sent(&mut self, len: usize, cx: &Cx<'_>) {
        self.queued.sent(len);
        self.before_short_end = self.before_short_end.saturating_sub(len);
        // Bytes leave in their order, so behind the last short answer there is none.
        self.short = self.short.min(self.before_short_end);
        self.progress_at = cx.now.mono_ns;
        self.taken.add(len, cx.now.mono_ns);
        cx.stats.bytes_out[self.proto as usize].add(len as u64);
    }
}
