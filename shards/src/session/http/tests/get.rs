//! GET and HEAD: content, parts of it, conditions, failures.

use super::*;
use crate::limits::{READER_LEAST_LEN, UNSENT_LEN_MAX};

#[test]
fn a_whole_answer_byte_for_byte() {
    let mut bench = Bench::new();
    let address = bench.store(b"hello");
    bench.bytes(get(format!("/o/{address}"), "X-Corr-Id: me\r\n"));
    let expected = format!(
        "HTTP/1.1 200 OK\r\nDate: Sun, 09 Sep 2001 01:46:40 GMT\r\nServer: ron/test\r\n\
         X-Corr-Id: me\r\nContent-Type: application/octet-stream\r\n\
         Cache-Control: public, max-age=31536000, immutable\r\nAccept-Ranges: bytes\r\n\
         X-Content-Type-Options: nosniff\r\nETag: \"{address}\"\r\nContent-Length: 5\r\n\r\nhello"
    );
    assert_eq!(String::from_utf8(bench.out.clone()).unwrap(), expected);
    assert_eq!((bench.counted(Op::Get, 200), bench.stats.inflight.get()), (1, 0));
    assert_eq!(bench.stats.bytes_out[Proto::Http as usize].get(), expected.len() as u64);
    assert_eq!(bench.did, []);
}

#[test]
fn objects_of_every_size_with_one_question_for_the_first_group() {
    for len in [0, 1, 4096, GROUP_LEN - 1, GROUP_LEN, GROUP_LEN + 1, 9 * GROUP_LEN + 17] {
        let mut bench = Bench::new();
        let object = sample(len);
        let address = bench.store(&object);
        let answer = bench.ask(get(format!("/o/{address}"), ""));
        assert_eq!((answer.status, answer.len()), (200, len));
        assert!(answer.body == object, "{len}");
        assert_eq!(bench.asked[0], "open Some(0)");
        assert_eq!(bench.asked.len() as u64, group_count(len as u64).max(1));
    }
}

#[test]
fn every_spelling_of_an_object() {
    let mut bench = Bench::new();
    let address = bench.store(b"x");
    let hex = address.to_string().replace("b3:", "");
    for path in [
        format!("/o/{hex}"),
        format!("/o/b3:{hex}.png"),
        format!("/o/b3%3A{hex}/payload.bin"),
        format!("/o/{hex}/?v=1"),
        format!("http://host/o/{hex}"),
    ] {
        assert_eq!(bench.ask(get(&path, "")).status, 200, "{path}");
    }
}

#[test]
fn a_head_request_has_the_head_of_a_get_and_needs_no_group() {
    let mut bench = Bench::new();
    let address = bench.store(&sample(GROUP_LEN + 5));
    let corr = "X-Corr-Id: same\r\n";
    let got = bench.ask(get(format!("/o/{address}"), corr));
    bench.asked.clear();
    let head = bench.ask(request("HEAD", format!("/o/{address}"), corr));
    assert_eq!((head.head, head.body), (got.head, Vec::new()));
    assert_eq!(bench.asked, ["open None"]);
    let missing = format!("/o/{}", Address::of(b"?"));
    let (got, head) = (bench.ask(get(&missing, corr)), bench.ask(request("HEAD", &missing, corr)));
    assert_eq!((head.head, head.body), (got.head, Vec::new()));
    assert_eq!((bench.counted(Op::Head, 200), bench.counted(Op::Head, 404)), (1, 1));
}

