//! Bits that flip on the disk: no byte of a group that does not match ever leaves the node.

use crate::common::{
    Data, GROUP, KIB, MIB, Node, Object, assert_same,
    curl::Curl,
    disk::{find, flip},
    http::Peer,
    oap::Oap,
    object, one_and_two_cores,
};
use serde_json::json;

/// Objects, one of them damaged, and a node that has none of them in memory.
struct Damaged {
    _data: Data,
    node: Node,
    object: Object,
    others: Vec<Object>,
}

/// Stores an object among others, ends the node, flips one bit at a distance from the object's
/// first byte, and starts it again.
fn damaged(shards: usize, len: usize, at: u64) -> Damaged {
    let data = Data::new();
    let node = data.start(shards);
    let others: Vec<Object> = [3000, 70_000, 5000, 2 * MIB]
        .iter()
        .zip(50..)
        .map(|(len, seed)| object(seed, *len))
        .collect();
    let object = object(1, len);
    let curl = Curl::http(&node);
    others[..2].iter().for_each(|object| curl.store(object));
    curl.store(&object);
    others[2..].iter().for_each(|object| curl.store(object));
    curl.check(&object);
    node.terminate();
    let (path, begin) = find(&data, &object);
    let of_its_own = path.extension().is_some_and(|ending| ending == "obj");
    assert_eq!(of_its_own, len > MIB, "{}", path.display());
    flip(&path, begin + at);
    let node = data.start(shards);
    assert_eq!(node.metrics().sum("ron_integrity_fail_total"), 0, "nothing was read yet");
    Damaged { _data: data, node, object, others }
}

impl Damaged {
    fn failures(&self) -> u64 {
        self.node.metrics().sum("ron_integrity_fail_total")
    }

    /// A range that must be served, over HTTP and OAP.
    fn check_range(&self, first: usize, last: usize) {
        let wanted = &self.object.bytes[first..=last];
        let range = format!("{first}-{last}");
        let part = Curl::http(&self.node).get(&self.object.addr, &["-r", &range]);
        assert_eq!((part.exit, part.status), (0, 206), "{range}");
        assert_same(&part.body, wanted, &range);
        for mut oap in Oap::both(&self.node) {
            let got = oap.get(&json!({
                "op": "get", "addr": self.object.addr, "offset": first, "len": last + 1 - first
            }));
            assert_eq!(got.error, None, "{range}");
            assert_same(&got.bytes, wanted, &range);
        }
    }

    /// A request that must be answered by an error alone, over HTTP, HTTPS and OAP.
    fn check_refused(&self, range: Option<(usize, usize)>) {
        let field = range.map(|(first, last)| format!("{first}-{last}"));
        let args: Vec<&str> = field.iter().flat_map(|field| ["-r", field.as_str()]).collect();
        for curl in [Curl::http(&self.node), Curl::https(&self.node)] {
            let answer = curl.get(&self.object.addr, &args);
            assert_eq!((answer.exit, answer.status), (0, 502), "{}", answer.heads);
            assert_eq!(
                (&*answer.error(), &answer.json()["retryable"]),
                ("integrity", &json!(true))
            );
        }
        let mut json = json!({"op": "get", "addr": self.object.addr});
        if let Some((first, last)) = range {
            json["offset"] = first.into();
            json["len"] = (last + 1 - first).into();
        }
        for mut oap in Oap::both(&self.node) {
            let got = oap.get(&json);
            assert_eq!(got.error, Some((502, "integrity".to_owned())));
            assert!(got.bytes.is_empty());
            oap.check(&self.others[0]);
        }
        assert!(self.failures() > 0, "the failure was counted");
    }

    /// The first request for all, whose answer must end before the group that is damaged. From then
    /// on that is known, and no answer begins.
    fn check_cut(&self, bad_group: usize) {
        let good = &self.object.bytes[..bad_group * GROUP];
        let answer = Curl::https(&self.node).get(&self.object.addr, &[]);
        // 18: the body is too short; 56: the connection was reset.
        assert!(matches!(answer.exit, 18 | 56), "curl ended with {}", answer.exit);
        assert_eq!(answer.status, 200);
        assert!(good.starts_with(&answer.body), "{} bytes came", answer.body.len());
        self.check_refused(None);
        self.check_refused(Some((0, 0)));
    }

    /// The same over OAP.
    fn check_stream_cut(&self, bad_group: usize) {
        let good = &self.object.bytes[..bad_group * GROUP];
        let [mut oap, _] = Oap::both(&self.node);
        let got = oap.get(&json!({"op": "get", "addr": self.object.addr}));
        assert_eq!(got.error, Some((502, "integrity".to_owned())));
        assert!(good.starts_with(&got.bytes), "{} bytes came", got.bytes.len());
        assert!(!got.bytes.is_empty(), "the groups before it are good");
        // The connection outlives the stream.
        oap.check(&self.others[1]);
        self.check_refused(None);
        self.check_refused(Some((0, 0)));
    }

