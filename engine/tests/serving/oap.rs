//! OAP/1 as `docs/OAP1.md` has it, spoken by a client that shares no code with the node.

use std::collections::BTreeMap;

use crate::common::{
    Data, GROUP, KIB, MIB, Node, Object, addr_of, assert_same,
    curl::Curl,
    oap::{
        ACK_REQ, APP_E2E, COMP, END, EVENT, Frame, Gathering, HELLO, MAILBOX, Oap, REQ, RESP,
        START, STORAGE, frame, request,
    },
    object, one_and_two_cores, outer_address,
};
use serde_json::{Value, json};

fn node() -> (Data, Node) {
    let data = Data::new();
    let node = data.start(1);
    (data, node)
}

fn get(object: &Object) -> Value {
    json!({"op": "get", "addr": object.addr})
}

fn bad_request() -> (u16, String) {
    (400, "bad_request".to_owned())
}

#[test]
fn hello_in_each_of_its_forms() {
    let (_data, node) = node();
    for mut oap in Oap::both(&node) {
        // OAP/1 §5.1
        for (flags, corr, tenant) in [(0, 0, 0), (REQ, 7, 3), (REQ | START | END, 9, u128::MAX)] {
            oap.send(&Frame { app: HELLO, tenant, ..frame(flags, corr, b"") });
            let answer = oap.recv();
            assert_eq!((answer.flags, answer.code, answer.app), (RESP | END, 0, HELLO));
            assert_eq!((answer.corr, answer.tenant), (corr, tenant));
            let hello = answer.json();
            assert_eq!(
                (&hello["max_frame"], &hello["max_inflight"]),
                (&json!(1048576), &json!(64))
            );
            assert_eq!(hello["supported_flags"], json!(["ACK_REQ", "APP_E2E"]));
            assert_eq!((&hello["oap_versions"], &hello["pq"]), (&json!([1]), &json!(false)));
            assert_eq!(hello["transports"], json!(["tcp+tls"]));
            assert!(hello["server_version"].as_str().is_some_and(|version| !version.is_empty()));
        }
        oap.send(&Frame { app: HELLO, ..frame(REQ, 11, b"x") });
        assert_eq!(oap.recv().error(), bad_request());
        oap.hello();
    }
    node.terminate();
}

#[test]
fn has_and_get() {
    let (_data, node) = node();
    let (small, large, none) = (object(1, 5000), object(2, 5 * GROUP + 9), addr_of(b"none"));
    [&small, &large].into_iter().for_each(|object| Curl::http(&node).store(object));
    for mut oap in Oap::both(&node) {
        let has = oap.ask(&json!({"op": "has", "addr": small.addr}));
        assert_eq!((has.flags, has.code), (RESP | START | END, 0));
        assert_eq!(has.json(), json!({"has": true, "size": 5000}));
        let has = oap.ask(&json!({"op": "has", "addr": none}));
        assert_eq!((has.code, has.json()), (0, json!({"has": false, "size": 0})));

        for object in [&small, &large] {
            oap.check(object);
            let got = oap.get(&json!({"op": "get", "addr": object.addr, "meta": true}));
            let size = object.bytes.len();
            let meta = got.meta.expect("it was asked for");
            // OAP/1 §6.6
            for (field, value) in [
                ("obj", json!(object.addr)),
                ("size", json!(size)),
                ("offset", json!(0)),
                ("len", json!(size)),
            ] {
                assert_eq!(meta[field], value, "{field}");
            }
            assert!(meta["content_type"].is_string());
            assert_same(&got.bytes, &object.bytes, "with meta");
        }
        let got = oap.get(&json!({
            "op": "get", "addr": large.addr, "offset": 70_000, "len": 100_000, "meta": true
        }));
        let meta = got.meta.expect("it was asked for");
        assert_eq!(
            (got.code, &meta["offset"], &meta["len"]),
            (206, &json!(70_000), &json!(100_000))
        );
        assert_same(&got.bytes, &large.bytes[70_000..170_000], "a part with meta");

        let missing = oap.get(&json!({"op": "get", "addr": none}));
        assert_eq!(missing.error, Some((404, "not_found".to_owned())));
        let path = oap.get(&json!({"op": "get", "path": "/a/b"}));
        assert_eq!(path.error, Some((404, "not_found".to_owned())));
        // OAP/1 §1.3
        let dotted = format!("{}.png", small.addr);
        let has = oap.ask(&json!({"op": "has", "addr": dotted}));
        assert_eq!(has.json(), json!({"has": true, "size": 5000}));
        let got = oap.get(&json!({"op": "get", "addr": dotted, "meta": true}));
        assert_eq!(got.meta.expect("it was asked for")["obj"], small.addr);
        assert_eq!(oap.put(&small.bytes, Some(&dotted), 4096).json()["addr"], small.addr);
        // The digits alone are an address too, and END on a single frame changes nothing.
        let digits = small.addr.strip_prefix("b3:").expect("it has its prefix");
        let json = json!({"op": "get", "addr": digits, "unknown": [1]}).to_string();
        oap.send(&frame(REQ | START | END, 77, json.as_bytes()));
        let answer = oap.recv();
        assert_eq!((answer.flags, answer.code, answer.corr), (RESP | START | END, 0, 77));
        assert_same(&answer.payload, &small.bytes, "by its digits");
    }
    assert!(node.metrics().sum("ron_requests_total{proto=\"oap\",op=\"get\"") >= 10);
    node.terminate();
}

