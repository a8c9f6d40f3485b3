//! Connections in numbers: idle, unfinished, reset, half-closed, and readers that stop.

use std::time::Duration;

use crate::common::{
    DEADLINE, MIB, assert_same,
    flood::Target,
    http::Peer,
    object,
    rude::{Door, End, Rude, Trickle, get},
};

/// Peers of each kind.
const PEERS: usize = 150;

#[test]
fn idle_ones_and_unfinished_heads() {
    let target = Target::warm(1, &[]);
    let mut peers = Vec::new();
    for door in Door::ALL {
        peers.extend(Rude::many(&target.node, door, PEERS, None));
    }
    let idle = target.measure("idle");
    for peer in &mut peers[..PEERS] {
        let head = format!("GET / HTTP/1.1\r\nHost: rude\r\nX: {}", "x".repeat(8000));
        peer.send(head.as_bytes()).expect("the node takes half a head");
    }
    let during = target.measure("during");
    for phase in [idle, during] {
        phase.expect_served();
        phase.expect_within_bill();
    }
    drop(peers);
    target.finish();
}

#[test]
fn heads_that_trickle_end_at_their_deadline() {
    let target = Target::warm(1, &["--deadline-head", "2"]);
    let mut peers = Rude::many(&target.node, Door::Http, PEERS, None);
    peers.extend(Rude::many(&target.node, Door::Https, 20, None));
    let trickle = Trickle::start(peers, b"GET / HTTP/1.1".to_vec(), Duration::from_millis(50));
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    // They go on, and the node ends them all the same.
    target.wait_connections(2);
    for peer in &mut trickle.end() {
        let (answer, end) = peer.read_within(MIB, Duration::from_secs(20));
        assert_ne!(end, End::Open, "a slow head is ended");
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text:?}");
    }
    target.finish();
}

#[test]
fn resets() {
    let target = Target::warm(1, &[]);
    let request = get(&target.small.addr);
    let (during, ()) = target.measure_while("during", || {
        for _ in 0..2 * PEERS {
            for door in [Door::Http, Door::OapPlain] {
                let mut peer = Rude::connect(&target.node, door, None);
                // An OAP listener may cut it before it is all sent.
                let _ = peer.send(&request);
                peer.reset();
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn half_closed_peers_get_all_that_they_asked_for() {
    let target = Target::warm(1, &[]);
    let large = object(7, 3 * MIB);
    target.store(&large);
    let mut peers = Vec::new();
    for door in [Door::Http, Door::Https] {
        for _ in 0..20 {
            let mut peer = Rude::connect(&target.node, door, Some(8192));
            peer.send(&get(&large.addr)).expect("a request fits");
            peer.half_close();
            peers.push(peer);
        }
    }
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    for peer in &mut peers {
        let (answer, end) = peer.read_within(4 * MIB, Duration::from_secs(60));
        assert_eq!(end, End::Closed, "after {} bytes", answer.len());
        let body = &answer[answer.len().saturating_sub(large.bytes.len())..];
        assert_same(body, &large.bytes, "what a half-closed peer was sent");
    }
    drop(peers);
    target.finish();
}

#[test]
fn readers_that_stop_in_a_large_body() {
    let target = Target::warm(1, &[]);
    let large = object(7, 8 * MIB);
    target.store(&large);
    let mut peers = Rude::many(&target.node, Door::Http, 20, Some(2304));
    peers.extend(Rude::many(&target.node, Door::Https, 10, Some(2304)));
    for peer in &mut peers {
        peer.send(&get(&large.addr)).expect("a request fits");
    }
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    // It waits for them, and does not ask again and again.
    target.wait_rest();
    // And when they take a byte now and then.
    let (during, ()) = target.measure_while("trickle", || {
        for _ in 0..5 {
            for peer in &mut peers {
                let (byte, end) = peer.read_within(1, DEADLINE);
                assert_eq!((byte.len(), end), (1, End::Open));
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    drop(peers);
    let mut honest = Peer::new(target.node.connect());
    let answer = honest.get(&format!("/o/{}", large.addr));
    assert_same(&answer.body, &large.bytes, "a large object after the flood");
    drop(honest);
    target.finish();
}
