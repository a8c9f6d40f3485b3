//! TLS: bytes that are no handshake, handshakes in the smallest records, and what may stand in the
//! middle of a connection and should not.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use rustls::ClientConnection;

use crate::common::{
    DEADLINE, KIB, connect,
    flood::Target,
    rude::{Door, End, Rude, Trickle, get, greeter},
};

/// The start of a record of this kind and length, as TLS 1.3 writes it.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("a record is short").to_be_bytes();
    [&[kind, 3, 3, len[0], len[1]], body].concat()
}

#[test]
fn junk_in_place_of_a_handshake() {
    let target = Target::warm(1, &["--deadline-handshake", "3"]);
    let junk: [Vec<u8>; 8] = [
        b"GET / HTTP/1.1\r\nHost: rude\r\n\r\n".to_vec(),
        vec![0; 20_000],
        vec![0xff; 20_000],
        record(22, &[1, 0, 0, 0]),
        // A record longer than any may be, of change_cipher_specs, and empty ones.
        [&[22, 3, 3, 0xff, 0xff][..], &[0; 40_000]].concat(),
        record(20, &[1]).repeat(3000),
        record(22, &[]).repeat(1000),
        // A greeting of 48 KiB.
        [record(22, &[1, 0, 0xc0, 0]), record(22, &[0; 16 * 1024]).repeat(3)].concat(),
    ];
    let (during, ()) = target.measure_while("during", || {
        for door in ["https", "oap"] {
            for bytes in junk.iter().cycle().take(80) {
                let mut socket = connect(target.node.at(door));
                // The node may end it before it is all sent.
                let _ = socket.write_all(bytes);
            }
        }
        // And one that says nothing at all, on each.
        let silent = [connect(target.node.at("https")), connect(target.node.at("oap"))];
        target.wait_connections(2);
        drop(silent);
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn junk_in_the_middle_of_a_connection() {
    let target = Target::warm(1, &[]);
    let request = get(&target.small.addr);
    for bytes in [
        record(23, &[7; 100]),
        record(23, &[]),
        record(21, &[1, 0]),
        record(22, &[24, 0, 0, 1, 0]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&[23, 3, 3, 0xff, 0xff][..], &[0; 70_000]].concat(),
    ] {
        let mut peers = Rude::many(&target.node, Door::Https, 10, None);
        let (during, ()) = target.measure_while("during", || {
            for peer in &mut peers {
                peer.send(&request).expect("the connection is good so far");
                let _ = peer.raw().write_all(&bytes);
            }
        });
        during.expect_served();
        during.expect_within_bill();
        for peer in &mut peers {
            let (answer, end) = peer.read_within(1 << 20, Duration::from_secs(20));
            assert_ne!(end, End::Open, "{} bytes, then it hangs", answer.len());
        }
    }
    target.finish();
}

#[test]
fn many_handshakes_that_are_left() {
    let target = Target::warm(1, &[]);
    let (during, ()) = target.measure_while("during", || {
        for round in 0..100 {
            let mut socket = connect(target.node.at("https"));
            // A ClientHello that never ends, byte by byte or in one piece.
            let hello = [&record(22, &[1, 0, 0xf0, 0])[..], &record(22, &[3; 50])].concat();
            for piece in hello.chunks(1 + round % 7) {
                if socket.write_all(piece).is_err() {
                    break;
                }
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

/// What a client of this door greets with, in records of so many bytes.
fn greeting(greeter: &mut ClientConnection, len: usize) -> Vec<u8> {
    let mut whole = Vec::new();
    greeter.write_tls(&mut whole).expect("memory takes it");
    whole[5..].chunks(len).flat_map(|part| record(22, part)).collect()
}

#[test]
fn greetings_in_the_smallest_records_are_understood() {
    let target = Target::warm(1, &[]);
    let (during, ()) = target.measure_while("during", || {
        for door in [Door::Https, Door::Oap] {
            for len in [1, 2, 7, 50, 100].repeat(4) {
                let mut tls = greeter(&target.node, door).expect("it is TLS");
                let mut socket = connect(target.node.at(door.key()));
                for piece in greeting(&mut tls, len).chunks(len + 5) {
                    socket.write_all(piece).expect("the node takes it");
                }
                while tls.is_handshaking() {
                    tls.complete_io(&mut socket).expect("the node understands it");
                }
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn handshakes_that_trickle_end_at_their_deadline() {
    let target = Target::warm(1, &["--deadline-handshake", "2"]);
    let mut tls = greeter(&target.node, Door::Https).expect("it is TLS");
    let bytes = greeting(&mut tls, 1);
    let slow = |door| Rude::without_handshake(&target.node, door, None).expect("it may connect");
    let peers = [[Door::Https; 100], [Door::Oap; 100]].concat().into_iter().map(slow).collect();
    let trickle = Trickle::start(peers, bytes, Duration::from_millis(50));
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    // They go on, and the node ends them all the same.
    target.wait_connections(2);
    for peer in &mut trickle.end() {
        assert_ne!(peer.read_within(KIB, Duration::from_secs(20)).1, End::Open);
    }
    target.finish();
}

#[test]
fn change_cipher_specs_without_end() {
    let target = Target::warm(1, &[]);
    let specs = record(20, &[1]);
    let (during, ()) = target.measure_while("during", || {
        for door in [Door::Https, Door::Oap].repeat(5) {
            // Behind a greeting, and in the middle of a connection.
            let mut tls = greeter(&target.node, door).expect("it is TLS");
            let mut raw = Rude::without_handshake(&target.node, door, None).expect("it connects");
            let greeting = greeting(&mut tls, KIB);
            let begun = raw.raw().write_all(&greeting);
            begun.expect("a greeting fits");
            let whole = Rude::connect(&target.node, door, None);
            for mut peer in [raw, whole] {
                let began = Instant::now();
                while peer.raw().write_all(&specs.repeat(1000)).is_ok() {
                    assert!(began.elapsed() < DEADLINE, "{door:?}: they are taken without end");
                }
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn keys_that_are_changed_without_end() {
    let target = Target::warm(1, &[]);
    let request = get(&target.small.addr);
    let (during, ()) = target.measure_while("during", || {
        // Nothing else: the node ends it.
        for door in [Door::Https, Door::Oap].repeat(10) {
            let mut peer = Rude::connect(&target.node, door, Some(2304));
            let began = Instant::now();
            while peer.update_keys().is_ok() {
                assert!(began.elapsed() < DEADLINE, "{door:?}: they are changed without end");
            }
        }
        // With a request behind each, by those who read and by those who do not.
        let mut silent = Rude::many(&target.node, Door::Https, 20, Some(2304));
        let mut honest = Rude::connect(&target.node, Door::Https, None);
        for round in 0..100 {
            for peer in &mut silent {
                // The node may cut it.
                let _ = peer.update_keys().and_then(|()| peer.send(&request));
            }
            honest.update_keys().and_then(|()| honest.send(&request)).expect("it is good");
            let (mut answer, mut end) = (Vec::new(), End::Open);
            while end == End::Open && !answer.ends_with(&target.small.bytes) {
                let (more, now) = honest.read_within(16 * KIB, Duration::from_millis(20));
                answer.extend(more);
                end = now;
            }
            assert_eq!(end, End::Open, "round {round}");
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

/// The records in what a node sent over TLS, from the start of one on: kind and length of each.
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    while let [kind, 3, 3, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        assert!(rest.len() >= len, "a record is cut");
        found.push((*kind, len));
        bytes = &rest[len..];
    }
    assert!(bytes.is_empty(), "{} bytes are no record", bytes.len());
    found
}

#[test]
fn who_breaks_tls_is_told_so_behind_all_that_was_to_be_sent() {
    let target = Target::warm(1, &[]);
    let broken = [
        // No kind that there is, bytes that do not decrypt, and none at all.
        record(0, &[0; 20]),
        record(23, &[7; 100]),
        record(23, &[]),
        record(22, &[4, 0, 0, 0]),
    ];
    let (during, ()) = target.measure_while("during", || {
        for round in 0..10 {
            for bytes in &broken {
                let mut peer = Rude::connect(&target.node, Door::Https, None);
                peer.raw().write_all(bytes).expect("the connection is good so far");
                let mut rest = Vec::new();
                let end = peer.raw().read_to_end(&mut rest);
                assert!(
                    end.is_ok(),
                    "round {round}: a reset may take what was sent with it: {end:?}"
                );
                let records = records(&rest);
                // Tickets first, then an alert: two bytes, their kind, and a tag of 16 bytes.
                assert_eq!(records.last(), Some(&(23, 19)), "round {round}: {records:?}");
                assert!(records.len() > 1, "round {round}: tickets are missing: {records:?}");
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn an_alert_answers_what_breaks_a_handshake() {
    let target = Target::warm(1, &[]);
    let (during, ()) = target.measure_while("during", || {
        for door in [Door::Https, Door::Oap] {
            // Instead of a greeting, all in the clear: an alert of two bytes.
            for bytes in [record(23, &[]), record(0, &[1, 2]), record(22, &[2, 0, 0, 0])] {
                let mut socket = connect(target.node.at(door.key()));
                socket.write_all(&bytes).expect("a few bytes fit");
                let mut said = Vec::new();
                socket.read_to_end(&mut said).expect("the node ends it in good order");
                assert_eq!(records(&said), [(21, 2)], "{door:?}: {bytes:?}");
            }
        }
    });
    during.expect_served();
    target.finish();
}
