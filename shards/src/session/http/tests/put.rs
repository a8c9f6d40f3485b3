//! PUT: what is taken, from whom, and what becomes of the rest.

use super::*;

fn put(path: impl std::fmt::Display, body: &[u8]) -> Vec<u8> {
    let head = request("PUT", path, &format!("Content-Length: {}\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

fn chunked(path: impl std::fmt::Display, body: &[u8], chunk: usize) -> Vec<u8> {
    let mut text = request("PUT", path, "Transfer-Encoding: chunked\r\n").into_bytes();
    for part in body.chunks(chunk) {
        text.extend_from_slice(format!("{:x};n=v\r\n", part.len()).as_bytes());
        text.extend_from_slice(part);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
    text
}

fn json(answer: &Answer) -> (String, u64) {
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 2);
    (json["addr"].as_str().unwrap().into(), json["size"].as_u64().unwrap())
}

#[test]
fn an_object_is_stored_once_and_found_again() {
    for len in [0, 1, GROUP_LEN - 1, GROUP_LEN, GROUP_LEN + 1, 1024 * 1024] {
        let mut bench = Bench::new();
        let object = sample(len);
        let address = Address::of(&object).to_string();
        for (path, status) in [(format!("/o/{address}"), 201), ("/o/".into(), 200)] {
            let answer = bench.ask(put(&path, &object));
            assert_eq!((answer.status, json(&answer)), (status, (address.clone(), len as u64)));
            let location = (path == "/o/").then(|| format!("/o/{address}"));
            assert_eq!(answer.field("Location"), location.as_deref());
            assert_eq!(bench.counted(Op::Put, status), 1);
        }
        assert!(bench.ask(get(format!("/o/{address}"), "")).body == object);
        assert_eq!((bench.did.len(), bench.stats.inflight.get()), (0, 0));
    }
}

#[test]
fn an_object_larger_than_a_segment_takes_goes_by_the_disk() {
    let mut bench = Bench::new();
    let object = sample(5 * 1024 * 1024 + 321);
    let answer = bench.ask(put("/o/", &object));
    let address = Address::of(&object).to_string();
    assert_eq!((answer.status, json(&answer)), (201, (address, object.len() as u64)));
}

#[test]
fn chunks_are_put_together() {
    for chunk in [1, 7, 1000, GROUP_LEN] {
        let mut bench = Bench::new();
        let object = sample(3000);
        let mut text = chunked("/o/", &object, chunk);
        text.extend_from_slice(get(format!("/o/{}", Address::of(&object)), "").as_bytes());
        bench.bytes(text);
        let answers = bench.answers(&["PUT", "GET"]);
        assert_eq!((answers[0].status, answers[1].status), (201, 200));
        assert!(answers[1].body == object);
    }
}

#[test]
fn a_body_that_is_another_object_is_not_kept_and_the_connection_goes_on() {
    let mut bench = Bench::new();
    let path = format!("/o/{}", Address::of(b"right"));
    let answer = bench.ask(put(&path, b"wrong"));
    assert_eq!((answer.status, answer.error().as_str()), (400, "bad_digest"));
    assert_eq!((bench.asked.len(), bench.did.len()), (0, 0));
    assert_eq!(bench.ask(get(format!("/o/{}", Address::of(b"wrong")), "")).status, 404);
    assert_eq!(bench.ask(put(&path, b"right")).status, 201);
}

#[test]
fn a_client_that_waits_is_told_to_go_on_or_not_to() {
    let expect = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    let mut bench = Bench::new();
    bench.bytes(request("PUT", "/o/", expect));
    assert_eq!(bench.out, b"HTTP/1.1 100 Continue\r\n\r\n");
    bench.bytes("hello");
    let answers = bench.answers(&["PUT"]);
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [100, 201]);

    for (peer, path, fields, status) in [
        ("192.0.2.1", "/o/", expect, 403),
        ("127.0.0.1", "/x", expect, 404),
        ("127.0.0.1", "/o/", "Content-Length: 6291457\r\nExpect: 100-continue\r\n", 413),
    ] {
        let mut bench = Bench::from(peer, false);
        let answer = bench.ask(request("PUT", path, fields));
        assert_eq!((answer.status, answer.field("Connection")), (status, Some("close")));
        assert_eq!(bench.did, [Did::Finish]);
    }
}

#[test]
fn who_may_write_and_what_the_others_are_told() {
    for (peer, auth, status) in [
        ("127.0.0.1", "", 401),
        ("127.0.0.1", "Authorization: Bearer no\r\n", 401),
        ("::1", "Authorization: Bearer yes\r\n", 201),
        ("192.0.2.1", "", 401),
        ("192.0.2.1", "Authorization: Bearer no\r\n", 401),
        ("2001:db8::1", "Authorization: Bearer yes\r\n", 201),
    ] {
        let mut config = config();
        config.authority = Authority::new(&["yes".into()], true, &[]);
        let mut bench = Bench::with(config, peer, false);
        let text = request("PUT", "/o/", &format!("Content-Length: 3\r\n{auth}")) + "abc";
        let answer = bench.ask(text);
        assert_eq!(answer.status, status, "{peer} {auth}");
        let challenge = (status == 401).then_some("Bearer");
        assert_eq!(answer.field("WWW-Authenticate"), challenge);
        assert_eq!(bench.ask(get("/", "")).status, 404, "the body was passed over");
    }
}

#[test]
fn without_tokens_only_this_machine_may_write() {
    for (peer, fields, status) in [
        ("127.0.0.1", "", 201),
        ("::1", "", 201),
        ("::ffff:127.9.9.9", "Sec-Fetch-Site: none\r\n", 201),
        ("127.0.0.1", "Authorization: Bearer no\r\n", 401),
        ("127.0.0.1", "Via: 1.1 proxy\r\n", 403),
        ("127.0.0.1", "Origin: http://localhost\r\n", 403),
        ("192.0.2.1", "", 403),
    ] {
        let mut bench = Bench::from(peer, false);
        let fields = format!("Content-Length: 3\r\n{fields}");
        let answer = bench.ask(request("PUT", "/o/", &fields) + "abc");
        assert_eq!(answer.status, status, "{peer} {fields}");
        let challenge = (status == 401).then_some("Bearer");
        assert_eq!(answer.field("WWW-Authenticate"), challenge);
        assert_eq!(bench.objects.len(), usize::from(status == 201));
    }
}

#[test]
fn an_object_may_be_as_long_as_configured_and_no_longer() {
    let mut config = config();
    config.object_len_max = 1000;
    for (len, status) in [(999, 201), (1000, 201), (1001, 413)] {
        let mut bench = Bench::with(config.clone(), "127.0.0.1", false);
        let answer = bench.ask(put("/o/", &sample(len)));
        assert_eq!(answer.status, status, "{len}");
        assert_eq!((bench.did.len(), bench.stats.oversize.get()), (0, u64::from(status == 413)));
        let mut bench = Bench::with(config.clone(), "127.0.0.1", false);
        let answer = bench.ask(chunked("/o/", &sample(len), 100));
        assert_eq!(answer.status, status, "{len} in chunks");
        assert_eq!(bench.did, if status == 413 { vec![Did::Finish] } else { vec![] });
        if status == 413 {
            assert_eq!(answer.error(), "too_large");
        }
    }
}

#[test]
fn a_body_that_ends_early_is_an_error() {
    for (fields, body) in [
        ("Content-Length: 6\r\n", "hello"),
        ("Content-Length: 6\r\n", ""),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\n"),
    ] {
        let mut bench = Bench::new();
        bench.bytes(request("PUT", "/o/", fields) + body);
        bench.eof();
        let answers = bench.answers(&["PUT"]);
        assert_eq!((answers[0].status, answers[0].error().as_str()), (400, "bad_request"));
        assert_eq!(bench.did, [Did::Finish, Did::Abort]);
        assert_eq!((bench.asked.len(), bench.stats.inflight.get()), (0, 0));
    }
}

#[test]
fn malformed_chunks_are_an_error_that_ends_the_connection() {
    for body in ["x", "5\r\nhelloX", "5\nhello", "ffffffffffffffffff\r\n", "0\r\nbad\n"] {
        let mut bench = Bench::new();
        let text = request("PUT", "/o/", "Transfer-Encoding: chunked\r\n") + body;
        let answer = bench.ask(text);
        assert_eq!((answer.status, answer.field("Connection")), (400, Some("close")), "{body}");
        assert_eq!(bench.did, [Did::Finish]);
        assert_eq!(bench.stats.rejected(Rejected::Protocol), 1);
    }
}

#[test]
fn a_store_that_cannot_says_why() {
    for (fault, status, code) in [
        (Fault::Full, 507, "storage_full"),
        (Fault::Busy, 503, "overload"),
        (Fault::Disk, 500, "internal"),
    ] {
        let mut bench = Bench::new();
        bench.fault = Some((0, fault));
        let answer = bench.ask(put("/o/", b"hello"));
        assert_eq!((answer.status, answer.error().as_str()), (status, code));
        assert_eq!(bench.ask(put("/o/", b"hello")).status, 201);
    }
}

#[test]
fn a_disk_that_is_behind_pauses_the_peer_and_not_its_clock() {
    let mut bench = Bench::new();
    bench.hold_disk = true;
    let object = sample(5 * 1024 * 1024);
    let text = put("/o/", &object);
    let mut pieces = text.chunks(16 * 1024);
    while bench.did.is_empty() {
        bench.bytes(pieces.next().expect("the disk is never behind"));
    }
    assert_eq!(bench.did, [Did::Pause]);
    assert!(bench.session().inbox.len() <= 16 * 1024);
    bench.now.mono_ns += 10 * bench.config.deadlines.body_ns;
    bench.tell(|session, cx| session.on_deadline(cx));
    assert_eq!(bench.out.len(), 0, "nobody was late");
    bench.hold_disk = false;
    bench.run();
    assert_eq!(bench.did, [Did::Pause, Did::Resume]);
    bench.tell(|session, cx| session.on_deadline(cx));
    pieces.for_each(|piece| bench.bytes(piece));
    assert_eq!(bench.answers(&["PUT"])[0].status, 201);
}

#[test]
fn requests_behind_a_body_wait_for_its_answer() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let object = sample(70_000);
    let path = format!("/o/{}", Address::of(&object));
    let mut text = put(&path, &object);
    text.extend_from_slice(get(&path, "").as_bytes());
    bench.bytes(text);
    assert_eq!(bench.out.len(), 0);
    bench.hold_asks = false;
    bench.run();
    let answers = bench.answers(&["PUT", "GET"]);
    assert_eq!((answers[0].status, answers[1].body == object), (201, true));
}

#[test]
fn a_connection_that_is_lost_drops_its_upload() {
    for len in [100, 3 * 1024 * 1024] {
        let mut bench = Bench::new();
        bench.bytes(request("PUT", "/o/", "Content-Length: 4000000\r\n"));
        bench.bytes(sample(len));
        bench.tell(|session, cx| session.on_closed(cx));
        assert_eq!((bench.stats.inflight.get(), bench.counted(Op::Put, 0)), (0, 1));
        assert_eq!((bench.asked.len(), bench.tickets.in_progress()), (0, 0));
        assert_eq!(bench.files.len(), 0);
    }
}

#[test]
fn an_upload_that_is_refused_half_way_leaves_no_file() {
    const CHUNK: usize = 2 * 1024 * 1024;
    let mut bench = Bench::new();
    bench.bytes(request("PUT", "/o/", "Transfer-Encoding: chunked\r\n"));
    bench.bytes(format!("{CHUNK:x}\r\n"));
    sample(CHUNK).chunks(16 * 1024).for_each(|piece| bench.bytes(piece));
    assert_eq!((bench.files.len(), bench.out.len()), (1, 0));
    bench.bytes("\r\nx");
    assert_eq!(bench.answers(&["PUT"])[0].status, 400);
    assert_eq!((bench.files.len(), bench.tickets.in_progress()), (0, 0));
}

#[test]
fn a_chunk_that_is_too_long_is_refused_before_it_comes() {
    let mut config = config();
    config.object_len_max = 1000;
    for (body, status) in [
        ("ffffffffffffffff\r\n".to_owned(), 413),
        ("3e9\r\n".to_owned(), 413),
        (format!("3e8\r\n{}\r\n1\r\n", "x".repeat(1000)), 413),
        ("1\r\nx\r\nffffffffffffffff\r\n".to_owned(), 413),
        (format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000)), 201),
    ] {
        let mut bench = Bench::with(config.clone(), "127.0.0.1", false);
        bench.bytes(request("PUT", "/o/", "Transfer-Encoding: chunked\r\n") + &body);
        let answers = bench.answers(&["PUT"]);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [status]);
    }
}

