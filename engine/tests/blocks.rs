//! Peers that hold the memory of blocks: uploads that stop or trickle, readers that do not read, on
//! both protocols. During each flood another client's GET of a small object, its HEAD and its
//! 404 are served, also where they go from shard to shard, and whoever cannot have memory is told
//! so.

mod common;

use std::time::Duration;

use common::{
    KIB, MIB,
    flood::Target,
    http::Peer,
    oap::{self, ACK_REQ, REQ},
    object,
    rude::{Door, Rude, Trickle},
};
use serde_json::json;

/// A node with a small cache, all of it in use.
fn target(shards: usize) -> Target {
    let target = Target::start(shards, &[]);
    target.fill_cache(24);
    target.measure("before").expect_served();
    target
}

/// The head of an upload of 1 GiB.
const LONG_PUT: &str = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n";

/// Uploads that each have sent so much and stop.
fn stopped_uploads(target: &Target, count: usize, len: usize) -> Vec<Rude> {
    let body = vec![7; len];
    let upload = |_| {
        let mut peer = Rude::connect(&target.node, Door::Http, None);
        peer.send(LONG_PUT.as_bytes()).expect("a head fits");
        peer.send_until_full(&body, len);
        peer
    };
    (0..count).map(upload).collect()
}

/// The other client is served, a put of its own is answered, and all is well when the peers left.
fn check_during(target: Target, peers: Vec<Rude>) {
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    let mine = object(77, 50 * KIB);
    let answer = Peer::new(target.node.connect()).try_put(&mine.addr, &mine.bytes);
    let status = answer.expect("a put is answered").status;
    assert!(matches!(status, 200 | 201 | 503), "{status}");
    drop(peers);
    target.wait_connections(2);
    target.store(&object(78, MIB));
    target.measure("after").expect_served();
    // A shard looks at what others gave back when something happens to it.
    let held = || {
        Peer::new(target.node.connect()).get(&format!("/o/{}", target.small.addr));
        let metrics = target.node.metrics();
        ["uploads", "downloads", "background"]
            .map(|owner| metrics.sum(&format!("ron_memory_pages{{owner=\"{owner}\"")))
    };
    target.wait("nobody holds pages", || held() == [0; 3], || format!("{:?}", held()));
    target.node.terminate();
}

#[test]
fn uploads_that_stop() {
    let target = target(1);
    let peers = stopped_uploads(&target, 40, 900_000);
    check_during(target, peers);
}

#[test]
fn uploads_that_trickle() {
    let target = target(2);
    let peers = stopped_uploads(&target, 40, 1_000_000);
    let trickle = Trickle::start(peers, vec![1; 64], Duration::from_millis(100));
    target.measure("trickle").expect_served();
    check_during(target, trickle.end());
}

#[test]
fn small_uploads_that_trickle() {
    let target = target(1);
    let head = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\nxx";
    let mut peers = Rude::many(&target.node, Door::Http, 300, None);
    for peer in &mut peers {
        peer.send(head.as_bytes()).expect("a head fits");
    }
    check_during(target, peers);
}

#[test]
fn puts_that_stop_within_a_frame() {
    let target = target(1);
    let start = oap::request(1, &json!({"op": "put", "len": 1 << 30})).encode();
    let frame = oap::frame(REQ, 1, &vec![9; oap::MAX_FRAME - 33]).encode();
    let upload = |_| {
        let mut peer = Rude::connect(&target.node, Door::OapPlain, None);
        peer.send(&start).expect("a request fits");
        peer.send_until_full(&frame[..frame.len() - 1], frame.len() - 1);
        peer
    };
    let peers = (0..60).map(upload).collect();
    check_during(target, peers);
}

/// Readers of another part of a large object each, who take nothing.
fn silent_readers(target: &Target, count: usize) -> Vec<Rude> {
    let large = object(5, 24 * MIB);
    target.store(&large);
    let reader = |at: usize| {
        let mut peer = Rude::connect(&target.node, Door::Http, Some(2304));
        let from = at * large.bytes.len() / count;
        let request = format!(
            "GET /o/{} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={from}-\r\n\r\n",
            large.addr
        );
        peer.send(request.as_bytes()).expect("a request fits");
        peer
    };
    (0..count).map(reader).collect()
}

/// Connections with as many gets of a large object as may be open, who take nothing.
fn silent_gets(target: &Target, count: usize) -> Vec<Rude> {
    let large = object(6, 24 * MIB);
    target.store(&large);
    let step = large.bytes.len() / (count * 64);
    let reader = |at: usize| {
        let mut peer = Rude::connect(&target.node, Door::OapPlain, Some(2304));
        for corr in 0..64 {
            let offset = (at * 64 + corr) * step;
            let get = json!({"op": "get", "addr": large.addr, "offset": offset});
            let mut frame = oap::request(corr as u64 + 1, &get);
            // Half of them under credit that they never renew.
            frame.flags |= if corr % 2 == 0 { ACK_REQ } else { 0 };
            peer.send(&frame.encode()).expect("a request fits");
        }
        peer
    };
    (0..count).map(reader).collect()
}

/// A reader who reads gets all of a large object while others hold what they may.
fn expect_large(target: &Target) {
    let mine = object(9, 3 * MIB);
    target.store(&mine);
    let read = || {
        let mut peer = Peer::new(target.node.connect());
        let asked = peer.try_send(&common::rude::get(&mine.addr));
        let answer = asked.then(|| peer.try_response("GET")).flatten();
        answer.is_some_and(|answer| answer.status == 200 && answer.body == mine.bytes)
    };
    target.wait("a large object is read", read, || target.node.stderr());
}

#[test]
fn readers_that_do_not_read() {
    let target = target(1);
    let peers = silent_readers(&target, 120);
    target.measure("silent").expect_served();
    expect_large(&target);
    check_during(target, peers);
}

#[test]
fn gets_that_are_not_read() {
    let target = target(1);
    let peers = silent_gets(&target, 30);
    target.measure("silent").expect_served();
    expect_large(&target);
    check_during(target, peers);
}

#[test]
fn questions_between_shards_do_not_wait_for_those_that_need_memory() {
    let target = target(2);
    let peers = silent_gets(&target, 40);
    let found: Vec<_> = (0..24).map(|seed| object(1_000_000 + seed, MIB).addr).collect();
    let missing: Vec<_> = (0..24).map(|n| common::addr_of(format!("not {n}").as_bytes())).collect();
    for _ in 0..4 {
        let mut peer = Peer::new(target.node.connect());
        for (method, addr, status) in found
            .iter()
            .map(|addr| ("HEAD", addr, 200))
            .chain(missing.iter().map(|addr| ("GET", addr, 404)))
        {
            peer.send(format!("{method} /o/{addr} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            assert_eq!(peer.response(method).status, status, "{method}");
        }
    }
    expect_large(&target);
    check_during(target, peers);
}
