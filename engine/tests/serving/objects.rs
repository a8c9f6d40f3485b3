//! Objects of every size go in and come out unchanged, over every protocol, whichever shard a
//! connection meets.

use crate::common::{
    Data, KIB, MIB, Node, Object, assert_same, curl::Curl, has_two_cores, http::Peer, oap::Oap,
    object, one_and_two_cores,
};
use serde_json::json;

/// Nothing, one byte, and one less, exactly and one more than what matters to storage.
const SIZES: [usize; 12] = [
    0,
    1,
    4 * KIB,
    16 * KIB,
    16 * KIB + 1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    200_000,
    MIB - 1,
    MIB,
    MIB + 1,
];

/// Fetches an object over all four listeners.
fn check_everywhere(node: &Node, object: &Object) {
    for curl in [Curl::http(node), Curl::https(node)] {
        curl.check(object);
        let head = curl.head(&object.addr);
        assert_eq!(head.status, 200);
        let len = object.bytes.len().to_string();
        assert_eq!(head.field("content-length"), Some(&*len));
        assert_eq!(head.field("etag"), Some(&*format!("\"{}\"", object.addr)));
    }
    for mut oap in Oap::both(node) {
        oap.check(object);
        let has = oap.ask(&json!({"op": "has", "addr": object.addr}));
        assert_eq!(has.json(), json!({"has": true, "size": object.bytes.len()}));
    }
}

#[test]
fn every_size_over_http() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        for (seed, len) in (1..).zip(SIZES) {
            let curl = if len % 2 == 0 { Curl::http(&node) } else { Curl::https(&node) };
            let first = object(seed, len);
            let put = curl.put(&first.addr, &first.bytes, &[]);
            assert_eq!(put.status, 201, "{len}: {}", put.heads);
            assert_eq!(put.json(), json!({"addr": first.addr, "size": len}));
            check_everywhere(&node, &first);

            let second = object(seed + 100, len);
            if len == 0 {
                continue; // There is only one empty object.
            }
            let put = curl.put_sized(&second.bytes, &[]);
            assert_eq!(put.status, 201, "{len}: {}", put.heads);
            assert_eq!(put.json()["addr"], second.addr);
            assert_eq!(put.field("location"), Some(&*format!("/o/{}", second.addr)));
            check_everywhere(&node, &second);

            let third = object(seed + 200, len);
            let put = curl.put_chunked(&third.bytes, &[]);
            assert_eq!(put.status, 201, "{len}: {}", put.heads);
            assert_eq!(put.json(), json!({"addr": third.addr, "size": len}));
            check_everywhere(&node, &third);
        }
        node.terminate();
    }
}

#[test]
fn every_size_over_oap() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        for (seed, len) in (1..).zip(SIZES) {
            for (mut oap, seed) in Oap::both(&node).into_iter().zip([seed + 300, seed + 400]) {
                let named = object(seed, len);
                // Many frames that cross the borders of groups, but not thousands.
                let frame_len = (len / 7 + 1).max(1000);
                let new = !(len == 0 && seed > 400);
                let put = oap.put(&named.bytes, Some(&named.addr), frame_len);
                assert_eq!(put.code, 0, "{len}");
                assert_eq!(put.json(), json!({"addr": named.addr, "size": len, "new": new}));
                check_everywhere(&node, &named);
                if len > 0 {
                    let unnamed = object(seed + 200, len);
                    let put = oap.put(&unnamed.bytes, None, 1_000_000);
                    let wanted = json!({"addr": unnamed.addr, "size": len, "new": true});
                    assert_eq!((put.code, put.json()), (0, wanted));
                    check_everywhere(&node, &unnamed);
                }
            }
        }
        node.terminate();
    }
}

#[test]
fn a_hundred_mebibytes() {
    let len = 100 * MIB;
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let named = object(1, len);
        let put = Curl::http(&node).put(&named.addr, &named.bytes, &[]);
        assert_eq!(put.status, 201, "{}", put.heads);
        assert!(put.heads.starts_with("HTTP/1.1 100 "), "curl got 100: {}", put.heads);
        check_everywhere(&node, &named);

        let unnamed = object(2, len);
        let put = Curl::https(&node).put_chunked(&unnamed.bytes, &[]);
        assert_eq!((put.status, put.json()["addr"].as_str()), (201, Some(&*unnamed.addr)));
        Curl::http(&node).check(&unnamed);

        let third = object(3, len);
        let put = Oap::tls(&node).put(&third.bytes, None, 1_000_000);
        assert_eq!(put.json(), json!({"addr": third.addr, "size": len, "new": true}));
        Oap::plain(&node).check(&third);
        node.terminate();
    }
}