#[test]
fn single_ranges_are_slices() {
    const LEN: usize = 2 * GROUP_LEN + 100;
    let mut bench = Bench::new();
    let object = sample(LEN);
    let path = format!("/o/{}", bench.store(&object));
    let edge = GROUP_LEN as u64;
    let last = LEN as u64 - 1;
    for (range, first, end) in [
        ("0-0".to_owned(), 0, 1),
        ("0-".to_owned(), 0, LEN as u64),
        (format!("{}-{}", edge - 1, edge), edge - 1, edge + 1),
        (format!("{edge}-{}", 2 * edge - 1), edge, 2 * edge),
        (format!("{}-", 2 * edge), 2 * edge, LEN as u64),
        (format!("{last}-{last}"), last, LEN as u64),
        (format!("{last}-99999999999999999999999"), last, LEN as u64),
        ("-1".to_owned(), last, LEN as u64),
        (format!("-{}", LEN - 1), 1, LEN as u64),
        ("-99999999999999999999999".to_owned(), 0, LEN as u64),
    ] {
        let answer = bench.ask(get(&path, &format!("Range: bytes={range}\r\n")));
        assert_eq!(answer.status, 206, "{range}");
        let content_range = format!("bytes {first}-{}/{LEN}", end - 1);
        assert_eq!(answer.field("Content-Range"), Some(content_range.as_str()));
        assert!(answer.body == object[first as usize..end as usize], "{range}");
    }
    assert_eq!((bench.stats.ranges.get(), bench.counted(Op::Get, 206)), (10, 10));
}

#[test]
fn a_range_asks_only_for_the_groups_it_touches() {
    let mut bench = Bench::new();
    let path = format!("/o/{}", bench.store(&sample(5 * GROUP_LEN)));
    let edge = GROUP_LEN;
    for (range, asked) in [
        (format!("{}-{}", 3 * edge, 3 * edge + 9), &["open Some(196608)"][..]),
        (format!("{}-{}", edge + 7, 2 * edge), &["open Some(65543)", "group 2"]),
        ("-5".to_owned(), &["open None", "group 4"]),
        (format!("{}-", 5 * edge), &["open Some(327680)"]),
    ] {
        bench.asked.clear();
        bench.ask(get(&path, &format!("Range: bytes={range}\r\n")));
        assert_eq!(bench.asked, asked, "{range}");
    }
}

#[test]
fn ranges_that_cannot_be_and_ranges_that_are_none() {
    let mut bench = Bench::new();
    let object = sample(100);
    let (own, empty) = (bench.store(&object), bench.store(b""));
    for range in ["100-", "100-200", "-0", "99999999999999999999-"] {
        let answer = bench.ask(get(format!("/o/{own}"), &format!("Range: bytes={range}\r\n")));
        assert_eq!((answer.status, answer.error().as_str()), (416, "range_not_satisfiable"));
        assert_eq!(answer.field("Content-Range"), Some("bytes */100"));
        assert_eq!(answer.field("ETag"), None);
    }
    let answer = bench.ask(get(format!("/o/{empty}"), "Range: bytes=0-\r\n"));
    assert_eq!((answer.status, answer.field("Content-Range")), (416, Some("bytes */0")));
    let long = "0".repeat(80);
    for range in ["bytes=5-4", "bytes=a-", "lines=1-2", "bytes=0-1,x", "bytes", "bytes=", &long] {
        let answer = bench.ask(get(format!("/o/{own}"), &format!("Range: {range}\r\n")));
        assert_eq!((answer.status, answer.len()), (200, 100), "{range}");
    }
    let answer = bench.ask(get(format!("/o/{empty}"), "Range: bytes=-5\r\n"));
    assert_eq!((answer.status, answer.len()), (200, 0));
    let answer = bench.ask(request("HEAD", format!("/o/{own}"), "Range: bytes=0-1\r\n"));
    assert_eq!((answer.status, answer.len()), (200, 100));
}

