//! Deadlines of every phase.

use super::*;
use crate::limits::UNSENT_LEN_MAX;

#[test]
fn a_handshake_that_does_not_end() {
    let mut bench = Bench::from("::1", true);
    let limit = bench.config.deadlines.handshake_ns;
    bench.run_out(limit);
    assert_eq!(bench.did, [Did::Abort]);
    assert_eq!(bench.stats.rejected(Rejected::Timeout), 1);
    assert_eq!(bench.session().deadline(), None);
}

#[test]
fn a_head_that_does_not_end() {
    let mut bench = Bench::new();
    let limit = bench.config.deadlines.head_ns;
    bench.now.mono_ns += SECOND_NS;
    bench.bytes("GET / HT");
    bench.now.mono_ns += SECOND_NS;
    bench.bytes("TP/1.1\r\n");
    // From accept, and no new byte moves it.
    bench.run_out(limit - 2 * SECOND_NS);
    let answers = bench.answers(&[]);
    assert_eq!((answers[0].status, answers[0].error().as_str()), (408, "timeout"));
    assert_eq!(answers[0].field("Connection"), Some("close"));
    assert_eq!(bench.did, [Did::Finish]);
    let linger = bench.config.deadlines.linger_ns;
    bench.run_out(linger);
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn a_peer_that_says_nothing_is_left_in_silence() {
    let mut bench = Bench::new();
    let limit = bench.config.deadlines.head_ns;
    bench.run_out(limit);
    assert_eq!((bench.out.len(), &bench.did[..]), (0, &[Did::Finish][..]));
}

#[test]
fn a_kept_connection_may_be_idle_for_a_while() {
    let mut bench = Bench::new();
    let limits = bench.config.deadlines;
    bench.bytes(get("/", ""));
    let said = bench.out.len();
    bench.now.mono_ns += limits.idle_ns - 1;
    bench.bytes("G");
    // From the first byte of the next head on.
    bench.run_out(limits.head_ns);
    assert_eq!(bench.answers(&[])[1].status, 408);

    let mut bench = Bench::new();
    bench.bytes(get("/", ""));
    bench.run_out(limits.idle_ns);
    assert_eq!((bench.out.len(), &bench.did[..]), (said, &[Did::Finish][..]));
    assert_eq!(bench.stats.rejected(Rejected::Timeout), 0);
}

#[test]
fn a_body_that_stops_arriving() {
    let mut bench = Bench::new();
    let limit = bench.config.deadlines.body_ns;
    bench.bytes(request("PUT", "/o/", "Content-Length: 10\r\n") + "12345");
    bench.now.mono_ns += limit - 1;
    bench.bytes("6");
    bench.run_out(limit);
    let answers = bench.answers(&[]);
    assert_eq!((answers[0].status, answers[0].error().as_str()), (408, "timeout"));
    assert_eq!((bench.did.clone(), bench.stats.inflight.get()), (vec![Did::Finish], 0));
}

#[test]
fn an_unwanted_body_that_stops_arriving() {
    let mut bench = Bench::new();
    let limit = bench.config.deadlines.body_ns;
    bench.bytes(request("POST", "/", "Content-Length: 10\r\n") + "12345");
    bench.run_out(limit);
    assert_eq!((bench.answers(&[]).len(), &bench.did[..]), (1, &[Did::Finish][..]));
}

#[test]
fn a_reader_that_stops_reading() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    let limit = bench.config.deadlines.send_ns;
    bench.now.mono_ns += SECOND_NS;
    let address = bench.store(&sample(2 * UNSENT_LEN_MAX));
    bench.bytes(get(format!("/o/{address}"), ""));
    bench.now.mono_ns += limit - 1;
    bench.take(1);
    bench.run();
    bench.run_out(limit);
    assert_eq!(bench.did, [Did::Abort]);
    assert_eq!((bench.stats.rejected(Rejected::Timeout), bench.stats.inflight.get()), (1, 0));
}

#[test]
fn a_last_answer_that_is_not_taken_stalls_before_it_lingers() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    let limit = bench.config.deadlines.send_ns;
    bench.now.mono_ns += SECOND_NS;
    bench.bytes(get("/", "Connection: close\r\n"));
    bench.run_out(limit);
    assert_eq!(bench.did, [Did::Finish, Did::Abort]);
}

