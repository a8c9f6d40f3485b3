//! What is kept of a request's head once its bytes are gone.
//!
//! Everything is inline, but for a long list of ranges: a request for all of an object, or for one
//! range of it, allocates nothing.

use ron_codec::{
    address::Address,
    authority::{Sender, bearer},
    corr::CorrId,
    http::{
        etag,
        range::{RangeSpec, parse_range},
        request::{Method, RequestHead, Version},
        target::{Rel, Route, route},
    },
    limits::RANGES_MAX,
};
use ron_io::stats::Op;

use super::{accept::takes_identity, goal::Goal, refusal::Refusal};
use crate::{config::Config, flow::Cx};

/// Longest value of `Range` that is kept without allocating: two numbers of 20 digits fit.
const RANGE_INLINE_LEN: usize = 64;

/// Longest value of `Range` that is understood: as many ranges of two such numbers as may be sent
/// fit. A longer one is ignored, as RFC 9110 §14.2 allows for any.
const RANGE_LEN_MAX: usize = 1024;

/// One request, as far as every answer needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) op: Op,
    pub(super) version: Version,
    /// Whether the connection goes on after the answer.
    pub(super) keep_alive: bool,
    pub(super) corr: CorrId,
    /// When its head was complete, in `Now::mono_ns`.
    pub(super) began_ns: u64,
}

impl Request {
    pub(super) fn new(head: &RequestHead<'_>, cx: &mut Cx<'_>) -> Request {
        let op = match head.method {
            Method::Get => Op::Get,
            Method::Head => Op::Head,
            Method::Put => Op::Put,
            Method::Delete => Op::Delete,
            Method::Known(_) | Method::Unknown => Op::Other,
        };
        let random = cx.entropy.next_u128();
        Request {
            op,
            version: head.version,
            keep_alive: head.keep_alive,
            corr: CorrId::choose(head.corr_id, head.traceparent, cx.now.unix_ms, random),
            began_ns: cx.now.mono_ns,
        }
    }

    /// A request whose head could not be read, for its answer.
    pub(super) fn unread(cx: &mut Cx<'_>) -> Request {
        Request {
            op: Op::Other,
            version: Version::Http11,
            keep_alive: false,
            corr: CorrId::ulid(cx.now.unix_ms, cx.entropy.next_u128()),
            began_ns: cx.now.mono_ns,
        }
    }

    /// Whether the answer has a head only.
    pub(super) fn is_head(&self) -> bool {
        self.op == Op::Head
    }
}

/// What a request wants of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan<'a> {
    Get {
        address: Address,
    },
    /// A path of a bundle.
    Find {
        bundle: Address,
        goal: Goal<'a>,
    },
    /// A raw path that an operator gave to something, or one behind it.
    Named {
        path: &'a str,
    },
    Put {
        expected: Option<Address>,
    },
    Delete {
        address: Address,
    },
    /// `OPTIONS *`: which methods there are.
    Options,
}

impl Plan<'_> {
    /// The same where terms of payment are kept: any object may be a manifest that has some.
    pub(super) fn on_terms(self, config: &Config) -> Self {
        match self {
            Plan::Get { address: bundle } if config.enforce_payments => {
                Plan::Find { bundle, goal: Goal::Object }
            }
            plan => plan,
        }
    }
}

/// The table of routes and methods.
pub(super) fn plan<'a>(head: &RequestHead<'a>) -> Result<Plan<'a>, Refusal> {
    if head.method == Method::Unknown {
        return Err(Refusal::MethodUnknown);
    }
    match (route(head.target), head.method) {
        (Route::Object { address, rel: rel @ (Rel::Payload | Rel::Index) }, method) => match method
        {
            Method::Get | Method::Head if rel == Rel::Index => {
                Ok(Plan::Find { bundle: address, goal: Goal::Index })
            }
            Method::Get | Method::Head => Ok(Plan::Get { address }),
            Method::Put => plan_put(head, Some(address)),
            Method::Delete => Ok(Plan::Delete { address }),
            _ => Err(Refusal::Method { allow: "GET, HEAD, PUT, DELETE" }),
        },
        (Route::Object { address: bundle, rel }, Method::Get | Method::Head) => {
            let goal = match rel {
                Rel::Path(path) => Goal::Path(path),
                Rel::Manifest => Goal::Manifest,
                Rel::Index | Rel::Payload => Goal::Index,
            };
            Ok(Plan::Find { bundle, goal })
        }
        (Route::Object { .. }, _) => Err(Refusal::Method { allow: "GET, HEAD" }),
        (Route::Name(path), Method::Get | Method::Head) => Ok(Plan::Named { path }),
        (Route::Name(_), _) => Err(Refusal::Method { allow: "GET, HEAD" }),
        (Route::Upload, Method::Put) => plan_put(head, None),
        (Route::Upload, _) => Err(Refusal::Method { allow: "PUT" }),
        // A misspelt address must not be taken for an object that is gone.
        (Route::Unknown, method) if head.target.starts_with("/o/") => {
            Err(Refusal::BadAddress { put: method == Method::Put })
        }
        (Route::Unknown, Method::Known("OPTIONS")) if head.target == "*" => Ok(Plan::Options),
        (Route::Unknown, _) => Err(Refusal::NoRoute),
    }
}

