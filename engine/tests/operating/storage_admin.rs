//! The storage report, the scrub and the verification that operators ask for, through the admin
//! listener and through `ronctl`.

use std::{process::Command, time::Instant};

use crate::common::{
    DEADLINE, Data, GROUP, KIB, MIB, Node, Object, Output, addr_of, clean_environment, connect,
    curl::Curl,
    disk::{find, flip},
    http::{Peer, Response},
    object, one_and_two_cores, outer_address, run,
};
use serde_json::{Value, json};

/// A POST to the admin listener.
fn post(node: &Node, path: &str, fields: &str) -> Response {
    let mut peer = Peer::new(connect(node.at("admin")));
    peer.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes());
    peer.response("POST")
}

fn storage(node: &Node) -> Value {
    let answer = node.admin("/storage");
    assert_eq!(answer.status, 200);
    answer.json()
}

/// Reports until this is so. What shards report arrives a moment later, and a scrub takes time.
fn until(node: &Node, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let report = storage(node);
        if is_so(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{what}: {report}");
    }
}

/// Addresses of the objects that are listed as damaged.
fn damaged(report: &Value) -> Vec<&str> {
    let objects = report["damage"]["objects"].as_array().expect("a list");
    objects.iter().map(|object| object["addr"].as_str().expect("an address")).collect()
}

fn number(report: &Value, path: &str) -> u64 {
    let value = report.pointer(path).unwrap_or_else(|| panic!("{path} in {report}"));
    value.as_u64().unwrap_or_else(|| panic!("{path} is {value}"))
}

fn ronctl(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    run(command.args(["--admin", &format!("http://{}", node.at("admin"))]).args(args), b"")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Stores objects, ends the node, flips a bit of the first of them, and starts it again.
fn with_damage(data: &Data, shards: usize, len: usize, at: usize) -> (Node, Vec<Object>) {
    let node = data.start(shards);
    let lens = [len, 100, 70_000, MIB + 5];
    let all: Vec<Object> = (1..).zip(lens).map(|(seed, len)| object(seed, len)).collect();
    all.iter().for_each(|object| Curl::http(&node).store(object));
    node.terminate();
    let (path, begin) = find(data, &all[0]);
    flip(&path, begin + at as u64);
    (data.start(shards), all)
}

#[test]
fn the_report_adds_up() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let small: Vec<Object> = (1..=20).map(|seed| object(seed, 10 * KIB)).collect();
        let large = object(99, 3 * MIB);
        small.iter().chain([&large]).for_each(|object| Curl::http(&node).store(object));
        let report = storage(&node);
        let total = |report: &Value, key: &str| number(report, &format!("/total/{key}"));
        assert_eq!(total(&report, "objects"), 21);
        assert_eq!(total(&report, "object_bytes"), (20 * 10 * KIB + 3 * MIB) as u64);
        assert!(total(&report, "segments") >= 1);
        let live = total(&report, "segment_live_bytes");
        assert!(live >= 20 * 10 * KIB as u64, "{live}");
        assert_eq!(live + total(&report, "segment_dead_bytes"), total(&report, "segment_bytes"));
        assert!(total(&report, "file_bytes") >= 3 * MIB as u64);
        assert!(total(&report, "disk_free_bytes") > 0);
        assert_eq!(report["shards"].as_array().expect("a list").len(), shards);
        for key in ["objects", "segment_bytes", "file_bytes"] {
            let each = (0..shards).map(|at| number(&report, &format!("/shards/{at}/{key}")));
            assert_eq!(each.sum::<u64>(), total(&report, key), "{key}");
        }
        assert_eq!((damaged(&report).len(), number(&report, "/damage/cut")), (0, 0));
        assert_eq!(report["partitions"], json!([]));
        let ready = node.admin("/readyz");
        assert!(ready.status == 200 && ready.json().get("partitions").is_none());

        let mut peer = Peer::new(node.connect());
        for object in small[..10].iter().chain([&large]) {
            let head = format!("DELETE /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", object.addr);
            peer.send(head.as_bytes());
            assert_eq!(peer.response("DELETE").status, 204);
        }
        let after = storage(&node);
        assert_eq!((total(&after, "objects"), total(&after, "deletes")), (10, 11));
        assert!(total(&after, "segment_live_bytes") < live, "what was deleted counts no more");
        assert_eq!(total(&after, "file_bytes"), 0);
        let metrics = node.metrics();
        assert_eq!(metrics.sum("ron_deletes_total"), 11);
        assert_eq!(
            metrics.sum("ron_storage_segment_live_bytes"),
            total(&after, "segment_live_bytes")
        );
        node.terminate();
    }
}

