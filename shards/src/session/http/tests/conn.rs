//! The connection around the requests: order, limits, the end.

use super::*;
use crate::limits::{
    LINGER_LEAST_NS, TIGHT_PIPELINE_LEN_MAX, TIGHT_SHORT_LEN_MAX, UNSENT_LEN_MAX,
    UNSENT_SHORT_LEN_MAX,
};

#[test]
fn fifty_requests_in_one_buffer_are_answered_in_order() {
    let mut bench = Bench::new();
    let objects: Vec<Vec<u8>> = (0..50).map(|n| sample(n * 1999)).collect();
    let requests: String =
        objects.iter().map(|object| get(format!("/o/{}", Address::of(object)), "")).collect();
    for object in &objects {
        bench.store(object);
    }
    bench.bytes(requests);
    let answers = bench.answers(&["GET"; 50]);
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().zip(&objects).all(|(answer, object)| answer.body == *object));
    assert_eq!(bench.counted(Op::Get, 200), 50);
}

#[test]
fn a_client_that_sends_far_ahead_is_paused() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let address = bench.store(b"x");
    let request = get(format!("/o/{address}"), "");
    let mut sent = 0;
    while bench.did.is_empty() {
        bench.bytes(&request);
        sent += 1;
        assert!(bench.session().inbox.len() < PIPELINE_LEN_MAX + request.len());
    }
    assert_eq!(bench.did, [Did::Pause]);
    assert!(bench.session().inbox.len() >= PIPELINE_LEN_MAX);
    bench.hold_asks = false;
    bench.run();
    assert_eq!(bench.did, [Did::Pause, Did::Resume]);
    assert_eq!(bench.answers(&[]).len(), sent);
}

#[test]
fn a_client_that_reads_no_answers_gets_no_more() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    let request = get("/nothing", "");
    let mut sent = 0;
    while bench.did.is_empty() {
        bench.bytes(request.repeat(10));
        sent += 10;
        assert!(bench.unsent < UNSENT_SHORT_LEN_MAX + 1024);
    }
    assert_eq!(bench.did, [Did::Pause]);
    bench.eof();
    assert!(bench.answers(&[]).len() < sent);
    assert_eq!(bench.did, [Did::Pause]);
    bench.hold_sends = false;
    bench.run();
    assert_eq!(bench.answers(&[]).len(), sent);
    assert_eq!(bench.did, [Did::Pause, Did::Resume, Did::Finish, Did::Abort]);
}

#[test]
fn short_answers_are_not_queued_far_ahead() {
    for tls in [false, true] {
        let mut bench = Bench::from("127.0.0.1", tls);
        bench.tell(|session, cx| session.on_secured(cx));
        bench.hold_sends = true;
        let address = bench.store(&sample(4096));
        let request = get(format!("/o/{address}"), "");
        while bench.did.is_empty() {
            bench.bytes(&request);
            let session = bench.session();
            assert!(session.wire.unsent() < UNSENT_SHORT_LEN_MAX + 4096 + 512);
            // What is counted is what is kept.
            assert!(session.held() >= session.wire.unsent() + session.inbox.len());
            assert!(session.held() <= 2 * (UNSENT_SHORT_LEN_MAX + PIPELINE_LEN_MAX));
        }
        bench.hold_sends = false;
        bench.run();
        assert_eq!((bench.session().held(), &bench.did[..]), (0, &[Did::Pause, Did::Resume][..]));
    }
}