#[test]
fn a_body_that_is_another_object_is_told_what_it_is() {
    let mut bench = Bench::new();
    let (right, wrong) = (Address::of(b"right"), Address::of(b"wrong"));
    let answer = bench.ask(put(format!("/o/{right}"), b"wrong"));
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json["message"], format!("body hashes to {wrong}, expected {right}"));
}

#[test]
fn a_condition_is_judged_before_the_body_comes() {
    // RFC 9110 §13.1
    let address = Address::of(b"hello");
    let path = format!("/o/{address}");
    let other = format!("If-Match: \"{}\"\r\n", Address::of(b"x"));
    for (there, condition, status) in [
        (false, "If-None-Match: *\r\n", 201),
        (true, "If-None-Match: *\r\n", 412),
        (false, "If-Match: *\r\n", 412),
        (true, "If-Match: *\r\n", 200),
        (true, &other, 412),
        (false, &other, 412),
    ] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let mut bench = Bench::new();
            if there {
                bench.store(b"hello");
            }
            let fields = format!("Content-Length: 5\r\n{condition}{expect}");
            bench.bytes(request("PUT", &path, &fields));
            let invited = !expect.is_empty() && status < 300;
            assert_eq!(bench.out.starts_with(b"HTTP/1.1 100"), invited, "{there} {fields}");
            if expect.is_empty() || invited {
                bench.bytes("hello");
            }
            let answers = bench.answers(&["PUT"]);
            assert_eq!(
                answers.last().map(|answer| answer.status),
                Some(status),
                "{there} {fields}"
            );
            assert_eq!(bench.objects.len(), usize::from(there || status == 201));
        }
    }
}