#[test]
fn damage_that_a_reader_meets_is_listed() {
    for shards in one_and_two_cores() {
        for (len, at) in [(5000, 100), (MIB - 5, 9 * GROUP + 1), (3 * MIB, 0)] {
            let data = Data::new();
            let (node, all) = with_damage(&data, shards, len, at);
            assert_eq!(damaged(&storage(&node)), [""; 0], "nobody has read it");
            let answer = Curl::http(&node).get(&all[0].addr, &[]);
            assert!(answer.status == 502 || answer.exit != 0, "{}", answer.heads);
            let report = until(&node, "it is listed", |report| !damaged(report).is_empty());
            assert_eq!(damaged(&report), [&all[0].addr]);
            let entry = &report["damage"]["objects"][0];
            assert!(entry["count"].as_u64() >= Some(1) && entry["what"].is_string(), "{entry}");
            assert!(node.metrics().sum("ron_damaged_objects_total") >= 1);
            node.wait_stderr(&all[0].addr);
            all[1..].iter().for_each(|object| Curl::http(&node).check(object));
            assert_eq!(damaged(&storage(&node)).len(), 1, "the others are right");
            node.terminate();
        }
    }
}

#[test]
fn a_scrub_finds_what_nobody_reads() {
    for shards in one_and_two_cores() {
        for (len, at) in [(5000, 100), (3 * MIB, 2 * MIB)] {
            let data = Data::new();
            let (node, all) = with_damage(&data, shards, len, at);
            let before = storage(&node);
            let rounds = number(&before, "/total/scrub/rounds");
            let answer = post(&node, "/scrub", "");
            assert_eq!((answer.status, answer.json()), (202, json!({"ordered": shards})));
            let report = until(&node, "a round ends", |report| {
                number(report, "/total/scrub/rounds") > rounds
                    && report["total"]["scrub"]["running"] == false
                    && !damaged(report).is_empty()
            });
            assert_eq!(damaged(&report), [&all[0].addr]);
            assert!(number(&report, "/total/scrub/objects") >= all.len() as u64);
            assert!(number(&report, "/total/scrub/bytes") >= MIB as u64);
            assert!(number(&report, "/total/scrub/finished_unix_s") > 1_700_000_000);
            let metrics = node.metrics();
            assert!(metrics.sum("ron_scrub_rounds_total") >= shards as u64);
            assert!(metrics.sum("ron_scrub_finished_timestamp_seconds") > 1_700_000_000);
            all[1..].iter().for_each(|object| Curl::http(&node).check(object));
            node.terminate();
        }
    }
}

#[test]
fn an_object_is_verified_on_demand() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let (node, all) = with_damage(&data, shards, 5000, 100);
        let verify = |addr: &str| {
            let answer = post(&node, &format!("/verify/{addr}"), "");
            assert_eq!(answer.status, 200);
            answer.json()
        };
        for whole in &all[1..] {
            let wanted = json!({
                "addr": whole.addr, "outcome": "whole", "size": whole.bytes.len()
            });
            assert_eq!(verify(&whole.addr), wanted);
        }
        let none = addr_of(b"none");
        assert_eq!(verify(&none), json!({"addr": none, "outcome": "missing"}));
        let found = verify(&all[0].addr);
        assert_eq!(found["outcome"], "damaged", "{found}");
        assert!(found["what"].is_string());
        until(&node, "it is listed", |report| damaged(report) == [&all[0].addr]);
        // Deleted and stored again, it is whole, and listed no more once that was looked at.
        let gone = Curl::http(&node).get(&all[0].addr, &["-X", "DELETE"]);
        assert_eq!(gone.status, 204);
        Curl::http(&node).store(&all[0]);
        assert_eq!(verify(&all[0].addr)["outcome"], "whole");
        until(&node, "it is listed no more", |report| damaged(report).is_empty());
        let bad = post(&node, "/verify/b3:00", "");
        assert_eq!((bad.status, &*bad.envelope()), (400, "bad_request"));
        assert_eq!(node.admin(&format!("/verify/{none}")).status, 405);
        node.terminate();
    }
}

