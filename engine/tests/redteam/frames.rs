//! OAP: floods of HELLO, refused and starved streams, frames that nobody honest sends.

use serde_json::json;

use crate::common::{
    MIB,
    flood::Target,
    oap::{END, Frame, HELLO, REQ, START, frame, request},
    object,
    rude::{Door, Rude, flood},
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
fn frames_with_wrong_bytes() {
    let target = Target::warm(1, &[]);
    let frames = [
        request(1, &json!({"op": "get", "addr": target.small.addr})),
        request(2, &json!({"op": "put", "len": 10})),
        frame(REQ | END, 2, b"0123456789"),
        Frame { app: HELLO, ..frame(REQ, 3, b"") },
        Frame { cap: b"token".to_vec(), ..frame(REQ | START, 4, b"{}") },
    ];
    let honest: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    let (during, ()) = target.measure_while("during", || {
        let mut state = 1u64;
        let mut dice = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..300 {
            let mut bytes = honest.clone();
            for _ in 0..1 + round % 4 {
                let at = dice(bytes.len());
                bytes[at] = dice(256) as u8;
            }
            bytes.truncate(1 + dice(bytes.len()));
            let door = if round % 10 == 0 { Door::Oap } else { Door::OapPlain };
            let mut peer = Rude::connect(&target.node, door, None);
            // The node may end it before it is all sent.
            let _ = peer.send(&bytes);
            peer.half_close();
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}