/// What must be true of an object before a PUT stores it, or a DELETE removes it (RFC 9110 §13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existence {
    /// `If-Match`.
    There,
    /// `If-None-Match`.
    NotThere,
}

/// A PUT.
fn plan_put<'a>(head: &RequestHead<'a>, expected: Option<Address>) -> Result<Plan<'a>, Refusal> {
    if head.content_range { Err(Refusal::Part) } else { Ok(Plan::Put { expected }) }
}

/// Whether the sender of this head may write to the address, and on which condition. Who may not
/// hears that, whatever the condition (RFC 9110 §13.2.1).
pub(super) fn check_write(
    head: &RequestHead<'_>,
    address: Option<&Address>,
    loopback: bool,
    config: &Config,
) -> Result<Option<Existence>, Refusal> {
    check_writer(head, loopback, config)?;
    condition(head, address)
}

/// What the conditions of a write to this address come down to. What has the address has the tag,
/// so a condition that names another tag is decided at once, and so are two that exclude each
/// other. Nothing is at `/o/` itself.
fn condition(
    head: &RequestHead<'_>,
    address: Option<&Address>,
) -> Result<Option<Existence>, Refusal> {
    let matches = address.is_some_and(|address| etag::if_match(head.if_match, address));
    if !head.if_match.is_empty() && !matches {
        return Err(Refusal::Precondition);
    }
    match (matches, address.is_some_and(|address| etag::if_none_match(head.if_none_match, address)))
    {
        (true, true) => Err(Refusal::Precondition),
        (true, false) => Ok(Some(Existence::There)),
        (false, true) => Ok(Some(Existence::NotThere)),
        (false, false) => Ok(None),
    }
}

/// Whether the sender of this head may write.
fn check_writer(head: &RequestHead<'_>, loopback: bool, config: &Config) -> Result<(), Refusal> {
    let sender = Sender {
        local: loopback,
        host: head.host,
        // No client of today writes in HTTP/1.0, but a proxy does that is not configured otherwise.
        proxied: head.proxied || head.version == Version::Http10,
        page: head.page,
        token: head.authorization.and_then(bearer),
    };
    config.authority.may_write(&sender).map_err(Refusal::Denied)
}

/// What a GET or HEAD is answered with, provided that the object exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Content,
    NotModified,
    PreconditionFailed,
    NotAcceptable,
}

/// The conditions of a GET or HEAD, judged before the object is looked up: the tag of an object is
/// its address. They count only if it exists (RFC 9110 §13.2.1).
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) verdict: Verdict,
    range: RangeText,
}

impl Wanted {
    pub(super) fn new(head: &RequestHead<'_>, address: &Address) -> Wanted {
        let mut wanted = Wanted { verdict: Verdict::Content, range: RangeText::NONE };
        // In the order of RFC 9110 §13.2.2, with the negotiation before it.
        if !head.accept_encoding.is_empty() && !takes_identity(head.accept_encoding) {
            wanted.verdict = Verdict::NotAcceptable;
        } else if !head.if_match.is_empty() && !etag::if_match(head.if_match, address) {
            wanted.verdict = Verdict::PreconditionFailed;
        } else if !head.if_none_match.is_empty() && etag::if_none_match(head.if_none_match, address)
        {
            wanted.verdict = Verdict::NotModified;
        } else if let Some(range) = head.range {
            // RFC 9110 §14.2: a range means something for GET only.
            let current = head.if_range.is_none_or(|value| etag::if_range(value, address));
            if head.method == Method::Get && current {
                wanted.range = RangeText::new(range);
            }
        }
        wanted
    }