/// What a verification alone knows of is not dropped as known when it comes again.
#[test]
fn an_upload_heals_what_only_a_verification_knows() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let (node, all) = with_damage(&data, shards, 3 * MIB, 3 * MIB + 5);
        let verify = || {
            let answer = post(&node, &format!("/verify/{}", all[0].addr), "");
            answer.json()["outcome"].clone()
        };
        assert_eq!(verify(), "damaged", "its outboard");
        assert_eq!(Curl::http(&node).put(&all[0].addr, &all[0].bytes, &[]).status, 201);
        assert_eq!(verify(), "whole");
        Curl::http(&node).check(&all[0]);
        until(&node, "it is listed no more", |report| damaged(report).is_empty());
        node.terminate();
    }
}

#[test]
fn only_who_may_write_may_give_orders() {
    let Some(outer) = outer_address() else {
        crate::common::skipped("this machine has no address but loopback");
        return;
    };
    let data = Data::new();
    let listen = format!("{outer}:0");
    let node = data.setup().args(&["--admin", &listen, "--write-token", "geheim"]).start();
    let token = "Authorization: Bearer geheim\r\n";
    for path in ["/scrub".to_owned(), format!("/verify/{}", addr_of(b"none"))] {
        let answer = post(&node, &path, "");
        assert_eq!((answer.status, &*answer.envelope()), (401, "unauthorized"));
        assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
        let answer = post(&node, &path, "Authorization: Bearer other\r\n");
        assert_eq!((answer.status, &*answer.envelope()), (401, "unauthorized"));
        assert!(matches!(post(&node, &path, token).status, 200 | 202));
    }
    assert_eq!(node.admin("/storage").status, 200, "who only looks needs no token");
    let scrub = ronctl(&node, &["scrub", "--now"]);
    assert_eq!(scrub.code, 4, "{}", text(&scrub.stderr));
    assert_eq!(ronctl(&node, &["scrub", "--now", "--cap", "geheim"]).code, 0);
    node.terminate();
}

