//! Parts of objects, compared with slices of the source.

use crate::common::{
    Data, GROUP, MIB, Node, Object, assert_same, curl::Curl, http::Peer, oap::Oap, object,
    one_and_two_cores,
};
use serde_json::{Value, json};

/// First and last byte of every range that is worth a try, for an object of `size` bytes.
fn edges(size: usize) -> Vec<(usize, usize)> {
    let mut points = vec![0, 1, size / 2, size - 1, size.saturating_sub(2)];
    let borders = [GROUP, 2 * GROUP, 16 * GROUP, size / GROUP * GROUP];
    points.extend(borders.iter().flat_map(|border| [border.wrapping_sub(1), *border, border + 1]));
    points.retain(|point| *point < size);
    points.sort_unstable();
    points.dedup();
    let all = &points;
    all.iter().flat_map(|a| all.iter().filter(move |b| a <= *b).map(move |b| (*a, *b))).collect()
}

fn sources() -> Vec<Object> {
    // One group, two, many of a segment, a file of its own.
    let sizes = [1, 1000, GROUP, GROUP + 1, 5 * GROUP - 7, 2 * MIB + 12_345];
    (1..).zip(sizes).map(|(seed, size)| object(seed, size)).collect()
}

fn with_objects(shards: usize, test: impl Fn(&Node, &Object)) {
    let data = Data::new();
    let node = data.start(shards);
    for object in sources() {
        Curl::http(&node).store(&object);
        test(&node, &object);
    }
    node.terminate();
}

fn ranged(peer: &mut Peer, object: &Object, range: &str) -> crate::common::http::Response {
    let addr = &object.addr;
    let head = format!("GET /o/{addr} HTTP/1.1\r\nHost: t\r\nRange: {range}\r\n\r\n");
    peer.send(head.as_bytes());
    peer.response("GET")
}

#[track_caller]
fn expect_part(peer: &mut Peer, object: &Object, range: &str, first: usize, last: usize) {
    let answer = ranged(peer, object, range);
    let size = object.bytes.len();
    assert_eq!(answer.status, 206, "{range} of {size}");
    let wanted = format!("bytes {first}-{last}/{size}");
    assert_eq!(answer.field("content-range"), Some(&*wanted), "{range} of {size}");
    assert_eq!(answer.field("etag"), Some(&*format!("\"{}\"", object.addr)));
    assert_same(&answer.body, &object.bytes[first..=last], range);
}

#[test]
fn every_edge_over_http() {
    for shards in one_and_two_cores() {
        with_objects(shards, |node, object| {
            let mut peer = Peer::new(node.connect());
            let size = object.bytes.len();
            for (first, last) in edges(size) {
                expect_part(&mut peer, object, &format!("bytes={first}-{last}"), first, last);
            }
            for (first, _) in edges(size).into_iter().filter(|(first, last)| first == last) {
                expect_part(&mut peer, object, &format!("bytes={first}-"), first, size - 1);
                let suffix = format!("bytes=-{}", size - first);
                expect_part(&mut peer, object, &suffix, first, size - 1);
            }
            // Beyond the end on one side only: cut at the end.
            let beyond = size + 10;
            expect_part(&mut peer, object, &format!("bytes=0-{beyond}"), 0, size - 1);
            expect_part(&mut peer, object, &format!("bytes=-{beyond}"), 0, size - 1);
            let huge = "bytes=0-99999999999999999999999";
            expect_part(&mut peer, object, huge, 0, size - 1);
        });
    }
}

#[test]
fn ranges_that_hold_nothing_are_refused_with_the_size() {
    with_objects(1, |node, object| {
        let mut peer = Peer::new(node.connect());
        let size = object.bytes.len();
        for range in [
            format!("bytes={size}-"),
            format!("bytes={size}-{size}"),
            format!("bytes={}-{}", size + 1, size + 2),
            "bytes=99999999999999999999999-".to_owned(),
            "bytes=-0".to_owned(),
        ] {
            let answer = ranged(&mut peer, object, &range);
            assert_eq!(answer.status, 416, "{range} of {size}");
            assert_eq!(answer.field("content-range"), Some(&*format!("bytes */{size}")));
            assert_eq!(answer.envelope(), "range_not_satisfiable");
        }
        let whole = peer.get(&format!("/o/{}", object.addr));
        assert_same(&whole.body, &object.bytes, "after a 416");
    });
}

#[test]
fn ranges_that_are_none_are_ignored() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(3, 1000);
    Curl::http(&node).store(&object);
    let mut peer = Peer::new(node.connect());
    for range in [
        "bytes=5-4",
        "bytes=a-b",
        "bytes=",
        "bytes=-",
        "bytes",
        "items=0-1",
        "bytes=0-1x",
        "bytes=+1-2",
        "bytes=0-0,5-6,x",
        "bytes=0-0,6-5",
        "0-1",
        "bytes 0-1",
    ] {
        let answer = ranged(&mut peer, &object, range);
        assert_eq!(answer.status, 200, "{range}");
        assert_eq!(answer.field("content-range"), None);
        assert_same(&answer.body, &object.bytes, range);
    }
    node.terminate();
}