#[test]
fn puts() {
    let (_data, node) = node();
    for (mut oap, seed) in Oap::both(&node).into_iter().zip([10, 20]) {
        let object = object(seed, 200 * KIB);
        // OAP/1 §6.9
        let wrong = oap.put(&object.bytes, Some(&addr_of(b"other")), 10_000);
        assert_eq!(wrong.error(), (400, "bad_digest".to_owned()));
        for addr in [addr_of(b"other"), object.addr.clone()] {
            assert_eq!(oap.ask(&json!({"op": "has", "addr": addr})).json()["has"], false);
        }
        for new in [true, false] {
            let answer = oap.put(&object.bytes, Some(&object.addr), 1000);
            assert_eq!((answer.flags, answer.code), (RESP | START | END, 0));
            let wanted = json!({"addr": object.addr, "size": 200 * KIB, "new": new});
            assert_eq!(answer.json(), wanted);
        }
        oap.check(&object);
        // In the largest frames there are, with the end on the last one.
        let large = crate::common::object(seed + 1, 3 * MIB);
        let corr = oap.new_corr();
        oap.send(&request(corr, &json!({"op": "put", "len": large.bytes.len()})));
        let mut chunks = large.bytes.chunks(crate::common::oap::MAX_FRAME - 33).peekable();
        while let Some(chunk) = chunks.next() {
            let end = if chunks.peek().is_none() { END } else { 0 };
            oap.send(&frame(REQ | APP_E2E | end, corr, chunk));
        }
        assert_eq!(oap.recv().json()["addr"], large.addr);
        oap.check(&large);
    }
    node.terminate();
}

#[test]
fn puts_of_another_length_are_refused() {
    let (_data, node) = node();
    let object = object(1, 1000);
    for mut oap in Oap::both(&node) {
        for sent in [999, 1001] {
            let corr = oap.new_corr();
            let bytes = [&object.bytes[..], b"x"].concat();
            oap.send(&request(corr, &json!({"op": "put", "len": 1000, "addr": object.addr})));
            oap.send(&frame(REQ, corr, &bytes[..sent]));
            oap.send(&frame(REQ | END, corr, b""));
            assert_eq!(oap.recv().error(), bad_request(), "{sent}");
            // The rest of a refused put is dropped without a word: OAP/1 §3.10
            oap.hello();
            let has = oap.ask(&json!({"op": "has", "addr": object.addr}));
            assert_eq!(has.json()["has"], false, "{sent}");
        }
    }
    // A put without its END is not kept: OAP/1 §10.3
    let mut oap = Oap::plain(&node);
    oap.send(&request(5, &json!({"op": "put", "len": 1000, "addr": object.addr})));
    oap.send(&frame(REQ, 5, &object.bytes));
    drop(oap);
    let has = Oap::tls(&node).ask(&json!({"op": "has", "addr": object.addr}));
    assert_eq!(has.json()["has"], false);
    node.terminate();
}

