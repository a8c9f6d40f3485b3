//! Names that are given to bundles and objects: through the admin listener and through `ronctl`.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::common::{
    Data, Dice, Node, Output, addr_of, clean_environment, connect,
    curl::Curl,
    http::{Peer, Response},
    object, one_and_two_cores, run,
};
use serde_json::{Value, json};

/// A request to the admin listener.
fn ask(node: &Node, method: &str, path: &str, fields: &str, body: &str) -> Response {
    let mut peer = Peer::new(connect(node.at("admin")));
    let len = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n");
    peer.send(format!("{head}{fields}\r\n{body}").as_bytes());
    peer.response(method)
}

fn set(node: &Node, path: &str, addr: &str) -> Response {
    ask(node, "PUT", &format!("/names{path}"), "", &json!({ "address": addr }).to_string())
}

fn ronctl(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    let (admin, http) = (format!("http://{}", node.at("admin")), node.http());
    run(command.args(["--admin", &admin, "--node", &http]).args(args), b"")
}

/// What `ronctl name` prints when all is well.
fn name(node: &Node, args: &[&str]) -> String {
    let output = ronctl(node, &[&["name"], args].concat());
    assert_eq!(output.code, 0, "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names and what they were given to.
fn listed(node: &Node) -> Vec<(String, String)> {
    let list: Value = serde_json::from_str(&name(node, &["ls", "--json"])).expect("it is JSON");
    let names = list["names"].as_array().expect("a list");
    let field = |name: &Value, key: &str| name[key].as_str().expect("a text").to_owned();
    names.iter().map(|name| (field(name, "path"), field(name, "address"))).collect()
}

#[test]
fn names_are_given_listed_and_taken_away_and_stay() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let stored = object(1, 1000);
        Curl::http(&node).store(&stored);
        let (here, gone) = (stored.addr.as_str(), addr_of(b"nowhere"));

        let output = ronctl(&node, &["name", "set", "tiles//12/", here]);
        assert_eq!((output.code, text(&output.stderr)), (0, String::new()));
        assert_eq!(text(&output.stdout), format!("/tiles/12 {here} 1\n"));
        let output = ronctl(&node, &["name", "set", "/", &gone]);
        assert_eq!(output.code, 0, "what is not there yet may have a name");
        let warning = text(&output.stderr);
        assert!(warning.contains("warning") && warning.contains(&gone), "{warning}");
        name(&node, &["set", "/Käse & co?/a+b", here]);
        let all = [("/", gone.as_str()), ("/Käse & co?/a+b", here), ("/tiles/12", here)];
        let all = all.map(|(path, addr)| (path.to_owned(), addr.to_owned()));
        assert_eq!(listed(&node), all);
        assert_eq!(name(&node, &["list", "/tiles"]), format!("/tiles/12 {here} 1\n"));
        assert_eq!(name(&node, &["ls", "Käse & co?"]), format!("/Käse & co?/a+b {here} 3\n"));

        let metrics = node.metrics();
        assert_eq!(metrics.sum("ron_names"), 3);
        assert_eq!(metrics.sum("ron_names_version"), 3 * shards as u64, "every shard has them");
        node.terminate();
        let node = data.start(shards);
        assert_eq!(listed(&node), all, "they are there after a restart");
        let metrics = node.metrics();
        assert_eq!(metrics.sum("ron_names_version"), 3 * shards as u64, "when it is ready");

        assert_eq!(name(&node, &["rm", "/tiles/12"]), "/tiles/12 - 4\n");
        assert_eq!(ronctl(&node, &["name", "rm", "/tiles/12"]).code, 3, "it is not found");
        let log = name(&node, &["log"]);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 4, "{log}");
        assert!(lines[0].starts_with("1 ") && lines[0].ends_with(&format!("- -> {here}")), "{log}");
        assert!(lines[3].ends_with(&format!(" GMT /tiles/12 {here} -> -")), "{log}");
        assert_eq!(name(&node, &["log", "-n", "1"]).lines().next(), Some(lines[3]));
        node.terminate();
        let fsck = Command::new(env!("CARGO_BIN_EXE_ronctl"))
            .arg("fsck")
            .arg(data.path().join("data"))
            .output()
            .expect("it runs");
        assert!(fsck.status.success(), "{}", text(&fsck.stdout));
    }
}

