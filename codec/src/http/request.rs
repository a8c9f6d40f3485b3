//! Request heads: found, bounded, checked and read.
//!
//! The syntax is `httparse`'s; what a head means, and everything two readers could understand
//! differently, is decided here (RFC 9112 §11.2): lines end in CRLF only, fields are not folded,
//! framing is stated once. A head that breaks a rule ends its connection, because where the next
//! request starts is then anybody's guess. Unknown methods, on the other hand, are read in full and
//! reported, since their framing is clear.

use std::mem::MaybeUninit;

use thiserror::Error;

use super::fields::{FieldLines, decimal_saturating, list_members};
use crate::authority::{is_page_field, is_proxy_field};
use crate::error::ErrorCode;
use crate::limits::{HEAD_EMPTY_LINES_MAX, HEAD_FIELDS_MAX, HEAD_LEN_MAX, TARGET_LEN_MAX};

/// What a receive buffer starts with.
// Boxing the head would put an allocation on the path of every request.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, Copy)]
pub enum Parsed<'a> {
    /// The start of a head that breaks no rule so far. An empty buffer is one too.
    Partial,
    /// A whole head of `len` bytes, empty lines before it included; the body follows.
    Head { head: RequestHead<'a>, len: usize },
}

/// One request, borrowed from the receive buffer. Values have no white space around them.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    pub method: Method,
    /// Path and query, raw, starting with a slash. Of an absolute-form target, the part behind
    /// the authority; a query without a path is dropped there. Of `OPTIONS`, also `*`, which is
    /// what an absolute form without path and query stands for there.
    pub target: &'a str,
    pub version: Version,
    /// The value of `Host`, with its port; of an absolute-form target, the authority, which
    /// outweighs it (RFC 9112 §3.2.2).
    pub host: Option<&'a [u8]>,
    /// A field says that a proxy handed the request on; see `authority::Sender`.
    pub proxied: bool,
    /// A field says that a page in a browser asks.
    pub page: bool,
    /// Whether the client can use the connection again, from its version and `Connection`.
    pub keep_alive: bool,
    pub body: BodyKind,
    /// Whether the client waits for a 100 before it sends a body.
    pub expect_continue: bool,
    /// `None` also when `Range` was sent more than once, which has no meaning and is ignored.
    pub range: Option<&'a [u8]>,
    pub if_none_match: FieldLines<'a>,
    pub if_match: FieldLines<'a>,
    /// Sent more than once it becomes empty, which matches nothing.
    pub if_range: Option<&'a [u8]>,
    pub accept_encoding: FieldLines<'a>,
    pub authorization: Option<&'a [u8]>,
    /// Whether `Content-Range` was sent.
    pub content_range: bool,
    /// The first `X-Corr-Id`.
    pub corr_id: Option<&'a [u8]>,
    /// The first `traceparent`.
    pub traceparent: Option<&'a [u8]>,
}

/// A request method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Put,
    Delete,
    /// A method that HTTP defines and no route has: 405.
    Known(&'static str),
    /// 501.
    Unknown,
}

/// The version of HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// How the body behind a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Neither length nor coding was sent: no body.
    None,
    /// That many bytes.
    Length(u64),
    /// Chunks; see `ChunkedDecoder`.
    Chunked,
}

impl BodyKind {
    /// Whether nothing follows the head.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// How a head broke the rules. Every one of these is answered and then ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    #[error("request line is malformed")]
    RequestLine,
    #[error("more than {max} empty lines before the request line")]
    EmptyLines { max: usize },
    /// Anything but HTTP/1.0 and HTTP/1.1.
    #[error("HTTP version is not supported")]
    Version,
    /// An illegal name, white space before the colon, or a folded line.
    #[error("field name is malformed")]
    FieldName,
    #[error("field value is malformed")]
    FieldValue,
    /// The line feed at `at` has no carriage return before it.
    #[error("line feed without carriage return at byte {at}")]
    BareLineFeed { at: usize },
    /// A carriage return has no line feed behind it.
    #[error("carriage return without line feed")]
    BareCarriageReturn,
    #[error("request head is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("request head has more than {max} fields")]
    TooManyFields { max: usize },
    #[error("request target is longer than {max} bytes")]
    TargetTooLong { max: usize },
    /// Neither a path nor an http or https URI.
    #[error("request target has an unsupported form")]
    TargetForm,
    /// Of an authority: nobody is connected to anybody here.
    #[error("CONNECT is not implemented")]
    Connect,
    #[error("Host is missing")]
    HostMissing,
    #[error("Host is repeated")]
    HostRepeated,
    #[error("Host is malformed")]
    HostInvalid,
    #[error("Content-Length is not a number")]
    LengthInvalid,
    #[error("Content-Length is both {first} and {second}")]
    LengthConflict { first: u64, second: u64 },
    #[error("both Content-Length and Transfer-Encoding were sent")]
    LengthAndCoding,
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    CodingInHttp10,
    /// The end of the body cannot be found: `chunked` is absent, repeated or not the last coding.
    #[error("chunked is not the last transfer coding")]
    ChunkedNotLast,
    /// Codings below `chunked`; the node understands none.
    #[error("transfer coding is not implemented")]
    CodingUnknown,
    #[error("Authorization is repeated")]
    AuthorizationRepeated,
    #[error("expectation is not supported")]
    Expectation,
}

