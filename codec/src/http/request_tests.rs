//! Tests of request heads.

use super::*;
use crate::authority::PROXY_FIELDS;
use proptest::prelude::*;

fn whole(text: &str) -> Result<RequestHead<'_>, HeadError> {
    match parse_head(text.as_bytes(), 0)? {
        Parsed::Head { head, len } => {
            assert_eq!(len, text.len());
            Ok(head)
        }
        Parsed::Partial => panic!("partial: {text:?}"),
    }
}

/// Parses a GET with these field lines, each without its line end, behind a good Host.
fn fields(lines: &[&str]) -> Result<RequestHead<'static>, HeadError> {
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", lines.join("\r\n"));
    whole(Box::leak(text.into_boxed_str()))
}

fn request_line(line: &str) -> Result<RequestHead<'static>, HeadError> {
    let text = format!("{line}\r\nHost: h\r\n\r\n");
    whole(Box::leak(text.into_boxed_str()))
}

/// What `parse_head` says of `buf` when it arrives in pieces of `step` bytes.
fn trickle(buf: &[u8], step: usize) -> Result<Option<(String, usize)>, HeadError> {
    let mut scanned = 0;
    loop {
        let arrived = (scanned + step).min(buf.len());
        match parse_head(&buf[..arrived], scanned)? {
            Parsed::Head { head, len } => return Ok(Some((format!("{head:?}"), len))),
            Parsed::Partial if arrived == buf.len() => return Ok(None),
            Parsed::Partial => scanned = arrived,
        }
    }
}

#[test]
fn a_full_head_is_read() {
    let head = whole(
        "PUT /o/x?y HTTP/1.1\r\nhOST: example:80\r\nContent-Length:5\r\nExpect: 100-Continue\r\n\
         Range: bytes=0-1\r\nIf-None-Match: \"a\"\r\nIf-Match:\t\"b\" \r\nIf-Range: \"c\"\r\n\
         Accept-Encoding: br\r\nAuthorization: Bearer t\r\nX-Corr-Id: id\r\ntraceparent: 00-x\r\n\
         Other: z\r\nEmpty:\r\n\r\n",
    )
    .unwrap();
    assert_eq!((head.method, head.target, head.version), (Method::Put, "/o/x?y", Version::Http11));
    assert_eq!(head.host, Some(&b"example:80"[..]));
    assert!(head.keep_alive && head.expect_continue);
    assert_eq!(head.body, BodyKind::Length(5));
    assert_eq!(head.range, Some(&b"bytes=0-1"[..]));
    assert_eq!(head.if_none_match.values().collect::<Vec<_>>(), [b"\"a\""]);
    assert_eq!(head.if_match.values().collect::<Vec<_>>(), [b"\"b\""]);
    assert_eq!(head.if_range, Some(&b"\"c\""[..]));
    assert_eq!(head.accept_encoding.values().collect::<Vec<_>>(), [b"br"]);
    assert_eq!(head.authorization, Some(&b"Bearer t"[..]));
    assert_eq!(head.corr_id, Some(&b"id"[..]));
    assert_eq!(head.traceparent, Some(&b"00-x"[..]));
}

