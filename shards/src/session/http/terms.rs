//! The terms of a request for something whose address is still looked for.
//!
//! Conditions are about one representation, and which one it is depends on what a path leads to and
//! what the client accepts. Until that is known, the fields that say so are kept, copied out of a
//! head whose bytes are gone.

use ron_codec::http::{
    fields::FieldLines,
    request::{BodyKind, Method, RequestHead, Version},
};

use super::accept::Accepted;

/// What a GET or HEAD says of the representation that it wants.
#[derive(Debug)]
pub(super) struct Terms {
    method: Method,
    pub(super) accepted: Accepted,
    accept_encoding: Option<Box<[u8]>>,
    range: Option<Box<[u8]>>,
    if_range: Option<Box<[u8]>>,
    if_match: Option<Box<[u8]>>,
    if_none_match: Option<Box<[u8]>>,
}

impl Terms {
    pub(super) fn new(head: &RequestHead<'_>) -> Terms {
        Terms {
            method: head.method,
            accepted: Accepted::new(head.accept_encoding),
            accept_encoding: joined(head.accept_encoding),
            range: head.range.map(Box::from),
            if_range: head.if_range.map(Box::from),
            if_match: joined(head.if_match),
            if_none_match: joined(head.if_none_match),
        }
    }

    /// A head that says the same.
    pub(super) fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method,
            target: "/",
            version: Version::Http11,
            host: None,
            proxied: false,
            page: false,
            keep_alive: true,
            body: BodyKind::None,
            expect_continue: false,
            range: self.range.as_deref(),
            if_none_match: lines(&self.if_none_match),
            if_match: lines(&self.if_match),
            if_range: self.if_range.as_deref(),
            accept_encoding: lines(&self.accept_encoding),
            authorization: None,
            content_range: false,
            corr_id: None,
            traceparent: None,
        }
    }

    /// Bytes of memory that are kept besides the value itself.
    pub(super) fn heap(&self) -> usize {
        [&self.accept_encoding, &self.range, &self.if_range, &self.if_match, &self.if_none_match]
            .into_iter()
            .flatten()
            .map(|value| value.len())
            .sum()
    }
}

fn lines(value: &Option<Box<[u8]>>) -> FieldLines<'_> {
    value.as_deref().map_or_else(FieldLines::default, FieldLines::from_value)
}

/// The value of a list field in one line (RFC 9110 §5.3).
fn joined(lines: FieldLines<'_>) -> Option<Box<[u8]>> {
    if lines.is_empty() {
        return None;
    }
    let values: Vec<&[u8]> = lines.into_iter().collect();
    Some(values.join(&b", "[..]).into())
}
