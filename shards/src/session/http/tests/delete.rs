//! DELETE: what goes away, at whose wish, and what is said when it does not.

use super::*;

fn delete(path: impl std::fmt::Display, fields: &str) -> String {
    request("DELETE", path, fields)
}

#[test]
fn an_object_is_deleted_once_and_can_be_stored_again() {
    let mut bench = Bench::new();
    let object = sample(70_000);
    let path = format!("/o/{}", bench.store(&object));
    let answer = bench.ask(delete(&path, "X-Corr-Id: mine\r\n"));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(answer.field("Content-Length"), None, "RFC 9110 §8.6");
    assert_eq!(answer.field("X-Corr-Id"), Some("mine"));
    assert_eq!((bench.asked.len(), bench.asked[0].as_str()), (1, "delete"));
    assert_eq!(bench.ask(get(&path, "")).status, 404);
    let again = bench.ask(delete(&path, ""));
    assert_eq!((again.status, again.error().as_str()), (404, "not_found"));
    let head = request("PUT", &path, &format!("Content-Length: {}\r\n", object.len()));
    assert_eq!(bench.ask([head.as_bytes(), &object].concat()).status, 201);
    assert!(bench.ask(get(&path, "")).body == object);
    assert_eq!((bench.counted(Op::Delete, 204), bench.counted(Op::Delete, 404)), (1, 1));
    assert_eq!((bench.did.len(), bench.stats.inflight.get()), (0, 0));
}

#[test]
fn who_may_delete() {
    for (peer, auth, status) in [
        ("127.0.0.1", "", 401),
        ("::ffff:127.9.9.9", "Authorization: Bearer yes\r\n", 204),
        ("192.0.2.1", "", 401),
        ("192.0.2.1", "Authorization: Bearer no\r\n", 401),
        ("2001:db8::1", "Authorization: Bearer yes\r\n", 204),
    ] {
        let mut config = config();
        config.authority = Authority::new(&["yes".into()], true, &[]);
        let mut bench = Bench::with(config, peer, false);
        let path = format!("/o/{}", bench.store(b"x"));
        let answer = bench.ask(delete(&path, auth));
        assert_eq!(answer.status, status, "{peer} {auth}");
        assert_eq!(answer.field("WWW-Authenticate"), (status == 401).then_some("Bearer"));
        let left = if status == 204 { 404 } else { 200 };
        assert_eq!(bench.ask(get(&path, "")).status, left, "{peer} {auth}");
    }
}

#[test]
fn what_is_no_address_is_not_taken_for_a_missing_object() {
    let mut bench = Bench::new();
    let address = bench.store(b"x").to_string();
    for (path, status, code) in [
        (format!("/o/{}", &address[..address.len() - 1]), 400, "bad_request"),
        (format!("/o/{}", address.to_uppercase()), 400, "bad_request"),
        ("/o/b3:".to_owned(), 400, "bad_request"),
        ("/o/".to_owned(), 405, "method_not_allowed"),
        (format!("/o/{address}/Manifest.toml"), 405, "method_not_allowed"),
        (format!("/{address}"), 404, "not_found"),
    ] {
        let answer = bench.ask(delete(&path, ""));
        assert_eq!((answer.status, answer.error().as_str()), (status, code), "{path}");
    }
    assert_eq!((bench.asked.len(), bench.did.len()), (0, 0));
}

#[test]
fn a_condition_on_another_tag_keeps_the_object() {
    let mut bench = Bench::new();
    let address = bench.store(b"x");
    let path = format!("/o/{address}");
    let other = format!("If-Match: \"{}\"\r\n", Address::of(b"y"));
    let answer = bench.ask(delete(&path, &other));
    assert_eq!((answer.status, answer.error().as_str()), (412, "precondition_failed"));
    assert_eq!(bench.asked.len(), 0);
    let own = format!("If-Match: \"{address}\"\r\n");
    assert_eq!(bench.ask(delete(&path, &own)).status, 204);
}

#[test]
fn an_object_that_is_not_to_be_there_is_kept() {
    // RFC 9110 §13.1.2
    let mut bench = Bench::new();
    let address = bench.store(b"x");
    let path = format!("/o/{address}");
    for condition in ["*".to_owned(), format!("\"{address}\""), format!("W/\"{address}\"")] {
        let fields = format!("If-None-Match: {condition}\r\n");
        let answer = bench.ask(delete(&path, &fields));
        assert_eq!((answer.status, answer.error().as_str()), (412, "precondition_failed"));
        assert_eq!(bench.objects.len(), 1, "{condition}");
        let none = delete(format!("/o/{}", Address::of(b"y")), "If-None-Match: *\r\n");
        assert_eq!(bench.ask(none).status, 404);
    }
    assert!(bench.asked.iter().all(|asked| asked == "open None"), "{:?}", bench.asked);
    let other = format!("If-None-Match: \"{}\"\r\n", Address::of(b"y"));
    assert_eq!(bench.ask(delete(&path, &other)).status, 204);
}