#[test]
fn a_bare_head_has_defaults() {
    let head = whole("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((head.method, head.version), (Method::Get, Version::Http10));
    assert_eq!(head.body, BodyKind::None);
    assert!(head.body.is_empty() && BodyKind::Length(0).is_empty());
    assert!(!BodyKind::Length(1).is_empty() && !BodyKind::Chunked.is_empty());
    assert!(!head.keep_alive && !head.expect_continue && head.host.is_none());
    assert!(head.range.is_none() && head.if_none_match.is_empty() && head.if_match.is_empty());
}

#[test]
fn only_the_head_is_consumed() {
    let text = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\n\n";
    let Ok(Parsed::Head { head, len }) = parse_head(text, 0) else { panic!() };
    assert_eq!((head.target, &text[len..len + 6]), ("/a", &b"GET /b"[..]));
}

#[test]
fn persistence_follows_version_and_connection() {
    for (version, connection, expected) in [
        ("1.1", "x", true),
        ("1.1", "close", false),
        ("1.1", "keep-alive", true),
        ("1.1", "Keep-Alive , CLOSE", false),
        ("1.1", "closed, disclose", true),
        ("1.0", "x", false),
        ("1.0", "keep-alive", true),
        ("1.0", "close, keep-alive", false),
        ("1.0", "x, Keep-Alive\r\nConnection: close", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\nConnection: {connection}\r\n\r\n");
        assert_eq!(whole(&text).unwrap().keep_alive, expected, "{version} {connection}");
    }
}

#[test]
fn methods_are_told_apart() {
    let method = |name: &str| request_line(&format!("{name} / HTTP/1.1")).unwrap().method;
    assert_eq!(method("GET"), Method::Get);
    assert_eq!(method("HEAD"), Method::Head);
    assert_eq!(method("PUT"), Method::Put);
    assert_eq!(method("DELETE"), Method::Delete);
    for name in ["POST", "OPTIONS", "PATCH", "TRACE"] {
        assert_eq!(method(name), Method::Known(name));
    }
    for name in ["get", "BREW", "GETX", "G", "PROPFIND", "M-SEARCH"] {
        assert_eq!(method(name), Method::Unknown);
    }
    let brew = whole("BREW / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n").unwrap();
    assert_eq!(brew.body, BodyKind::Length(3));
}

#[test]
fn targets_in_all_forms() {
    let target = |text: &str| request_line(&format!("GET {text} HTTP/1.1")).map(|h| h.target);
    for (text, expected) in [
        ("/", "/"),
        ("/a%20b?c", "/a%20b?c"),
        ("//a", "//a"),
        ("http://h/o/x", "/o/x"),
        ("HTTPS://h:443/o/x?y", "/o/x?y"),
        ("http://[::1]:80/", "/"),
        ("http://h", "/"),
        ("http://h?q", "/"),
        ("/http://h/", "/http://h/"),
    ] {
        assert_eq!(target(text), Ok(expected), "{text}");
    }
    for text in [
        "*",
        "h:80",
        "o/x",
        "ftp://h/",
        "http:/h",
        "http:///x",
        "http://",
        "http://:80/",
        "http://u@h/",
        "http://h\\/",
        "?q",
    ] {
        assert_eq!(target(text), Err(HeadError::TargetForm), "{text}");
    }
}

#[test]
fn the_node_as_a_whole_is_asked_by_options_alone() {
    for (line, target) in [
        ("OPTIONS *", Ok("*")),
        ("OPTIONS http://h", Ok("*")),
        ("OPTIONS http://h/", Ok("/")),
        ("OPTIONS http://h?q", Ok("/")),
        ("OPTIONS /o/", Ok("/o/")),
        ("GET http://h", Ok("/")),
        ("CONNECT h:80", Err(HeadError::Connect)),
        ("CONNECT [::1]:443", Err(HeadError::Connect)),
        ("CONNECT h", Err(HeadError::TargetForm)),
        ("CONNECT /", Err(HeadError::TargetForm)),
        ("CONNECT *", Err(HeadError::TargetForm)),
        ("CONNECT http://h:80/", Err(HeadError::TargetForm)),
    ] {
        let found = request_line(&format!("{line} HTTP/1.1")).map(|head| head.target);
        assert_eq!(found, target, "{line}");
    }
    assert_eq!(HeadError::Connect.status(), 501);
}

#[test]
fn request_lines_are_strict() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET /",
        "GET / ",
        "GET /a b HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "G@T / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
    ] {
        let error = request_line(line).unwrap_err();
        assert!(matches!(error, HeadError::RequestLine | HeadError::Version), "{line}: {error:?}");
    }
    for line in ["GET / HTTP/2.0", "GET / HTTP/1.2", "GET / HTTP/0.9", "GET / http/1.1"] {
        let error = request_line(line).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::Version, 505), "{line}");
    }
    assert!(request_line("GET / HTTP/1.1 ").is_err());
    assert!(request_line("GET / HTTP/1.10").is_err());
}

#[test]
fn line_ends_are_strict() {
    for (text, at) in [
        ("GET / HTTP/1.1\nHost: h\r\n\r\n", 14),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n", 23),
        ("GET / HTTP/1.1\r\nHost: h\r\n\n", 25),
        ("GET / HTTP/1.1\r\nHost: h\n\n", 23),
        ("GET / HTTP/1.1\r\nA: b\nX: c\r\nHost: h\r\n\r\n", 20),
        ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 0),
        ("\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 2),
    ] {
        let expected = Err(HeadError::BareLineFeed { at });
        assert_eq!(whole(text).map(|_| ()), expected, "{text:?}");
        assert_eq!(trickle(text.as_bytes(), 1).map(|_| ()), expected, "{text:?}");
    }
    for text in [
        "GET / HTTP/1.1\rHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        assert!(whole(text).is_err(), "{text:?}");
    }
}

