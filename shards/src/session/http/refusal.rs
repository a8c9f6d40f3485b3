//! Why a request is not served, and the answer that follows from it.

use std::{borrow::Cow, sync::Arc};

use ron_codec::{
    address::Address,
    authority::Denied,
    error::ErrorCode,
    http::{body::ChunkError, request::HeadError, response::ResponseHead},
    manifest::Payment,
};
use ron_io::{
    peers::PeerBucket,
    stats::{Rejected, Stats},
};

use super::shown;
use crate::{flow::Fault, ingest::IngestError};

/// Seconds after which a client may try again what a full queue refused: queues drain in far less,
/// and the field has no fractions.
const RETRY_AFTER_SECS: u64 = 1;

/// Why a request is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The peer broke the rules.
    Head(HeadError),
    Chunk(ChunkError),
    /// The peer ended its side in the middle of a body.
    BodyEnded,
    MethodUnknown,
    Method {
        allow: &'static str,
    },
    /// The client may not write.
    Denied(Denied),
    /// The body is not the object it was sent as.
    Digest {
        expected: Address,
        found: Address,
    },
    /// A part of an object was sent (RFC 9110 §14.5).
    Part,
    /// An object would be longer than is taken, in bytes.
    TooLarge {
        max: u64,
    },
    /// The peer took too long.
    Slow(Slow),
    /// The peer asks for what is not there.
    NoRoute,
    NoObject,
    NoEntry,
    NoName,
    /// The bundle is given on these terms only.
    Unpaid(Arc<Payment>),
    /// What stands where an address should is none.
    BadAddress {
        put: bool,
    },
    NotAcceptable,
    Precondition,
    /// No byte of the range lies in the object's `size`.
    Range {
        size: u64,
    },
    /// The disk has no free space for so many bytes.
    NotEnough {
        asked: u64,
        free: u64,
    },
    /// The store took too long.
    StoreSlow,
    /// The store could not.
    Store(Fault),
}

/// What a slow peer was late with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
    Head,
    Body,
    /// All of it.
    Request,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal::Store(fault)
    }
}