#[test]
fn while_memory_is_tight_little_is_queued_and_little_waits() {
    let mut bench = Bench::from("127.0.0.1", true);
    bench.tell(|session, cx| session.on_secured(cx));
    bench.hold_sends = true;
    let tight = bench.config.connection_buffers as u64 / 2 + 1;
    bench.stats.connection_buffer_bytes.set(tight);
    let large = bench.store(&sample(3 * UNSENT_LEN_MAX));
    bench.bytes(get(format!("/o/{large}"), ""));
    assert!(bench.unsent < GROUP_LEN + 1024, "{} bytes are queued", bench.unsent);
    while bench.did.is_empty() {
        bench.bytes(get("/", ""));
        assert!(bench.session().inbox.len() < TIGHT_PIPELINE_LEN_MAX + 64);
    }
    // A client that reads gets all of it, a group at a time.
    bench.hold_sends = false;
    bench.run();
    assert_eq!(bench.answers(&[])[0].body.len(), 3 * UNSENT_LEN_MAX);
    assert_eq!(bench.did, [Did::Pause, Did::Resume]);

    let mut bench = Bench::new();
    bench.hold_sends = true;
    bench.stats.connection_buffer_bytes.set(tight);
    bench.bytes(get("/", "").repeat(400));
    assert!(bench.unsent < TIGHT_SHORT_LEN_MAX + 1024, "{} bytes are queued", bench.unsent);
    bench.hold_sends = false;
    bench.run();
    assert_eq!(bench.answers(&[]).len(), 400);
}

#[test]
fn a_head_is_finished_however_tight_memory_is() {
    let mut bench = Bench::new();
    bench.stats.connection_buffer_bytes.set(bench.config.connection_buffers as u64);
    let long = format!("X: {}\r\n", "x".repeat(10_000));
    let request = get("/", &long);
    let (start, end) = request.split_at(9_000);
    bench.bytes(start);
    bench.bytes(end);
    assert_eq!((bench.answers(&[])[0].status, bench.did.len()), (404, 0));
}

#[test]
fn a_connection_that_is_shed_keeps_nothing() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    let address = bench.store(&sample(4096));
    bench.bytes(get(format!("/o/{address}"), "").repeat(100));
    assert!(bench.session().held() > 0);
    bench.tell(|session, cx| session.shed(cx));
    assert_eq!((bench.session().held(), bench.session().deadline()), (0, None));
    assert_eq!(bench.did.last(), Some(&Did::Abort));
    assert_eq!(bench.stats.inflight.get(), 0);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let mut bench = Bench::new();
    bench.tell(|session, cx| session.turn_away(cx));
    let answer = &bench.answers(&[])[0];
    assert_eq!((answer.status, answer.error().as_str()), (503, "overload"));
    assert_eq!(answer.field("Connection"), Some("close"));
    assert_eq!(answer.field("Retry-After"), Some("1"));
    assert_eq!(bench.did, [Did::Finish]);
    bench.bytes(get("/", ""));
    bench.eof();
    assert_eq!((bench.answers(&[]).len(), bench.stats.inflight.get()), (1, 0));
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn who_may_use_the_connection_again() {
    for (line, fields, kept, header) in [
        ("HTTP/1.1", "Host: h\r\n", true, None),
        ("HTTP/1.1", "Host: h\r\nConnection: close\r\n", false, Some("close")),
        ("HTTP/1.1", "Host: h\r\nConnection: x, Close\r\n", false, Some("close")),
        ("HTTP/1.0", "", false, None),
        ("HTTP/1.0", "Connection: keep-alive\r\n", true, Some("keep-alive")),
    ] {
        let mut bench = Bench::new();
        let address = bench.store(b"x");
        let answer = bench.ask(format!("GET /o/{address} {line}\r\n{fields}\r\n"));
        assert_eq!((answer.status, answer.field("Connection")), (200, header), "{fields}");
        assert_eq!(bench.did, if kept { vec![] } else { vec![Did::Finish] }, "{line} {fields}");
    }
}

#[test]
fn after_its_last_answer_a_connection_lingers_until_the_peer_ends_it() {
    let mut bench = Bench::new();
    let request = get("/", "Connection: close\r\n");
    bench.bytes(request.clone() + &request);
    bench.bytes(&request);
    assert_eq!((bench.answers(&[]).len(), &bench.did[..]), (1, &[Did::Finish][..]));
    bench.eof();
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
    bench.bytes(&request);
    bench.tell(|session, cx| session.on_closed(cx));
    assert_eq!((bench.answers(&[]).len(), bench.did.len()), (1, 2));
}

