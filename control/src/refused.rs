//! Why an order is not given, or has no outcome, and how its sender is answered.

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use ron_codec::{authority::Denied, error::ErrorCode};

use crate::{
    limits::{RETRY_BOOT_S, RETRY_GONE_S, RETRY_ORDER_S},
    respond::error,
};

/// Why an order is not given, or has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Denied(Denied),
    Address,
    /// [`VERIFIES_MAX`](crate::limits::VERIFIES_MAX) are in progress.
    TooMany,
    /// [`LISTS_MAX`](crate::limits::LISTS_MAX) pages are being listed.
    TooManyLists,
    /// A shard is opening its partitions.
    NotReady,
    /// A shard's mailbox is full.
    Mailbox,
    /// The node is shutting down.
    Draining,
    /// The scrub is switched off.
    NoScrub,
    /// No shard answered within [`VERIFY_MAX`](crate::limits::VERIFY_MAX), or one did not within
    /// [`LIST_MAX`](crate::limits::LIST_MAX).
    Late,
}

/// The answer to a sender whose order is refused.
pub(crate) fn refusal(headers: &HeaderMap, refused: Refused) -> Response {
    let (code, message, retry_after) = match refused {
        Refused::Denied(denied) => return not_allowed(headers, denied),
        Refused::Address => {
            (ErrorCode::BadRequest, "no address, which is b3: and 64 lowercase hex digits", None)
        }
        Refused::TooMany => {
            let message = "as many objects are being verified as can be at once";
            (ErrorCode::Overload, message, Some(RETRY_ORDER_S))
        }
        Refused::TooManyLists => {
            let message = "as many pages are being listed as can be at once";
            (ErrorCode::Overload, message, Some(RETRY_ORDER_S))
        }
        Refused::NotReady => {
            (ErrorCode::NotReady, "a shard is opening its partitions", Some(RETRY_BOOT_S))
        }
        Refused::Mailbox => {
            (ErrorCode::Overload, "the mailbox of a shard is full", Some(RETRY_ORDER_S))
        }
        Refused::Draining => (ErrorCode::Draining, "the node is shutting down", Some(RETRY_GONE_S)),
        Refused::NoScrub => {
            (ErrorCode::Conflict, "the scrub is switched off: storage.scrub_rate is 0", None)
        }
        Refused::Late => (ErrorCode::UpstreamTimeout, "the outcome took too long", None),
    };
    let mut response = error(headers, code, message);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn not_allowed(headers: &HeaderMap, denied: Denied) -> Response {
    let mut response = error(headers, denied.code(), &format!("not allowed: {denied}"));
    if denied.code() == ErrorCode::Unauthorized {
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