#[test]
fn a_change_may_name_the_version_that_it_expects() {
    let data = Data::new();
    let node = data.start(1);
    let (one, two) = (addr_of(b"1"), addr_of(b"2"));
    let put = |fields: &str, addr: &str| {
        ask(&node, "PUT", "/names/a", fields, &json!({ "address": addr }).to_string())
    };
    assert_eq!(put("If-Match: \"1\"\r\n", &one).status, 412, "there is nothing to change");
    assert_eq!(put("If-Match: *\r\n", &one).status, 412);
    let new = put("If-None-Match: *\r\n", &one);
    assert_eq!((new.status, new.field("etag")), (201, Some("\"1\"")));
    assert_eq!(put("If-None-Match: *\r\n", &two).envelope(), "precondition_failed");
    assert_eq!(set(&node, "/b", &one).status, 201);
    assert_eq!(put("If-Match: \"2\"\r\n", &two).status, 412, "that is the version of another");
    let found = ask(&node, "GET", "/names/a", "", "");
    assert_eq!(found.json()["address"], one.as_str());
    let tag = found.field("etag").expect("a name has a tag").to_owned();
    let changed = put(&format!("If-Match: {tag}\r\n"), &two);
    assert_eq!((changed.status, changed.json()["before"].as_str()), (200, Some(one.as_str())));
    assert_eq!((changed.field("etag"), &changed.json()["served"]), (Some("\"3\""), &json!(true)));
    let stale = ask(&node, "DELETE", "/names/a", &format!("If-Match: {tag}\r\n"), "");
    assert_eq!(stale.status, 412);
    let output = ronctl(&node, &["name", "set", "/a", &one, "--if-version", "1"]);
    assert!(output.code != 0 && text(&output.stderr).contains("version 3"), "{}", output.code);
    assert_ne!(ronctl(&node, &["name", "set", "/a", &one, "--if-version", "0"]).code, 0);
    assert_eq!(name(&node, &["rm", "/a", "--if-version", "3"]), "/a - 4\n");
    assert_eq!(name(&node, &["set", "/a", &one, "--if-version", "0"]), format!("/a {one} 5\n"));
    node.terminate();
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let data = Data::new();
    let node = data.start(1);
    let addr = addr_of(b"1");
    let good = json!({ "address": addr }).to_string();
    let long = format!("/names/{}", "x".repeat(1024));
    for (method, path, fields, body, status, said) in [
        ("PUT", "/names/a/%2e%2e/b", "", good.as_str(), 400, "path: has a segment"),
        ("PUT", "/names/a%0Ab", "", &good, 400, "path: has a control character"),
        ("PUT", "/names/a%FF", "", &good, 400, "path: is no UTF-8"),
        ("PUT", "/names/a%2", "", &good, 400, "path: has a broken escape"),
        ("PUT", &long, "", &good, 400, "path: is longer than 1024 bytes"),
        ("PUT", "/names/a", "", "{}", 400, "body: is JSON with one field"),
        ("PUT", "/names/a", "", "{\"address\":\"b3:00\"}", 400, "address: address has 2 digits"),
        ("PUT", "/names/a", "If-Match: 5\r\n", &good, 400, "if-match: is one entity tag"),
        ("PUT", "/names/a", "If-None-Match: \"5\"\r\n", &good, 400, "if-none-match: can be *"),
        ("PUT", "/names/a", "", &" ".repeat(5000), 413, "the body is too long"),
        ("GET", "/names/a", "", "", 404, "there is no such name"),
        ("DELETE", "/names/a", "", "", 404, "there is no such name"),
        ("GET", "/names?limit=0", "", "", 400, "limit: is a whole number, 1 to 2000"),
        ("GET", "/names?prefix=..", "", "", 400, "prefix: has a segment"),
        ("GET", "/names?x=1", "", "", 400, "x: is no parameter"),
        ("GET", "/name-log?limit=1001", "", "", 400, "limit: is a whole number, 1 to 1000"),
        ("POST", "/names/a", "", "", 405, "does not take this method"),
        // Pages in a browser change nothing, nor do names of this machine that others made.
        ("PUT", "/names/a", "Origin: http://evil.example\r\n", &good, 403, "not allowed"),
        ("DELETE", "/names/a", "Origin: http://evil.example\r\n", "", 403, "not allowed"),
        ("PUT", "/names/a", "X-Forwarded-For: 192.0.2.1\r\n", &good, 403, "not allowed"),
    ] {
        let answer = ask(&node, method, path, fields, body);
        assert_eq!(answer.status, status, "{method} {path} {fields}");
        answer.envelope();
        let message = answer.json()["message"].as_str().expect("a text").to_owned();
        assert!(message.contains(said), "{method} {path}: {message}");
    }
    assert_eq!(listed(&node), []);
    // The root, and names that look like routes.
    for path in ["/", "/log", "/names"] {
        assert_eq!(set(&node, path, &addr).status, 201, "{path}");
    }
    assert_eq!(ask(&node, "GET", "/names/", "", "").json()["path"], "/");
    assert_eq!(ask(&node, "DELETE", "/names/", "", "").status, 200);
    node.terminate();
}