#[test]
fn a_request_that_takes_too_long_as_a_whole() {
    let mut config = config();
    config.deadlines.stream_ns = 40 * SECOND_NS;
    let mut stuck = Bench::with(config.clone(), "127.0.0.1", false);
    stuck.hold_asks = true;
    let address = stuck.store(b"x");
    stuck.bytes(get(format!("/o/{address}"), ""));
    stuck.run_out(40 * SECOND_NS);
    assert_eq!(stuck.answers(&[])[0].error(), "upstream_timeout");
    assert_eq!(stuck.did, [Did::Finish]);

    let mut trickle = Bench::with(config.clone(), "127.0.0.1", false);
    trickle.bytes(request("PUT", "/o/", "Content-Length: 10\r\n"));
    trickle.now.mono_ns += 25 * SECOND_NS;
    trickle.bytes("1");
    trickle.run_out(15 * SECOND_NS);
    assert_eq!(trickle.answers(&[])[0].error(), "timeout");

    let mut storing = Bench::with(config.clone(), "127.0.0.1", false);
    storing.hold_asks = true;
    storing.bytes(request("PUT", "/o/", "Content-Length: 1\r\n") + "1");
    storing.run_out(40 * SECOND_NS);
    assert_eq!(storing.answers(&[])[0].error(), "upstream_timeout");

    let mut sending = Bench::with(config, "127.0.0.1", false);
    sending.hold_sends = true;
    let address = sending.store(&sample(2 * UNSENT_LEN_MAX));
    sending.bytes(get(format!("/o/{address}"), ""));
    sending.run_out(40 * SECOND_NS);
    assert_eq!((sending.did.clone(), sending.stats.inflight.get()), (vec![Did::Abort], 0));
}

#[test]
fn empty_lines_are_no_head() {
    // RFC 9112 §2.2
    for lines in [&["\r\n"][..], &["\r", "\n"], &["\r\n\r\n", "\r"]] {
        let mut bench = Bench::new();
        let limits = bench.config.deadlines;
        bench.bytes(get("/", ""));
        let said = bench.out.len();
        for line in lines {
            bench.now.mono_ns += SECOND_NS;
            bench.bytes(line);
        }
        // Neither a 408 that nobody asked for, nor more time.
        bench.run_out(limits.idle_ns - lines.len() as u64 * SECOND_NS);
        assert_eq!((bench.out.len(), &bench.did[..]), (said, &[Did::Finish][..]), "{lines:?}");

        let mut bench = Bench::new();
        bench.bytes(get("/", ""));
        lines.iter().for_each(|line| bench.bytes(line));
        let rest = if lines.concat().ends_with('\r') { "\n" } else { "" };
        bench.bytes(rest.to_owned() + &get("/", ""));
        assert_eq!(bench.answers(&[]).len(), 2, "{lines:?}");
    }
}

const LEN: &str = "Content-Length: 1000000\r\n";

/// A bench whose uploads must bring 1000 bytes a second, and the time they have for it.
fn paced() -> (Bench, u64) {
    let mut config = config();
    config.deadlines.body_rate = 1000;
    let span = config.deadlines.body_ns;
    (Bench::with(config, "127.0.0.1", false), span)
}

#[test]
fn a_body_that_trickles_is_refused() {
    let (mut bench, span) = paced();
    bench.bytes(request("PUT", "/o/", "Content-Length: 1000000\r\n"));
    for _ in 0..3 {
        bench.now.mono_ns += span / 4;
        bench.bytes(vec![1; 1000]);
        assert_eq!(bench.out.len(), 0);
    }
    bench.run_out(span - 3 * (span / 4));
    let answers = bench.answers(&[]);
    assert_eq!((answers[0].status, answers[0].error().as_str()), (408, "timeout"));
    assert_eq!(bench.did, [Did::Finish]);
    assert_eq!(bench.stats.rejected(Rejected::Timeout), 1);
}

#[test]
fn an_unwanted_body_that_trickles_ends_the_connection() {
    for head in [get("/", LEN), request("PUT", "/no", LEN)] {
        let (mut bench, span) = paced();
        bench.bytes(head);
        assert_eq!(bench.answers(&[]).len(), 1);
        for _ in 0..3 {
            pass(&mut bench, span / 4);
            bench.bytes(vec![1; 1000]);
            assert_eq!(bench.did, []);
        }
        bench.run_out(span - 3 * (span / 4));
        assert_eq!(bench.stats.rejected(Rejected::Timeout), 1);
        assert_eq!(bench.did, [Did::Finish]);
    }
    // One that comes fast enough is passed over, however long that takes.
    let (mut bench, span) = paced();
    bench.bytes(get("/", "Content-Length: 93000\r\n"));
    for _ in 0..31 {
        bench.bytes(vec![1; 3000]);
        pass(&mut bench, span / 10);
    }
    bench.bytes(get("/", ""));
    assert_eq!((bench.answers(&[]).len(), bench.did.len()), (2, 0));
}

