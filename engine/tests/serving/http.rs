//! What HTTP requests mean: stores, conditions, errors, authority, and the life of a connection.

use std::io::Write;

use crate::common::{
    Data, KIB, MIB, Object, addr_of, assert_same,
    curl::{Curl, curl},
    http::Peer,
    object, one_and_two_cores, outer_address,
};

fn path(object: &Object) -> String {
    format!("/o/{}", object.addr)
}

#[test]
fn every_spelling_of_an_address() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 5000);
    let curl = Curl::http(&node);
    curl.store(&object);
    let hex = object.addr.strip_prefix("b3:").expect("it has its prefix");
    for spelling in [
        format!("b3:{hex}"),
        hex.to_owned(),
        format!("b3%3A{hex}"),
        format!("b3:{hex}.post"),
        format!("{hex}.image"),
        format!("b3:{hex}/payload.bin"),
        format!("b3:{hex}.post/payload.bin"),
        format!("b3:{hex}?a=b"),
    ] {
        let answer = curl.get(&spelling, &[]);
        assert_eq!(answer.status, 200, "{spelling}");
        assert_same(&answer.body, &object.bytes, &spelling);
    }
    let upper = hex.to_uppercase();
    for wrong in [
        &hex[1..],
        &upper,
        "",
        "b3:",
        "x",
        "b2:00",
        "../etc/passwd",
        &format!("{hex}/other.bin"),
        &format!("{hex}/Manifest.toml"),
        &format!("{hex}0"),
    ] {
        let answer = curl.get(wrong, &["--path-as-is"]);
        let wanted = match wrong {
            "" => 405,
            // An object without such a part.
            part if part.ends_with("/other.bin") || part.ends_with("/Manifest.toml") => 404,
            _ => 400,
        };
        assert_eq!(answer.status, wanted, "{wrong}");
    }
    node.terminate();
}

#[test]
fn the_head_of_an_answer() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(2, 100);
    let curl = Curl::http(&node);
    curl.store(&object);
    let get = curl.get(&object.addr, &[]);
    for (name, value) in [
        ("etag", &*format!("\"{}\"", object.addr)),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("accept-ranges", "bytes"),
        ("content-length", "100"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(get.field(name), Some(value), "{name}");
    }
    assert!(get.field("date").is_some() && get.field("last-modified").is_none());
    let head = curl.head(&object.addr);
    for name in ["etag", "cache-control", "accept-ranges", "content-length", "content-type"] {
        assert_eq!(head.field(name), get.field(name), "{name} of HEAD");
    }
    let missing = curl.head(&addr_of(b"not here"));
    assert_eq!(missing.status, 404);
    node.terminate();
}

#[test]
fn a_put_says_whether_the_object_is_new() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let curl = Curl::http(&node);
        for (seed, len) in [(1, 0), (2, 10), (3, 300 * KIB), (4, 3 * MIB)] {
            let object = object(seed, len);
            assert_eq!(curl.get(&object.addr, &[]).status, 404);
            assert_eq!(curl.put(&object.addr, &object.bytes, &[]).status, 201, "{len}");
            assert_eq!(curl.put(&object.addr, &object.bytes, &[]).status, 200, "{len}");
            assert_eq!(curl.put_sized(&object.bytes, &[]).status, 200, "{len}");
            assert_eq!(curl.put_chunked(&object.bytes, &[]).status, 200, "{len}");
            curl.check(&object);
        }
        assert_eq!(node.metrics().sum("ron_objects"), 4);
        node.terminate();
    }
}

#[test]
fn a_wrong_digest_keeps_nothing() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let curl = Curl::http(&node);
        for (seed, len) in [(1, 1), (2, 64 * KIB + 1), (3, MIB), (4, 3 * MIB)] {
            let (claimed, sent) = (object(seed, len), object(seed + 10, len));
            let answer = curl.put(&claimed.addr, &sent.bytes, &[]);
            assert_eq!((answer.status, &*answer.error()), (400, "bad_digest"), "{len}");
            assert_eq!(curl.get(&claimed.addr, &[]).status, 404, "{len}");
            assert_eq!(curl.get(&sent.addr, &[]).status, 404, "{len}");
            // The name is not spoilt for the bytes that do have it.
            curl.store(&claimed);
            curl.check(&claimed);
        }
        node.terminate();
        let node = data.start(shards);
        assert_eq!(Curl::http(&node).get(&object(11, 1).addr, &[]).status, 404);
        node.terminate();
    }
}