#[test]
fn there_are_no_more_names_than_there_may_be() {
    let data = Data::new();
    let node = data.setup().args(&["--names-max", "2"]).start();
    let addr = addr_of(b"1");
    assert_eq!(set(&node, "/a", &addr).status, 201);
    assert_eq!(set(&node, "/b", &addr).status, 201);
    let refused = set(&node, "/c", &addr);
    assert_eq!((refused.status, refused.envelope()), (507, "storage_full".to_owned()));
    assert!(refused.json()["message"].as_str().is_some_and(|text| text.contains("names.max")));
    assert_eq!(set(&node, "/b", &addr_of(b"2")).status, 200, "those there may be changed");
    assert_eq!(ask(&node, "DELETE", "/names/a", "", "").status, 200);
    assert_eq!(set(&node, "/c", &addr).status, 201);
    let long = |at: usize| format!("/{at}{}", "x".repeat(1000));
    node.terminate();
    // Of 20 names, paths may have 2560 bytes together.
    let node = data.setup().args(&["--names-max", "20"]).start();
    assert_eq!([1, 2, 3].map(|at| set(&node, &long(at), &addr).status), [201, 201, 507]);
    node.terminate();
    let (code, said) = data.setup().args(&["--names-max", "2"]).refused();
    assert!(code != 0 && said.contains("names.max = 2 allows less"), "{code}: {said}");
}

