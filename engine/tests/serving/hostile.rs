//! Requests that no honest client sends, byte by byte over a plain socket, and clients that are too
//! slow: each is answered once, plainly, and costs nobody else anything.

use crate::common::{
    Data, KIB, Node, Object, addr_of, assert_same,
    curl::Curl,
    flood,
    http::{Peer, Response, put_head},
    object,
};

struct Target {
    _data: Data,
    node: Node,
    object: Object,
}

fn target(args: &[&str]) -> Target {
    let data = Data::new();
    let node = data.setup().args(args).start();
    let object = object(1, 1000);
    Curl::http(&node).store(&object);
    Target { _data: data, node, object }
}

impl Target {
    /// Sends bytes on a connection of their own.
    fn send(&self, bytes: &[u8]) -> Peer {
        let mut peer = Peer::new(self.node.connect());
        peer.send(bytes);
        peer
    }

    /// Sends a request that ends its connection, with an honest one behind it that must not be
    /// answered, because nobody can know where it begins.
    #[track_caller]
    fn refused(&self, head: &str) -> Response {
        let honest = format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", self.object.addr);
        let mut peer = self.send((head.to_owned() + &honest).as_bytes());
        let answer = peer.response("GET");
        assert!(!answer.keeps(), "{head:?}");
        peer.expect_end();
        answer
    }

    /// Whether the node is as well as ever.
    fn check(self) {
        Curl::http(&self.node).check(&self.object);
        assert_eq!(self.node.metrics().sum("ron_inflight"), 0);
        self.node.terminate();
    }
}

