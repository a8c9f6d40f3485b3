//! Who may write, seen from outside: a web page whose name was pointed at this machine, a proxy on
//! the same host, and a neighbour on loopback, each against a real node.

use crate::common::{
    Data, Node, Object, connect,
    http::Peer,
    oap::{END, Oap, REQ, frame, request},
    object,
};
use ron_codec::authority::PROXY_FIELDS;
use serde_json::json;

/// What a browser sends for a script of a page at `http://evil.example:PORT` after that name was
/// pointed at 127.0.0.1: for the browser, the node is the page's own origin.
const REBOUND: &str = "Host: evil.example:9080\r\nOrigin: http://evil.example:9080\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nUser-Agent: Mozilla/5.0\r\n";

/// What proxies on the same host send, with their usual settings.
const PROXIED: [(&str, &str); 4] = [
    (
        "nginx before 1.29.7, nothing set",
        "HTTP/1.0\r\nHost: 127.0.0.1:9080\r\nConnection: close\r\n",
    ),
    (
        "nginx, as advised everywhere",
        "HTTP/1.1\r\nHost: 127.0.0.1:9080\r\nX-Real-IP: 192.0.2.7\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n",
    ),
    ("haproxy, option forwardfor", "HTTP/1.1\r\nHost: localhost\r\nx-forwarded-for: 192.0.2.7\r\n"),
    (
        "caddy",
        "HTTP/1.1\r\nHost: localhost\r\nVia: 1.1 Caddy\r\nX-Forwarded-For: 192.0.2.7\r\n\
         X-Forwarded-Host: localhost\r\nX-Forwarded-Proto: https\r\n",
    ),
];

/// One request with the fields given, on a connection of its own.
fn ask(node: &Node, at: &str, line: &str, fields: &str, body: &[u8]) -> (u16, String) {
    let mut peer = Peer::new(connect(node.at(at)));
    let len = body.len();
    let version = if fields.starts_with("HTTP/") { "" } else { "HTTP/1.1\r\n" };
    peer.send(format!("{line} {version}{fields}Content-Length: {len}\r\n\r\n").as_bytes());
    peer.send(body);
    let answer = peer.response(line.split(' ').next().expect("a method"));
    let code = if answer.status < 400 { String::new() } else { answer.envelope() };
    (answer.status, code)
}

fn put(node: &Node, object: &Object, fields: &str) -> (u16, String) {
    ask(node, "http", &format!("PUT /o/{}", object.addr), fields, &object.bytes)
}

fn delete(node: &Node, object: &Object, fields: &str) -> (u16, String) {
    ask(node, "http", &format!("DELETE /o/{}", object.addr), fields, b"")
}

fn get(node: &Node, object: &Object, fields: &str) -> u16 {
    ask(node, "http", &format!("GET /o/{}", object.addr), fields, b"").0
}

#[test]
fn a_page_with_a_rebound_name_changes_and_learns_nothing() {
    let data = Data::new();
    let node = data.start(1);
    let (kept, other) = (object(1, 100), object(2, 100));
    assert_eq!(put(&node, &kept, "Host: localhost\r\n").0, 201);
    let forbidden = (403, "forbidden".to_owned());
    assert_eq!(put(&node, &other, REBOUND), forbidden);
    assert_eq!(delete(&node, &kept, REBOUND), forbidden);
    // Each sign alone is enough.
    for fields in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        assert_eq!(put(&node, &other, fields), forbidden, "{fields}");
        assert_eq!(delete(&node, &kept, fields), forbidden, "{fields}");
    }
    assert_eq!(get(&node, &kept, REBOUND), 200, "content is for everybody");
    assert_eq!(get(&node, &other, "Host: localhost\r\n"), 404);
    for path in ["/metrics", "/storage", "/version", "/debug/shards", "/debug/profile"] {
        assert_eq!(ask(&node, "admin", &format!("GET {path}"), REBOUND, b""), forbidden, "{path}");
    }
    assert_eq!(ask(&node, "admin", "POST /scrub", REBOUND, b""), forbidden);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&node, "admin", &format!("GET {path}"), REBOUND, b"").0, 200, "{path}");
    }
    node.terminate();
}