/// One client gives names as fast as it can, to what follows from their number, until the node is
/// killed. What was answered is there afterwards, in the order it was answered.
#[test]
fn a_kill_leaves_what_was_answered_and_no_half_of_a_change() {
    let data = Data::new();
    let given = AtomicU64::new(0);
    let mut dice = Dice(0x6e61_6d65);
    let of = |number: u64| addr_of(&number.to_le_bytes());
    for round in 0..8 {
        let node = data.start(1);
        let answered = given.load(Ordering::Relaxed);
        let admin = node.at("admin");
        let enough = answered + 1 + dice.below(40);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut peer = Peer::new(connect(admin));
                for number in answered + 1.. {
                    let body = json!({ "address": of(number) }).to_string();
                    // The same few names over and over, and new ones.
                    let head = format!(
                        "PUT /names/{}/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                        number % 7 * (1 + number % 2 * number),
                        body.len()
                    );
                    if !peer.try_send(format!("{head}{body}").as_bytes()) {
                        break;
                    }
                    let Some(answer) = peer.try_response("PUT") else { break };
                    assert_eq!(answer.json()["version"], number, "each is the next version");
                    given.store(number, Ordering::Release);
                }
            });
            while given.load(Ordering::Acquire) < enough {
                thread::yield_now();
            }
            node.kill();
        });
        let node = data.start(1);
        let log = ask(&node, "GET", "/name-log?limit=1000", "", "").json();
        let changes = log["changes"].as_array().expect("a list");
        let kept = changes.len() as u64;
        let answered = given.load(Ordering::Relaxed);
        // The one that was on its way may have been made.
        assert!((answered..=answered + 1).contains(&kept), "round {round}: {kept} of {answered}");
        let mut expected = BTreeMap::new();
        for (number, change) in (1..).zip(changes) {
            assert_eq!(
                (&change["version"], &change["after"]),
                (&json!(number), &json!(of(number)))
            );
            let path = change["path"].as_str().expect("a text").to_owned();
            let before = expected.insert(path, of(number));
            assert_eq!(change["before"], json!(before), "round {round}, change {number}");
        }
        assert_eq!(listed(&node), expected.into_iter().collect::<Vec<_>>());
        given.store(kept, Ordering::Relaxed);
        node.terminate();
    }
}

#[test]
fn clients_that_change_one_name_at_once_lose_no_change() {
    const EACH: usize = 15;
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        assert_eq!(set(&node, "/a", &addr_of(b"0")).status, 201);
        thread::scope(|scope| {
            for client in 0..4 {
                let node = &node;
                scope.spawn(move || {
                    let mut made = 0;
                    while made < EACH {
                        let found = ask(node, "GET", "/names/a", "", "");
                        let tag = found.field("etag").expect("it has a tag");
                        let addr = addr_of(format!("{client} {made}").as_bytes());
                        let fields = format!("If-Match: {tag}\r\n");
                        let body = json!({ "address": addr }).to_string();
                        let answer = ask(node, "PUT", "/names/a", &fields, &body);
                        match answer.status {
                            200 => {
                                // Nobody came in between what was read and what was written.
                                assert_eq!(answer.json()["before"], found.json()["address"]);
                                made += 1;
                            }
                            status => assert_eq!(status, 412),
                        }
                    }
                });
            }
        });
        let last = ask(&node, "GET", "/names/a", "", "").json();
        let version = 1 + 4 * EACH;
        assert_eq!(last["version"], version);
        assert_eq!(node.metrics().sum("ron_names_version"), (version * shards) as u64);
        node.terminate();
    }
}

#[test]
fn names_that_are_damaged_keep_the_node_from_starting() {
    let data = Data::new();
    let node = data.start(1);
    for at in 0..200 {
        assert_eq!(set(&node, &format!("/{at}"), &addr_of(b"1")).status, 201);
    }
    node.terminate();
    let file = data.path().join("data/control/data.mdb");
    let whole = fs::read(&file).expect("the names lie there");
    fs::write(&file, &whole[..whole.len() / 2]).expect("it can be written");
    let (code, said) = data.setup().refused();
    assert!(code != 0 && said.contains("is damaged: data.mdb has"), "{code}: {said}");
    fs::rename(data.path().join("data/control"), data.path().join("kept")).expect("it moves");
    let node = data.start(1);
    assert_eq!(listed(&node), [], "as it says, without them it starts");
    node.terminate();
}