#[test]
fn field_lines_are_strict() {
    for (line, expected) in [
        ("X : y", HeadError::FieldName),
        ("X\t: y", HeadError::FieldName),
        ("X", HeadError::FieldName),
        (": y", HeadError::FieldName),
        ("X y: z", HeadError::FieldName),
        ("X: a\r\n b", HeadError::FieldName),
        ("X: a\r\n\tb: c", HeadError::FieldName),
        ("X: a\0b", HeadError::FieldValue),
        ("X: a\u{7f}b", HeadError::FieldValue),
    ] {
        let error = fields(&[line]).unwrap_err();
        assert_eq!((error, error.status()), (expected, 400), "{line:?}");
    }
    let folded_first = "GET / HTTP/1.1\r\n Host: h\r\n\r\n";
    assert_eq!(whole(folded_first).map(|_| ()), Err(HeadError::FieldName));
}

#[test]
fn proxies_and_pages_are_seen() {
    for (lines, proxied, page) in [
        (&["Accept: *"][..], false, false),
        (&["Via: 1.1 a"], true, false),
        (&["Forwarded: for=1"], true, false),
        (&["X-Real-IP: ::1"], true, false),
        (&["X-Forwarded-For: ::1"], true, false),
        (&["x-forwarded-proto: https"], true, false),
        (&["Accept: *", "Origin: null"], false, true),
        (&["Sec-Fetch-Site: none"], false, false),
        (&["Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin", "Via: a"], true, true),
        (&["Expect: 100-continue", "X-Corr-Id: a", "Accept-Encoding: br"], false, false),
    ] {
        let head = fields(lines).unwrap();
        assert_eq!((head.proxied, head.page), (proxied, page), "{lines:?}");
    }
    for name in PROXY_FIELDS {
        for line in [format!("{name}: a"), format!("{}:", name.to_lowercase())] {
            assert!(fields(&[line.leak()]).unwrap().proxied, "{name}");
        }
    }
}

#[test]
fn the_authority_of_a_target_is_the_host() {
    for (target, host) in
        [("/o/", "h"), ("http://a.example:80/o/", "a.example:80"), ("HTTPS://[::1]?x", "[::1]")]
    {
        let head = request_line(&format!("GET {target} HTTP/1.1")).unwrap();
        assert_eq!(head.host, Some(host.as_bytes()), "{target}");
    }
}

#[test]
fn a_host_is_sent_exactly_once_by_http11() {
    let host = |lines: &str| {
        whole(Box::leak(format!("GET / HTTP/1.1\r\n{lines}\r\n").into_boxed_str())).map(|h| h.host)
    };
    assert_eq!(host(""), Err(HeadError::HostMissing));
    assert_eq!(host("Host:\r\n"), Ok(Some(&b""[..])));
    assert_eq!(host("Host: a\r\nHost: b\r\n"), Err(HeadError::HostRepeated));
    assert_eq!(host("Host: a\r\nhost: a\r\n"), Err(HeadError::HostRepeated));
    for bad in ["a b", "a/b", "u@h", "a?b", "a#b", "\"a\"", "a\\b", "caf\u{e9}"]
        .into_iter()
        .chain(["h:x", "h:80:90", "::1", "[::1", "[::1]80", "[::1]:x", "a[b]", "h:8 0", "h:+8"])
    {
        assert_eq!(host(&format!("Host: {bad}\r\n")), Err(HeadError::HostInvalid), "{bad}");
    }
    for good in ["[2001:db8::1]:8080", "[::1]", "h:", "h:80", "127.0.0.1:9080", ":80"] {
        assert!(host(&format!("Host: {good}\r\n")).is_ok(), "{good}");
    }
    assert_eq!(whole("GET http://h/ HTTP/1.1\r\n\r\n").map(|_| ()), Err(HeadError::HostMissing));
}