impl HeadError {
    /// The code of the answer, which also has its status.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLong { .. } | Self::TooManyFields { .. } => ErrorCode::HeadTooLarge,
            Self::TargetTooLong { .. } => ErrorCode::TargetTooLong,
            Self::Version => ErrorCode::VersionNotSupported,
            Self::CodingUnknown | Self::Connect => ErrorCode::NotImplemented,
            Self::Expectation => ErrorCode::ExpectationFailed,
            _ => ErrorCode::BadRequest,
        }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code().status()
    }

    /// Whether the connection ends with the answer: always, see the type.
    #[must_use]
    pub const fn must_close(&self) -> bool {
        true
    }
}

impl From<HeadError> for ErrorCode {
    fn from(error: HeadError) -> Self {
        error.code()
    }
}

/// Reads the head at the start of `buf`.
///
/// `scanned` is how many bytes of `buf` an earlier call already returned `Partial` for, else 0, so
/// that a head that trickles in is searched once and not once per arrival. A buffer of
/// `HEAD_LEN_MAX` bytes is always enough.
///
/// # Errors
///
/// `HeadError`, for a partial head too where its start already decides.
pub fn parse_head(buf: &[u8], scanned: usize) -> Result<Parsed<'_>, HeadError> {
    let start = skip_empty_lines(buf)?;
    let Some(end) = find_end(buf, start, scanned)? else {
        check_partial(buf, start)?;
        return Ok(Parsed::Partial);
    };
    let head = read_head(&buf[start..end])?;
    Ok(Parsed::Head { head, len: end })
}

/// Where the request line starts. RFC 9112 §2.2 lets clients send empty lines before it.
fn skip_empty_lines(buf: &[u8]) -> Result<usize, HeadError> {
    let mut start = 0;
    while buf[start..].starts_with(b"\r\n") {
        if start == 2 * HEAD_EMPTY_LINES_MAX {
            return Err(HeadError::EmptyLines { max: HEAD_EMPTY_LINES_MAX });
        }
        start += 2;
    }
    Ok(start)
}

