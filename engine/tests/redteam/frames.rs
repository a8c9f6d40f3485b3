//! OAP: floods of HELLO, refused and starved streams, frames that nobody honest sends.

use std::time::Duration;

use serde_json::json;

use crate::common::{
    MIB,
    flood::Target,
    oap::{END, Frame, HELLO, REQ, frame, request},
    object,
    rude::{Door, End, Rude, Trickle, flood},
};

const PEERS: usize = 40;

#[test]
fn hello_without_end() {
    let target = Target::warm(1, &[]);
    let mut peers = Rude::many(&target.node, Door::OapPlain, PEERS, Some(2304));
    peers.extend(Rude::many(&target.node, Door::Oap, PEERS / 4, Some(2304)));
    let hello = Frame { app: HELLO, ..frame(REQ, 7, b"") }.encode().repeat(20);
    let (during, sent) = target.measure_while("during", || flood(&mut peers, &hello, MIB / 4));
    assert!(sent > PEERS * hello.len(), "the node took only {sent} bytes");
    let full = target.measure("full");
    for phase in [during, full] {
        phase.expect_served();
    }
    drop(peers);
    target.finish();
}

#[test]
fn streams_without_credit() {
    let target = Target::warm(1, &[]);
    let large = object(9, 2 * MIB);
    target.store(&large);
    let mut peers = Rude::many(&target.node, Door::OapPlain, PEERS, Some(2304));
    for peer in &mut peers {
        // Ten more than may be open at once; 256 KiB of each come without credit.
        for corr in 1..=70 {
            let get = request(corr, &json!({"op": "get", "addr": large.addr, "len": 1000}));
            peer.send(&get.encode()).expect("a request fits");
        }
    }
    let during = target.measure("during");
    during.expect_served();
    drop(peers);
    target.finish();
}

#[test]
fn puts_that_are_broken_off_or_refused() {
    let target = Target::warm(1, &[]);
    let (during, ()) = target.measure_while("during", || {
        for round in 0..100 {
            let mut peer = Rude::connect(&target.node, Door::OapPlain, None);
            let put = request(1, &json!({"op": "put", "len": 3 * MIB}));
            let much = request(2, &json!({"op": "put", "len": u64::MAX}));
            let data = frame(REQ, 1, &[7; 60_000]);
            let end = frame(REQ | END, 1, b"too early");
            for part in [put, much, data, end].iter().take(2 + round % 3) {
                peer.send(&part.encode()).expect("the node takes it");
            }
            if round % 2 == 0 {
                peer.reset();
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn frames_that_trickle_end_at_their_deadline() {
    let target = Target::warm(1, &["--deadline-head", "1"]);
    let mut peers = Rude::many(&target.node, Door::OapPlain, 2 * PEERS, None);
    peers.extend(Rude::many(&target.node, Door::Oap, PEERS / 2, None));
    let get = request(1, &json!({"op": "get", "addr": target.small.addr})).encode();
    // The header alone would take several times as long as it may.
    let trickle = Trickle::start(peers, get, Duration::from_millis(100));
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    // They go on, and the node ends them all the same.
    target.wait_connections(2);
    for peer in &mut trickle.end() {
        assert_ne!(peer.read_within(MIB, Duration::from_secs(20)).1, End::Open);
    }
    target.finish();
}