#[test]
fn lengths_are_digits_and_agree() {
    let body = |lines: &[&str]| fields(lines).map(|head| head.body);
    assert_eq!(body(&["Content-Length: 0"]), Ok(BodyKind::Length(0)));
    assert_eq!(body(&["Content-Length: 18446744073709551614"]), Ok(BodyKind::Length(u64::MAX - 1)));
    assert_eq!(body(&["Content-Length: 7", "Content-Length: 007"]), Ok(BodyKind::Length(7)));
    assert_eq!(
        body(&["Content-Length: 7", "content-length: 8"]),
        Err(HeadError::LengthConflict { first: 7, second: 8 })
    );
    for bad in [
        "",
        "+1",
        "-1",
        "1a",
        "0x1",
        "1 1",
        "1,1",
        "1, 1",
        "1.0",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        let line = format!("Content-Length: {bad}");
        assert_eq!(body(&[&line]), Err(HeadError::LengthInvalid), "{bad}");
    }
}

#[test]
fn transfer_codings_are_chunked_or_refused() {
    let body = |lines: &[&str]| fields(lines).map(|head| head.body);
    for chunked in ["chunked", "CHUNKED", "\tChunked "] {
        let line = format!("Transfer-Encoding: {chunked}");
        assert_eq!(body(&[&line]), Ok(BodyKind::Chunked));
    }
    for bad in [
        "",
        "gzip",
        "identity",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunked;a=b",
        "chunked gzip",
        "\"chunked\"",
        "chunked\u{b}",
    ] {
        let line = format!("Transfer-Encoding: {bad}");
        let error = body(&[&line]).unwrap_err();
        assert_eq!(error.status(), 400, "{bad}: {error:?}");
    }
    let split = ["Transfer-Encoding: chunked", "Transfer-Encoding: gzip"];
    assert_eq!(body(&split), Err(HeadError::ChunkedNotLast));
    assert_eq!(body(&[split[0], split[0]]), Err(HeadError::ChunkedNotLast));
    let error = body(&[split[1], split[0]]).unwrap_err();
    assert_eq!((error, error.status()), (HeadError::CodingUnknown, 501));

    for pair in [
        ["Content-Length: 1", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 1"],
        ["Transfer-Encoding: gzip", "Content-Length: 0"],
    ] {
        assert_eq!(body(&pair), Err(HeadError::LengthAndCoding));
    }
    assert_eq!(
        whole("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").map(|_| ()),
        Err(HeadError::CodingInHttp10)
    );
}

#[test]
fn expectations() {
    let expects = |lines: &[&str]| fields(lines).map(|head| head.expect_continue);
    assert_eq!(expects(&["Expect: 100-continue", "Content-Length: 1"]), Ok(true));
    assert_eq!(expects(&["Expect: 100-continue", "Transfer-Encoding: chunked"]), Ok(true));
    assert_eq!(expects(&["Expect: 100-continue", "Content-Length: 0"]), Ok(false));
    assert_eq!(expects(&["Expect: 100-continue"]), Ok(false));
    for value in [", 100-Continue ,", "100-continue, 100-continue"] {
        let line = format!("Expect: {value}");
        assert_eq!(expects(&[&line, "Content-Length: 1"]), Ok(true), "{value}");
    }
    assert_eq!(expects(&["Expect:", "Content-Length: 1"]), Ok(false));
    for value in ["the-unexpected", "100-continue, tea", "100-continue;q=1", "200-ok"] {
        let error = expects(&[&format!("Expect: {value}")]).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::Expectation, 417), "{value}");
    }
    let old = "PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert!(!whole(old).unwrap().expect_continue);
}

#[test]
fn repeated_fields_keep_their_meaning_or_lose_it() {
    let head = fields(&[
        "If-None-Match: \"a\"",
        "Range: bytes=0-1",
        "X: y",
        "if-none-match: \"b\", \"c\"",
        "Range: bytes=2-3",
        "If-Range: \"a\"",
        "If-Range: \"b\"",
        "X-Corr-Id: 1",
        "X-Corr-Id: 2",
        "Accept-Encoding: br",
        "Accept-Encoding: zstd;q=0.5",
        "Range: bytes=4-5",
    ])
    .unwrap();
    let values: Vec<_> = head.if_none_match.values().collect();
    assert_eq!(values, [&b"\"a\""[..], b"\"b\", \"c\""]);
    let values: Vec<_> = head.accept_encoding.values().collect();
    assert_eq!(values, [&b"br"[..], b"zstd;q=0.5"]);
    assert_eq!((head.range, head.if_range), (None, Some(&b""[..])));
    assert_eq!(head.corr_id, Some(&b"1"[..]));
    let twice = ["Authorization: a", "Authorization: a"];
    assert_eq!(fields(&twice).map(|_| ()), Err(HeadError::AuthorizationRepeated));
}