#[test]
fn who_may_not_write_hears_nothing_of_conditions() {
    // RFC 9110 §13.2.1
    for method in ["PUT", "DELETE"] {
        for condition in ["If-Match: \"x\"", "If-Match: *", "If-None-Match: *"] {
            let mut bench = Bench::from("192.0.2.1", false);
            let path = format!("/o/{}", bench.store(b"x"));
            let answer = bench.ask(request(method, &path, &format!("{condition}\r\n")));
            assert_eq!(answer.status, 403, "{method} {condition}");
            assert_eq!((bench.asked.len(), bench.objects.len()), (0, 1));
        }
    }
}

#[test]
fn a_store_that_cannot_says_why() {
    for (fault, status, code) in [
        (Fault::Full, 507, "storage_full"),
        (Fault::Busy, 503, "overload"),
        (Fault::Absent, 503, "not_ready"),
        (Fault::Disk, 500, "internal"),
    ] {
        let mut bench = Bench::new();
        let path = format!("/o/{}", bench.store(b"x"));
        bench.fault = Some((0, fault));
        let answer = bench.ask(delete(&path, ""));
        assert_eq!((answer.status, answer.error().as_str()), (status, code));
        let patience = (status == 503).then_some("1");
        assert_eq!(answer.field("Retry-After"), patience);
        assert_eq!(bench.ask(delete(&path, "")).status, 204, "the connection goes on");
    }
}

#[test]
fn a_body_is_passed_over_and_what_follows_waits_for_the_answer() {
    let mut bench = Bench::new();
    let path = format!("/o/{}", bench.store(b"x"));
    bench.hold_asks = true;
    bench.bytes(delete(&path, "Content-Length: 7\r\n") + "GET / H" + &get(&path, ""));
    assert_eq!(bench.out.len(), 0);
    bench.hold_asks = false;
    bench.run();
    let statuses: Vec<u16> =
        bench.answers(&["DELETE", "GET"]).iter().map(|answer| answer.status).collect();
    assert_eq!((statuses, bench.did.len()), (vec![204, 404], 0));
    // Where the end of the body is not known, the connection ends with the answer.
    let path = format!("/o/{}", bench.store(b"y"));
    let answer = bench.ask(delete(&path, "Transfer-Encoding: chunked\r\n"));
    assert_eq!((answer.status, answer.field("Connection")), (204, Some("close")));
    assert_eq!(bench.did, [Did::Finish]);
}

#[test]
fn a_client_that_sends_far_ahead_is_paused() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let path = format!("/o/{}", bench.store(b"x"));
    bench.bytes(delete(&path, ""));
    bench.bytes(get(&path, "").repeat(PIPELINE_LEN_MAX / 50));
    assert_eq!(bench.did, [Did::Pause]);
    bench.hold_asks = false;
    bench.run();
    assert_eq!(bench.did, [Did::Pause, Did::Resume]);
}

#[test]
fn an_answer_that_does_not_come_or_that_nobody_waits_for() {
    let mut config = config();
    config.deadlines.stream_ns = 40 * SECOND_NS;
    let mut stuck = Bench::with(config, "127.0.0.1", false);
    stuck.hold_asks = true;
    let path = format!("/o/{}", stuck.store(b"x"));
    stuck.bytes(delete(&path, ""));
    stuck.run_out(40 * SECOND_NS);
    assert_eq!(stuck.answers(&[])[0].error(), "upstream_timeout");
    assert_eq!((stuck.did.clone(), stuck.stats.inflight.get()), (vec![Did::Finish], 0));

    let mut lost = Bench::new();
    lost.hold_asks = true;
    let path = format!("/o/{}", lost.store(b"x"));
    lost.bytes(delete(&path, ""));
    lost.tell(|session, cx| session.on_closed(cx));
    lost.hold_asks = false;
    lost.run();
    assert_eq!((lost.counted(Op::Delete, 0), lost.stats.inflight.get()), (1, 0));
    assert_eq!((lost.objects.len(), lost.out.len()), (0, 0), "the owner had been asked");
}

#[test]
fn a_node_that_is_going_ends_the_connection_with_the_answer() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let path = format!("/o/{}", bench.store(b"x"));
    bench.bytes(delete(&path, ""));
    bench.drain();
    bench.hold_asks = false;
    bench.run();
    let answer = bench.answers(&["DELETE"]).remove(0);
    assert_eq!((answer.status, answer.field("Connection")), (204, Some("close")));
    assert_eq!(bench.did, [Did::Finish]);
}

#[test]
fn an_answer_to_another_question_is_a_failure_and_never_a_204() {
    let mut bench = Bench::new();
    bench.hold_asks = true;
    let path = format!("/o/{}", bench.store(b"x"));
    bench.bytes(delete(&path, ""));
    let stream = bench.session().stream;
    bench.tell(|session, cx| session.on_reply(stream, Reply::Stored { new: true }, cx));
    assert_eq!(bench.answers(&["DELETE"])[0].error(), "internal");
}