/// Where the head that starts at `start` ends, its blank line included. Every line feed on the way
/// must have its carriage return; the parser behind would forgive one without.
fn find_end(buf: &[u8], start: usize, scanned: usize) -> Result<Option<usize>, HeadError> {
    let limit = buf.len().min(HEAD_LEN_MAX);
    let from = scanned.clamp(start, limit);
    for offset in memchr::memchr_iter(b'\n', &buf[from..limit]) {
        let end = from + offset + 1;
        let head = &buf[start..end];
        if !head.ends_with(b"\r\n") {
            return Err(HeadError::BareLineFeed { at: end - 1 });
        }
        if head.ends_with(b"\r\n\r\n") {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Refuses a head without an end that can never become a good one.
fn check_partial(buf: &[u8], start: usize) -> Result<(), HeadError> {
    let rest = &buf[start..];
    match rest {
        [] | [b'\r'] => return Ok(()),
        [b'\r', ..] => return Err(HeadError::BareCarriageReturn),
        // Such as the first byte of a TLS handshake.
        [first, ..] if !first.is_ascii_graphic() => return Err(HeadError::RequestLine),
        _ => {}
    }
    check_target_len(rest)?;
    if buf.len() >= HEAD_LEN_MAX {
        return Err(HeadError::TooLong { max: HEAD_LEN_MAX });
    }
    Ok(())
}

/// Refuses a head, or the start of one, whose target is too long.
fn check_target_len(head: &[u8]) -> Result<(), HeadError> {
    if head.len() > TARGET_LEN_MAX
        && let Some(space) = memchr::memchr(b' ', head)
    {
        let target = &head[space + 1..];
        let len = memchr::memchr2(b' ', b'\r', target).unwrap_or(target.len());
        if len > TARGET_LEN_MAX {
            return Err(HeadError::TargetTooLong { max: TARGET_LEN_MAX });
        }
    }
    Ok(())
}

fn read_head(bytes: &[u8]) -> Result<RequestHead<'_>, HeadError> {
    let mut storage = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut storage) {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
        // Then the parser saw another end than we did, and neither can be trusted.
        Ok(_) => return Err(HeadError::RequestLine),
        // Had it come in pieces, its target would have been seen before what is wrong behind it.
        Err(error) => return Err(check_target_len(bytes).err().unwrap_or(syntax_error(error))),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(HeadError::RequestLine);
    };
    if target.len() > TARGET_LEN_MAX {
        return Err(HeadError::TargetTooLong { max: TARGET_LEN_MAX });
    }
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let method = read_method(method);
    let (authority, target) = match (method, target) {
        // RFC 9110 §9.3.7: the node as a whole is asked.
        (Method::Known("OPTIONS"), "*") => (None, target),
        // RFC 9112 §3.2.3: its target is an authority, with a port, and nothing else. What comes
        // behind the head is no request, so the connection ends.
        (Method::Known("CONNECT"), _) if is_host(target.as_bytes()) && target.contains(':') => {
            return Err(HeadError::Connect);
        }
        (Method::Known("CONNECT"), _) => return Err(HeadError::TargetForm),
        _ => read_target(target, method)?,
    };
    let head = RequestHead {
        method,
        target,
        version,
        host: None,
        proxied: false,
        page: false,
        keep_alive: version == Version::Http11,
        body: BodyKind::None,
        expect_continue: false,
        range: None,
        if_none_match: FieldLines::named("If-None-Match"),
        if_match: FieldLines::named("If-Match"),
        if_range: None,
        accept_encoding: FieldLines::named("Accept-Encoding"),
        authorization: None,
        content_range: false,
        corr_id: None,
        traceparent: None,
    };
    let codings = Codings::default();
    let mut reader = Reader { bytes, head, authority, length: None, codings, close: false };
    for field in request.headers.iter() {
        reader.field(field.name, field.value)?;
    }
    reader.finish()
}

fn syntax_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::NewLine => HeadError::BareCarriageReturn,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields { max: HEAD_FIELDS_MAX },
        httparse::Error::Version => HeadError::Version,
        httparse::Error::Status | httparse::Error::Token => HeadError::RequestLine,
    }
}

fn read_method(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "POST" => Method::Known("POST"),
        "OPTIONS" => Method::Known("OPTIONS"),
        "PATCH" => Method::Known("PATCH"),
        "TRACE" => Method::Known("TRACE"),
        "CONNECT" => Method::Known("CONNECT"),
        _ => Method::Unknown,
    }
}

/// The authority, if there is one, and the path and query of a target in origin or absolute form
/// (RFC 9112 §3.2).
fn read_target(target: &str, method: Method) -> Result<(Option<&str>, &str), HeadError> {
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let without = |scheme: &str| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = without("http://").or_else(|| without("https://")).ok_or(HeadError::TargetForm)?;
    let end = memchr::memchr2(b'/', b'?', rest.as_bytes()).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let no_host = authority.is_empty() || authority.starts_with(':');
    if no_host || !is_host(authority.as_bytes()) {
        return Err(HeadError::TargetForm);
    }
    let path = match path {
        // RFC 9112 §3.2.4.
        "" if method == Method::Known("OPTIONS") => "*",
        path if path.starts_with('/') => path,
        _ => "/",
    };
    Ok((Some(authority), path))
}

/// Whether `value` is made as a host and perhaps a port are (RFC 3986 §3.2.2). It may be empty.
fn is_host(value: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    // Only an address in brackets has colons of its own.
    let (host, port) = match value {
        [b'[', rest @ ..] => match memchr::memchr(b']', rest) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        },
        _ => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let in_brackets = value.starts_with(b"[");
    host.iter().all(|byte| legal(byte) || (in_brackets && *byte == b':'))
        && matches!(port, [] | [b':', ..])
        && port.iter().skip(1).all(u8::is_ascii_digit)
}

/// What the `Transfer-Encoding` lines said so far.
#[derive(Clone, Copy, Default)]
struct Codings {
    sent: bool,
    chunked: bool,
    others: bool,
    broken: bool,
}

/// Collects the fields of one head.
struct Reader<'a> {
    bytes: &'a [u8],
    head: RequestHead<'a>,
    /// Of an absolute-form target.
    authority: Option<&'a str>,
    length: Option<u64>,
    codings: Codings,
    /// `Connection: close` was sent, which outweighs `keep-alive`.
    close: bool,
}

