//! Looking inside a node that is at work: profiles, and what its shards are doing.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::common::{
    Data, KIB, MIB, Node, Object, assert_same, connect, curl::Curl, has_two_cores, http,
    http::Peer, object,
};
use serde_json::Value;

/// Raises the flag when it goes, so that threads that wait for it end though a test fails.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Loads a node in every way that matters to signals while `body` runs: answers by copy and by
/// reference, TLS, uploads to the disk. Whatever goes wrong on any connection is a failure. Yields
/// how many requests were answered.
fn under_load<T>(node: &Node, body: impl FnOnce() -> T) -> (T, usize) {
    let small = object(1, 4 * KIB);
    let large = object(2, 4 * MIB);
    for object in [&small, &large] {
        Curl::http(node).store(object);
    }
    let (has_ended, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let goes_on = || !has_ended.load(Ordering::Acquire);
    let get = |object: &Object| {
        let mut peer = Peer::new(node.connect());
        while goes_on() {
            let answer = peer.get(&format!("/o/{}", object.addr));
            assert_eq!(answer.status, 200);
            assert_same(&answer.body, &object.bytes, "an answer under load");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let put = || {
        let mut peer = Peer::new(node.connect());
        for seed in 100.. {
            if !goes_on() {
                break;
            }
            let len = if seed % 4 == 0 { 2 * MIB } else { 10 * KIB };
            let object = object(seed, len);
            let answer = peer.try_put(&object.addr, &object.bytes).expect("an answer");
            assert!([200, 201].contains(&answer.status), "{answer:?}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let secure = || {
        while goes_on() {
            Curl::https(node).check(&large);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let out = thread::scope(|scope| {
        let _raise = Raise(&has_ended);
        scope.spawn(|| get(&small));
        scope.spawn(|| get(&small));
        scope.spawn(|| get(&large));
        scope.spawn(put);
        scope.spawn(secure);
        body()
    });
    (out, answered.into_inner())
}

fn text(answer: &http::Response) -> &str {
    std::str::from_utf8(&answer.body).expect("it is text")
}

/// The value of a line of folded stacks.
fn samples(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count")
}

#[test]
fn a_profile_under_load_disturbs_no_request_and_names_what_runs() {
    let data = Data::new();
    let node = data.start(1);
    let (folded, answered) =
        under_load(&node, || node.admin("/debug/profile?seconds=4&hz=999&format=folded&shard=0"));
    assert!(answered > 50, "only {answered} requests were answered");
    assert_eq!(folded.status, 200, "{}", text(&folded));
    let lines: Vec<&str> = text(&folded).lines().collect();
    let all: u64 = lines.iter().map(|line| samples(line)).sum();
    assert!(all > 20, "only {all} samples");
    assert!(lines.iter().all(|line| line.starts_with("shard 0")), "{}", text(&folded));
    let having = |what: &str| -> u64 {
        let found = lines.iter().filter(|line| line.contains(what));
        found.map(|line| samples(line)).sum()
    };
    let named = all - having("[unknown]");
    assert!(named * 10 > all * 8, "{named} of {all} have names");
    assert!(having("io/src/ring/driver.rs)") * 10 > all * 5, "{}", text(&folded));
    let metrics = node.metrics();
    assert_eq!(metrics.sum("ron_rejected_total{reason=\"protocol\"}"), 0);
    assert_eq!(metrics.sum("ron_integrity_fail_total"), 0);
    node.terminate();
}

#[test]
fn a_picture_of_all_threads_is_to_be_had_and_only_one_at_a_time() {
    let data = Data::new();
    let node = data.start(1);
    let ((), _) = under_load(&node, || {
        thread::scope(|scope| {
            let (begun, is_begun) = mpsc::channel();
            let admin = node.at("admin");
            let taking = scope.spawn(move || {
                let mut peer = Peer::new(connect(admin));
                peer.send(b"GET /debug/profile?seconds=3 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                begun.send(()).expect("somebody waits");
                peer.response("GET")
            });
            is_begun.recv().expect("it begins");
            // The request was sent, and may not have arrived yet.
            let refused = loop {
                let answer = node.admin("/debug/profile?seconds=1&format=folded");
                if answer.status != 200 {
                    break answer;
                }
                if taking.is_finished() {
                    // Two may miss each other on a machine that is busy enough.
                    return;
                }
            };
            assert_eq!((refused.status, &*refused.envelope()), (503, "overload"));
            let retry_after = refused.field("retry-after").expect("it says when to try again");
            assert!((1..=10).contains(&retry_after.parse::<u64>().expect("seconds")));
            let picture = taking.join().expect("no panic");
            if picture.status == 200 {
                let svg = text(&picture);
                assert_eq!(picture.field("content-type"), Some("image/svg+xml; charset=utf-8"));
                let policy = picture.field("content-security-policy").expect("it has one");
                assert!(
                    policy.starts_with("sandbox allow-scripts allow-modals; default-src 'none'")
                );
                assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
                assert!(
                    svg.contains("<title>shard 0 (") && svg.matches("<script").count() == 1,
                    "{svg}"
                );
            }
        });
    });
    node.terminate();
}

#[test]
fn what_is_wrong_with_a_profile_is_named() {
    let data = Data::new();
    let node = data.start(1);
    for (query, field) in [
        ("seconds=0", "seconds"),
        ("seconds=61", "seconds"),
        ("hz=1000", "hz"),
        ("shard=1", "shard"),
        ("format=png", "format"),
        ("second=1", "no field"),
    ] {
        let answer = node.admin(&format!("/debug/profile?{query}"));
        assert_eq!((answer.status, &*answer.envelope()), (400, "bad_request"), "{query}");
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(field), "{query}: {message}");
    }
    let ask = |field: &str| {
        let mut peer = Peer::new(connect(node.at("admin")));
        let head =
            format!("GET /debug/profile?seconds=0 HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
        peer.send(head.as_bytes());
        peer.response("GET").status
    };
    // Who may order nothing gets no profile either: a page that a browser shows.
    assert_eq!(ask("Origin: http://elsewhere"), 403);
    assert_eq!(ask("Sec-Fetch-Site: cross-site"), 403);
    assert_eq!(ask("Sec-Fetch-Site: none"), 400);
    node.terminate();
}

#[test]
fn a_node_that_ends_is_still_profiled() {
    let data = Data::new();
    let node = data.start(1);
    let peer = node.end_held_up();
    let picture = node.admin("/debug/profile?seconds=1");
    assert_eq!(picture.status, 200, "{}", text(&picture));
    let shards = node.admin("/debug/shards").json();
    assert_eq!(shards["shards"][0]["phase"], "draining", "{shards}");
    assert_eq!(shards["shards"][0]["connections"]["http"], 1, "{shards}");
    drop(peer);
    node.finish();
}

#[test]
fn what_each_shard_is_doing_is_shown() {
    if !has_two_cores() {
        return;
    }
    let data = Data::new();
    let node = data.start(2);
    let ((before, after), answered) = under_load(&node, || {
        let before = node.admin("/debug/shards").json();
        assert_eq!(node.admin("/debug/profile?seconds=2&format=folded").status, 200);
        (before, node.admin("/debug/shards").json())
    });
    assert!(answered > 0);
    let number = |report: &Value, shard: usize, path: &str| {
        let found = report["shards"][shard].pointer(path).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("{path} in {report}"))
    };
    let both = |report: &Value, path: &str| number(report, 0, path) + number(report, 1, path);
    for shard in 0..2 {
        assert_eq!(after["shards"][shard]["shard"], shard);
        assert_eq!(after["shards"][shard]["phase"], "serving");
        // From the other shard, orders, and the order to end.
        let mail = after["shards"][shard]["queues"]["mail"].as_array().map(Vec::len);
        assert_eq!(mail, Some(3));
        assert!(number(&after, shard, "/slowest/held_us") > 0.0);
        assert!(number(&after, shard, "/slowest/ago_s") < 61.0);
        let ratio = number(&after, shard, "/busy_ratio");
        assert!((0.0..=1.0).contains(&ratio), "{after}");
    }
    assert!(both(&after, "/busy_ratio") > 0.0, "{after}");
    assert!(both(&after, "/connections/http") >= 4.0, "{after}");
    for counter in ["/turns", "/ring/enters", "/ring/completions"] {
        assert!(both(&after, counter) > both(&before, counter), "{counter}: {before} {after}");
    }
    let of = |report: &Value, field| report["latency_us"]["http"]["get"][field].as_u64();
    let quantiles = ["p50", "p90", "p99", "p999", "max"].map(|field| of(&after, field));
    assert!(quantiles[0] > Some(0) && quantiles.is_sorted(), "{after}");
    // A connection that asks for nothing may be all that a shard has.
    let shards = after["shards"].as_array().expect("a list");
    let each = shards.iter().filter_map(|shard| of(shard, "count")).sum::<u64>();
    assert!((1..=each).contains(&of(&after, "count").expect("a count")), "{after}");
    node.terminate();
}