#[test]
fn too_large_is_refused_at_its_limit() {
    let data = Data::new();
    let node = data.setup().args(&["--object-len-max", "100KiB"]).start();
    let curl = Curl::http(&node);
    let (exact, more) = (object(1, 100 * KIB), object(2, 100 * KIB + 1));
    assert_eq!(curl.put(&exact.addr, &exact.bytes, &[]).status, 201);
    for answer in [
        curl.put(&more.addr, &more.bytes, &[]),
        curl.put_sized(&more.bytes, &[]),
        curl.put_chunked(&more.bytes, &[]),
    ] {
        assert_eq!((answer.status, &*answer.error()), (413, "too_large"));
    }
    assert_eq!(curl.get(&more.addr, &[]).status, 404);
    // A length beyond all reason is refused by its head alone.
    let mut peer = Peer::new(node.connect());
    let head = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n";
    peer.send(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes());
    assert_eq!(peer.response("PUT").envelope(), "too_large");
    assert!(node.metrics().sum("ron_reject_oversize_total") >= 4);
    node.terminate();
}

#[test]
fn the_client_is_told_to_go_on_only_when_it_may() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 1000);
    let mut peer = Peer::new(node.connect());
    let head = crate::common::http::put_head(&object.addr, 1000);
    let asking = head.trim_end().to_owned() + "\r\nExpect: 100-continue\r\n\r\n";
    peer.send(asking.as_bytes());
    assert_eq!(peer.response("PUT").status, 100);
    peer.send(&object.bytes);
    assert_eq!(peer.response("PUT").status, 201);
    // What is refused by its head is not asked for.
    peer.send(
        b"PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(peer.response("PUT").status, 404);
    let mut peer = Peer::new(node.connect());
    peer.send(b"PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: tea\r\n\r\n");
    let answer = peer.response("PUT");
    assert_eq!((answer.status, &*answer.envelope()), (417, "expectation_failed"));
    node.terminate();
}

#[test]
fn conditions() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 1000);
    let curl = Curl::http(&node);
    curl.store(&object);
    let tag = format!("\"{}\"", object.addr);
    for (condition, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: W/{tag}"), 304),
        (format!("If-None-Match: \"a\", {tag}"), 304),
        ("If-None-Match: *".to_owned(), 304),
        ("If-None-Match: \"a\"".to_owned(), 200),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: *".to_owned(), 200),
        ("If-Match: \"a\"".to_owned(), 412),
        (format!("If-Match: W/{tag}"), 412),
        ("Accept-Encoding: identity;q=0".to_owned(), 406),
        ("Accept-Encoding: br, gzip;q=0.5".to_owned(), 200),
    ] {
        for head in [&[][..], &["-I"]] {
            let args = [&["-H", &condition], head].concat();
            let answer = curl.get(&object.addr, &args);
            assert_eq!((answer.exit, answer.status), (0, status), "{condition} {head:?}");
            if status == 304 {
                assert_eq!(answer.field("etag"), Some(&*tag), "{condition}");
                let cached = answer.field("cache-control");
                assert_eq!(cached, Some("public, max-age=31536000, immutable"));
                assert_eq!(answer.field("content-length"), None);
                // With -I, curl prints the head as the body.
                assert!(answer.body.is_empty() || !head.is_empty());
            }
        }
    }
    assert!(node.metrics().sum("ron_not_modified_total") >= 8);
    // Conditions of what is not there count for nothing.
    let missing = curl.get(&addr_of(b"none"), &["-H", "If-None-Match: *"]);
    assert_eq!(missing.status, 404);
    node.terminate();
}

#[test]
fn conditions_of_writes() {
    let data = Data::new();
    let node = data.start(1);
    let (empty, some) = (object(1, 0), object(1, 1000));
    let mut peer = Peer::new(node.connect());
    let mut ask = |method: &str, object: &Object, fields: &str| {
        let path = path(object);
        peer.send(
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes(),
        );
        peer.response(method)
    };
    // The empty object has no body that could be waited for.
    for (method, condition, status) in [
        ("PUT", "If-Match: *\r\n", 412),
        ("PUT", "If-None-Match: *\r\n", 201),
        ("PUT", "If-None-Match: *\r\nContent-Length: 0\r\n", 412),
        ("PUT", "If-Match: *\r\n", 200),
        ("DELETE", "If-None-Match: *\r\n", 412),
        ("GET", "", 200),
        ("DELETE", "If-Match: *\r\n", 204),
        ("DELETE", "If-None-Match: *\r\n", 404),
    ] {
        assert_eq!(ask(method, &empty, condition).status, status, "{method} {condition}");
    }
    // A client that waits for 100 may send its body or not.
    Curl::http(&node).store(&some);
    let waits = "If-None-Match: *\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n";
    let refused = ask("PUT", &some, waits);
    assert!(refused.status == 412 && !refused.keeps(), "{}", refused.status);
    peer.expect_end();
    node.terminate();
}

