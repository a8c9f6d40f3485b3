//! The storage report and the orders to look after what is stored.

use ron_codec::address::Address;
use ron_io::{
    listing::{ListEntry, ListPage, ListRange},
    ports::{PartitionState, VerifyOutcome},
};
use serde_json::{Value, json};

use super::*;

/// Sends a POST without waiting for its answer.
fn post(node: &Node, path: &str, fields: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.control.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Sends a POST; yields the status, `Retry-After` and the body.
fn posted(node: &Node, path: &str, fields: &str) -> (u16, Option<String>, Value) {
    read(post(node, path, fields))
}

fn read(stream: TcpStream) -> (u16, Option<String>, Value) {
    let (head, body) = answer(stream);
    let patience = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let status = head["http/1.1 ".len()..][..3].parse().unwrap();
    (status, patience.map(str::to_owned), serde_json::from_str(&body).unwrap())
}

/// Another thread receives what shards report: asks until this is so.
fn until(node: &Node, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let report = serde_json::from_str(&ask(node, "GET /storage", "").1).unwrap();
        if is_so(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{what}: {report}");
    }
}

fn partition(partition: u16, state: PartitionState) -> Report {
    Report::Partition { shard: ShardId(1), partition, state, reason: "the disk".into() }
}

/// Answers the next verification that a shard was ordered; returns its number.
fn verify_next(node: &Node, outcome: VerifyOutcome) -> u64 {
    loop {
        let (shard, order) = node.taken.recv_timeout(SOON).unwrap();
        let Order::Verify { id, .. } = order else { panic!("{order:?}") };
        // The first shard is not the owner and takes no notice.
        if shard == 1 {
            node.reports.send(Report::Verified { shard: ShardId(1), id, outcome }).unwrap();
            return id;
        }
    }
}

#[test]
fn damage_and_partitions_are_reported() {
    let node = serving(2);
    node.stats[0].objects.set(2);
    node.stats[1].objects.set(5);
    let digest = *Address::of(b"x").as_bytes();
    for _ in 0..2 {
        let what = "a group does not match".to_owned();
        node.reports.send(Report::Damaged { shard: ShardId(1), digest, what }).unwrap();
    }
    node.reports.send(partition(3, PartitionState::ReadOnly)).unwrap();
    let report = until(&node, "the partition", |report| report["partitions"][0].is_object());
    assert_eq!(report["total"]["objects"], 7);
    assert_eq!(report["promised_bytes"], SET_ASIDE, "one account, not a sum over shards");
    let (_, page) = ask(&node, "GET /metrics", "");
    assert!(page.contains(&format!("\nron_storage_promised_bytes {SET_ASIDE}\n")), "{page}");
    assert_eq!(report["shards"][1]["objects"], 5);
    assert_eq!(report["shards"][1]["shard"], 1);
    assert_eq!(report["total"]["scrub"]["running"], false);
    let damaged = &report["damage"]["objects"][0];
    assert_eq!(damaged["addr"], Address::of(b"x").to_string());
    assert_eq!((&damaged["count"], &damaged["shard"]), (&json!(2), &json!(1)));
    assert_eq!(damaged["what"], "a group does not match");
    assert_eq!(report["damage"]["cut"], 0);
    let fault = json!({"partition": 3, "state": "read_only", "reason": "the disk"});
    let (is_ready, keys) = ready(&node);
    assert!(is_ready, "the others go on: {keys}");
    assert_eq!(keys["partitions"], json!([fault]));
    for number in 0..3 {
        node.reports.send(partition(number, PartitionState::Absent)).unwrap();
    }
    until(&node, "all of them", |report| report["partitions"].as_array().unwrap().len() == 4);
    let (is_ready, keys) = ready(&node);
    assert!(!is_ready && keys["storage"] == false && keys["retry_after"] == 30, "{keys}");
    for number in 0..4 {
        node.reports.send(partition(number, PartitionState::Serving)).unwrap();
    }
    until(&node, "none of them", |report| report["partitions"].as_array().unwrap().is_empty());
    let (is_ready, keys) = ready(&node);
    assert!(is_ready && keys.get("partitions").is_none(), "{keys}");
}

#[test]
fn a_scrub_is_ordered_from_every_shard() {
    let node = serving(2);
    assert_eq!(posted(&node, "/scrub", ""), (202, None, json!({"ordered": 2})));
    for shard in 0..2 {
        let (taker, order) = node.taken.recv_timeout(SOON).unwrap();
        assert!(taker == shard && matches!(order, Order::Scrub), "{order:?}");
    }
    node.refusals.store(1, Ordering::Relaxed);
    let (status, patience, body) = posted(&node, "/scrub", "");
    assert_eq!((status, patience.as_deref(), &body["code"]), (503, Some("1"), &json!("overload")));
    let (head, _) = ask(&node, "GET /scrub", "");
    assert!(head.starts_with("http/1.1 405") && head.contains("allow: post"), "{head}");
}

#[test]
fn an_object_is_verified_and_the_outcome_heard() {
    let node = serving(2);
    let addr = Address::of(b"x");
    let path = format!("/verify/{addr}");
    let what = "a group does not match".to_owned();
    let outcomes = [
        (VerifyOutcome::Whole { size: 7 }, json!({"outcome": "whole", "size": 7})),
        (VerifyOutcome::Missing, json!({"outcome": "missing"})),
        (
            VerifyOutcome::Damaged { what: what.clone() },
            json!({"outcome": "damaged", "what": what}),
        ),
        (VerifyOutcome::Failed { what: what.clone() }, json!({"outcome": "failed", "what": what})),
    ];
    let mut last = 0;
    for (outcome, mut expected) in outcomes {
        let asked = post(&node, &path, "");
        let id = verify_next(&node, outcome);
        assert!(id > last, "every verification has its own number");
        last = id;
        expected["addr"] = json!(addr.to_string());
        assert_eq!(read(asked), (200, None, expected));
    }
    for bad in ["/verify/", "/verify/b3:00", "/verify/%ff"] {
        let (status, _, body) = posted(&node, bad, "");
        let expected = if bad == "/verify/" { 404 } else { 400 };
        assert_eq!(status, expected, "{bad}: {body}");
    }
    node.refusals.store(1, Ordering::Relaxed);
    assert_eq!(posted(&node, &path, "").0, 503, "a shard was not asked");
}

#[test]
fn what_is_found_whole_is_damaged_no_more() {
    let node = serving(2);
    let addr = Address::of(b"x");
    let (digest, what) = (*addr.as_bytes(), String::new());
    node.reports.send(Report::Damaged { shard: ShardId(0), digest, what }).unwrap();
    until(&node, "the damage", |report| report["damage"]["objects"][0].is_object());
    for (outcome, left) in [
        (VerifyOutcome::Failed { what: String::new() }, 1),
        (VerifyOutcome::Damaged { what: String::new() }, 1),
        (VerifyOutcome::Whole { size: 1 }, 0),
    ] {
        let asked = post(&node, &format!("/verify/{addr}"), "");
        verify_next(&node, outcome);
        assert_eq!(read(asked).0, 200);
        until(&node, "the list", |report| {
            report["damage"]["objects"].as_array().unwrap().len() == left
        });
    }
}

#[test]
fn what_is_stored_anew_or_deleted_is_damaged_no_more() {
    let node = serving(1);
    let (digest, what) = (*Address::of(b"x").as_bytes(), String::new());
    let count = |report: &Value| report["damage"]["objects"].as_array().unwrap().len();
    node.reports.send(Report::Damaged { shard: ShardId(0), digest, what }).unwrap();
    until(&node, "the damage", |report| count(report) == 1);
    node.reports.send(Report::Healed { shard: ShardId(0), digest }).unwrap();
    until(&node, "the list", |report| count(report) == 0);
}

#[test]
fn only_so_many_verifications_at_once_and_none_when_the_node_goes() {
    let node = serving(1);
    let path = format!("/verify/{}", Address::of(b"x"));
    let asked: Vec<TcpStream> = (0..limits::VERIFIES_MAX).map(|_| post(&node, &path, "")).collect();
    for _ in &asked {
        node.taken.recv_timeout(SOON).unwrap();
    }
    let (status, patience, _) = posted(&node, &path, "");
    assert_eq!((status, patience.as_deref()), (503, Some("1")));
    node.control.drain(SOON).unwrap();
    let (status, patience, body) = posted(&node, "/scrub", "");
    assert_eq!((status, patience.as_deref(), &body["code"]), (503, Some("30"), &json!("draining")));
    let start = Instant::now();
    node.control.shutdown().unwrap();
    assert!(start.elapsed() < limits::SHUTDOWN_MAX, "nobody was waited for");
    for stream in asked {
        let (status, _, body) = read(stream);
        assert_eq!((status, &body["code"]), (503, &json!("draining")));
    }
}

#[test]
fn who_gives_orders() {
    const PROXY: &str = "X-Forwarded-For: 192.0.2.1\r\n";
    const PAGE: &str = "Sec-Fetch-Site: same-origin\r\n";
    let (open, closed) = (serving(1), guarded(1));
    closed.stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
    let (right, wrong) =
        (format!("Authorization: Bearer {TOKEN}\r\n"), "Authorization: Bearer no\r\n");
    for path in ["/scrub".to_owned(), format!("/verify/{}", Address::of(b"x"))] {
        for fields in ["Origin: http://attacker.example\r\n", PAGE, PROXY, "Via: 1.1 x\r\n"] {
            let (status, _, body) = posted(&open, &path, fields);
            assert_eq!((status, &body["code"]), (403, &json!("forbidden")), "{fields}");
        }
        assert_eq!(posted(&open, &path, wrong).0, 401, "a wrong token, where there is none");
        for fields in ["", PAGE, PROXY, wrong] {
            let (status, _, body) = posted(&closed, &path, fields);
            assert_eq!((status, &body["code"]), (401, &json!("unauthorized")), "{fields}");
        }
        let (head, _) = answer(post(&closed, &path, ""));
        assert!(head.contains("www-authenticate: bearer"), "{head}");
    }
    for node in [&open, &closed] {
        assert!(node.taken.try_recv().is_err(), "no shard got an order");
    }
    assert_eq!(posted(&open, "/scrub", "").0, 202);
    assert_eq!(posted(&closed, "/scrub", &format!("{right}{PAGE}{PROXY}")).0, 202);
}

#[test]
fn a_page_and_a_foreign_name_see_nothing_but_health() {
    let (open, closed) = (serving(1), guarded(1));
    let status = |node: &Node, path: &str, host: &str, fields: &str| {
        let mut stream = TcpStream::connect(node.control.addr()).unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        answer(stream).0["http/1.1 ".len()..][..3].to_owned()
    };
    let shown = ["/metrics", "/version", "/storage", "/debug/shards"];
    for path in shown {
        for host in ["localhost", "127.0.0.1:9096", "[::1]:9096", "192.0.2.1"] {
            assert_eq!(status(&open, path, host, ""), "200", "{path} {host}");
            assert_eq!(status(&closed, path, host, ""), "200", "{path} {host}");
        }
        let token = format!("Authorization: Bearer {TOKEN}\r\n");
        for (host, fields) in [
            ("evil.example:9096", ""),
            ("localhost", "Origin: http://evil.example\r\n"),
            ("localhost", "Sec-Fetch-Site: cross-site\r\n"),
            ("localhost", "Sec-Fetch-Site: same-origin\r\n"),
            ("localhost", "X-Forwarded-For: 192.0.2.1\r\n"),
        ] {
            assert_eq!(status(&open, path, host, fields), "403", "{path} {host} {fields}");
            assert_eq!(status(&closed, path, host, fields), "401", "{path} {host} {fields}");
            let with_token = format!("{fields}{token}");
            assert_eq!(status(&closed, path, host, &with_token), "200", "{path} {with_token}");
        }
        assert_eq!(status(&open, path, "ron.example", ""), "403", "{path}");
        assert_eq!(status(&closed, path, "ron.example:9096", ""), "200", "{path}");
        assert_eq!(status(&open, path, "localhost", "Sec-Fetch-Site: none\r\n"), "200", "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        let page = "Origin: http://evil.example\r\nVia: 1.1 x\r\n";
        assert_ne!(status(&open, path, "lb.example", page), "403", "{path}");
        assert_ne!(status(&closed, path, "lb.example", page), "401", "{path}");
    }
}

/// Answers the next listing that the shards were ordered, each with its part.
fn list_next(node: &Node, mut parts: Vec<Option<ListPage>>) -> ListRange {
    loop {
        let (shard, order) = node.taken.recv_timeout(SOON).unwrap();
        let Order::List { id, range } = order else { panic!("{order:?}") };
        let page = parts[shard].take().map(Box::new);
        node.reports.send(Report::Listed { shard: ShardId(shard as u16), id, page }).unwrap();
        if shard + 1 == parts.len() {
            return range;
        }
    }
}

fn get(node: &Node, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.control.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_page_is_put_together_of_what_all_shards_have() {
    let node = serving(2);
    let entry = |first: u8, damaged| ListEntry { digest: [first; 32], size: 7, damaged };
    let address = |first: u8| Address::from_bytes([first; 32]).to_string();
    let asked = get(&node, "/objects?limit=3");
    let parts = [
        ListPage { objects: vec![entry(1, false), entry(4, true)], ..ListPage::default() },
        ListPage {
            objects: vec![entry(2, false), entry(3, false), entry(5, false)],
            until: Some([5; 32]),
            absent: vec![3],
        },
    ];
    let range = list_next(&node, parts.map(Some).into());
    assert_eq!((range.after, range.max), (None, 4));
    let (status, _, page) = read(asked);
    let objects = [1, 2, 3].map(|first| json!({"addr": address(first), "size": 7}));
    let expected = json!({"objects": objects, "next": address(3), "absent": [3]});
    assert_eq!((status, page), (200, expected));

    let asked = get(&node, &format!("/objects?after={}", address(3)));
    let page = ListPage { objects: vec![entry(4, true)], ..ListPage::default() };
    let range = list_next(&node, vec![Some(page), Some(ListPage::default())]);
    assert_eq!(range.after, Some([3; 32]));
    let damaged = json!({"addr": address(4), "size": 7, "damaged": true});
    assert_eq!(read(asked).2, json!({"objects": [damaged]}));
}

#[test]
fn a_list_that_cannot_be_made_is_refused() {
    let node = guarded(2);
    node.stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
    let (head, _) = ask(&node, "GET /objects", "");
    assert!(head.starts_with("http/1.1 401"), "it shows every address: {head}");
    let node = serving(2);
    let (status, _, body) = read(get(&node, "/objects?limit=0"));
    assert_eq!((status, &body["code"]), (400, &json!("bad_request")));
    assert!(body["message"].as_str().unwrap().contains("limit: "), "{body}");
    node.refusals.store(1, Ordering::Relaxed);
    let (status, patience, _) = read(get(&node, "/objects"));
    assert_eq!((status, patience.as_deref()), (503, Some("1")));
    while node.taken.try_recv().is_ok() {}
    let asked = get(&node, "/objects");
    list_next(&node, vec![Some(ListPage::default()), None]);
    let (status, patience, body) = read(asked);
    assert_eq!((status, patience.as_deref(), &body["code"]), (503, Some("1"), &json!("not_ready")));
}