#[test]
fn without_the_first_volume_names_are_not_known() {
    let data = Data::new();
    let [first, second] = ["a", "b"].map(|name| data.path().join(name));
    let dirs = format!("{},{}", first.display(), second.display());
    let setup = || data.setup().args(&["--data-dirs", &dirs]);
    let node = setup().start();
    assert_eq!(set(&node, "/a", &addr_of(b"1")).status, 201);
    node.terminate();
    let away = data.path().join("away");
    fs::rename(&first, &away).expect("it moves");
    let node = setup().start();
    node.wait_stderr("names are not known");
    for (method, path) in [("GET", "/names"), ("GET", "/names/a"), ("DELETE", "/names/a")] {
        assert_eq!(ask(&node, method, path, "", "").envelope(), "not_ready", "{method} {path}");
    }
    node.terminate();
    fs::rename(&away, &first).expect("it moves back");
    let node = setup().start();
    assert_eq!(listed(&node).len(), 1);
    node.terminate();
}

#[test]
fn a_packed_directory_is_served_below_its_name() {
    let data = Data::new();
    let node = data.start(1);
    let tree = data.path().join("site");
    let tile = object(7, 3000).bytes;
    let page = b"<p>a page</p>".repeat(200);
    for (path, bytes) in [("12/654/1583.webp", &tile[..]), ("docs/index.html", &page)] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().expect("it lies below the tree")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    let site = tree.to_str().expect("UTF-8");
    let packed = ronctl(&node, &["pack", "--encodings", "br", site]);
    assert_eq!(packed.code, 0, "{}", text(&packed.stderr));
    let bundle = text(&packed.stdout).trim().to_owned();
    name(&node, &["set", "/tiles", &bundle]);
    let plain = object(8, 500);
    let curl = Curl::http(&node);
    curl.store(&plain);
    name(&node, &["set", "/one", &plain.addr]);

    for path in ["/n/tiles/12/654/1583.webp", "/n//tiles//12/654/1583.webp"] {
        let answer = curl.request(path, &[]);
        assert_eq!((answer.status, &answer.body), (200, &tile), "{path}");
        assert_eq!(answer.field("content-type"), Some("image/webp"));
        assert_eq!(answer.field("cache-control"), Some("public, max-age=60"));
        assert_eq!(answer.field("x-ron-address"), Some(&*bundle));
    }
    let answer = curl.request("/n/tiles/docs/", &["-H", "Accept-Encoding: br"]);
    assert_eq!((answer.status, answer.field("content-encoding")), (200, Some("br")));
    assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
    let etag = addr_of(&answer.body);
    assert_eq!(answer.field("etag"), Some(format!("\"{etag}\"").as_str()));
    assert_eq!(curl.request("/n/tiles/docs/", &[]).body, page);
    let answer = curl.request("/n/tiles/docs?x", &[]);
    assert_eq!((answer.status, answer.field("location")), (301, Some("/n/tiles/docs/?x")));
    assert_eq!(answer.field("x-ron-address"), Some(&*bundle));
    let answer = curl.request("/n/one", &[]);
    assert_eq!((answer.status, &answer.body), (200, &plain.bytes));
    assert_eq!(answer.field("x-ron-address"), Some(&*plain.addr));
    for path in ["/n/two", "/n/tiles/nothing", "/n/tiles/", "/n/tilesx/12", "/n/one/x", "/n/%ff"] {
        assert_eq!(curl.request(path, &[]).error(), "not_found", "{path}");
    }
    let put = curl.request("/n/tiles", &["-X", "PUT", "--data", "x"]);
    assert_eq!((put.status, put.field("allow")), (405, Some("GET, HEAD")));
    // The name is given to something else, at once.
    name(&node, &["set", "/tiles", &plain.addr]);
    assert_eq!(curl.request("/n/tiles", &[]).body, plain.bytes);
    assert_eq!(curl.request("/n/tiles/12/654/1583.webp", &[]).status, 404);
    name(&node, &["rm", "/tiles"]);
    assert_eq!(curl.request("/n/tiles", &[]).status, 404);
    node.terminate();
}