#[test]
fn streams_share_a_connection() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let objects: Vec<Object> =
            (0..16).map(|seed| object(seed, seed as usize * 60_000)).collect();
        objects.iter().for_each(|object| Curl::http(&node).store(object));
        for mut oap in Oap::both(&node) {
            let stored = object(99, 300_000);
            oap.send(&request(1000, &json!({"op": "put", "len": stored.bytes.len()})));
            let mut open: BTreeMap<u64, Gathering> = BTreeMap::new();
            for (corr, object) in (100..).zip(&objects) {
                oap.send(&request(corr, &get(object)));
                open.insert(corr, Gathering::new(false));
                // Bytes of the put come between the requests.
                let at = (corr as usize - 100) * 18_750;
                oap.send(&frame(REQ, 1000, &stored.bytes[at..at + 18_750]));
            }
            oap.send(&frame(REQ | END, 1000, b""));
            let (mut changes, mut last, mut put_done) = (0, 0, false);
            while !open.is_empty() || !put_done {
                let answer = oap.recv();
                let corr = answer.corr;
                changes += usize::from(corr != last);
                last = corr;
                if corr == 1000 {
                    assert_eq!((answer.code, &answer.json()["addr"]), (0, &json!(stored.addr)));
                    put_done = true;
                } else if open.get_mut(&corr).expect("it is open").take(&answer) {
                    let got = open.remove(&corr).expect("it is open").got;
                    assert_eq!(got.error, None);
                    assert_same(&got.bytes, &objects[corr as usize - 100].bytes, "one of many");
                }
            }
            // Served one after the other there would be as many changes as streams.
            assert!(changes > 20, "{changes} changes: the streams are not served in turn");
        }
        node.terminate();
    }
}