#[test]
fn what_is_discarded_is_bounded() {
    let mut bench = Bench::new();
    bench.bytes("\0");
    assert_eq!(bench.did, [Did::Finish]);
    bench.bytes(vec![0; 2 * LINGER_LEN_MAX]);
    assert_eq!(bench.did, [Did::Finish], "the answer has not arrived yet");
    bench.now.mono_ns += LINGER_LEAST_NS - 1;
    bench.bytes("\0");
    assert_eq!(bench.did, [Did::Finish]);
    bench.now.mono_ns += 1;
    bench.bytes("\0");
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
    let mut bench = Bench::new();
    bench.bytes("\0");
    bench.now.mono_ns += LINGER_LEAST_NS;
    bench.bytes(vec![0; LINGER_LEN_MAX - 1]);
    assert_eq!(bench.did, [Did::Finish]);
    bench.bytes("\0");
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn an_answer_leaves_first_whatever_the_peer_goes_on_sending() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    let len = 16 * LINGER_LEN_MAX;
    bench.bytes(request("PUT", "/o/zz", &format!("Content-Length: {len}\r\n")));
    for _ in 0..32 {
        bench.bytes(vec![0; LINGER_LEN_MAX / 2]);
        bench.now.mono_ns += SECOND_NS;
    }
    assert_eq!(bench.did, [Did::Finish]);
    bench.hold_sends = false;
    bench.run();
    assert_eq!(bench.answers(&["PUT"])[0].status, 400);
    bench.bytes("\0");
    assert_eq!(bench.did, [Did::Finish], "it has not arrived yet");
    // A peer that takes nothing of it is late.
    let mut bench = Bench::new();
    bench.hold_sends = true;
    bench.bytes(request("PUT", "/o/zz", &format!("Content-Length: {len}\r\n")));
    let send = bench.config.deadlines.send_ns;
    bench.now.mono_ns += send - 1;
    bench.bytes("\0");
    bench.run_out(1);
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn an_answer_that_is_not_sent_yet_is_not_dropped() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    bench.bytes(get("/", "Connection: close\r\n"));
    bench.eof();
    assert_eq!(bench.did, [Did::Finish]);
    bench.take(1);
    bench.run();
    assert_eq!(bench.did, [Did::Finish]);
    bench.hold_sends = false;
    bench.run();
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answers() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let address = bench.store(&sample(300_000));
    let request = get(format!("/o/{address}"), "");
    bench.bytes(request.clone() + &request + "GET /o");
    bench.eof();
    assert_eq!((bench.out.len(), bench.did.len()), (0, 0));
    bench.hold_asks = false;
    bench.run();
    let answers = bench.answers(&[]);
    assert_eq!(answers.iter().map(|answer| answer.body.len()).collect::<Vec<_>>(), [300_000; 2]);
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn an_end_between_requests_or_within_a_head_is_silent() {
    for start in ["", "GET /o", "\r\n"] {
        let mut bench = Bench::new();
        bench.bytes(start);
        bench.eof();
        assert_eq!((bench.out.len(), &bench.did[..]), (0, &[Did::Finish, Did::Abort][..]));
    }
}

#[test]
fn draining_ends_idle_connections_at_once_and_busy_ones_after_their_answer() {
    let mut idle = Bench::new();
    idle.drain();
    assert_eq!(idle.did, [Did::Finish, Did::Abort]);

    let mut busy = Bench::new();
    busy.hold_asks = true;
    let address = busy.store(b"x");
    busy.bytes(get(format!("/o/{address}"), ""));
    busy.drain();
    assert_eq!(busy.did, []);
    busy.hold_asks = false;
    busy.run();
    assert_eq!(busy.answers(&[])[0].field("Connection"), Some("close"));
    assert_eq!(busy.did, [Did::Finish]);

    let mut begun = Bench::new();
    begun.hold_sends = true;
    let address = begun.store(&sample(2 * UNSENT_LEN_MAX));
    begun.bytes(get(format!("/o/{address}"), ""));
    begun.drain();
    begun.hold_sends = false;
    begun.run();
    assert_eq!(begun.answers(&[])[0].body.len(), 2 * UNSENT_LEN_MAX);
    assert_eq!(begun.did, [Did::Finish]);

    let mut within = Bench::new();
    within.bytes("GET / HTTP/1.1\r\n");
    within.drain();
    assert_eq!(within.did, []);
    within.bytes("Host: h\r\n\r\n");
    assert_eq!(within.answers(&[])[0].field("Connection"), Some("close"));
    assert_eq!(within.did, [Did::Finish]);
}

#[test]
fn hostile_heads_are_answered_once_and_end_the_connection() {
    let long = "x".repeat(20_000);
    for (text, status, code) in [
        ("\x16\x03\x01".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), 400, "bad_request"),
        (request("PUT", "/o/", "Content-Length: 1\r\nContent-Length: 2\r\n"), 400, "bad_request"),
        (
            request("PUT", "/o/", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            400,
            "bad_request",
        ),
        (request("PUT", "/o/", "Content-Length: -1\r\n"), 400, "bad_request"),
        (request("PUT", "/o/", "Transfer-Encoding: gzip, chunked\r\n"), 501, "not_implemented"),
        (request("PUT", "/o/", "Expect: 200-ok\r\n"), 417, "expectation_failed"),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n".into(), 400, "bad_request"),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".into(), 505, "version_not_supported"),
        (get(format!("/{long}"), ""), 414, "target_too_long"),
        (get("/", &format!("X: {long}\r\n")), 431, "head_too_large"),
        (get("/", &"A: b\r\n".repeat(65)), 431, "head_too_large"),
    ] {
        let mut bench = Bench::new();
        bench.bytes(text.clone() + &get("/", ""));
        let answers = bench.answers(&[]);
        assert_eq!(answers.len(), 1, "{text:?}");
        assert_eq!((answers[0].status, answers[0].error().as_str()), (status, code), "{text:?}");
        assert_eq!(answers[0].field("Connection"), Some("close"));
        assert_eq!(bench.did, [Did::Finish]);
        assert_eq!(bench.stats.rejected(Rejected::Protocol), 1);
        assert_eq!((bench.stats.inflight.get(), bench.counted(Op::Other, status)), (0, 1));
    }
}

