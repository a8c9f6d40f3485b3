//! Several ranges of one object, taken apart as a client takes them apart.

use proptest::prelude::*;

use super::*;

/// A part of an answer: its first byte, the size it names, and its bytes.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    start: usize,
    size: usize,
    bytes: Vec<u8>,
}

/// The parts of a body, as RFC 2046 §5.1 has a client read them: from one delimiter to the next.
fn parts(answer: &Answer) -> Vec<Part> {
    let kind = answer.field("Content-Type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect(kind);
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = answer.body.strip_prefix(&delimiter.as_bytes()[2..]).expect("a delimiter");
    let mut parts = Vec::new();
    while rest != b"--\r\n" {
        let end = rest.windows(delimiter.len()).position(|some| some == delimiter.as_bytes());
        let (part, after) = rest.split_at(end.expect("a part ends in a delimiter"));
        rest = &after[delimiter.len()..];
        let head_end = part.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let (head, bytes) = part.split_at(head_end);
        let head = std::str::from_utf8(head).unwrap();
        assert!(head.starts_with("\r\nContent-Type: application/octet-stream\r\n"), "{head:?}");
        let field = head.split("Content-Range: bytes ").nth(1).expect("each says what it is");
        let (range, size) = field.trim_end().split_once('/').unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (start, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        assert_eq!(bytes.len(), last + 1 - start, "{field}");
        parts.push(Part { start, size: size.parse().unwrap(), bytes: bytes.to_vec() });
    }
    parts
}

fn ranged(path: &str, value: &str) -> String {
    get(path, &format!("Range: bytes={value}\r\n"))
}

#[test]
fn an_answer_in_parts_byte_for_byte() {
    let mut bench = Bench::new();
    let address = bench.store(b"hello, world");
    let hex = address.to_string().replace("b3:", "");
    bench.bytes(get(format!("/o/{address}"), "X-Corr-Id: me\r\nRange: bytes=7-8, -1,0-4\r\n"));
    let body = format!(
        "--{hex}\r\nContent-Type: application/octet-stream\r\n\
         Content-Range: bytes 7-8/12\r\n\r\nwo\r\n\
         --{hex}\r\nContent-Type: application/octet-stream\r\n\
         Content-Range: bytes 11-11/12\r\n\r\nd\r\n\
         --{hex}\r\nContent-Type: application/octet-stream\r\n\
         Content-Range: bytes 0-4/12\r\n\r\nhello\r\n--{hex}--\r\n"
    );
    let expected = format!(
        "HTTP/1.1 206 Partial Content\r\nDate: Sun, 09 Sep 2001 01:46:40 GMT\r\n\
         Server: ron/test\r\nX-Corr-Id: me\r\n\
         Content-Type: multipart/byteranges; boundary={hex}\r\n\
         Cache-Control: public, max-age=31536000, immutable\r\nAccept-Ranges: bytes\r\n\
         X-Content-Type-Options: nosniff\r\nETag: \"{address}\"\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(String::from_utf8(bench.out.clone()).unwrap(), expected);
    assert_eq!((bench.counted(Op::Get, 206), bench.stats.ranges.get()), (1, 1));
    assert_eq!((bench.stats.inflight.get(), bench.did.len()), (0, 0));
}

#[test]
fn what_is_left_decides_the_form_of_the_answer() {
    let mut bench = Bench::new();
    let object = sample(1000);
    let path = format!("/o/{}", bench.store(&object));
    for (value, content_range) in [
        ("0-9,10-19", "bytes 0-19/1000"),
        ("5-9,0-6", "bytes 0-9/1000"),
        ("990-,-20", "bytes 980-999/1000"),
        ("1000-,3-3,-0", "bytes 3-3/1000"),
        ("500-,0-499", "bytes 0-999/1000"),
    ] {
        let answer = bench.ask(ranged(&path, value));
        assert_eq!((answer.status, answer.field("Content-Range")), (206, Some(content_range)));
        assert_eq!(answer.field("Content-Type"), Some("application/octet-stream"), "{value}");
    }
    let answer = bench.ask(ranged(&path, "1000-,2000-2001"));
    assert_eq!((answer.status, answer.field("Content-Range")), (416, Some("bytes */1000")));
    let many = |count: usize| {
        let ranges: Vec<String> = (0..count).map(|at| format!("{0}-{0}", 2 * at)).collect();
        ranges.join(",")
    };
    let answer = bench.ask(ranged(&path, &many(16)));
    assert_eq!((answer.status, parts(&answer).len()), (206, 16));
    assert_eq!(answer.field("Content-Range"), None, "it is in each part (RFC 9110 §14.4)");
    for value in [many(17), "0-0,4-4,x".into(), format!("0-0,{:0>1100}-5", 3)] {
        let answer = bench.ask(ranged(&path, &value));
        assert_eq!((answer.status, answer.body == object), (200, true), "{value}");
    }
    let head = bench.ask(request("HEAD", &path, "Range: bytes=0-0,5-5\r\n"));
    assert_eq!((head.status, head.len()), (200, 1000));
    for (tag, status) in [("\"x\"".to_owned(), 200), (format!("\"{}\"", &path[3..]), 206)] {
        let fields = format!("Range: bytes=0-0,5-5\r\nIf-Range: {tag}\r\n");
        assert_eq!(bench.ask(get(&path, &fields)).status, status, "{tag}");
    }
}

#[test]
fn parts_ask_only_for_the_groups_they_touch() {
    let mut bench = Bench::new();
    let path = format!("/o/{}", bench.store(&sample(9 * GROUP_LEN)));
    let edge = GROUP_LEN;
    for (value, asked) in [
        (format!("{}-{},3-4", 3 * edge, 3 * edge), &["open Some(196608)", "group 0"][..]),
        (format!("-1,{}-{}", edge - 1, edge), &["open None", "group 8", "group 0", "group 1"]),
        ("0-1,5-6".into(), &["open Some(0)", "group 0"]),
        (format!("{}-,{}-", 10 * edge, 20 * edge), &["open Some(655360)"]),
    ] {
        bench.asked.clear();
        bench.ask(ranged(&path, &value));
        assert_eq!(bench.asked, asked, "{value}");
    }
}

#[test]
fn what_parts_keep_is_counted_and_given_back() {
    let mut bench = Bench::new();
    let path = format!("/o/{}", bench.store(&sample(3 * GROUP_LEN)));
    bench.hold_asks = true;
    bench.bytes(ranged(&path, &"1-2,".repeat(60)));
    let text = bench.session().held();
    assert!((240..1024).contains(&text), "{text} bytes are kept of the field");
    let mut bench = Bench::new();
    bench.store(&sample(3 * GROUP_LEN));
    bench.hold_asks = true;
    bench.bytes(ranged(&path, "0-1,70000-70001"));
    assert_eq!(bench.session().held(), 0, "a short field is kept in place");
    // The object is opened and its first part is sent; the second one waits.
    let (id, ask) = bench.asks.pop_front().unwrap();
    let reply = bench.answer(ask);
    bench.cx(|session, cx| session.unwrap().on_reply(id.stream, reply, cx));
    bench.run();
    assert_eq!(bench.session().held(), size_of::<crate::session::http::parts::Parts>());
    bench.hold_asks = false;
    bench.run();
    let answers = bench.answers(&["GET"]);
    assert_eq!(parts(&answers[0]).len(), 2);
    assert_eq!((bench.session().held(), bench.memory.bytes()), (0, 0));
}

#[test]
fn a_failure_between_two_parts_cuts_the_connection() {
    for missing in [false, true] {
        let mut bench = Bench::new();
        let path = format!("/o/{}", bench.store(&sample(3 * GROUP_LEN)));
        match missing {
            true => bench.missing = Some(1),
            false => bench.fault = Some((1, Fault::Integrity)),
        }
        bench.bytes(ranged(&path, "0-9,140000-140009"));
        let text = String::from_utf8_lossy(&bench.out).into_owned();
        assert_eq!(text.matches("\r\n--").count(), 1, "the second part has no head: {text}");
        assert_eq!((&bench.did[..], bench.stats.inflight.get()), (&[Did::Finish][..], 0));
        assert_eq!(bench.counted(Op::Get, if missing { 404 } else { 502 }), 1);
    }
}

#[test]
fn a_reader_of_parts_that_is_slow_bounds_what_is_queued() {
    let mut bench = Bench::new();
    let object = sample(40 * GROUP_LEN);
    let path = format!("/o/{}", bench.store(&object));
    bench.hold_sends = true;
    let ranges: Vec<String> =
        (0..16).map(|at| format!("{}-{}", at * 160_000, at * 160_000 + 150_000)).collect();
    bench.bytes(ranged(&path, &ranges.join(",")) + &get(&path, "Range: bytes=1-1\r\n"));
    while bench.unsent > 0 {
        assert!(bench.unsent <= crate::limits::UNSENT_LEN_MAX + 4096, "{} bytes", bench.unsent);
        bench.take(bench.unsent.min(50_000));
        bench.run();
    }
    let answers = bench.answers(&["GET", "GET"]);
    let parts = parts(&answers[0]);
    assert_eq!(parts.len(), 16);
    for part in parts {
        assert!(part.bytes == object[part.start..part.start + part.bytes.len()]);
    }
    assert_eq!(answers[1].body, &object[1..2], "the next answer follows at once");
}

/// What a naive reader of a `Range` field would mark, byte by byte.
fn marked(members: &[(usize, usize, u8)], size: usize) -> Vec<bool> {
    let wants = |(a, b, form): &(usize, usize, u8), at: usize| match form {
        0 => at >= *a,
        1 => at + b >= size,
        _ => at >= *a.min(b) && at <= *a.max(b),
    };
    (0..size).map(|at| members.iter().any(|member| wants(member, at))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the object and its ranges: what arrives is exactly what was asked for, once.
    #[test]
    fn what_arrives_is_what_was_asked_for(
        size in prop_oneof![0..300usize, GROUP_LEN - 2..GROUP_LEN + 3, 0..200 * 1024usize],
        members in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..12), 1..20),
        step in 1usize..100_000,
    ) {
        let object = sample(size);
        // Some lie behind the end; most have two ends, else most answers were all of it.
        let members: Vec<(usize, usize, u8)> = members
            .iter()
            .map(|(a, b, form)| (a.index(size + 9), b.index(size + 9), *form))
            .map(|(a, b, form)| if form == 1 { (a, b / 8, form) } else { (a, b, form) })
            .map(|(a, b, form)| if form > 3 { (a, a + b % 999, form) } else { (a, b, form) })
            .collect();
        let spelt: Vec<String> = members
            .iter()
            .map(|(a, b, form)| match form {
                0 => format!("{a}-"),
                1 => format!("-{b}"),
                _ => format!("{}-{}", a.min(b), a.max(b)),
            })
            .collect();
        let marked = marked(&members, size);
        let begins = |at: &usize| marked[*at] && (*at == 0 || !marked[at - 1]);
        let runs = (0..size).filter(begins).count();
        let mut bench = Bench::new();
        let path = format!("/o/{}", bench.store(&object));
        bench.hold_sends = true;
        bench.bytes(ranged(&path, &spelt.join(",")));
        while bench.unsent > 0 {
            bench.take(bench.unsent.min(step));
            bench.run();
        }
        let answer = bench.answers(&["GET"]).remove(0);
        let suffix_of_nothing = size == 0 && members.iter().any(|m| m.2 == 1 && m.1 > 0);
        let mut got = vec![None; size];
        match runs {
            0 if suffix_of_nothing => prop_assert_eq!((answer.status, answer.len()), (200, 0)),
            0 => prop_assert_eq!(answer.status, 416),
            1 => {
                let start = marked.iter().position(|marked| *marked).unwrap();
                let last = start + answer.body.len() - 1;
                let content_range = format!("bytes {start}-{last}/{size}");
                prop_assert_eq!(answer.field("Content-Range"), Some(content_range.as_str()));
                got[start..=last].copy_from_slice(&answer.body.iter().map(|byte| Some(*byte))
                    .collect::<Vec<_>>());
            }
            17.. => prop_assert!(answer.status == 200 && answer.body == object),
            _ => {
                let parts = parts(&answer);
                prop_assert_eq!((answer.status, parts.len()), (206, runs));
                for part in parts {
                    prop_assert_eq!(part.size, size);
                    for (at, byte) in part.bytes.iter().enumerate() {
                        prop_assert_eq!(got[part.start + at].replace(*byte), None, "sent twice");
                    }
                }
            }
        }
        if (1..17).contains(&runs) {
            for at in 0..size {
                prop_assert_eq!(got[at], marked[at].then_some(object[at]), "byte {}", at);
            }
        }
        prop_assert_eq!((bench.session().held(), bench.memory.bytes()), (0, 0));
    }
}