#[test]
fn a_body_that_comes_slowly_but_steadily_is_taken() {
    let (mut bench, span) = paced();
    bench.bytes(request("PUT", "/o/", "Content-Length: 93000\r\n"));
    for _ in 0..31 {
        bench.bytes(vec![1; 3000]);
        bench.now.mono_ns += span / 10;
        bench.tell(|session, cx| session.on_deadline(cx));
    }
    assert_eq!((bench.answers(&[])[0].status, bench.did.len()), (201, 0));
}

/// Lets time pass, and tells of it.
fn pass(bench: &mut Bench, ns: u64) {
    bench.now.mono_ns += ns;
    bench.tell(|session, cx| session.on_deadline(cx));
}

#[test]
fn what_frames_a_body_is_not_the_body() {
    let (mut bench, span) = paced();
    bench.bytes(request("PUT", "/o/", "Transfer-Encoding: chunked\r\n"));
    for _ in 0..4 {
        assert_eq!(bench.out.len(), 0);
        // In all 1600 bytes a second; six of them make one of the body.
        bench.bytes("1\r\nx\r\n".repeat(2000));
        pass(&mut bench, span / 4);
    }
    assert_eq!(bench.answers(&[])[0].status, 408);
}

#[test]
fn an_upload_that_is_held_back_gets_that_time_and_no_more() {
    let (mut bench, span) = paced();
    bench.bytes(request("PUT", "/o/", "Content-Length: 6000000\r\n"));
    pass(&mut bench, span / 2);
    bench.hold_disk = true;
    while bench.did.is_empty() {
        bench.bytes(vec![1; 100_000]);
    }
    assert_eq!(bench.did, [Did::Pause]);
    pass(&mut bench, 3 * span);
    bench.hold_disk = false;
    bench.run();
    assert_eq!(bench.did, [Did::Pause, Did::Resume]);
    // What came before the pause is enough for the first span, and nothing comes in the second.
    pass(&mut bench, span / 2);
    assert_eq!(bench.out.len(), 0);
    pass(&mut bench, span);
    assert_eq!(bench.answers(&[])[0].status, 408);
}

/// For how long the peer has made no progress.
fn stale_ns(bench: &Bench) -> u64 {
    bench.now.mono_ns - bench.session().progress_ns(bench.now.mono_ns)
}

#[test]
fn an_upload_that_waits_for_the_disk_is_not_stale() {
    let mut bench = Bench::new();
    bench.bytes(request("PUT", "/o/", "Content-Length: 6000000\r\n"));
    bench.hold_disk = true;
    while bench.did.is_empty() {
        bench.bytes(vec![1; 100_000]);
    }
    assert_eq!(bench.did, [Did::Pause]);
    pass(&mut bench, 20 * SECOND_NS);
    assert_eq!(stale_ns(&bench), 0);
    bench.hold_disk = false;
    bench.run();
    assert_eq!(bench.did, [Did::Pause, Did::Resume]);
    pass(&mut bench, SECOND_NS);
    assert_eq!(stale_ns(&bench), SECOND_NS, "it is read again, and brings nothing");
    // The same while all of it is here, and is being stored.
    bench.hold_disk = true;
    let rest = 6_000_000 - 100_000 * (bench.stats.bytes_in[Proto::Http as usize].get() / 100_000);
    bench.bytes(vec![1; rest as usize]);
    pass(&mut bench, 20 * SECOND_NS);
    assert_eq!((bench.out.len(), stale_ns(&bench)), (0, 0));
}

#[test]
fn a_peer_that_is_paused_over_its_unread_answers_is_stale() {
    let mut bench = Bench::new();
    bench.hold_sends = true;
    while bench.did.is_empty() {
        bench.bytes(get("/", "").repeat(100));
    }
    assert_eq!(bench.did, [Did::Pause]);
    let before = stale_ns(&bench);
    pass(&mut bench, 20 * SECOND_NS);
    assert_eq!(stale_ns(&bench), before + 20 * SECOND_NS);
}

#[test]
fn what_an_upload_keeps_is_counted() {
    let mut bench = Bench::new();
    let before = bench.session().held();
    bench.bytes(request("PUT", "/o/", "Content-Length: 6000000\r\n"));
    let fresh = bench.session().held() - before;
    assert!(fresh >= size_of::<super::super::put::Put>(), "{fresh} bytes");
    for _ in 0..45 {
        bench.bytes(vec![1; 100_000]);
        bench.run();
    }
    let hashes = bench.session().held() - before - fresh;
    assert!(hashes >= 64 * 32, "{hashes} bytes");
    bench.bytes(vec![1; 1_500_000]);
    bench.run();
    assert_eq!(bench.answers(&[])[0].status, 201);
    assert!(bench.session().held() <= before + 4096, "{}", bench.session().held());
}