impl<'a> Reader<'a> {
    /// Takes one field. Names are compared by length first: most fields of most clients concern
    /// nobody here and are passed over after one comparison.
    fn field(&mut self, name: &str, value: &'a [u8]) -> Result<(), HeadError> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        let head = &mut self.head;
        match name.len() {
            4 if is("Host") => self.host(value)?,
            5 if is("Range") => {
                // Never a range out of a pair that contradicts itself.
                head.range = if head.range.is_none() { Some(value) } else { Some(b"") };
            }
            6 if is("Expect") => {
                for member in list_members(value).filter(|member| !member.is_empty()) {
                    if !member.eq_ignore_ascii_case(b"100-continue") {
                        return Err(HeadError::Expectation);
                    }
                    head.expect_continue = true;
                }
            }
            8 if is("If-Match") => head.if_match.push(value, self.bytes),
            8 if is("If-Range") => {
                head.if_range = if head.if_range.is_none() { Some(value) } else { Some(b"") };
            }
            9 if is("X-Corr-Id") => head.corr_id = head.corr_id.or(Some(value)),
            10 if is("Connection") => self.connection(value),
            11 if is("traceparent") => head.traceparent = head.traceparent.or(Some(value)),
            13 if is("If-None-Match") => head.if_none_match.push(value, self.bytes),
            13 if is("Authorization") => self.authorization(value)?,
            13 if is("Content-Range") => head.content_range = true,
            14 if is("Content-Length") => self.content_length(value)?,
            15 if is("Accept-Encoding") => head.accept_encoding.push(value, self.bytes),
            17 if is("Transfer-Encoding") => self.transfer_encoding(value),
            _ => {
                head.proxied |= is_proxy_field(name);
                head.page |= is_page_field(name, value);
            }
        }
        Ok(())
    }

    /// RFC 9112 §3.2: exactly one, even when a second one says the same.
    fn host(&mut self, value: &'a [u8]) -> Result<(), HeadError> {
        if !is_host(value) {
            return Err(HeadError::HostInvalid);
        }
        match self.head.host.replace(value) {
            None => Ok(()),
            Some(_) => Err(HeadError::HostRepeated),
        }
    }

    /// Two credentials are an attempt to be two people.
    fn authorization(&mut self, value: &'a [u8]) -> Result<(), HeadError> {
        match self.head.authorization.replace(value) {
            None => Ok(()),
            Some(_) => Err(HeadError::AuthorizationRepeated),
        }
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list_members(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.head.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        // A body of 2^64 - 1 bytes exists no more than a longer one, so the saturated value is
        // refused with them.
        let length = decimal_saturating(value).filter(|&length| length != u64::MAX);
        let second = length.ok_or(HeadError::LengthInvalid)?;
        match self.length.replace(second) {
            Some(first) if first != second => Err(HeadError::LengthConflict { first, second }),
            _ => Ok(()),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        let codings = &mut self.codings;
        codings.sent = true;
        for coding in list_members(value) {
            codings.broken |= codings.chunked || coding.is_empty();
            if coding.eq_ignore_ascii_case(b"chunked") {
                codings.chunked = true;
            } else {
                codings.others = true;
            }
        }
    }

    fn finish(mut self) -> Result<RequestHead<'a>, HeadError> {
        let head = &mut self.head;
        let http11 = head.version == Version::Http11;
        if http11 && head.host.is_none() {
            return Err(HeadError::HostMissing);
        }
        head.host = self.authority.map(str::as_bytes).or(head.host);
        head.keep_alive &= !self.close;
        head.body = body_kind(self.codings, self.length, http11)?;
        // RFC 9110 §10.1.1: HTTP/1.0 clients do not wait, and without a body nobody does.
        head.expect_continue &= http11 && !head.body.is_empty();
        head.range = head.range.filter(|value| !value.is_empty());
        Ok(self.head)
    }
}

/// How the body is framed (RFC 9112 §6.3).
fn body_kind(codings: Codings, length: Option<u64>, http11: bool) -> Result<BodyKind, HeadError> {
    if !codings.sent {
        return Ok(length.map_or(BodyKind::None, BodyKind::Length));
    }
    if length.is_some() {
        return Err(HeadError::LengthAndCoding);
    }
    if !http11 {
        return Err(HeadError::CodingInHttp10);
    }
    if codings.broken || !codings.chunked {
        return Err(HeadError::ChunkedNotLast);
    }
    if codings.others {
        return Err(HeadError::CodingUnknown);
    }
    Ok(BodyKind::Chunked)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