#[test]
fn bodies_that_nobody_asked_for_are_passed_over_or_end_the_connection() {
    let mut bench = Bench::new();
    let path = format!("/o/{}", bench.store(b"x"));
    let next = get(&path, "Range: bytes=0-0\r\n");
    let statuses = |bench: &Bench| -> Vec<u16> {
        bench.answers(&[]).iter().map(|answer| answer.status).collect()
    };
    bench.bytes(get(&path, "Content-Length: 200000\r\n"));
    for _ in 0..20 {
        bench.bytes(vec![b'G'; 10_000]);
    }
    bench.bytes(&next);
    assert_eq!((statuses(&bench), bench.did.len()), (vec![200, 206], 0));
    bench.bytes(request("POST", &path, "Content-Length: 3\r\n") + "GET" + &next);
    assert_eq!((statuses(&bench), bench.did.len()), (vec![200, 206, 405, 206], 0));
    for fields in [
        format!("Content-Length: {}\r\n", LINGER_LEN_MAX + 1),
        "Transfer-Encoding: chunked\r\n".into(),
        "Content-Length: 3\r\nExpect: 100-continue\r\n".into(),
    ] {
        let mut bench = Bench::new();
        bench.store(b"x");
        bench.bytes(get(&path, &fields) + &next);
        let answers = bench.answers(&[]);
        assert_eq!((answers.len(), answers[0].status), (1, 200), "{fields}");
        assert_eq!(answers[0].field("Connection"), Some("close"));
        assert_eq!(bench.did, [Did::Finish]);
    }
}

#[test]
fn a_connection_that_is_gone_leaves_nothing_in_progress() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let address = bench.store(b"x");
    bench.bytes(get(format!("/o/{address}"), ""));
    assert_eq!(bench.stats.inflight.get(), 1);
    bench.tell(|session, cx| session.on_closed(cx));
    assert_eq!((bench.stats.inflight.get(), bench.counted(Op::Get, 0)), (0, 1));
    bench.hold_asks = false;
    bench.run();
    assert_eq!((bench.out.len(), bench.session().deadline()), (0, None));
}

