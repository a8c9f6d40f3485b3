//! Peers that want the node for themselves, over real sockets: idle ones in numbers, unfinished
//! heads, resets. Each case prints what is resident and what another client met, before, during
//! and after; it holds that the other client is served, and that the bill holds.

mod common;

use common::{
    flood::Target,
    http::Peer,
    rude::{Door, Rude, get},
};

/// Peers of each kind.
const PEERS: usize = 150;

/// A node, warm.
fn target(shards: usize, args: &[&str]) -> Target {
    let target = Target::start(shards, args);
    target.fill_cache(24);
    target.measure("before").expect_served();
    target
}

/// The node after the peers have gone.
fn after(target: Target) {
    // The connection that the measuring keeps stays, and that of the question itself.
    target.wait_connections(2);
    let after = target.measure("after");
    after.expect_served();
    after.expect_within_bill();
    target.node.terminate();
}

#[test]
fn idle_connections_and_unfinished_heads() {
    let target = target(1, &[]);
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
    after(target);
}

#[test]
fn connections_that_are_reset() {
    let target = target(1, &[]);
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
    after(target);
}

#[test]
fn readers_that_stop_reading_one_large_body() {
    let target = target(1, &[]);
    let large = common::object(7, 8 * common::MIB);
    target.store(&large);
    let mut peers = Rude::many(&target.node, Door::Http, 20, Some(2304));
    for peer in &mut peers {
        peer.send(&get(&large.addr)).expect("a request fits");
    }
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    drop(peers);
    let mut honest = Peer::new(target.node.connect());
    common::assert_same(
        &honest.get(&format!("/o/{}", large.addr)).body,
        &large.bytes,
        "a large object after the flood",
    );
    drop(honest);
    after(target);
}