impl Refusal {
    /// Why an upload for the address `expected`, if it was for one, came to nothing.
    pub(super) fn of_upload(error: IngestError, expected: Option<Address>) -> Refusal {
        match error {
            IngestError::TooLarge { max, .. } => Refusal::TooLarge { max },
            // The framing of the body gives neither more nor less than it announced.
            IngestError::Excess { .. } | IngestError::Truncated { .. } => Refusal::BodyEnded,
            IngestError::BadDigest { found } => {
                Refusal::Digest { expected: expected.unwrap_or(found), found }
            }
            IngestError::NotEnough { asked, free } => Refusal::NotEnough { asked, free },
            IngestError::Failed(fault) => Refusal::Store(fault),
        }
    }

    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Refusal::Head(error) => error.code(),
            Refusal::Chunk(_) | Refusal::BodyEnded | Refusal::Part | Refusal::BadAddress { .. } => {
                ErrorCode::BadRequest
            }
            Refusal::MethodUnknown => ErrorCode::NotImplemented,
            Refusal::Method { .. } => ErrorCode::MethodNotAllowed,
            Refusal::Denied(denied) => denied.code(),
            Refusal::Digest { .. } => ErrorCode::BadDigest,
            Refusal::TooLarge { .. } => ErrorCode::TooLarge,
            Refusal::Slow(_) => ErrorCode::Timeout,
            Refusal::NoRoute | Refusal::NoObject | Refusal::NoEntry | Refusal::NoName => {
                ErrorCode::NotFound
            }
            Refusal::Unpaid(_) => ErrorCode::PaymentRequired,
            Refusal::NotAcceptable => ErrorCode::NotAcceptable,
            Refusal::Precondition => ErrorCode::PreconditionFailed,
            Refusal::Range { .. } => ErrorCode::RangeNotSatisfiable,
            Refusal::StoreSlow => ErrorCode::UpstreamTimeout,
            Refusal::Store(Fault::Integrity) => ErrorCode::Integrity,
            Refusal::Store(Fault::Disk) => ErrorCode::Internal,
            Refusal::Store(Fault::Full) | Refusal::NotEnough { .. } => ErrorCode::StorageFull,
            Refusal::Store(Fault::Busy | Fault::PeerUploads | Fault::Raced) => ErrorCode::Overload,
            Refusal::Store(Fault::Absent) => ErrorCode::NotReady,
        }
    }

    /// What the envelope says. It names limits and leaks nothing.
    pub(super) fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Refusal::Head(error) => return Cow::Owned(error.to_string()),
            Refusal::Chunk(error) => return Cow::Owned(error.to_string()),
            Refusal::Denied(denied) => {
                return Cow::Owned(format!("not allowed to write: {denied}"));
            }
            Refusal::Digest { expected, found } => {
                return Cow::Owned(format!("body hashes to {found}, expected {expected}"));
            }
            Refusal::TooLarge { max } => {
                return Cow::Owned(format!("object is longer than {max} bytes"));
            }
            Refusal::Range { size } => {
                return Cow::Owned(format!("range lies outside of {size} bytes"));
            }
            Refusal::NotEnough { asked, free } => {
                return Cow::Owned(format!(
                    "storage is full: {asked} bytes are to be written, there is room for {free}"
                ));
            }
            Refusal::BodyEnded => "request body ended early",
            Refusal::MethodUnknown => "method is not implemented",
            Refusal::Method { .. } => "method is not allowed here",
            Refusal::Part => "a part of an object cannot be put",
            Refusal::Slow(Slow::Head) => "request head took too long",
            Refusal::Slow(Slow::Body) => "request body took too long",
            Refusal::Slow(Slow::Request) => "request took too long",
            Refusal::NoRoute => "no such route: objects are at /o/b3:<64 lowercase hex digits>",
            Refusal::NoObject => "no such object",
            Refusal::NoEntry => "no such path in this object",
            Refusal::NoName => "no such name",
            Refusal::Unpaid(_) => "payment is required, on the terms of the X-Payment fields",
            Refusal::BadAddress { put: false } => {
                "invalid address, which is b3: and 64 lowercase hex digits"
            }
            Refusal::BadAddress { put: true } => {
                "invalid address: PUT /o/ or /o/b3:<64 lowercase hex digits> (curl -T FILE adds \
                 the name of the file to a URL that ends in /; use -T - < FILE)"
            }
            Refusal::NotAcceptable => "no stored encoding is acceptable",
            Refusal::Precondition => "precondition does not hold",
            Refusal::StoreSlow => "storage took too long",
            Refusal::Store(Fault::Integrity) => "stored bytes failed verification",
            Refusal::Store(Fault::Disk) => "storage failed",
            Refusal::Store(Fault::Full) => "storage is full",
            Refusal::Store(Fault::Busy) => "node is at its limit",
            Refusal::Store(Fault::PeerUploads) => "too many large uploads of this address",
            Refusal::Store(Fault::Raced) => "object was deleted meanwhile, send it again",
            Refusal::Store(Fault::Absent) => "the volume of this object cannot be used",
        })
    }

    /// Adds the fields that belong to this refusal alone.
    pub(super) fn fields<'o>(&self, head: ResponseHead<'o>) -> ResponseHead<'o> {
        match self {
            Refusal::Method { allow } => head.field("Allow", allow),
            Refusal::Denied(denied) if denied.code() == ErrorCode::Unauthorized => {
                head.lines("WWW-Authenticate: Bearer\r\n")
            }
            Refusal::Unpaid(payment) => shown::terms(head, Some(payment)),
            Refusal::Range { size } => head.content_range_unsatisfied(*size),
            Refusal::Store(Fault::Busy | Fault::PeerUploads | Fault::Raced | Fault::Absent) => {
                head.number("Retry-After", RETRY_AFTER_SECS)
            }
            _ => head,
        }
    }

    /// Whether the request that follows can no longer be found, or should not be waited for.
    pub(super) fn closes(&self) -> bool {
        matches!(
            self,
            Refusal::Head(_)
                | Refusal::Chunk(_)
                | Refusal::BodyEnded
                | Refusal::Slow(_)
                | Refusal::StoreSlow
        )
    }

    /// Counts what was turned away and why.
    pub(super) fn count(&self, peer: PeerBucket, stats: &Stats) {
        match self {
            Refusal::Head(_) | Refusal::Chunk(_) | Refusal::BodyEnded => {
                stats.reject(Rejected::Protocol);
            }
            Refusal::Slow(_) => stats.reject(Rejected::Timeout),
            Refusal::Store(Fault::Busy) => stats.turn_away(peer),
            Refusal::Store(Fault::PeerUploads) => stats.reject(Rejected::PeerUploads),
            Refusal::Store(Fault::Raced) => stats.reject(Rejected::Raced),
            Refusal::TooLarge { .. } => stats.oversize.add(1),
            _ => {}
        }
    }
}