#[test]
fn a_reply_to_an_earlier_request_is_ignored() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let address = bench.store(b"x");
    bench.bytes(get(format!("/o/{address}"), ""));
    bench.tell(|session, cx| session.on_reply(0, Reply::Missing, cx));
    bench.tell(|session, cx| session.on_reply(2, Reply::Missing, cx));
    assert_eq!(bench.out.len(), 0);
    bench.tell(|session, cx| session.on_reply(1, Reply::Missing, cx));
    assert_eq!(bench.answers(&[])[0].status, 404);
}

#[test]
fn requests_wait_for_the_handshake() {
    let mut bench = Bench::from("127.0.0.1", true);
    bench.tell(|session, cx| session.on_secured(cx));
    let address = bench.store(b"x");
    assert_eq!(bench.ask(get(format!("/o/{address}"), "")).status, 200);
    assert_eq!(bench.counted(Op::Get, 200), 1);
    let mut bench = Bench::from("127.0.0.1", true);
    bench.eof();
    assert_eq!(bench.did, [Did::Abort]);
}

#[test]
fn failures_are_reported_with_their_ids_and_mistakes_are_not() {
    let told = |bench: &Bench| {
        let Some(Report::Failed { failure, .. }) = bench.reports.last() else { return None };
        assert_eq!((failure.proto, failure.peer.port()), (Proto::Http, 1234));
        Some((failure.op, failure.status, failure.reason, failure.corr_id.clone()))
    };
    let id = "X-Corr-Id: my-id\r\n";
    let mut bench = Bench::from("192.0.2.1", false);
    bench.ask(request("PUT", "/o/", id));
    assert_eq!(told(&bench), Some((Op::Put, 403, "forbidden", "my-id".to_owned())));
    let address = bench.store(b"x");
    for (fault, status, reason) in [
        (Fault::Disk, 500, "internal"),
        (Fault::Integrity, 502, "integrity"),
        (Fault::Busy, 503, "overload"),
    ] {
        bench.fault = Some((bench.asked.len(), fault));
        bench.ask(get(format!("/o/{address}"), id));
        assert_eq!(told(&bench), Some((Op::Get, status, reason, "my-id".to_owned())));
    }
    let before = bench.reports.len();
    for request in [get("/", ""), get("/o/x", ""), request("BREW", "/", "")] {
        bench.ask(request);
    }
    assert_eq!(bench.reports.len(), before, "the client's mistakes");
}

#[test]
fn a_body_that_is_cut_is_reported() {
    let mut bench = Bench::new();
    let address = bench.store(&sample(9 * GROUP_LEN));
    bench.fault = Some((3, Fault::Integrity));
    bench.bytes(get(format!("/o/{address}"), ""));
    assert_eq!(bench.did, [Did::Finish], "what is queued of it still leaves");
    let [Report::Failed { failure, .. }] = &bench.reports[..] else {
        panic!("{:?}", bench.reports)
    };
    assert_eq!((failure.status, failure.reason), (502, "integrity"));
}

#[test]
fn a_flood_of_refusals_is_summed_up_and_hides_no_failure() {
    let mut bench = Bench::from("192.0.2.1", false);
    let burst = ron_io::limits::FAILURE_REPORTS_BURST as usize;
    for _ in 0..burst + 30 {
        bench.ask(request("PUT", "/o/", ""));
    }
    assert_eq!(bench.reports.len(), burst);
    bench.fault = Some((0, Fault::Disk));
    let address = bench.store(b"x");
    bench.ask(get(format!("/o/{address}"), ""));
    assert_eq!(bench.reports.len(), burst + 1, "those of the node count by themselves");
    bench.now.mono_ns += SECOND_NS;
    bench.ask(request("PUT", "/o/", ""));
    let Some(Report::Failed { failure, .. }) = bench.reports.last() else { panic!("no report") };
    assert_eq!(failure.unreported, 30);
    // As many as are reported to an operator: 20 at once, one a second.
    assert_eq!(burst, 20);
    let before = bench.reports.len();
    for _ in 0..10 {
        bench.now.mono_ns += 1_000_000_000;
        (0..50).for_each(|_| drop(bench.ask(request("PUT", "/o/", ""))));
    }
    assert_eq!(bench.reports.len(), before + 10);
}