#[test]
fn a_refusal_before_the_body_was_invited_ends_the_connection() {
    // RFC 9110 §10.1.1: whether the body comes is not known, so neither is where a request starts.
    let expect = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    let path = format!("/o/{}", Address::of(b"hello"));
    for (there, fault, condition, status) in [
        (true, None, "If-None-Match: *\r\n", 412),
        (false, None, "If-Match: *\r\n", 412),
        (true, Some((0, Fault::Busy)), "If-Match: *\r\n", 503),
        (true, Some((0, Fault::Disk)), "If-Match: *\r\n", 500),
    ] {
        let mut bench = Bench::new();
        if there {
            bench.store(b"hello");
        }
        bench.fault = fault;
        let answer = bench.ask(request("PUT", &path, &format!("{expect}{condition}")));
        assert_eq!((answer.status, answer.field("Connection")), (status, Some("close")));
        assert_eq!((&bench.did[..], bench.session().skip), (&[Did::Finish][..], 0));
    }
    // The question is never answered.
    let mut config = config();
    config.deadlines.stream_ns = 40 * SECOND_NS;
    let mut bench = Bench::with(config, "127.0.0.1", false);
    bench.hold_asks = true;
    bench.bytes(request("PUT", &path, &format!("{expect}If-Match: *\r\n")));
    bench.run_out(40 * SECOND_NS);
    let answer = bench.answers(&["PUT"]).remove(0);
    assert_eq!((answer.status, answer.field("Connection")), (408, Some("close")));
    // A client that does not wait sends its body in any case: it is passed over.
    let mut bench = Bench::new();
    let fields = "Content-Length: 5\r\nIf-Match: *\r\n";
    bench.bytes(request("PUT", &path, fields) + "hello" + &get("/", ""));
    let statuses: Vec<u16> =
        bench.answers(&["PUT", "GET"]).iter().map(|answer| answer.status).collect();
    assert_eq!((statuses, &bench.did[..]), (vec![412, 404], &[Did::Pause, Did::Resume][..]));
}

