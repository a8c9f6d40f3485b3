//! Answers arrive: whatever a client goes on sending, whatever happens to the object meanwhile,
//! and however TLS ends.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Data, KIB, MIB, Node, addr_of, assert_same, connect,
    curl::Curl,
    flood::Target,
    http::{Peer, put_head},
    oap::{Oap, read_frame},
    object,
    rude::{Door, End, Rude, get},
};

/// How long a client may be held up that sends what nobody wants.
const HELD_MAX: Duration = Duration::from_secs(30);

/// Sends all of this, as a client that does not look up before it is done or cut off.
fn pour(stream: &mut TcpStream, head: &[u8], len: usize) {
    let began = Instant::now();
    let chunk = vec![b'x'; 64 * KIB];
    let mut left = len;
    let mut sent = stream.write_all(head);
    while sent.is_ok() && left > 0 {
        let part = left.min(chunk.len());
        sent = stream.write_all(&chunk[..part]);
        left -= part;
    }
    assert!(began.elapsed() < HELD_MAX, "the client was stuck, with {left} bytes to go");
    if let Err(error) = sent {
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}

/// What somebody does to a node, while another client is served as ever.
fn during(attack: impl FnOnce(&Node)) {
    let target = Target::warm(1, &[]);
    let (during, ()) = target.measure_while("during", || attack(&target.node));
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn a_refusal_is_read_by_a_client_that_sends_everything_first() {
    let put = |len: usize| put_head("zz", len).into_bytes();
    during(|node| {
        for (head, len, rounds, status) in [
            (put(MIB), MIB, 20, 400),
            (put(MIB + 1), MIB + 1, 20, 400),
            (put(2_000_000), 2_000_000, 20, 400),
            (put(20_000_000), 20_000_000, 100, 400),
            (b"GET /".to_vec(), MIB, 20, 414),
            (b"GET / HTTP/1.1\r\nX: ".to_vec(), MIB, 20, 431),
        ] {
            for round in 0..rounds {
                let mut stream = node.connect();
                pour(&mut stream, &head, len);
                let mut peer = Peer::new(stream);
                let answer = peer.try_response("PUT");
                let answer =
                    answer.unwrap_or_else(|| panic!("round {round} of {len} bytes: no answer"));
                assert_eq!(answer.status, status, "round {round} of {len} bytes");
            }
        }
    });
}

#[test]
fn a_framing_error_is_read_by_a_client_that_sends_everything_first() {
    during(|node| {
        for round in 0..20 {
            let mut stream = connect(node.at("oap_plain"));
            pour(&mut stream, &[0xff; 64], 20_000_000);
            let frame = read_frame(&mut stream);
            let frame = frame.unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(frame.expect("an error comes before the end").code, 400);
        }
    });
}

#[test]
fn who_goes_on_sending_is_cut_off() {
    during(|node| {
        for door in [Door::Http, Door::OapPlain] {
            let began = Instant::now();
            let mut peer = Rude::connect(node, door, None);
            // Neither a request nor a frame, without an end.
            let chunk = vec![0; 64 * KIB];
            while peer.send(&chunk).is_ok() {
                assert!(began.elapsed() < HELD_MAX, "{door:?}: it may send without end");
            }
        }
    });
}

#[test]
fn a_get_that_meets_a_delete_is_answered() {
    during(meet);
}

fn meet(node: &Node) {
    let object = object(1, 3 * MIB);
    let path = format!("/o/{}", object.addr);
    let has_ended = AtomicBool::new(false);
    let mut answers = [0; 2];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::Acquire) {
                Curl::http(node).store(&object);
                thread::sleep(Duration::from_millis(3));
                let mut peer = Peer::new(node.connect());
                peer.send(format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
                let status = peer.response("DELETE").status;
                assert!([204, 404].contains(&status), "{status}");
            }
        });
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let mut peer = Peer::new(node.connect());
            peer.send(&get(&object.addr));
            let head = peer.try_head();
            let Some(head) = head else {
                has_ended.store(true, Ordering::Release);
                panic!("the connection ended without a byte");
            };
            let len = head.field("content-length").map_or(0, |len| len.parse().expect("a length"));
            let body = peer.read(len);
            match head.status {
                200 => assert_same(&body, &object.bytes[..body.len()], "what came"),
                404 | 503 => {}
                other => panic!("{other}"),
            }
            answers[usize::from(head.status != 200)] += 1;
        }
        has_ended.store(true, Ordering::Release);
    });
    eprintln!("{answers:?}");
}

#[test]
fn bytes_behind_a_close_notify_harm_nobody() {
    let target = Target::warm(1, &[]);
    let (during, ()) = target.measure_while("during", || {
        for door in [Door::Https, Door::Oap] {
            for len in [1, 100, 16_000, 100_000] {
                let mut peer = Rude::connect(&target.node, door, None);
                peer.close_notify();
                // It may be cut off as soon as it has said that it is done.
                let _ = peer.raw().write_all(&vec![0x55; len]);
                check(&target);
            }
        }
    });
    during.expect_served();
    target.wait_rest();
    target.finish();
}

#[test]
fn a_byte_behind_a_close_notify_does_not_end_a_download() {
    let target = Target::warm(1, &[]);
    let large = object(2, 20 * MIB);
    target.store(&large);
    let mut peer = Rude::connect(&target.node, Door::Https, Some(64 * KIB));
    peer.send(&get(&large.addr)).expect("the node takes it");
    peer.close_notify();
    for _ in 0..3 {
        peer.raw().write_all(&[23]).expect("the node takes it");
        check(&target);
        target.wait_rest();
    }
    target.measure("during").expect_served();
    let (bytes, end) = peer.read_within(usize::MAX, crate::common::DEADLINE);
    assert!(bytes.ends_with(&large.bytes[large.bytes.len() - KIB..]), "{} bytes", bytes.len());
    assert_eq!(end, End::Closed);
    drop(peer);
    target.finish();
}

/// Somebody else is served on every door.
fn check(target: &Target) {
    let status = |addr: &str| Peer::new(target.node.connect()).get(&format!("/o/{addr}")).status;
    assert_eq!((status(&target.small.addr), status(&addr_of(b"?"))), (200, 404));
    Oap::tls(&target.node).hello();
}

#[test]
fn an_end_of_tls_without_notice_is_an_end() {
    let data = Data::new();
    let node = data.start(1);
    for door in [Door::Https, Door::Oap] {
        let mut peer = Rude::connect(&node, door, None);
        peer.raw().shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut rest = Vec::new();
        peer.raw().read_to_end(&mut rest).expect("the node ends it, too");
    }
    node.terminate();
}

/// A client whose process is killed in the midst of an upload: what it sent lies on the socket
/// while the node writes, and there is no more to come.
#[test]
fn a_reset_is_noticed_however_much_came_before_it() {
    during(|node| {
        let bytes = [put_head("", 50 * MIB).into_bytes(), vec![7; 3 * MIB]].concat();
        for _ in 0..30 {
            let mut stream = node.connect();
            stream.write_all(&bytes).expect("it is taken");
            // Long enough for the node to have stopped reading, and not for it to have written all.
            thread::sleep(Duration::from_millis(5));
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is TCP");
            drop(stream);
            thread::sleep(Duration::from_millis(100));
        }
        // Sooner than their deadline would end them.
        let until = Instant::now() + Duration::from_secs(10);
        // Those of the other client are there.
        while node.metrics().sum("ron_connections") > 4 {
            assert!(Instant::now() < until, "connections are there that their peers have reset");
            thread::sleep(Duration::from_millis(20));
        }
    });
}