#[test]
fn methods() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 10);
    Curl::http(&node).store(&object);
    let mut peer = Peer::new(node.connect());
    for (method, path, status, allow) in [
        ("POST", &*path(&object), 405, Some("GET, HEAD, PUT, DELETE")),
        ("OPTIONS", &path(&object), 405, Some("GET, HEAD, PUT, DELETE")),
        ("DELETE", "/o/", 405, Some("PUT")),
        ("GET", "/o/", 405, Some("PUT")),
        ("POST", "/o/", 405, Some("PUT")),
        ("BREW", &path(&object), 501, None),
        ("get", &path(&object), 501, None),
        ("GET", "/", 404, None),
        ("GET", "/other", 404, None),
    ] {
        peer.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let answer = peer.response(method);
        assert_eq!((answer.status, answer.field("allow")), (status, allow), "{method} {path}");
        let code = match status {
            405 => "method_not_allowed",
            501 => "not_implemented",
            _ => "not_found",
        };
        assert_eq!(answer.envelope(), code);
        if !answer.keeps() {
            peer = Peer::new(node.connect());
        }
    }
    node.terminate();
}

#[test]
fn correlation_ids() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 10);
    Curl::http(&node).store(&object);
    let mut peer = Peer::new(node.connect());
    let mut corr = |fields: &str| {
        let path = path(&object);
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes());
        peer.response("GET").field("x-corr-id").expect("every answer has one").to_owned()
    };
    let own = corr("");
    let is_ulid = |id: &str| id.len() == 26 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    assert!(is_ulid(&own), "{own}");
    assert_ne!(corr(""), own);
    assert_eq!(corr("X-Corr-Id: my-id.7\r\n"), "my-id.7");
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    assert_eq!(corr(trace), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(corr(&format!("{trace}X-Corr-Id: first\r\n")), "first");
    for bad in ["a b", "<x>", "\"", &"x".repeat(65)] {
        let made = corr(&format!("X-Corr-Id: {bad}\r\n"));
        assert!(is_ulid(&made), "{bad} became {made}");
    }
    let missing =
        curl(&["-H", "X-Corr-Id: err-1", &format!("{}/o/{}", node.http(), addr_of(b"none"))]);
    assert_eq!(missing.json()["corr_id"], "err-1");
    assert_eq!((missing.field("x-corr-id"), &*missing.error()), (Some("err-1"), "not_found"));
    assert_eq!(missing.json()["retryable"], false);
    node.terminate();
}

#[test]
fn with_a_token_everybody_needs_one() {
    let Some(outer) = outer_address() else {
        crate::common::skipped("this machine has no address but loopback");
        return;
    };
    let data = Data::new();
    let tokens = ["--http", "0.0.0.0:0", "--write-token", "first-token", "--write-token", "2nd"];
    let node = data.setup().args(&tokens).start();
    let port = node.at("http").port();
    let (near, far) = (
        Curl::at(&format!("http://127.0.0.1:{port}")),
        Curl::at(&format!("http://{outer}:{port}")),
    );
    let object = object(1, 3 * MIB);
    for (token, status, code) in [
        (None, 401, "unauthorized"),
        (Some("Bearer wrong"), 401, "unauthorized"),
        (Some("Bearer first-toke"), 401, "unauthorized"),
        (Some("Bearer first-tokenx"), 401, "unauthorized"),
        (Some("Basic first-token"), 401, "unauthorized"),
    ] {
        let field = token.map(|token| format!("Authorization: {token}"));
        let args: Vec<&str> = field.iter().flat_map(|field| ["-H", field.as_str()]).collect();
        for from in [&far, &near] {
            let answer = from.put(&object.addr, &object.bytes, &args);
            assert_eq!((answer.status, &*answer.error()), (status, code), "{token:?}");
        }
    }
    assert_eq!(far.get(&object.addr, &[]).status, 404);
    let with = ["-H", "Authorization: Bearer first-token"];
    assert_eq!(far.put(&object.addr, &object.bytes, &with).status, 201);
    assert_eq!(far.put_chunked(&object.bytes, &["-H", "Authorization: bearer 2nd"]).status, 200);
    far.check(&object);
    let other = crate::common::object(2, 10);
    assert_eq!(near.put(&other.addr, &other.bytes, &with).status, 201);
    node.terminate();
}

