//! Requests that are odd, and must cost nobody else anything: each has its own answer.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::common::{
    KIB, MIB, addr_of, assert_same, connect,
    flood::Target,
    http::Peer,
    oap::{Frame, HELLO, Oap, REQ, frame, read_frame, request},
    object,
    rude::{Door, End, Rude, get},
};

/// The status of the answer to this on a new connection.
fn status(target: &Target, request: &str) -> u16 {
    let mut peer = Peer::new(target.node.connect());
    peer.send(request.as_bytes());
    peer.response(request.split(' ').next().unwrap_or_default()).status
}

#[test]
fn what_is_said_of_a_body_is_judged_before_it_comes() {
    let target = Target::warm(1, &[]);
    let chunked = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let stored = format!("/o/{}", target.small.addr);
    let missing = format!("/o/{}", addr_of(b"missing"));
    let put = |path: &str, field: &str| {
        format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\nContent-Length: 3\r\n\r\nabc")
    };
    let (during, ()) = target.measure_while("during", || {
        for (request, wanted) in [
            (format!("{chunked}ffffffffffffffff\r\n"), 413),
            (format!("{chunked}1\r\nx\r\nffffffffffffffff\r\n"), 413),
            (format!("{chunked}400000001\r\n"), 413),
            (format!("{chunked}10000000000000000\r\n"), 400),
            (put(&stored, "If-None-Match: *"), 412),
            (put(&missing, "If-Match: *"), 412),
            (put("/o/", "Content-Range: bytes 0-2/3"), 400),
            ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 204),
        ] {
            assert_eq!(status(&target, &request), wanted, "{request:?}");
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn an_empty_line_is_no_request() {
    let target = Target::warm(1, &["--deadline-head", "1", "--deadline-idle", "3"]);
    let mut peers = Rude::many(&target.node, Door::Http, 20, None);
    for peer in &mut peers {
        peer.send(&get(&target.small.addr)).expect("a request fits");
        peer.send(b"\r\n").expect("an empty line fits");
    }
    // The measured connection is kept busy, so that it alone is not idle meanwhile.
    let (during, ()) = target.measure_while("during", || {
        for peer in &mut peers {
            let (answer, end) = peer.read_within(MIB, Duration::from_secs(30));
            // Its answer, and nothing that it could take for the next one.
            assert!(answer.ends_with(&target.small.bytes), "{} bytes", answer.len());
            assert_eq!(end, End::Closed);
        }
    });
    during.expect_served();
    drop(peers);
    target.finish();
}

#[test]
fn a_hello_ends_no_stream() {
    let target = Target::warm(1, &[]);
    let large = object(9, 3 * MIB);
    target.store(&large);
    let mut peer = Oap::plain(&target.node);
    let (during, ()) = target.measure_while("during", || {
        for round in 0..20 {
            let corr = 7 + round;
            peer.send(&request(corr, &json!({"op": "get", "addr": large.addr})));
            peer.send(&Frame { app: HELLO, ..frame(REQ, corr, b"x") });
            let (mut body, mut refused) = (Vec::new(), 0);
            while body.len() < large.bytes.len() || refused == 0 {
                let frame = peer.recv();
                if frame.app == HELLO {
                    assert_eq!(frame.error().0, 400);
                    refused += 1;
                } else {
                    assert_eq!(frame.code, 0, "the get goes on");
                    body.extend_from_slice(&frame.payload);
                }
            }
            assert_same(&body, &large.bytes, "what came beside a HELLO");
        }
    });
    during.expect_served();
    drop(peer);
    target.finish();
}

#[test]
fn idle_connections_do_not_shut_admin() {
    let target = Target::warm(1, &[]);
    let mut idle: Vec<_> = (0..200).map(|_| connect(target.node.at("admin"))).collect();
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(target.node.admin("/healthz").status, 200);
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    // The first of them had to give its place up.
    idle[0].set_read_timeout(Some(Duration::from_secs(30))).expect("a time can be set");
    assert!(matches!(idle[0].read(&mut [0; 1]), Ok(0) | Err(_)));
    drop(idle);
    target.finish();
}

#[test]
fn askers_that_leave_are_not_waited_for() {
    let target = Target::warm(1, &[]);
    let large = object(5, 24 * MIB);
    target.store(&large);
    let range = |from: usize| {
        let path = format!("GET /o/{} HTTP/1.1\r\nHost: rude\r\n", large.addr);
        format!("{path}Range: bytes={from}-\r\n\r\n").into_bytes()
    };
    // Readers who take nothing hold what reads may have, and others ask for more and leave.
    let mut silent = Rude::many(&target.node, Door::Http, 120, Some(2304));
    for (at, peer) in silent.iter_mut().enumerate() {
        peer.send(&range(at * 200 * KIB)).expect("a request fits");
    }
    let (during, ()) = target.measure_while("during", || {
        for round in 0..1000 {
            let mut peer = Rude::connect(&target.node, Door::Http, None);
            peer.send(&range(round * 24 * KIB)).expect("a request fits");
            peer.reset();
        }
    });
    during.expect_served();
    during.expect_within_bill();
    drop(silent);
    target.finish();
}

#[test]
fn ranges_by_the_hundred() {
    let target = Target::warm(1, &[]);
    // Each of them would have to be sent, if several in one request were.
    let ranges = (0..1500).map(|from| format!("{from}-,")).collect::<String>();
    let addr = &target.small.addr;
    let request =
        format!("GET /o/{addr} HTTP/1.1\r\nHost: rude\r\nRange: bytes={ranges}0-\r\n\r\n");
    let (during, ()) = target.measure_while("during", || {
        for _ in 0..30 {
            let mut peers: Vec<Peer> = (0..10).map(|_| Peer::new(target.node.connect())).collect();
            peers.iter_mut().for_each(|peer| peer.send(request.as_bytes()));
            for peer in &mut peers {
                let answer = peer.response("GET");
                assert_eq!(answer.status, 200);
                assert_same(&answer.body, &target.small.bytes, "the whole object");
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

/// Many requests on each connection, all of them sent at once, by clients that read the answers.
#[test]
fn long_pipelines_are_answered_to_their_end() {
    const REQUESTS: u64 = 1000;
    let target = Target::warm(1, &[]);
    let gets = get(&target.small.addr).repeat(REQUESTS as usize);
    let hello = |corr| Frame { app: HELLO, ..frame(REQ, corr, b"") }.encode();
    let hellos: Vec<u8> = (1..=REQUESTS).flat_map(hello).collect();
    let over_http = || {
        let mut peer = Peer::new(target.node.connect());
        let mut sender = peer.sender();
        thread::scope(|scope| {
            scope.spawn(|| sender.write_all(&gets).expect("the node takes them"));
            for _ in 0..REQUESTS {
                assert_same(&peer.response("GET").body, &target.small.bytes, "one of many");
            }
        });
    };
    let over_oap = || {
        let mut socket = connect(target.node.at("oap_plain"));
        let mut sender = socket.try_clone().expect("it is a socket");
        thread::scope(|scope| {
            scope.spawn(|| sender.write_all(&hellos).expect("the node takes them"));
            for corr in 1..=REQUESTS {
                let answer = read_frame(&mut socket).expect("the connection holds");
                assert_eq!(answer.map(|frame| (frame.corr, frame.code)), Some((corr, 0)));
            }
        });
    };
    let (during, ()) = target.measure_while("during", || {
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(over_http);
                scope.spawn(over_oap);
            }
        });
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn profiles_that_are_asked_for_all_at_once_and_left() {
    let target = Target::start(1, &[]);
    let admin = target.node.at("admin");
    let ask = |seconds: u32| {
        let mut peer = Peer::new(connect(admin));
        let path = format!("/debug/profile?seconds={seconds}&format=folded");
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        peer
    };
    // What the first one leaves between blocks in use, of the names it looked up, is there once.
    assert_eq!(ask(1).response("GET").status, 200);
    let target = target.warmed(24);
    let (during, ()) = target.measure_while("during", || {
        let mut asked: Vec<Peer> = (0..10).map(|_| ask(2)).collect();
        let answers: Vec<_> = asked.iter_mut().map(|peer| peer.response("GET")).collect();
        let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status == 200);
        assert!(!taken.is_empty() && !refused.is_empty(), "{} were taken", taken.len());
        for answer in refused {
            assert_eq!(answer.status, 503);
            assert!(answer.field("retry-after").is_some());
        }
        // Who leaves keeps nobody else waiting for the minute that was asked for.
        (0..20).for_each(|_| drop(ask(60)));
        target.wait("the next is taken", || ask(1).response("GET").status == 200, String::new);
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}