#[test]
fn heads_that_two_readers_could_understand_differently() {
    let target = target(&[]);
    for fields in [
        "Host: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Host: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Host: t\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "Host: t\r\nContent-Length: 5, 6\r\n",
        "Host: t\r\nContent-Length: +5\r\n",
        "Host: t\r\nContent-Length: -1\r\n",
        "Host: t\r\nContent-Length: 0x5\r\n",
        "Host: t\r\nContent-Length: 99999999999999999999999\r\n",
        "Host: t\r\nTransfer-Encoding: chunked, gzip\r\n",
        "Host: t\r\nTransfer-Encoding: chunked, chunked\r\n",
        "Host: t\r\nTransfer-Encoding: xchunked\r\n",
        "Host: t\r\nX: a\n",
        "Host: t\nX: a\r\n",
        "Host: t\r\nX: a\r\n folded\r\n",
        "Host: t\r\nX: a\r\n\tfolded\r\n",
        "Host: t\r\nX : a\r\n",
        "Host : t\r\n",
        "Host: t\r\n: a\r\n",
        "Host: t\r\nX\r\n",
        "Host: t\r\nX: a\rb\r\n",
        "Host: t\r\nX: a\0b\r\n",
        "Host: t\r\nHost: u\r\n",
        "Host: t\r\nHost: t\r\n",
        "Host: a b\r\n",
        "X: a\r\n",
        "Host: t\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    ] {
        let path = format!("/o/{}", target.object.addr);
        let answer = target.refused(&format!("GET {path} HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!((answer.status, &*answer.envelope()), (400, "bad_request"), "{fields:?}");
    }
    target.check();
}

#[test]
fn request_lines() {
    let target = target(&[]);
    for (line, statuses) in [
        ("GET /o/ HTTP/2.0", &[505][..]),
        ("GET /o/ HTTP/1.2", &[505]),
        ("GET /o/", &[400]),
        ("GET", &[400]),
        ("GET  /o/ HTTP/1.1", &[400]),
        // Where the version should be is something else, which may be answered in either way.
        ("GET /o/ HTTP/1.1 x", &[400, 505]),
        ("GET /o /x HTTP/1.1", &[400, 505]),
        ("GET /o/ http/1.1", &[400, 505]),
        (" GET /o/ HTTP/1.1", &[400]),
        ("GET o HTTP/1.1", &[400]),
        ("GET ftp://h/o/ HTTP/1.1", &[400]),
        ("GET * HTTP/1.1", &[400]),
        ("G\u{1}T /o/ HTTP/1.1", &[400]),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}", &[400]),
    ] {
        let answer = target.refused(&format!("{line}\r\nHost: t\r\n\r\n"));
        assert!(statuses.contains(&answer.status), "{line:?}: {}", answer.status);
        answer.envelope();
    }
    // The whole target may be a URI, and empty lines before a request are forgiven.
    let path = format!("/o/{}", target.object.addr);
    for good in [format!("GET http://t{path}"), format!("\r\n\r\nGET {path}")] {
        let answer = target.send(format!("{good} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        assert_eq!({ answer }.response("GET").status, 200, "{good}");
    }
    let coded = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    assert_eq!(target.refused(coded).envelope(), "not_implemented");
    let old = "PUT /o/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(target.refused(old).envelope(), "bad_request");
    target.check();
}

#[test]
fn heads_and_targets_have_a_length() {
    let target = target(&[]);
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: t\r\n{fields}\r\n");
    let long = |len: usize| format!("/{}", "x".repeat(len - 1));

    let mut peer = target.send(get(&long(8 * KIB), "").as_bytes());
    assert_eq!(peer.response("GET").status, 404);
    let answer = target.refused(&get(&long(8 * KIB + 1), ""));
    assert_eq!((answer.status, &*answer.envelope()), (414, "target_too_long"));
    // Even when its end never comes.
    let mut peer = target.send(format!("GET {}", long(9 * KIB)).as_bytes());
    assert_eq!(peer.response("GET").status, 414);
    peer.expect_end();

    let path = format!("/o/{}", target.object.addr);
    let fill = |len: usize| {
        let rest = len - get(&path, "X: \r\n").len();
        get(&path, &format!("X: {}\r\n", "x".repeat(rest)))
    };
    assert_eq!(fill(16 * KIB).len(), 16 * KIB);
    let mut peer = target.send(fill(16 * KIB).as_bytes());
    assert_eq!(peer.response("GET").status, 200);
    let answer = target.refused(&fill(16 * KIB + 1));
    assert_eq!((answer.status, &*answer.envelope()), (431, "head_too_large"));
    let mut peer = target.send(&get(&path, &"Y: z\r\n".repeat(10_000)).as_bytes()[..40_000]);
    assert_eq!(peer.response("GET").status, 431);
    peer.expect_end();
    let many = "X: y\r\n".repeat(65);
    assert_eq!(target.refused(&get(&path, &many)).status, 431);
    target.check();
}

#[test]
fn bodies_that_nobody_wants_are_passed_over() {
    let target = target(&[]);
    let mut peer = Peer::new(target.node.connect());
    for method in ["GET", "POST", "BREW"] {
        let path = format!("/o/{}", target.object.addr);
        // It looks like a request and is none.
        let body = "GET /o/ HTTP/1.1\r\nHost: t\r\n\r\n";
        let fields = format!("Host: t\r\nContent-Length: {}\r\n", body.len());
        peer.send(format!("{method} {path} HTTP/1.1\r\n{fields}\r\n{body}").as_bytes());
        let answer = peer.response(method);
        assert!(answer.keeps(), "{method}: {}", answer.status);
    }
    assert_eq!(peer.get(&format!("/o/{}", target.object.addr)).status, 200);
    target.check();
}

#[test]
fn chunks() {
    let target = target(&[]);
    let put = |body: &str| {
        let head = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        target.send((head.to_owned() + body).as_bytes())
    };
    for good in [
        "5\r\nhello\r\n0\r\n\r\n",
        "05;a=b\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n000\r\n\r\n",
    ] {
        let mut peer = put(good);
        let answer = peer.response("PUT");
        assert!(matches!(answer.status, 200 | 201), "{good:?}: {}", answer.status);
        assert_eq!(answer.json()["addr"], addr_of(b"hello"));
        assert_eq!(peer.get(&format!("/o/{}", addr_of(b"hello"))).body, b"hello");
    }
    for bad in [
        "x\r\nworld\r\n0\r\n\r\n",
        "5\nworld\r\n0\r\n\r\n",
        "5\r\nworldX\r\n0\r\n\r\n",
        "-5\r\nworld\r\n0\r\n\r\n",
        "0x5\r\nworld\r\n0\r\n\r\n",
        "11111111111111111\r\nworld",
        "\r\nworld\r\n0\r\n\r\n",
    ] {
        let mut peer = put(bad);
        let answer = peer.response("PUT");
        assert_eq!((answer.status, &*answer.envelope()), (400, "bad_request"), "{bad:?}");
        assert!(!answer.keeps());
        peer.expect_end();
    }
    let missing = Peer::new(target.node.connect()).get(&format!("/o/{}", addr_of(b"world")));
    assert_eq!(missing.status, 404);
    target.check();
}

#[test]
fn a_body_that_ends_early_is_not_kept() {
    let target = target(&[]);
    for len in [10, 100 * KIB, 3000 * KIB] {
        let object = object(7, len);
        let mut peer = target.send(put_head(&object.addr, len).as_bytes());
        peer.send(&object.bytes[..len - 1]);
        peer.shutdown();
        let answer = peer.response("PUT");
        assert_eq!((answer.status, &*answer.envelope()), (400, "bad_request"), "{len}");
        peer.expect_end();
        let mut peer = Peer::new(target.node.connect());
        assert_eq!(peer.get(&format!("/o/{}", object.addr)).status, 404, "{len}");
    }
    target.check();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let target = target(&[]);
    let mut peer = Peer::new(target.node.connect());
    let small = object(3, 50);
    let mut all = put_head(&small.addr, 50).into_bytes();
    all.extend_from_slice(&small.bytes);
    all.extend_from_slice(format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", small.addr).as_bytes());
    all.iter().for_each(|byte| peer.send(&[*byte]));
    assert_eq!(peer.response("PUT").status, 201);
    assert_same(&peer.response("GET").body, &small.bytes, "byte by byte");
    target.check();
}

#[test]
fn slow_clients_meet_deadlines() {
    let limits = ["--deadline-head", "0.3", "--deadline-body", "0.3", "--deadline-idle", "0.3"];
    let target = target(&limits);
    let mut peer = target.send(b"GET /o/ HTT");
    let answer = peer.response("GET");
    assert_eq!((answer.status, &*answer.envelope()), (408, "timeout"));
    peer.expect_end();

    let mut peer = target.send(put_head(&addr_of(b"hello"), 5).as_bytes());
    peer.send(b"hell");
    let answer = peer.response("PUT");
    assert_eq!((answer.status, &*answer.envelope()), (408, "timeout"));
    assert_eq!(answer.json()["retryable"], true);
    peer.expect_end();

    let mut idle = Peer::new(target.node.connect());
    assert_eq!(idle.get(&format!("/o/{}", target.object.addr)).status, 200);
    idle.expect_end();
    assert!(target.node.metrics().sum("ron_rejected_total{reason=\"timeout\"") >= 2);
    target.check();
}

#[test]
fn clients_that_leave_cost_nothing() {
    let target = flood::Target::warm(1, &[]);
    let large = object(5, 8 * 1024 * KIB);
    target.store(&large);
    let (during, ()) = target.measure_while("during", || {
        for _ in 0..20 {
            // One that asks and does not read, one that leaves in a body, one that says nothing.
            let mut peer = Peer::new(target.node.connect());
            peer.send(format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", large.addr).as_bytes());
            assert_eq!(peer.try_head().expect("there is a head").status, 200);
            let mut peer = Peer::new(target.node.connect());
            peer.send(put_head(&addr_of(b"x"), 5_000_000).as_bytes());
            peer.send(&large.bytes[..2_000_000]);
            drop(target.node.connect());
        }
    });
    during.expect_served();
    during.expect_within_bill();
    Curl::http(&target.node).check(&large);
    target.finish();
}

#[test]
fn connections_have_a_maximum() {
    let max = ["--connections-max", "12", "--connections-per-peer", "12"];
    let target = flood::Target::warm(1, &max);
    // One is that of the measuring.
    target.wait_connections(1);
    let mut open: Vec<Peer> = (0..11).map(|_| Peer::new(target.node.connect())).collect();
    open.iter_mut().for_each(|peer| assert_eq!(peer.get("/").status, 404));
    let mut refused = Peer::new(target.node.connect());
    let answer = refused.response("GET");
    assert_eq!((answer.status, &*answer.envelope()), (503, "overload"));
    assert_eq!((answer.field("Retry-After"), answer.keeps()), (Some("1"), false));
    refused.expect_end();
    drop(refused);
    // Under TLS it would take a handshake to say so. A reset may come before connect(2) returns.
    for _ in 0..30 {
        if let Ok(stream) = std::net::TcpStream::connect(target.node.at("https")) {
            Peer::new(crate::common::timed(stream)).expect_end();
        }
    }
    assert_eq!(target.node.metrics().sum("ron_rejected_total{reason=\"connections\"}"), 31);
    assert_eq!(target.node.admin("/readyz").status, 503, "a node at its limit says so");
    // Those that are served are served on, and one that leaves frees its place.
    let during = target.measure("during");
    assert_eq!(during.kept.served, during.kept.times.len(), "{during}");
    assert_eq!(during.new.refused, during.new.times.len(), "{during}");
    open.iter_mut().for_each(|peer| assert_eq!(peer.get("/").status, 404));
    open.pop().expect("there are eleven").shutdown();
    target.wait_connections(11);
    assert_eq!(Peer::new(target.node.connect()).get("/").status, 404);
    drop(open);
    target.finish();
}