#[test]
fn a_condition_on_the_empty_object_is_answered_at_once() {
    let path = format!("/o/{}", Address::of(b""));
    for (there, condition, status) in [
        (false, "If-None-Match: *\r\n", 201),
        (true, "If-None-Match: *\r\n", 412),
        (false, "If-Match: *\r\n", 412),
        (true, "If-Match: *\r\n", 200),
    ] {
        for body in ["", "Content-Length: 0\r\n"] {
            let mut bench = Bench::new();
            if there {
                bench.store(b"");
            }
            bench.bytes(request("PUT", &path, &format!("{body}{condition}")));
            bench.bytes(get("/", ""));
            let statuses: Vec<u16> =
                bench.answers(&["PUT", "GET"]).iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, [status, 404], "{there} {body}{condition}");
            assert_eq!(bench.objects.len(), usize::from(there || status == 201));
        }
    }
    // Nothing is missing of it when the client ends its side while the store is asked.
    let mut bench = Bench::new();
    bench.hold_asks = true;
    bench.bytes(request("PUT", &path, "If-None-Match: *\r\n"));
    bench.eof();
    bench.hold_asks = false;
    bench.run();
    assert_eq!(bench.answers(&["PUT"])[0].status, 201);
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn a_body_that_comes_with_its_head_waits_for_the_condition() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let path = format!("/o/{}", Address::of(b"hello"));
    bench.bytes(request("PUT", &path, "Content-Length: 5\r\nIf-None-Match: *\r\n") + "hello");
    assert_eq!((bench.out.len(), bench.asks.len()), (0, 1));
    // Somebody else stores it between the question and the end.
    let (id, _) = bench.asks.pop_front().unwrap();
    bench.store(b"hello");
    bench.cx(|session, cx| session.unwrap().on_reply(id.stream, Reply::Missing, cx));
    bench.hold_asks = false;
    bench.run();
    let answer = &bench.answers(&["PUT"])[0];
    assert_eq!((answer.status, answer.error().as_str()), (412, "precondition_failed"));
    assert_eq!(bench.asked, ["put 5"]);

    let mut bench = Bench::new();
    bench.fault = Some((0, Fault::Busy));
    let fields = "Content-Length: 5\r\nIf-None-Match: *\r\n";
    assert_eq!(bench.ask(request("PUT", &path, fields) + "hello").status, 503);
}