#[test]
fn a_proxy_on_this_machine_lends_nobody_its_address() {
    let data = Data::new();
    let node = data.start(1);
    let (kept, other) = (object(1, 100), object(2, 100));
    assert_eq!(put(&node, &kept, "Host: localhost\r\n").0, 201);
    let forbidden = (403, "forbidden".to_owned());
    for (proxy, fields) in PROXIED {
        assert_eq!(put(&node, &other, fields), forbidden, "{proxy}");
        assert_eq!(delete(&node, &kept, fields), forbidden, "{proxy}");
        assert_eq!(get(&node, &kept, fields), 200, "{proxy}");
        assert_eq!(ask(&node, "admin", "GET /storage", fields, b""), forbidden, "{proxy}");
        assert_eq!(ask(&node, "admin", "GET /healthz", fields, b"").0, 200, "{proxy}");
    }
    for name in PROXY_FIELDS {
        let fields = format!("Host: localhost\r\n{name}: 192.0.2.7\r\n");
        assert_eq!(put(&node, &other, &fields), forbidden, "{name}");
        assert_eq!(delete(&node, &kept, &fields), forbidden, "{name}");
        assert_eq!(ask(&node, "admin", "GET /storage", &fields, b""), forbidden, "{name}");
    }
    node.terminate();
}

#[test]
fn with_a_token_the_proxy_and_its_neighbours_need_it() {
    let data = Data::new();
    let node = data.setup().args(&["--write-token", "sekret"]).start();
    let (one, unauthorized) = (object(1, 100), (401, "unauthorized".to_owned()));
    let direct = [("nobody between", "HTTP/1.1\r\nHost: localhost\r\n")];
    for (from, fields) in PROXIED.into_iter().chain(direct) {
        let wrong = format!("{fields}Authorization: Bearer secret\r\n");
        for fields in [fields, &wrong] {
            assert_eq!(put(&node, &one, fields), unauthorized, "{from}");
            assert_eq!(delete(&node, &one, fields), unauthorized, "{from}");
            assert_eq!(ask(&node, "admin", "POST /scrub", fields, b""), unauthorized, "{from}");
        }
        let right = format!("{fields}Authorization: Bearer sekret\r\n");
        assert_eq!(put(&node, &one, &right).0, 201, "{from}");
        assert_eq!(ask(&node, "admin", "POST /scrub", &right, b"").0, 202, "{from}");
        assert_eq!(delete(&node, &one, &right).0, 204, "{from}");
    }
    // OAP/1 §9.2: the same over OAP, where the token is the capability.
    let mut oap = Oap::tls(&node);
    let start = request(1, &json!({"op": "put", "len": 100, "addr": one.addr}));
    for (cap, code) in [(&b""[..], 401), (b"secret", 401), (b"sekret", 0)] {
        oap.send(&crate::common::oap::Frame { cap: cap.to_vec(), ..start.clone() });
        oap.send(&frame(REQ, 1, &one.bytes));
        oap.send(&frame(REQ | END, 1, b""));
        assert_eq!(oap.recv().code, code, "{cap:?}");
    }
    node.terminate();
}

#[test]
fn loopback_can_be_switched_off_and_names_be_given() {
    let data = Data::new();
    let args = ["--write-loopback", "false"];
    let node = data.setup().args(&args).start();
    let (one, forbidden) = (object(1, 100), (403, "forbidden".to_owned()));
    assert_eq!(put(&node, &one, "Host: localhost\r\n"), forbidden);
    assert_eq!(ask(&node, "admin", "POST /scrub", "Host: localhost\r\n", b""), forbidden);
    assert_eq!(ask(&node, "admin", "GET /storage", "Host: localhost\r\n", b"").0, 200);
    let mut oap = Oap::tls(&node);
    assert_eq!(oap.put(&one.bytes, None, 100).code, 403);
    node.terminate();

    let data = Data::new();
    let node = data.setup().args(&["--server-name", "ron.example"]).start();
    assert_eq!(put(&node, &one, "Host: ron.example:9080\r\n").0, 201);
    assert_eq!(put(&node, &one, "Host: other.example\r\n"), forbidden);
    assert_eq!(ask(&node, "admin", "GET /storage", "Host: ron.example\r\n", b"").0, 200);
    node.terminate();
}

#[test]
fn a_refusal_is_found_in_the_log_by_its_id() {
    let data = Data::new();
    let node = data.start(1);
    let one = object(1, 100);
    let fields = "Host: localhost\r\nVia: 1.1 x\r\nX-Corr-Id: where-is-it-17\r\n";
    assert_eq!(put(&node, &one, fields).0, 403);
    let log = node.wait_stderr("where-is-it-17");
    let line = log.lines().find(|line| line.contains("where-is-it-17")).expect("the line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    for (field, value) in [
        ("level", json!("INFO")),
        ("op", json!("put")),
        ("status", json!(403)),
        ("reason", json!("forbidden")),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    node.terminate();
}