#[test]
fn one_connection_serves_many_requests() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let mut peer = Peer::new(node.connect());
        for seed in 0..200 {
            let object = object(seed, 7 * seed as usize);
            let put = peer.try_put(&object.addr, &object.bytes).expect("the connection holds");
            assert!(put.status == 201 && put.keeps(), "{seed}: {}", put.status);
            let get = peer.get(&path(&object));
            assert_same(&get.body, &object.bytes, &object.addr);
            assert_eq!(peer.get("/o/nothing").status, 400);
        }
        peer.send(b"GET /o/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(!peer.response("GET").keeps());
        peer.expect_end();
        assert_eq!(node.metrics().sum("ron_requests_total{proto=\"http\",op=\"put\""), 200);
        node.terminate();
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let objects: Vec<Object> =
            (0..100).map(|seed| object(seed, (seed as usize * 4567) % 200_000)).collect();
        let curl = Curl::http(&node);
        objects.iter().step_by(2).for_each(|object| curl.store(object));
        // The odd ones are stored within the pipeline itself, before they are asked for.
        let mut all = Vec::new();
        for (at, object) in objects.iter().enumerate() {
            if at % 2 == 1 {
                let head = crate::common::http::put_head(&object.addr, object.bytes.len());
                all.extend_from_slice(head.as_bytes());
                all.extend_from_slice(&object.bytes);
            }
            let get = format!(
                "GET {} HTTP/1.1\r\nHost: localhost\r\nX-Corr-Id: n{at}\r\n\r\n",
                path(object)
            );
            all.extend_from_slice(get.as_bytes());
        }
        let stream = node.connect();
        let mut writer = stream.try_clone().expect("a socket can be shared");
        let mut peer = Peer::new(stream);
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&all).expect("the node takes what it is sent"));
            for (at, object) in objects.iter().enumerate() {
                if at % 2 == 1 {
                    assert_eq!(peer.response("PUT").status, 201, "{at}");
                }
                let answer = peer.response("GET");
                assert_eq!(answer.field("x-corr-id"), Some(&*format!("n{at}")));
                assert_same(&answer.body, &object.bytes, &object.addr);
            }
        });
        node.terminate();
    }
}

#[test]
fn a_hundred_requests_in_one_write() {
    let data = Data::new();
    let node = data.start(1);
    let objects: Vec<Object> = (0..100).map(|seed| object(seed, seed as usize * 50)).collect();
    let curl = Curl::http(&node);
    objects.iter().take(10).for_each(|object| curl.store(object));
    let mut all = String::new();
    for at in 0..100 {
        all += &format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path(&objects[at % 20]));
    }
    let mut peer = Peer::new(node.connect());
    peer.send(all.as_bytes());
    peer.shutdown();
    for at in 0..100 {
        let (answer, object) = (peer.response("GET"), &objects[at % 20]);
        if at % 20 < 10 {
            assert_same(&answer.body, &object.bytes, &object.addr);
        } else {
            assert_eq!(answer.status, 404, "{at}");
        }
    }
    peer.expect_end();
    node.terminate();
}

#[test]
fn the_older_version() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 100_000);
    let curl = Curl::http(&node);
    curl.store(&object);
    let answer = curl.get(&object.addr, &["--http1.0"]);
    assert_eq!((answer.exit, answer.status), (0, 200));
    assert_same(&answer.body, &object.bytes, "HTTP/1.0");
    let other = crate::common::object(2, 1000);
    // Proxies without settings ask so: without a token they write nothing.
    assert_eq!(curl.put(&other.addr, &other.bytes, &["--http1.0"]).status, 403);

    let mut peer = Peer::new(node.connect());
    peer.send(format!("GET {} HTTP/1.0\r\n\r\n", path(&object)).as_bytes());
    let answer = peer.response("GET");
    assert_eq!(answer.status, 200);
    peer.expect_end();
    let mut peer = Peer::new(node.connect());
    for _ in 0..2 {
        let head = format!("GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", path(&object));
        peer.send(head.as_bytes());
        let answer = peer.response("GET");
        assert_eq!((answer.field("connection"), answer.status), (Some("keep-alive"), 200));
    }
    node.terminate();
}

#[test]
fn the_same_object_from_many_at_once() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        for (seed, len) in [(1, 5000), (2, MIB), (3, 3 * MIB)] {
            let object = object(seed, len);
            let statuses: Vec<u16> = std::thread::scope(|scope| {
                let put = || {
                    let mut peer = Peer::new(node.connect());
                    let put = peer.try_put(&object.addr, &object.bytes);
                    let get = peer.get(&path(&object));
                    assert_same(&get.body, &object.bytes, "behind its own PUT");
                    put.expect("the connection holds").status
                };
                let writers: Vec<_> = (0..8).map(|_| scope.spawn(put)).collect();
                writers.into_iter().map(|writer| writer.join().expect("it is stored")).collect()
            });
            assert!(statuses.iter().all(|status| matches!(status, 200 | 201)), "{statuses:?}");
            assert!(statuses.contains(&201), "{statuses:?}");
        }
        assert_eq!(node.metrics().sum("ron_objects"), 3);
        node.terminate();
    }
}