#[test]
fn two_shards_answer_for_each_other() {
    if !has_two_cores() {
        return;
    }
    let data = Data::new();
    let node = data.start(2);
    let objects: Vec<Object> =
        (0..64).map(|seed| object(seed, 100 + 3000 * seed as usize)).collect();
    let puts = node.metrics().sum("ron_mesh_hops_total");
    let mut peer = crate::common::http::Peer::new(node.connect());
    for object in &objects {
        let put = peer.try_put(&object.addr, &object.bytes).expect("the connection holds");
        assert_eq!(put.status, 201);
    }
    let gets = node.metrics().sum("ron_mesh_hops_total");
    assert!(gets > puts, "of 64 PUTs on one connection, some belong to the other shard");
    // One connection is with one shard, so about half of its requests belong to the other.
    for object in &objects {
        let answer = peer.get(&format!("/o/{}", object.addr));
        assert_eq!(answer.status, 200);
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
    let hops = node.metrics().sum("ron_mesh_hops_total") - gets;
    assert!(hops >= 10, "{hops} hops for 64 objects on one connection");
    for mut oap in Oap::both(&node) {
        objects.iter().for_each(|object| oap.check(object));
    }
    node.terminate();
}

#[test]
fn one_shard_has_no_mesh() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(9, 70_000);
    Curl::http(&node).store(&object);
    check_everywhere(&node, &object);
    assert_eq!(node.metrics().sum("ron_mesh_hops_total"), 0);
    assert_eq!(node.ready()["shards"], 1);
    node.terminate();
}

#[test]
fn many_readers_share_a_cache_that_is_far_too_small() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let cache = format!("{}MiB", 8 * shards);
        let node = data.setup().shards(shards).args(&["--cache", &cache]).start();
        let objects: Vec<Object> = (0..8).map(|seed| object(seed, 12 * MIB + 5)).collect();
        objects.iter().for_each(|object| Curl::http(&node).store(object));
        // Each reads all of them, beginning with another one.
        std::thread::scope(|scope| {
            for reader in 0..8 {
                let (node, objects) = (&node, &objects);
                scope.spawn(move || {
                    let mut oap = Oap::plain(node);
                    let mut peer = crate::common::http::Peer::new(node.connect());
                    for at in 0..8 {
                        let object = &objects[(reader + at) % 8];
                        if (reader + at) % 4 == 0 {
                            oap.check(object);
                            continue;
                        }
                        let answer = peer.get(&format!("/o/{}", object.addr));
                        assert_eq!(answer.status, 200);
                        assert_same(&answer.body, &object.bytes, "one of many readers");
                    }
                });
            }
        });
        assert!(node.metrics().sum("ron_cache_bytes") <= 8 * MIB as u64 * shards as u64);
        assert_eq!(node.metrics().sum("ron_integrity_fail_total"), 0);
        node.terminate();
    }
}

#[test]
fn an_object_that_is_there_costs_no_write() {
    let data = Data::new();
    let node = data.start(1);
    let objects = [object(31, 900 * KIB), object(32, 6 * MIB)];
    let mut peer = Peer::new(node.connect());
    let mut put = |object: &Object| {
        peer.try_put(&object.addr, &object.bytes).expect("there is an answer").status
    };
    assert!(objects.iter().all(|object| put(object) == 201));
    let written = || {
        let text = std::fs::read_to_string(format!("/proc/{}/io", node.pid())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.and_then(|bytes| bytes.parse::<usize>().ok()).expect("Linux counts what is written")
    };
    let before = written();
    for _ in 0..5 {
        assert!(objects.iter().all(|object| put(object) == 200));
    }
    // A checkpoint of the index may come in between.
    assert!(written() - before < MIB, "{} bytes were written", written() - before);
    node.terminate();
}