    /// The first byte that will be sent, where that is known before the size is.
    pub(super) fn first_byte(&self) -> Option<u64> {
        if self.verdict != Verdict::Content {
            return None;
        }
        if self.range.is_empty() {
            return Some(0);
        }
        // A start that does not move with the size is no suffix.
        let of_size = |size| parse_range(self.range.value(), size).first_byte();
        of_size(u64::MAX).filter(|first| of_size(u64::MAX - 1) == Some(*first))
    }

    /// The part of an object of `size` bytes that was asked for.
    pub(super) fn range(&self, size: u64) -> RangeSpec {
        if self.range.is_empty() {
            return RangeSpec::Whole;
        }
        parse_range(self.range.value(), size)
    }

    /// Bytes of memory that are kept besides the value itself.
    pub(super) fn heap(&self) -> usize {
        match &self.range {
            RangeText::Short { .. } => 0,
            RangeText::Long(value) => value.len(),
        }
    }
}

/// The value of a `Range` field; empty when there is none that counts.
#[derive(Debug)]
enum RangeText {
    Short { bytes: [u8; RANGE_INLINE_LEN], len: u8 },
    Long(Box<[u8]>),
}

const _: () = assert!(RANGE_INLINE_LEN <= u8::MAX as usize);
const _: () = assert!("bytes=".len() + 42 * RANGES_MAX <= RANGE_LEN_MAX);

impl RangeText {
    const NONE: RangeText = RangeText::Short { bytes: [0; RANGE_INLINE_LEN], len: 0 };

    fn new(value: &[u8]) -> RangeText {
        let mut bytes = [0; RANGE_INLINE_LEN];
        match bytes.get_mut(..value.len()) {
            Some(place) => {
                place.copy_from_slice(value);
                RangeText::Short { bytes, len: value.len() as u8 }
            }
            None if value.len() <= RANGE_LEN_MAX => RangeText::Long(value.into()),
            None => RangeText::NONE,
        }
    }

    fn is_empty(&self) -> bool {
        self.value().is_empty()
    }