#[test]
fn empty_lines_before_a_head_are_few() {
    let text = |count: usize| format!("{}GET / HTTP/1.0\r\n\r\n", "\r\n".repeat(count));
    for count in [1, HEAD_EMPTY_LINES_MAX] {
        assert!(whole(&text(count)).is_ok());
        assert!(matches!(trickle(text(count).as_bytes(), 1), Ok(Some(_))));
    }
    let expected = HeadError::EmptyLines { max: HEAD_EMPTY_LINES_MAX };
    assert_eq!(whole(&text(HEAD_EMPTY_LINES_MAX + 1)).map(|_| ()), Err(expected));
    assert!(matches!(parse_head(b"\r\n\r\n", 0), Ok(Parsed::Partial)));
}

#[test]
fn heads_have_a_length_limit() {
    let text = |len: usize| {
        let frame = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(len - frame))
    };
    for len in [HEAD_LEN_MAX - 1, HEAD_LEN_MAX] {
        assert!(whole(&text(len)).is_ok());
    }
    let expected = HeadError::TooLong { max: HEAD_LEN_MAX };
    let long = text(HEAD_LEN_MAX + 1);
    assert_eq!(expected.status(), 431);
    assert_eq!(whole(&long).map(|_| ()), Err(expected));
    // Undecided until the buffer that is promised to suffice is full.
    let long = long.as_bytes();
    assert!(matches!(parse_head(&long[..HEAD_LEN_MAX - 1], 0), Ok(Parsed::Partial)));
    assert_eq!(parse_head(&long[..HEAD_LEN_MAX], 0).map(|_| ()), Err(expected));
    assert_eq!(parse_head(&[b'G'; HEAD_LEN_MAX], 99).map(|_| ()), Err(expected));
}

#[test]
fn targets_have_a_length_limit() {
    let line = |len: usize| format!("GET /{} HTTP/1.1", "x".repeat(len - 1));
    for len in [TARGET_LEN_MAX - 1, TARGET_LEN_MAX] {
        assert!(request_line(&line(len)).is_ok());
    }
    let expected = HeadError::TargetTooLong { max: TARGET_LEN_MAX };
    assert_eq!(expected.status(), 414);
    let long = line(TARGET_LEN_MAX + 1);
    assert_eq!(request_line(&long).map(|_| ()), Err(expected));
    // Decided as soon as the target is too long, also when nothing follows it yet.
    let before = "GET ".len() + TARGET_LEN_MAX;
    assert!(matches!(parse_head(&long.as_bytes()[..before], 0), Ok(Parsed::Partial)));
    assert_eq!(parse_head(&long.as_bytes()[..=before], 0).map(|_| ()), Err(expected));
    let endless = format!("GET /{}", "x".repeat(2 * HEAD_LEN_MAX));
    assert_eq!(parse_head(endless.as_bytes(), 0).map(|_| ()), Err(expected));
    // Nor does it matter what else is wrong, or how the head arrived.
    let wrong = format!("{}\r\nHost: h\r\n\r\n", long.replace("HTTP/1.1", "HTTP/2.0"));
    for step in [wrong.len(), 1000] {
        assert_eq!(trickle(wrong.as_bytes(), step), Err(expected), "{step}");
    }
    // Other long lines are not blamed on the target.
    let long_field = format!("GET / HTTP/1.1\r\nX: {}", "x y".repeat(4000));
    assert!(matches!(parse_head(long_field.as_bytes(), 0), Ok(Parsed::Partial)));
}

#[test]
fn fields_have_a_count_limit() {
    let with = |count: usize| fields(&vec!["X: y"; count - 1]).map(|_| ());
    assert_eq!(with(HEAD_FIELDS_MAX - 1), Ok(()));
    assert_eq!(with(HEAD_FIELDS_MAX), Ok(()));
    let expected = HeadError::TooManyFields { max: HEAD_FIELDS_MAX };
    assert_eq!((with(HEAD_FIELDS_MAX + 1), expected.status()), (Err(expected), 431));
}

