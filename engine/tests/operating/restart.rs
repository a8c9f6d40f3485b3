//! The end of a node and its next beginning: what it stored stays, and requests in progress
//! are finished.

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use crate::common::{
    Data, KIB, MIB, Node, Object, assert_same,
    curl::Curl,
    has_two_cores,
    http::{Peer, put_head},
    oap::{END, Gathering, Oap, REQ, frame, request},
    object,
};
use serde_json::json;

fn objects() -> Vec<Object> {
    let sizes = [0, 1, 4 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB, MIB + 1, 5 * MIB];
    let many = (1..=150).map(|at| at * 97);
    (1..).zip(sizes.into_iter().chain(many)).map(|(seed, len)| object(seed, len)).collect()
}

fn check_all(node: &Node, objects: &[Object]) {
    let mut peer = Peer::new(node.connect());
    for object in objects {
        let answer = peer.get(&format!("/o/{}", object.addr));
        assert_eq!(answer.status, 200, "{} of {} bytes", object.addr, object.bytes.len());
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
    assert_eq!(node.metrics().sum("ron_objects"), objects.len() as u64);
    let bytes: usize = objects.iter().map(|object| object.bytes.len()).sum();
    assert_eq!(node.metrics().sum("ron_object_bytes"), bytes as u64);
}

#[test]
fn a_restart_keeps_all() {
    let data = Data::new();
    let all = objects();
    let (first, second) = all.split_at(100);
    let node = data.start(1);
    first.iter().for_each(|object| Curl::http(&node).store(object));
    check_all(&node, first);
    node.terminate();
    let node = data.start(1);
    check_all(&node, first);
    second.iter().for_each(|object| Curl::http(&node).store(object));
    node.terminate();
    let node = data.start(1);
    check_all(&node, &all);
    // Stored before is stored still.
    let again = Curl::http(&node).put(&all[3].addr, &all[3].bytes, &[]);
    assert_eq!(again.status, 200);
    node.terminate();
}

#[test]
fn the_number_of_shards_may_change() {
    if !has_two_cores() {
        return;
    }
    let data = Data::new();
    let all = objects();
    for (shards, part) in [2, 1, 2].into_iter().zip(all.chunks(all.len().div_ceil(3))) {
        let node = data.start(shards);
        part.iter().for_each(|object| Curl::http(&node).store(object));
        node.terminate();
    }
    for shards in [1, 2] {
        let node = data.start(shards);
        assert_eq!(node.ready()["shards"], shards);
        check_all(&node, &all);
        node.terminate();
    }
}

#[test]
fn more_partitions_than_shards() {
    let data = Data::new();
    let all = objects();
    let node = data.setup().args(&["--partitions", "7"]).start();
    all.iter().for_each(|object| Curl::http(&node).store(object));
    node.terminate();
    let node = data.start(1);
    check_all(&node, &all);
    node.terminate();
}

#[test]
fn the_index_is_disposable() {
    let data = Data::new();
    let all = objects();
    let node = data.start(1);
    all.iter().for_each(|object| Curl::http(&node).store(object));
    node.terminate();
    let index = data.path().join("data/p000/index");
    std::fs::remove_dir_all(&index).expect("there is an index");
    let node = data.start(1);
    check_all(&node, &all);
    node.terminate();
    for file in std::fs::read_dir(&index).expect("there is an index") {
        let path = file.expect("an entry").path();
        let len = path.metadata().expect("a file").len();
        std::fs::write(&path, vec![0x5a; len.min(1 << 20) as usize]).expect("it can be written");
    }
    let node = data.start(1);
    check_all(&node, &all);
    node.terminate();
}

#[test]
fn transfers_in_progress_are_finished() {
    let data = Data::new();
    let node = data.start(1);
    // More than sockets hold, so that it is in progress until it is read.
    let (large, upload, framed) = (object(1, 64 * MIB), object(2, 3 * MIB), object(3, MIB));
    Curl::http(&node).store(&large);
    let mut down = Peer::new(node.connect());
    down.send(format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", large.addr).as_bytes());
    assert_eq!(down.try_head().expect("there is a head").status, 200);
    let mut up = Peer::new(node.connect());
    up.send(put_head(&upload.addr, upload.bytes.len()).as_bytes());
    up.send(&upload.bytes[..MIB]);
    let (mut oap_down, mut oap_up) = (Oap::tls(&node), Oap::tls(&node));
    oap_down.send(&request(1, &json!({"op": "get", "addr": large.addr})));
    let mut gathering = Gathering::new(false);
    gathering.take(&oap_down.recv());
    oap_up.send(&request(2, &json!({"op": "put", "len": MIB, "addr": framed.addr})));
    oap_up.send(&frame(REQ, 2, &framed.bytes[..1000]));
    oap_up.hello();
    let mut idle = Peer::new(node.connect());
    assert_eq!(idle.get(&format!("/o/{}", framed.addr)).status, 404);

    node.signal("TERM");
    node.wait_draining();
    idle.expect_end();
    assert_same(&down.read(large.bytes.len()), &large.bytes, "the download");
    up.send(&upload.bytes[MIB..]);
    assert_eq!(up.response("PUT").status, 201);
    up.expect_end();
    while !gathering.take(&oap_down.recv()) {}
    assert_same(&gathering.got.bytes, &large.bytes, "the download over OAP");
    for chunk in framed.bytes[1000..].chunks(100_000) {
        oap_up.send(&frame(REQ, 2, chunk));
    }
    oap_up.send(&frame(REQ | END, 2, b""));
    assert_eq!(oap_up.recv().json()["addr"], framed.addr);
    drop((down, up, oap_down, oap_up, idle));
    node.finish();

    let node = data.start(1);
    check_all(&node, &[large, upload, framed]);
    node.terminate();
}

#[test]
fn nothing_new_begins_while_the_node_ends() {
    let data = Data::new();
    let node = data.start(1);
    let large = object(1, 64 * MIB);
    Curl::http(&node).store(&large);
    let mut down = Peer::new(node.connect());
    down.send(format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", large.addr).as_bytes());
    assert_eq!(down.try_head().expect("there is a head").status, 200);
    let mut idle = Peer::new(node.connect());
    assert_eq!(idle.get("/").status, 404);
    let address = node.at("http");
    node.signal("TERM");
    // The shard has got the order when it closes what is idle.
    idle.expect_end();
    // Refused or reset, but neither answered nor left waiting for the end of the download.
    if let Ok(mut late) = std::net::TcpStream::connect(address) {
        late.set_read_timeout(Some(Duration::from_secs(5))).expect("a time can be set");
        let request = format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", large.addr);
        let _ = late.write_all(request.as_bytes());
        let mut answer = [0; 100];
        match late.read(&mut answer) {
            Ok(0) => {}
            Ok(_) => panic!("a request was begun: {:?}", String::from_utf8_lossy(&answer)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    drop(down);
    node.finish();
}

#[test]
fn a_transfer_that_never_ends_does_not_hold_the_node() {
    let data = Data::new();
    let node = data.setup().args(&["--deadline-drain", "0.5"]).start();
    let large = object(1, 64 * MIB);
    Curl::http(&node).store(&large);
    let mut down = Peer::new(node.connect());
    down.send(format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", large.addr).as_bytes());
    assert_eq!(down.try_head().expect("there is a head").status, 200);
    let mut up = Peer::new(node.connect());
    let head = put_head(&large.addr, 1000).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    up.send(head.as_bytes());
    // The upload has begun when the node asks for its body.
    assert_eq!(up.try_head().expect("there is a head").status, 100);
    let began = Instant::now();
    node.signal("TERM");
    let (code, said) = node.exit();
    assert_eq!(code, 0, "{said}");
    // Without the setting it is 30 s.
    let took = began.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(20)).contains(&took), "{took:?}");
    assert!(said.contains("deadlines.drain elapsed: 2 connections are cut"), "{said}");
    for line in ["\"ready\"", "not ready: leaving"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(down.read(large.bytes.len()).len() < large.bytes.len());
}

#[test]
fn an_interrupt_ends_it_as_well() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 1000);
    Curl::http(&node).store(&object);
    node.signal("INT");
    node.finish();
    let node = data.start(1);
    check_all(&node, &[object]);
    node.terminate();
}