#[test]
fn conditions_and_if_range() {
    let mut bench = Bench::new();
    let address = bench.store(&sample(100));
    let (path, missing) = (format!("/o/{address}"), format!("/o/{}", Address::of(b"?")));
    let other = Address::of(b"?");
    let range = "Range: bytes=1-2\r\n";
    for (fields, status) in [
        (format!("If-None-Match: \"{address}\"\r\n"), 304),
        (format!("If-None-Match: \"x\", W/\"{address}\"\r\n{range}"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        (format!("If-None-Match: \"{other}\"\r\n"), 200),
        (format!("If-Match: \"{other}\"\r\n"), 412),
        (format!("If-Match: \"{other}\"\r\nIf-None-Match: \"{address}\"\r\n"), 412),
        (format!("If-Match: \"{other}\", \"{address}\"\r\n"), 200),
        ("If-Match: *\r\n".into(), 200),
        (format!("{range}If-Range: \"{address}\"\r\n"), 206),
        (format!("{range}If-Range: \"{other}\"\r\n"), 200),
        (format!("{range}If-Range: Sun, 09 Sep 2001 01:46:40 GMT\r\n"), 200),
        ("Accept-Encoding: br, zstd, *;q=0\r\n".into(), 406),
        ("Accept-Encoding: gzip\r\n".into(), 200),
    ] {
        for method in ["GET", "HEAD"] {
            let status = if method == "HEAD" && status == 206 { 200 } else { status };
            assert_eq!(bench.ask(request(method, &path, &fields)).status, status, "{fields}");
            let answer = bench.ask(request(method, &missing, &fields.replace('*', "\"*\"")));
            assert_eq!(answer.status, 404, "{fields}");
        }
    }
    assert_eq!(bench.stats.not_modified.get(), 6);
    let answer = bench.ask(get(&path, "If-None-Match: *\r\n"));
    assert_eq!(answer.field("ETag"), Some(format!("\"{address}\"").as_str()));
    assert_eq!(answer.field("Cache-Control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(answer.field("Content-Length"), None);
    assert_eq!(bench.asked.last().unwrap(), "open None");
}

#[test]
fn what_is_not_there_and_what_is_not_allowed() {
    let mut bench = Bench::new();
    let object = format!("/o/{}", bench.store(b"x"));
    for (method, path, status, code, allow) in [
        ("GET", format!("/o/{}", Address::of(b"?")), 404, "not_found", None),
        ("GET", format!("{object}/Manifest.toml"), 404, "not_found", None),
        ("GET", format!("{object}/a/b.png"), 404, "not_found", None),
        ("GET", "/".into(), 404, "not_found", None),
        ("POST", "/x".into(), 404, "not_found", None),
        ("OPTIONS", object.clone(), 405, "method_not_allowed", Some("GET, HEAD, PUT, DELETE")),
        ("POST", object.clone(), 405, "method_not_allowed", Some("GET, HEAD, PUT, DELETE")),
        ("GET", "/o/".into(), 405, "method_not_allowed", Some("PUT")),
        ("PUT", format!("{object}/x"), 405, "method_not_allowed", Some("GET, HEAD")),
        ("BREW", object.clone(), 501, "not_implemented", None),
    ] {
        let answer = bench.ask(request(method, &path, ""));
        assert_eq!((answer.status, answer.error().as_str()), (status, code), "{method} {path}");
        assert_eq!(answer.field("Allow"), allow);
        assert_eq!(answer.field("Connection"), None, "no such answer ends the connection");
    }
    assert_eq!(bench.did, []);
    assert_eq!(bench.stats.inflight.get(), 0);
}

#[test]
fn a_failure_before_the_first_byte_is_answered() {
    for (fault, status, code, retry) in [
        (Fault::Integrity, 502, "integrity", None),
        (Fault::Busy, 503, "overload", Some("1")),
        (Fault::Absent, 503, "not_ready", Some("1")),
        (Fault::Disk, 500, "internal", None),
        (Fault::Full, 507, "storage_full", None),
    ] {
        for (at, range) in [(0, ""), (1, "Range: bytes=-3\r\n")] {
            let mut bench = Bench::new();
            bench.fault = Some((at, fault));
            let path = format!("/o/{}", bench.store(&sample(100)));
            let answer = bench.ask(get(&path, range));
            assert_eq!((answer.status, answer.error().as_str()), (status, code));
            assert_eq!(answer.field("Retry-After"), retry);
            assert_eq!(bench.ask(get(&path, "")).status, 200, "the connection goes on");
            assert_eq!(bench.counted(Op::Get, status), 1);
        }
    }
}

#[test]
fn a_failure_behind_the_first_byte_cuts_the_connection() {
    let mut bench = Bench::new();
    bench.fault = Some((3, Fault::Integrity));
    let object = sample(8 * GROUP_LEN);
    let path = format!("/o/{}", bench.store(&object));
    let answer = bench.ask(get(&path, ""));
    assert_eq!((answer.status, answer.len()), (200, object.len()));
    assert!(answer.body == object[..3 * GROUP_LEN], "{} bytes", answer.body.len());
    assert_eq!(bench.did, [Did::Finish]);
    assert_eq!((bench.counted(Op::Get, 502), bench.stats.inflight.get()), (1, 0));
}

#[test]
fn what_was_queued_of_an_answer_leaves_though_its_object_is_deleted_meanwhile() {
    let mut bench = Bench::new();
    let object = sample(8 * GROUP_LEN);
    let address = bench.store(&object);
    bench.missing = Some(3);
    let answer = bench.ask(get(format!("/o/{address}"), ""));
    assert_eq!((answer.status, answer.len()), (200, object.len()));
    assert!(answer.body == object[..3 * GROUP_LEN], "{} bytes", answer.body.len());
    assert_eq!((bench.did.as_slice(), bench.counted(Op::Get, 404)), (&[Did::Finish][..], 1));
    // Before the first byte of it is queued, it is an answer like any other.
    let mut bench = Bench::new();
    let address = bench.store(&object);
    bench.missing = Some(1);
    let answer = bench.ask(get(format!("/o/{address}"), "Range: bytes=-1\r\n"));
    assert_eq!((answer.status, bench.did.len()), (404, 0));
}

#[test]
fn a_slow_reader_bounds_what_is_queued_and_asked_for() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    let object = sample(40 * GROUP_LEN + 3);
    let address = bench.store(&object);
    bench.bytes(get(format!("/o/{address}"), ""));
    const HEAD_MAX: usize = 1024;
    let mut seen = bench.out.len();
    assert!(bench.unsent > UNSENT_LEN_MAX, "the head keeps no group back");
    while bench.unsent > 0 {
        assert!(bench.unsent <= UNSENT_LEN_MAX + HEAD_MAX, "{} bytes queued", bench.unsent);
        bench.take(bench.unsent.min(50_000));
        bench.run();
        let more = bench.out.len() - seen;
        assert!([0, 3].contains(&(more % GROUP_LEN)), "{more} bytes: a group was cut");
        seen = bench.out.len();
    }
    let answers = bench.answers(&["GET"]);
    assert!(answers[0].body == object);
    assert_eq!(bench.stats.bytes_out[0].get(), bench.out.len() as u64);
}

#[test]
fn a_hit_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let text = get(format!("/o/{}", bench.store(b"x")), "");
    bench.ask(&text);
    assert_eq!(format!("{:?}", bench.session().inbox), format!("{:?}", Inbox::default()));
    assert_eq!(bench.memory.bytes(), 0);
}

#[test]
fn a_reader_that_takes_a_few_bytes_now_and_then_is_stale() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    let large = bench.store(&sample(3 * UNSENT_LEN_MAX));
    bench.bytes(get(format!("/o/{large}"), ""));
    let stale = |bench: &Bench| bench.session().stale_since(true, &bench.memory);
    let began_ns = bench.now.mono_ns;
    for _ in 0..10 {
        bench.now.mono_ns += SECOND_NS / 10;
        bench.take(100);
        assert_eq!(stale(&bench), Some(began_ns));
    }
    bench.take(READER_LEAST_LEN);
    assert_eq!(stale(&bench), Some(bench.now.mono_ns), "it moves");
    while bench.unsent > 0 {
        bench.take(bench.unsent);
        bench.run();
    }
    assert_eq!(stale(&bench), None, "nothing is held for it");
}

/// So many want something that only what is needed next finds a place: it is asked for one
/// after the other, each once more when it is its turn, and nothing is cut.
#[test]
fn a_group_that_found_no_place_ahead_of_its_turn_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.crowded = true;
    let data = sample(7 * GROUP_LEN);
    let address = bench.store(&data);
    let answer = bench.ask(get(format!("/o/{address}"), ""));
    assert_eq!(answer.status, 200);
    assert!(answer.body == data);
    let times = |index: u64| {
        let group = format!("group {index}");
        bench.asked.iter().filter(|asked| **asked == group).count()
    };
    assert_eq!([1, 2, 3, 4, 5, 6].map(times), [1, 2, 2, 2, 2, 2], "{:?}", bench.asked);
}