    /// As `check_cut`, for groups that are read ahead: their failure may come before anything was
    /// sent.
    fn check_cut_or_refused(&self) {
        let good = &self.object.bytes[..GROUP];
        for curl in [Curl::http(&self.node), Curl::https(&self.node)] {
            let answer = curl.get(&self.object.addr, &[]);
            match answer.status {
                502 => assert_eq!(answer.error(), "integrity"),
                status => {
                    assert_eq!(status, 200);
                    assert!(matches!(answer.exit, 18 | 56), "curl ended with {}", answer.exit);
                    assert!(good.starts_with(&answer.body), "{} bytes came", answer.body.len());
                }
            }
        }
        assert!(self.failures() > 0);
    }

    /// A PUT of the object heals it.
    fn finish(self) {
        let mut peer = Peer::new(self.node.connect());
        let (addr, bytes) = (&self.object.addr, &self.object.bytes);
        assert_eq!(peer.try_put(addr, bytes).expect("an answer").status, 201);
        assert_same(&peer.get(&format!("/o/{addr}")).body, bytes, "the healed object");
        for object in &self.others {
            let answer = peer.get(&format!("/o/{}", object.addr));
            assert_same(&answer.body, &object.bytes, "another object");
            // A connection goes on after an error that was answered.
            let refused = peer.get(&format!("/o/{}", crate::common::addr_of(b"none")));
            assert_eq!(refused.status, 404);
        }
        drop(peer);
        self.node.terminate();
    }
}

#[test]
fn one_group() {
    for shards in one_and_two_cores() {
        for (len, at) in [(100, 0), (5000, 100), (GROUP, GROUP as u64 - 1)] {
            let damaged = damaged(shards, len, at);
            damaged.check_refused(None);
            damaged.check_refused(Some((0, 0)));
            damaged.finish();
        }
    }
}

#[test]
fn a_group_in_the_midst_of_a_segment_object() {
    for shards in one_and_two_cores() {
        let len = MIB - 5;
        let damaged = damaged(shards, len, 9 * GROUP as u64 + 1);
        damaged.check_range(0, 9 * GROUP - 1);
        damaged.check_range(10 * GROUP, len - 1);
        damaged.check_range(8 * GROUP + 5, 8 * GROUP + 6);
        damaged.check_cut(9);
        damaged.check_refused(Some((9 * GROUP, 9 * GROUP)));
        damaged.check_refused(Some((10 * GROUP - 1, len - 1)));
        damaged.finish();
    }
}

#[test]
fn a_group_of_a_file() {
    for shards in one_and_two_cores() {
        let len = 5 * MIB + 3;
        let damaged = damaged(shards, len, len as u64 - 1);
        let last_group = len / GROUP * GROUP;
        damaged.check_range(0, last_group - 1);
        damaged.check_stream_cut(len / GROUP);
        damaged.check_refused(Some((last_group, last_group)));
        damaged.finish();
    }
}

#[test]
fn the_first_group() {
    for len in [300 * KIB, 3 * MIB] {
        let damaged = damaged(1, len, 0);
        damaged.check_range(GROUP, len - 1);
        damaged.check_refused(None);
        damaged.check_refused(Some((GROUP - 1, 2 * GROUP)));
        damaged.finish();
    }
}

#[test]
fn the_outboard() {
    for (len, unit) in [(300 * KIB, 128), (3 * MIB, 4096)] {
        // It follows the object, at the next multiple of the unit.
        let at = len.next_multiple_of(unit) + 32;
        let damaged = damaged(1, len, at as u64);
        damaged.check_refused(None);
        // No group can be checked without it.
        damaged.check_refused(Some((len - 1, len - 1)));
        damaged.finish();
    }
}

#[test]
fn a_group_that_is_read_ahead() {
    let damaged = damaged(1, 200 * KIB, GROUP as u64);
    damaged.check_range(0, GROUP - 1);
    damaged.check_cut_or_refused();
    damaged.finish();
}

#[test]
fn with_a_cache_far_smaller_than_the_data_every_read_is_verified_again() {
    const OBJECTS: u64 = 48;
    let data = Data::new();
    let node = data.setup().args(&["--cache", "8MiB"]).start();
    let objects: Vec<Object> = (0..OBJECTS).map(|seed| object(700 + seed, MIB)).collect();
    let mut peer = Peer::new(node.connect());
    for object in &objects {
        assert_eq!(peer.try_put(&object.addr, &object.bytes).expect("an answer").status, 201);
    }
    let before = node.metrics();
    for object in objects.iter().chain(&objects) {
        let answer = peer.get(&format!("/o/{}", object.addr));
        assert_eq!(answer.status, 200);
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
    let after = node.metrics();
    let since = |name: &str| after.sum(name) - before.sum(name);
    let served = 2 * OBJECTS * (MIB / GROUP) as u64;
    let verified = since("ron_verify_groups_total");
    assert!(verified + since("ron_cache_hits_total") >= served, "{verified} of {served} groups");
    assert!(verified >= served * 9 / 10, "{verified} of {served}: hardly any can be in the cache");
    node.terminate();
}