#[test]
fn what_cannot_be_http_is_refused_at_once() {
    assert_eq!(parse_head(b"\x16\x03\x01", 0).map(|_| ()), Err(HeadError::RequestLine));
    assert_eq!(parse_head(b"\rG", 0).map(|_| ()), Err(HeadError::BareCarriageReturn));
    for partial in [&b""[..], b"\r", b"\r\n\r", b"G", b"GET / HTTP/1.1\r\n"] {
        assert!(matches!(parse_head(partial, 0), Ok(Parsed::Partial)));
    }
}

#[test]
fn every_error_ends_the_connection_with_a_4xx_or_5xx() {
    for error in [
        HeadError::RequestLine,
        HeadError::TooLong { max: 1 },
        HeadError::CodingUnknown,
        HeadError::BareLineFeed { at: 0 },
    ] {
        assert!(error.must_close() && error.status() >= 400);
        assert_eq!(ErrorCode::from(error).status(), error.status());
    }
}

fn head_text() -> impl Strategy<Value = String> {
    let method = "GET|PUT|HEAD|POST|BREW";
    let line = prop_oneof![
        "X-[a-z]{1,5}:[ \t]{0,2}[!-~]{0,12}",
        "Connection: (close|keep-alive)",
        "(Range|range): bytes=[0-9]-",
        "If-None-Match: \"[a-c]\"",
        "X-Corr-Id: [a-z]{1,9}",
        "Content-Length: 5",
    ];
    (method, "/[!-~]{0,20}", prop::collection::vec(line, 0..8)).prop_map(
        |(method, target, lines)| {
            let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
        },
    )
}

proptest! {
    #[test]
    fn the_fields_are_those_a_line_by_line_reader_finds(text in head_text()) {
        let head = whole(&text).unwrap();
        let values = |wanted: &str| -> Vec<&[u8]> {
            text.lines()
                .skip(1)
                .filter_map(|line| line.split_once(':'))
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim().as_bytes())
                .collect()
        };
        prop_assert_eq!(Some(head.target), text.split(' ').nth(1));
        prop_assert_eq!(head.if_none_match.values().collect::<Vec<_>>(), values("If-None-Match"));
        prop_assert_eq!(head.corr_id, values("X-Corr-Id").first().copied());
        let ranges = values("Range");
        prop_assert_eq!(head.range, (ranges.len() == 1).then(|| ranges[0]));
        prop_assert_eq!(head.keep_alive, !values("Connection").contains(&&b"close"[..]));
        let sized = !values("Content-Length").is_empty();
        prop_assert_eq!(head.body, if sized { BodyKind::Length(5) } else { BodyKind::None });
    }

    #[test]
    fn pieces_do_not_matter(text in head_text(), step in 1usize..50, behind in "[ -~\r\n]{0,20}") {
        let input = format!("{text}{behind}");
        let (head, len) = trickle(input.as_bytes(), input.len()).unwrap().unwrap();
        prop_assert_eq!(len, text.len());
        prop_assert_eq!(trickle(input.as_bytes(), step), Ok(Some((head, len))));
    }

    #[test]
    fn losing_any_carriage_return_is_refused(text in head_text(), index: prop::sample::Index) {
        let ends: Vec<usize> = text.match_indices('\r').map(|(at, _)| at).collect();
        let mut text = text;
        text.remove(*index.get(&ends));
        let refused = matches!(whole(&text), Err(HeadError::BareLineFeed { .. }));
        prop_assert!(refused, "{:?}", text);
    }

    #[test]
    fn damaged_heads_never_panic_and_pieces_still_do_not_matter(
        text in head_text(), index: prop::sample::Index, byte: u8, step in 1usize..9,
    ) {
        let mut input = text.into_bytes();
        let at = index.index(input.len());
        input[at] = byte;
        let at_once = trickle(&input, input.len());
        let in_pieces = trickle(&input, step);
        // A piece may decide earlier, with what it has, so only the verdict must be the same.
        prop_assert_eq!(at_once.is_err(), in_pieces.is_err());
        if at_once.is_ok() {
            prop_assert_eq!(at_once, in_pieces);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(input: Vec<u8>, scanned: usize) {
        let _ = parse_head(&input, scanned);
        let mut head = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
        head.extend_from_slice(&input);
        head.extend_from_slice(b"\r\n\r\n");
        let _ = parse_head(&head, scanned % 8);
    }
}