#[test]
fn what_is_unknown_is_refused_and_the_connection_goes_on() {
    let (_data, node) = node();
    let object = object(1, 100);
    Curl::http(&node).store(&object);
    for mut oap in Oap::both(&node) {
        let text = |corr, text: &str| frame(REQ | START, corr, text.as_bytes());
        let good = get(&object).to_string();
        for bad in [
            text(1, r#"{"op":"fly"}"#),
            text(2, r#"{"op":7}"#),
            text(3, "{}"),
            text(4, "not json"),
            text(5, ""),
            text(6, "[]"),
            text(7, r#"{"op":"get"}"#),
            text(8, r#"{"op":"get","addr":"b3:00"}"#),
            text(9, &format!(r#"{{"op":"get","addr":"{}","path":"/x"}}"#, object.addr)),
            text(10, &format!(r#"{{"op":"get","addr":"{}","offset":-1}}"#, object.addr)),
            text(11, &format!(r#"{{"op":"get","addr":"{}","len":1.5}}"#, object.addr)),
            text(12, &format!(r#"{{"op":"get","op":"get","addr":"{}"}}"#, object.addr)),
            text(13, r#"{"op":"put"}"#),
            Frame { app: MAILBOX, ..text(14, r#"{"op":"recv","topic":"t"}"#) },
            Frame { app: 0x7777, ..text(15, &good) },
            Frame { flags: REQ | START | COMP, ..text(16, &good) },
            Frame { flags: RESP | START, ..text(17, &good) },
            Frame { flags: EVENT | START, ..text(18, &good) },
            Frame { flags: REQ, ..text(19, "data for nobody") },
            Frame { flags: REQ | END, ..text(20, "") },
        ] {
            oap.send(&Frame { tenant: 5, ..bad.clone() });
            let answer = oap.recv();
            assert_eq!(answer.error(), bad_request(), "{bad:?}");
            assert_eq!((answer.corr, answer.app, answer.tenant), (bad.corr, bad.app, 5));
            oap.check(&object);
        }
        // OAP/1 §6.1
        let pad = |len: usize| good.clone() + &" ".repeat(len - good.len());
        oap.send(&text(21, &pad(4096)));
        assert_eq!(oap.recv().payload, object.bytes);
        oap.send(&text(22, &pad(4097)));
        assert_eq!(oap.recv().error(), (413, "too_large".to_owned()));
        // OAP/1 §2.4: reserved flags mean nothing.
        oap.send(&Frame { flags: REQ | START | 0xff00, ..text(23, &good) });
        assert_eq!(oap.recv().payload, object.bytes);
        oap.hello();
    }
    node.terminate();
}

#[test]
fn framing_errors_are_answered_once() {
    let (_data, node) = node();
    let vectors: Value = serde_json::from_str(include_str!("../../../codec/vectors/oap1.json"))
        .expect("the vectors are JSON");
    let invalid = vectors["invalid"].as_array().expect("a list");
    let mut wrong: Vec<Vec<u8>> =
        invalid.iter().map(|vector| unhex(vector["hex"].as_str().expect("text"))).collect();
    assert!(wrong.len() >= 5);
    wrong.push(vec![0xff; 4]);
    wrong.push(vec![0; 4]);
    let honest = Frame { app: HELLO, ..frame(REQ, 1, b"") }.encode();
    for bytes in wrong {
        for mut oap in Oap::both(&node) {
            oap.hello();
            // What follows must not be answered: where it begins is unknown.
            oap.send_bytes(&[&bytes[..], &honest].concat());
            assert_eq!(oap.recv().error(), bad_request(), "{bytes:x?}");
            oap.expect_end();
        }
    }
    let mut oap = Oap::plain(&node);
    oap.send_bytes(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(oap.recv().error(), bad_request());
    oap.expect_end();
    node.terminate();
}

fn unhex(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn the_golden_requests_are_understood() {
    let (_data, node) = node();
    let vectors: Value = serde_json::from_str(include_str!("../../../codec/vectors/oap1.json"))
        .expect("the vectors are JSON");
    for vector in vectors["valid"].as_array().expect("a list") {
        let flags = vector["flags"].as_u64().expect("a number");
        let wanted = match vector["app"].as_u64() {
            Some(0) => 0,
            Some(0x0301) if flags & u64::from(REQ) != 0 => 404,
            _ => 400,
        };
        let mut oap = Oap::plain(&node);
        oap.send_bytes(&unhex(vector["hex"].as_str().expect("text")));
        let answer = oap.recv();
        assert_eq!(answer.code, wanted, "{vector}");
        assert_eq!(json!(answer.corr), vector["corr"]);
        assert_eq!(json!(answer.tenant.to_string()), vector["tenant"]);
        oap.hello();
    }
    node.terminate();
}

#[test]
fn streams_have_a_maximum_and_an_order() {
    let (_data, node) = node();
    let mut oap = Oap::tls(&node);
    let open = |corr| request(corr, &json!({"op": "put", "len": 5}));
    (1..=64).for_each(|corr| oap.send(&open(corr)));
    oap.send(&open(65));
    let answer = oap.recv();
    assert_eq!((answer.corr, answer.error()), (65, (429, "over_quota".to_owned())));
    assert_eq!(node.metrics().sum("ron_open_streams"), 64);
    // OAP/1 §3.9: START on an open corr_id ends that stream, and frees its place.
    oap.send(&open(64));
    let answer = oap.recv();
    assert_eq!((answer.corr, answer.error()), (64, bad_request()));
    oap.send(&open(66));
    for corr in (1..=63).chain([66]) {
        oap.send(&frame(REQ, corr, b"hello"));
        oap.send(&frame(REQ | END, corr, b""));
        let answer = oap.recv();
        assert_eq!((answer.corr, answer.code), (corr, 0));
        assert_eq!(answer.json()["addr"], addr_of(b"hello"));
    }
    assert_eq!(node.metrics().sum("ron_open_streams"), 0);
    node.terminate();
}

#[test]
fn credit() {
    let (_data, node) = node();
    let object = object(1, MIB);
    Curl::http(&node).store(&object);
    const WINDOW: usize = 256 * KIB;
    for (mut oap, meta) in Oap::both(&node).into_iter().zip([true, false]) {
        let json = json!({"op": "get", "addr": object.addr, "meta": meta}).to_string();
        oap.send(&frame(REQ | START | ACK_REQ, 500, json.as_bytes()));
        let mut gathering = Gathering::new(meta);
        let (mut granted, mut done) = (WINDOW, false);
        for grant in [1, 100_000, 0, 65_536, 3 * MIB] {
            while gathering.got.bytes.len() < granted.min(MIB) {
                done = gathering.take(&oap.recv());
                let len = gathering.got.bytes.len();
                assert!(len <= granted, "{len} bytes of {granted} granted");
                assert!(!done || len == MIB, "ended after {len} bytes");
            }
            // Nothing more comes, however often the connection is used.
            if granted < MIB {
                (0..20).for_each(|_| assert_eq!(oap.hello().app, HELLO));
            }
            let credit = json!({"credit": grant}).to_string();
            oap.send(&frame(REQ, 500, credit.as_bytes()));
            granted += grant;
        }
        while !done {
            done = gathering.take(&oap.recv());
        }
        assert_same(&gathering.got.bytes, &object.bytes, "under credit");
        // OAP/1 §7.4: late credit is dropped without an answer.
        oap.send(&frame(REQ, 500, br#"{"credit":5}"#));
        oap.hello();
    }
    node.terminate();
}

#[test]
fn keys_may_change_in_the_midst_of_a_stream() {
    let (_data, node) = node();
    let object = object(1, 20 * MIB);
    let mut oap = Oap::tls(&node);
    oap.send(&request(1, &json!({"op": "put", "len": object.bytes.len()})));
    for chunk in object.bytes.chunks(MIB - 33) {
        oap.send(&frame(REQ, 1, chunk));
        oap.update_keys();
    }
    oap.send(&frame(REQ | END, 1, b""));
    assert_eq!(oap.recv().json()["addr"], object.addr);

    oap.send(&request(2, &get(&object)));
    let mut gathering = Gathering::new(false);
    let mut frames = 0;
    while !gathering.take(&oap.recv()) {
        frames += 1;
        if frames % 16 == 0 {
            oap.update_keys();
        }
    }
    assert!(frames > 300);
    assert_same(&gathering.got.bytes, &object.bytes, "with changing keys");
    // OAP/1 §4.2
    oap.hello();
    (0..32).for_each(|_| oap.update_keys());
    oap.hello();
    (0..33).for_each(|_| oap.update_keys());
    oap.expect_end();
    Oap::tls(&node).hello();
    node.terminate();
}

#[test]
fn others_need_a_capability_to_write() {
    let Some(outer) = outer_address() else {
        crate::common::skipped("this machine has no address but loopback");
        return;
    };
    let data = Data::new();
    let args = ["--oap", "0.0.0.0:0", "--write-token", "let-me-in"];
    let node = data.setup().args(&args).start();
    let far = (outer, node.at("oap").port()).into();
    let object = object(1, 100);
    let mut oap = Oap::tls_at(&node, far);
    let put = request(1, &json!({"op": "put", "len": 100, "addr": object.addr}));
    for (cap, wanted) in [
        (&b""[..], (401, "unauthorized")),
        (b"let-me-it", (401, "unauthorized")),
        (b"let-me-in-", (401, "unauthorized")),
        (b"let-me-in", (0, "")),
    ] {
        oap.send(&Frame { cap: cap.to_vec(), ..put.clone() });
        oap.send(&frame(REQ, 1, &object.bytes));
        oap.send(&frame(REQ | END, 1, b""));
        let answer = oap.recv();
        assert_eq!(answer.code, wanted.0);
        if wanted.0 > 0 {
            assert_eq!(answer.error().1, wanted.1);
            let has = oap.ask(&json!({"op": "has", "addr": object.addr}));
            assert_eq!(has.json()["has"], false);
        }
    }
    oap.check(&object);
    node.terminate();
}

#[test]
fn slow_clients_meet_deadlines() {
    let data = Data::new();
    let limits = ["--deadline-head", "0.3", "--deadline-body", "0.3", "--deadline-idle", "0.3"];
    let node = data.setup().args(&limits).start();
    // One after the other: a connection that says nothing is late as well.
    for connect in [Oap::tls, Oap::plain] {
        // OAP/1 §10.2: within a frame, within a put, and between requests.
        let mut oap = connect(&node);
        oap.send_bytes(&frame(REQ | START, 1, b"{}").encode()[..20]);
        assert_eq!(oap.recv().error(), (408, "timeout".to_owned()));
        oap.expect_end();

        let mut oap = connect(&node);
        oap.send(&request(2, &json!({"op": "put", "len": 10})));
        oap.send(&frame(REQ, 2, b"hello"));
        let answer = oap.recv();
        assert_eq!((answer.app, answer.corr), (STORAGE, 2));
        assert_eq!(answer.error(), (408, "timeout".to_owned()));

        let mut oap = connect(&node);
        oap.hello();
        oap.expect_end();
        connect(&node).expect_end();
    }
    node.terminate();
}