#[test]
fn several_ranges_come_as_parts_in_the_order_they_were_asked_for() {
    for shards in one_and_two_cores() {
        with_objects(shards, |node, object| {
            let mut peer = Peer::new(node.connect());
            let size = object.bytes.len();
            let mut edges: Vec<(usize, usize)> = edges(size);
            edges.retain(|(first, last)| last - first < 3 * GROUP);
            // Those that touch are one, which the codec is tested for: here none do.
            for some in edges.windows(3).step_by(7) {
                let mut asked: Vec<(usize, usize)> = Vec::new();
                for (first, last) in some.iter().rev().copied() {
                    if asked.iter().all(|(a, b)| first > b + 1 || last + 1 < *a) {
                        asked.push((first, last));
                    }
                }
                let list: Vec<String> =
                    asked.iter().map(|(first, last)| format!("{first}-{last}")).collect();
                let answer = ranged(&mut peer, object, &format!("bytes={}", list.join(", ")));
                assert_eq!(answer.status, 206, "{list:?} of {size}");
                if let [(first, last)] = asked[..] {
                    assert_same(&answer.body, &object.bytes[first..=last], "one part");
                    continue;
                }
                assert_eq!(answer.field("content-range"), None);
                for ((range, bytes), (first, last)) in answer.parts().iter().zip(&asked) {
                    assert_eq!(*range, format!("bytes {first}-{last}/{size}"));
                    assert_same(bytes, &object.bytes[*first..=*last], range);
                }
                assert_eq!(answer.parts().len(), asked.len());
            }
            if size > 2 * MIB {
                let most: Vec<String> = (0..16)
                    .map(|at| format!("{}-{}", at * 130_000, at * 130_000 + 70_000))
                    .collect();
                let answer = ranged(&mut peer, object, &format!("bytes={}", most.join(",")));
                let parts = answer.parts();
                assert_eq!(parts.len(), 16);
                for (at, (_, bytes)) in parts.iter().enumerate() {
                    let start = at * 130_000;
                    assert_same(bytes, &object.bytes[start..=start + 70_000], "one of 16");
                }
                let more = format!("bytes={},2090000-", most.join(","));
                let answer = ranged(&mut peer, object, &more);
                assert_eq!(answer.status, 200, "one more than 16");
                assert_same(&answer.body, &object.bytes, "all of it");
            }
        });
    }
}

#[test]
fn if_range_decides_and_head_has_none() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(4, 1000);
    let curl = Curl::http(&node);
    curl.store(&object);
    let tag = format!("If-Range: \"{}\"", object.addr);
    let part = curl.get(&object.addr, &["-r", "5-9", "-H", &tag]);
    assert_eq!((part.status, &*part.body), (206, &object.bytes[5..10]));
    for other in ["If-Range: \"b3:00\"", "If-Range: Wed, 21 Oct 2015 07:28:00 GMT"] {
        let whole = curl.get(&object.addr, &["-r", "5-9", "-H", other]);
        assert_eq!((whole.status, whole.body.len()), (200, 1000), "{other}");
    }
    let head = curl.get(&object.addr, &["-I", "-r", "5-9"]);
    assert_eq!((head.status, head.field("content-length")), (200, Some("1000")));
    assert_eq!(head.field("accept-ranges"), Some("bytes"));
    node.terminate();
}

#[test]
fn an_empty_object_has_no_part() {
    let data = Data::new();
    let node = data.start(1);
    let empty = object(0, 0);
    Curl::http(&node).store(&empty);
    let mut peer = Peer::new(node.connect());
    for range in ["bytes=0-", "bytes=0-0"] {
        let answer = ranged(&mut peer, &empty, range);
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.field("content-range"), Some("bytes */0"));
    }
    for mut oap in Oap::both(&node) {
        let got = oap.get(&json!({"op": "get", "addr": empty.addr, "offset": 0, "len": 5}));
        assert_eq!((got.code, got.bytes.len(), got.frames), (206, 0, 1));
        let got = oap.get(&json!({"op": "get", "addr": empty.addr, "offset": 1}));
        assert_eq!(got.error, Some((400, "bad_request".to_owned())));
    }
    node.terminate();
}

#[test]
fn every_edge_over_oap() {
    for shards in one_and_two_cores() {
        with_objects(shards, |node, object| {
            let size = object.bytes.len();
            let ask = |offset: usize, len: Value| {
                let addr = &object.addr;
                json!({"op": "get", "addr": addr, "offset": offset, "len": len})
            };
            for mut oap in Oap::both(node) {
                for (first, last) in edges(size) {
                    let got = oap.get(&ask(first, json!(last + 1 - first)));
                    assert_eq!((got.code, got.error), (206, None), "{first}-{last} of {size}");
                    assert_same(&got.bytes, &object.bytes[first..=last], "a part");
                }
                // OAP/1 §6.4: cut at the end, empty at the end, refused behind it.
                let got = oap.get(&ask(size - 1, json!(100)));
                assert_eq!((got.code, &*got.bytes), (206, &object.bytes[size - 1..]));
                let got = oap.get(&ask(0, json!(u64::MAX)));
                assert_eq!((got.code, got.bytes.len()), (206, size));
                for empty in [ask(size, Value::Null), ask(size, json!(9)), ask(0, json!(0))] {
                    let got = oap.get(&empty);
                    assert_eq!((got.code, got.bytes.len(), got.error), (206, 0, None), "{empty}");
                }
                let whole = oap.get(&ask(0, Value::Null));
                assert_eq!((whole.code, whole.bytes.len()), (0, size));
                for offset in [size as u64 + 1, u64::MAX] {
                    let json = json!({"op": "get", "addr": object.addr, "offset": offset});
                    assert_eq!(oap.get(&json).error, Some((400, "bad_request".to_owned())));
                }
            }
        });
    }
}