#[test]
fn an_object_that_goes_while_it_comes_again_is_not_stored_under_a_condition() {
    for (len, gone) in [(5, true), (5, false), (2 * 1024 * 1024, true), (2 * 1024 * 1024, false)] {
        let mut bench = Bench::new();
        let object = sample(len);
        let address = bench.store(&object);
        let fields = format!("Content-Length: {len}\r\nIf-Match: *\r\n");
        bench.bytes(request("PUT", format!("/o/{address}"), &fields));
        let (start, end) = object.split_at(len - 1);
        start.chunks(16 * 1024).for_each(|piece| bench.bytes(piece));
        assert_eq!(bench.out.len(), 0);
        if gone {
            bench.objects.clear();
        }
        bench.bytes(end);
        bench.bytes(get("/", ""));
        let statuses: Vec<u16> =
            bench.answers(&["PUT", "GET"]).iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [if gone { 412 } else { 200 }, 404], "{len} {:?}", bench.asked);
        assert_eq!((bench.objects.len(), bench.files.len()), (usize::from(!gone), 0));
        assert_eq!((bench.did.len(), bench.stats.inflight.get()), (0, 0));
    }
}

/// The upload's own question, and that of its condition, are asked one after the other.
#[test]
fn a_condition_waits_for_the_question_of_its_upload() {
    let mut bench = Bench::new();
    let object = sample(2 * 1024 * 1024);
    let address = bench.store(&object);
    let fields = format!("Content-Length: {}\r\nIf-Match: *\r\n", object.len());
    bench.bytes(request("PUT", format!("/o/{address}"), &fields));
    bench.hold_asks = true;
    object.chunks(16 * 1024).for_each(|piece| bench.bytes(piece));
    assert_eq!((bench.asks.len(), bench.out.len()), (1, 0));
    bench.hold_asks = false;
    bench.run();
    assert_eq!(bench.answers(&["PUT"])[0].status, 200);
    assert_eq!(bench.asked, ["open None", "whole", "open None", "whole"]);
}

#[test]
fn a_part_of_an_object_is_refused() {
    // RFC 9110 §14.5
    let mut bench = Bench::new();
    for path in ["/o/".to_owned(), format!("/o/{}", Address::of(b"hello"))] {
        let fields = "Content-Length: 5\r\nContent-Range: bytes 0-4/10\r\n";
        let answer = bench.ask(request("PUT", &path, fields) + "hello");
        assert_eq!((answer.status, answer.error().as_str()), (400, "bad_request"));
    }
    assert_eq!(bench.asked.len(), 0);
}

#[test]
fn what_curl_makes_of_a_file_name_is_explained() {
    let mut bench = Bench::new();
    let answer = bench.ask(request("PUT", "/o/hello.txt", "Content-Length: 1\r\n") + "x");
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let message = json["message"].as_str().unwrap();
    assert!(
        answer.status == 400 && message.contains("curl -T") && message.len() < 200,
        "{message}"
    );
}

#[test]
fn answers_in_json_end_their_line() {
    let mut bench = Bench::new();
    for answer in [bench.ask(put("/o/", b"x")), bench.ask(get("/", ""))] {
        assert!(answer.body.ends_with(b"}\n"), "{answer:?}");
        assert_eq!(answer.body.len(), answer.len());
    }
}

#[test]
fn the_methods_of_the_node_are_told() {
    // RFC 9110 §9.3.7
    let mut bench = Bench::new();
    let answer = bench.ask(request("OPTIONS", "*", ""));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.field("Allow"), Some("GET, HEAD, PUT, DELETE, OPTIONS"));
    assert_eq!(bench.ask(get("/", "")).status, 404, "the connection goes on");
}