#[test]
fn ronctl_looks_after_the_storage() {
    let data = Data::new();
    let (node, all) = with_damage(&data, 1, 5000, 100);
    let whole = ronctl(&node, &["verify", &all[1].addr, &all[3].addr]);
    let lines = format!("{} whole 100\n{} whole {}\n", all[1].addr, all[3].addr, MIB + 5);
    assert_eq!((whole.code, text(&whole.stdout)), (0, lines), "{}", text(&whole.stderr));
    let none = addr_of(b"none");
    let missing = ronctl(&node, &["verify", &none, &all[1].addr]);
    let lines = format!("{none} missing\n{} whole 100\n", all[1].addr);
    assert_eq!((missing.code, text(&missing.stdout)), (3, lines));
    let table = ronctl(&node, &["storage"]);
    assert_eq!(table.code, 0);
    assert!(text(&table.stdout).contains("\ndamage       none known\n"));
    let found = ronctl(&node, &["verify", &none, &all[0].addr]);
    assert_eq!(found.code, 5, "{}", text(&found.stderr));
    assert!(text(&found.stdout).contains(&format!("{} damaged: ", all[0].addr)));

    let rounds = number(&storage(&node), "/total/scrub/rounds");
    let scrub = ronctl(&node, &["scrub", "--now"]);
    assert_eq!((scrub.code, scrub.stderr.len()), (0, 0));
    until(&node, "the scrub ends", |report| {
        number(report, "/total/scrub/rounds") > rounds && !damaged(report).is_empty()
    });
    let table = text(&ronctl(&node, &["storage"]).stdout);
    for wanted in ["objects      4, ", "last scrub   ", " ago, ", "partitions   all serve"] {
        assert!(table.contains(wanted), "{wanted} in {table}");
    }
    assert!(table.contains("damage       1 objects\n"), "{table}");
    assert!(table.contains(&all[0].addr), "{table}");
    let json = ronctl(&node, &["storage", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((number(&json, "/total/objects"), damaged(&json)), (4, vec![&*all[0].addr]));
    node.terminate();
}

#[test]
fn a_volume_that_is_gone_is_named_and_the_rest_go_on() {
    let data = Data::new();
    let dirs = [data.path().join("one"), data.path().join("two")];
    let names = dirs.each_ref().map(|dir| dir.to_str().expect("UTF-8"));
    let args = ["--data-dirs", names[0], "--data-dirs", names[1], "--partitions", "4"];
    data.setup().args(&args).start().terminate();
    std::fs::rename(&dirs[1], data.path().join("aside")).expect("it can be moved");

    let node = data.setup().args(&args).start();
    let report = until(&node, "they are named", |report| report["partitions"] != json!([]));
    let faults = report["partitions"].as_array().expect("a list").clone();
    assert!(!faults.is_empty() && faults.len() < 4, "{faults:?}");
    for fault in &faults {
        assert_eq!(fault["state"], "absent");
        assert!(fault["reason"].as_str().is_some_and(|why| why.contains(names[1])), "{fault}");
    }
    let count = faults.len() as u64;
    assert_eq!(number(&report, "/total/partitions_absent"), count);
    assert_eq!(node.metrics().sum("ron_partitions{state=\"absent\"}"), count);
    let ready = node.admin("/readyz");
    assert_eq!((ready.status, &ready.json()["partitions"]), (200, &json!(faults)));
    let table = text(&ronctl(&node, &["storage"]).stdout);
    assert!(table.contains(&format!("0 full, 0 read-only, {count} absent\n")), "{table}");
    assert!(table.contains(names[1]), "{table}");
    node.terminate();
}

#[test]
fn a_scrub_that_is_switched_off_cannot_be_ordered() {
    let data = Data::new();
    let node = data.setup().shards(1).args(&["--storage-scrub-rate", "0"]).start();
    let answer = post(&node, "/scrub", "Content-Length: 0\r\n");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (409, Some("conflict")));
    let said = ronctl(&node, &["scrub", "--now"]);
    assert!(said.code != 0 && said.stdout.is_empty(), "{}", text(&said.stdout));
    let why = text(&said.stderr);
    assert!(why.contains("storage.scrub_rate is 0"), "{why}");
    node.terminate();
}

#[test]
fn room_that_is_set_aside_is_shown_until_it_is_given_back() {
    let (data, bytes) = (Data::new(), object(1, 8 * MIB));
    let node = data.start(2);
    let set_aside = || number(&storage(&node), "/promised_bytes");
    assert_eq!(set_aside(), 0);
    let mut peer = Peer::new(node.connect());
    let head = format!(
        "PUT /o/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        bytes.addr,
        bytes.bytes.len()
    );
    peer.send(head.as_bytes());
    peer.send(&bytes.bytes[..4 * MIB]);
    until(&node, "space is set aside", |report| number(report, "/promised_bytes") > 0);
    let shown = node.metrics().sum("ron_storage_promised_bytes");
    assert!((1..=8 * MIB as u64 + MIB as u64).contains(&shown), "{shown}");
    peer.send(&bytes.bytes[4 * MIB..]);
    assert_eq!(peer.response("PUT").status, 201);
    until(&node, "it is written", |report| number(report, "/promised_bytes") == 0);
    let mut left = Peer::new(node.connect());
    left.send(head.replace(&bytes.addr.to_string(), &addr_of(b"other").to_string()).as_bytes());
    left.send(&bytes.bytes[..4 * MIB]);
    until(&node, "another has", |report| number(report, "/promised_bytes") > 0);
    drop(left);
    until(&node, "it was given back", |report| number(report, "/promised_bytes") == 0);
    node.terminate();
}