    fn value(&self) -> &[u8] {
        match self {
            RangeText::Short { bytes, len } => &bytes[..usize::from(*len)],
            RangeText::Long(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use ron_codec::{
        authority::{Authority, Denied, Distrust},
        http::request::{Parsed, parse_head},
    };

    use super::*;

    const HEX: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn with_head<T>(text: &str, test: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        match parse_head(text.as_bytes(), 0).unwrap() {
            Parsed::Head { head, .. } => test(&head),
            Parsed::Partial => panic!("{text:?}"),
        }
    }

    fn wanted(method: &str, fields: &str) -> Wanted {
        let text = format!("{method} / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        with_head(&text, |head| Wanted::new(head, &HEX.parse().unwrap()))
    }

    #[test]
    fn the_table_of_routes() {
        let address: Address = HEX.parse().unwrap();
        let object = format!("/o/b3:{HEX}");
        let manifest = format!("{object}/Manifest.toml");
        let put = |expected| Ok(Plan::Put { expected });
        let get = Plan::Get { address };
        let find = |goal| Ok(Plan::Find { bundle: address, goal });
        let (slash, part) = (format!("{object}/"), format!("{object}/a/b%20c?x"));
        let all = "GET, HEAD, PUT, DELETE";
        for (method, path, expected) in [
            ("GET", object.as_str(), Ok(get)),
            ("HEAD", &object, Ok(get)),
            ("PUT", &object, put(Some(address))),
            ("DELETE", &object, Ok(Plan::Delete { address })),
            ("OPTIONS", &object, Err(Refusal::Method { allow: all })),
            ("BREW", &object, Err(Refusal::MethodUnknown)),
            ("GET", &manifest, find(Goal::Manifest)),
            ("HEAD", &slash, find(Goal::Index)),
            ("PUT", &slash, put(Some(address))),
            ("GET", &part, find(Goal::Path("a/b%20c"))),
            ("DELETE", &part, Err(Refusal::Method { allow: "GET, HEAD" })),
            ("PUT", &manifest, Err(Refusal::Method { allow: "GET, HEAD" })),
            ("DELETE", &manifest, Err(Refusal::Method { allow: "GET, HEAD" })),
            ("DELETE", "/o/", Err(Refusal::Method { allow: "PUT" })),
            ("DELETE", "/o/b3:00", Err(Refusal::BadAddress { put: false })),
            ("DELETE", "/x/b3:00", Err(Refusal::NoRoute)),
            ("GET", "/o/b3:00", Err(Refusal::BadAddress { put: false })),
            ("HEAD", "/o/AF", Err(Refusal::BadAddress { put: false })),
            ("PUT", "/o/hello.txt", Err(Refusal::BadAddress { put: true })),
            ("OPTIONS", "*", Ok(Plan::Options)),
            ("OPTIONS", "/", Err(Refusal::NoRoute)),
            ("PUT", "/o/", put(None)),
            ("GET", "/o/", Err(Refusal::Method { allow: "PUT" })),
            ("GET", "/", Err(Refusal::NoRoute)),
            ("POST", "/x", Err(Refusal::NoRoute)),
            ("BREW", "/x", Err(Refusal::MethodUnknown)),
        ] {
            let text = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
            with_head(&text, |head| assert_eq!(plan(head), expected, "{method} {path}"));
        }
    }

    #[test]
    fn conditions_of_a_write() {
        const REFUSED: Result<Option<Existence>, Refusal> = Err(Refusal::Precondition);
        let own = format!("/o/b3:{HEX}");
        let (tag, other) = (format!("\"b3:{HEX}\""), format!("\"b3:{}\"", "0".repeat(64)));
        for (path, fields, expected) in [
            (own.as_str(), String::new(), Ok(None)),
            (&own, "If-None-Match: *\r\n".into(), Ok(Some(Existence::NotThere))),
            (&own, format!("If-None-Match: W/{tag}\r\n"), Ok(Some(Existence::NotThere))),
            (&own, format!("If-None-Match: {other}\r\n"), Ok(None)),
            (&own, "If-Match: *\r\n".into(), Ok(Some(Existence::There))),
            (&own, format!("If-Match: {other}, {tag}\r\n"), Ok(Some(Existence::There))),
            (&own, format!("If-Match: {other}\r\n"), REFUSED),
            (&own, "If-Match: *\r\nIf-None-Match: *\r\n".into(), REFUSED),
            ("/o/", "If-None-Match: *\r\n".into(), Ok(None)),
            ("/o/", "If-Match: *\r\n".into(), REFUSED),
        ] {
            let text = format!("PUT {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let found = with_head(&text, |head| match plan(head) {
                Ok(Plan::Put { expected }) => condition(head, expected.as_ref()),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{path} {fields}");
        }
        for path in [own.as_str(), "/o/"] {
            let text = format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Range: x\r\n\r\n");
            with_head(&text, |head| assert_eq!(plan(head), Err(Refusal::Part)));
        }
    }

    #[test]
    fn what_a_head_says_of_its_sender() {
        const FORBIDDEN: Result<(), u16> = Err(403);
        const UNAUTHORIZED: Result<(), u16> = Err(401);
        let text = |version: &str, fields: &str| format!("PUT /o/ HTTP/{version}\r\n{fields}\r\n");
        let tokens = Authority::new(&["one".into()], true, &[]);
        for (version, fields, open, with_tokens) in [
            ("1.1", "Host: 127.0.0.1:9080\r\n", Ok(()), UNAUTHORIZED),
            ("1.1", "Host: localhost\r\nSec-Fetch-Site: none\r\n", Ok(()), UNAUTHORIZED),
            ("1.1", "Host: localhost\r\nAuthorization: Basic b25l\r\n", Ok(()), UNAUTHORIZED),
            ("1.1", "Host: evil.example\r\n", FORBIDDEN, UNAUTHORIZED),
            ("1.1", "Host: [::1]\r\nVia: 1.1 a\r\n", FORBIDDEN, UNAUTHORIZED),
            ("1.1", "Host: [::1]\r\nForwarded: for=a\r\n", FORBIDDEN, UNAUTHORIZED),
            ("1.1", "Host: [::1]\r\nx-forwarded-for: ::1\r\n", FORBIDDEN, UNAUTHORIZED),
            ("1.1", "Host: [::1]\r\nOrigin: null\r\n", FORBIDDEN, UNAUTHORIZED),
            ("1.1", "Host: [::1]\r\nSec-Fetch-Site: cross-site\r\n", FORBIDDEN, UNAUTHORIZED),
            ("1.0", "", FORBIDDEN, UNAUTHORIZED),
            ("1.0", "Host: 127.0.0.1\r\n", FORBIDDEN, UNAUTHORIZED),
            ("1.0", "Authorization: Bearer one\r\n", UNAUTHORIZED, Ok(())),
            ("1.1", "Host: a\r\nVia: 1.1 a\r\nAuthorization: bearer one\r\n", UNAUTHORIZED, Ok(())),
        ] {
            let mut config = super::super::tests::config();
            for expected in [open, with_tokens] {
                let found = with_head(&text(version, fields), |head| {
                    check_writer(head, true, &config).map_err(|refusal| refusal.code().status())
                });
                assert_eq!(found, expected, "{fields}, {:?}", config.authority);
                config.authority = tokens.clone();
            }
        }
    }

    #[test]
    fn an_absolute_target_outweighs_the_host() {
        let config = super::super::tests::config();
        let text = "PUT http://evil.example/o/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let found = with_head(text, |head| check_writer(head, true, &config));
        assert_eq!(found, Err(Refusal::Denied(Denied::NotTrusted(Distrust::Name))));
    }

    #[test]
    fn conditions_in_their_order() {
        let (own, other) = (format!("\"b3:{HEX}\""), format!("\"b3:{}\"", "0".repeat(64)));
        let verdict = |fields: &str| wanted("GET", fields).verdict;
        assert_eq!(verdict(""), Verdict::Content);
        assert_eq!(verdict(&format!("If-None-Match: {own}\r\n")), Verdict::NotModified);
        assert_eq!(verdict(&format!("If-None-Match: W/{own}\r\n")), Verdict::NotModified);
        assert_eq!(verdict("If-None-Match: *\r\n"), Verdict::NotModified);
        assert_eq!(verdict(&format!("If-None-Match: {other}\r\n")), Verdict::Content);
        assert_eq!(verdict(&format!("If-Match: {other}, {own}\r\n")), Verdict::Content);
        assert_eq!(verdict(&format!("If-Match: W/{own}\r\n")), Verdict::PreconditionFailed);
        let both = format!("If-Match: {other}\r\nIf-None-Match: {own}\r\n");
        assert_eq!(verdict(&both), Verdict::PreconditionFailed);
        let all = format!("{both}Accept-Encoding: br, identity;q=0\r\n");
        assert_eq!(verdict(&all), Verdict::NotAcceptable);
        assert_eq!(wanted("GET", &both).first_byte(), None);
    }

    #[test]
    fn the_first_byte_is_known_unless_it_depends_on_the_size() {
        for (range, first) in [
            ("bytes=0-", Some(0)),
            ("bytes=7-9", Some(7)),
            ("bytes=18446744073709551613-", Some(u64::MAX - 2)),
            ("bytes=18446744073709551615-", None),
            ("bytes=-5", None),
            ("bytes=-0", None),
            ("bytes=-18446744073709551615", Some(0)),
            ("bytes=9-7", Some(0)),
            ("bytes=1-2,4-5", Some(1)),
            ("bytes=4-5,1-2", Some(4)),
            ("bytes=4-5,1-3,0-0,8-", Some(0)),
            ("bytes=3-,-5", Some(3)),
            ("bytes=-5,3-4", None),
            ("bytes=1-2,x", Some(0)),
            ("lines=3-", Some(0)),
        ] {
            let wanted = wanted("GET", &format!("Range: {range}\r\n"));
            assert_eq!(wanted.first_byte(), first, "{range}");
        }
    }

    #[test]
    fn a_range_counts_for_a_get_of_the_current_content() {
        let part =
            |method: &str, fields: &str| wanted(method, fields).range(10) != RangeSpec::Whole;
        assert!(part("GET", "Range: bytes=1-2\r\n"));
        assert!(!part("HEAD", "Range: bytes=1-2\r\n"));
        assert!(part("GET", &format!("Range: bytes=1-2\r\nIf-Range: \"b3:{HEX}\"\r\n")));
        assert!(!part("GET", &format!("Range: bytes=1-2\r\nIf-Range: W/\"b3:{HEX}\"\r\n")));
        assert!(!part("GET", "Range: bytes=1-2\r\nIf-Range: \"x\"\r\n"));
        let padded = |len: usize| format!("Range: bytes={:0>1$}-2\r\n", 1, len - "bytes=-2".len());
        for (len, heap) in [(RANGE_INLINE_LEN, 0), (RANGE_LEN_MAX, RANGE_LEN_MAX)] {
            assert!(part("GET", &padded(len)));
            assert_eq!(wanted("GET", &padded(len)).heap(), heap);
        }
        assert!(!part("GET", &padded(RANGE_LEN_MAX + 1)));
        assert_eq!(wanted("GET", &padded(RANGE_LEN_MAX + 1)).heap(), 0);
    }
}
