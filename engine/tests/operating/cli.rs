//! `ronctl` against a node: what scripts rely on, and what it does not trust.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Data, MIB, Node, Output, addr_of, assert_same, clean_environment, curl::Curl, named, object,
    one_and_two_cores, run,
};

fn ronctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    command.args(args);
    command
}

/// Runs `ronctl` with a node's address.
fn with(node: &Node, args: &[&str]) -> Output {
    run(ronctl(args).args(["--node", &node.http()]), b"")
}

#[track_caller]
fn expect(output: &Output, code: i32) {
    assert_eq!(output.code, code, "{}", String::from_utf8_lossy(&output.stderr));
    if code != 0 {
        assert!(!output.stderr.is_empty(), "a failure is explained");
    }
}

#[test]
fn put_get_and_stat() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        for (seed, len) in (1..).zip([0, 1, 65_537, MIB + 1, 20 * MIB]) {
            let object = object(seed, len);
            let file = data.path().join("source");
            fs::write(&file, &object.bytes).expect("it can be written");
            let put = with(&node, &["put", file.to_str().expect("UTF-8")]);
            expect(&put, 0);
            assert_eq!(String::from_utf8_lossy(&put.stdout), format!("{}\n", object.addr));
            Curl::http(&node).check(&object);

            let get = with(&node, &["get", &object.addr]);
            expect(&get, 0);
            assert_same(&get.stdout, &object.bytes, "on stdout");
            let copy = data.path().join("copy");
            let path = copy.to_str().expect("UTF-8");
            let get = with(&node, &["get", &object.addr, "-o", path]);
            expect(&get, 0);
            assert!(get.stdout.is_empty());
            assert_same(&fs::read(&copy).expect("it is there"), &object.bytes, "in a file");

            let stat = with(&node, &["stat", &object.addr]);
            expect(&stat, 0);
            let said = String::from_utf8_lossy(&stat.stdout).into_owned();
            assert_eq!(said, format!("{} {len}\n", object.addr));
            let stat = with(&node, &["stat", "--json", &object.addr]);
            let json: serde_json::Value = serde_json::from_slice(&stat.stdout).expect("JSON");
            assert_eq!(json, serde_json::json!({"addr": object.addr, "size": len}));
        }
        node.terminate();
    }
}

#[test]
fn standard_input_and_an_address_in_the_environment() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 3 * MIB);
    let mut put = ronctl(&["put", "-"]);
    let put = run(put.env("RON_NODE_URL", node.http()), &object.bytes);
    expect(&put, 0);
    assert_eq!(String::from_utf8_lossy(&put.stdout).trim(), object.addr);
    Curl::http(&node).check(&object);
    node.terminate();
}

#[test]
fn over_tls_and_over_oap() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 2 * MIB + 5);
    let (ca, oap) = (node.ca().display().to_string(), node.at("oap").to_string());
    let https = node.https();
    let file = crate::common::curl::file(&object.bytes);
    let path = file.path().to_str().expect("UTF-8");
    expect(&run(&mut ronctl(&["--node", &https, "--ca", &ca, "put", path]), b""), 0);
    let get = run(&mut ronctl(&["--node", &https, "--ca", &ca, "get", &object.addr]), b"");
    expect(&get, 0);
    assert_same(&get.stdout, &object.bytes, "over HTTPS");
    let get = run(&mut ronctl(&["get", &object.addr, "--oap", &oap, "--ca", &ca]), b"");
    expect(&get, 0);
    assert_same(&get.stdout, &object.bytes, "over OAP");
    for range in ["0-0", "65535-65536", "1000-", "2097156-2097156"] {
        let (first, last) = range.split_once('-').expect("it has a dash");
        let first: usize = first.parse().expect("a number");
        let end = last.parse::<usize>().map_or(object.bytes.len(), |last| last + 1);
        for oap in [&["--oap", &*oap, "--ca", &ca][..], &["--node", &node.http()]] {
            let args = [&["get", &object.addr, "--range", range], oap].concat();
            let get = run(&mut ronctl(&args), b"");
            expect(&get, 0);
            assert_same(&get.stdout, &object.bytes[first..end], range);
        }
    }
    // Without the CA, or with another name, there is no trust.
    let untrusted = run(&mut ronctl(&["--node", &https, "get", &object.addr]), b"");
    assert!(matches!(untrusted.code, 1 | 2), "1 where the system trusts nobody");
    // What the system trusts needs no flag.
    for args in [
        &["--node", &https, "get", &object.addr][..],
        &["get", &object.addr, "--oap", &oap, "-o", "-"],
    ] {
        let get = run(ronctl(args).env("SSL_CERT_FILE", &ca), b"");
        expect(&get, 0);
        assert_same(&get.stdout, &object.bytes, "trusted by the system");
    }
    let other = ["get", &object.addr, "--oap", &oap, "--ca", &ca, "--name", "example.org"];
    expect(&run(&mut ronctl(&other), b""), 2);
    node.terminate();
}

#[test]
fn exit_codes() {
    let data = Data::new();
    let node = data.setup().args(&["--object-len-max", "1KiB"]).start();
    let object = object(1, 100);
    Curl::http(&node).store(&object);
    let none = addr_of(b"none");
    for (args, code) in [
        (&["get", &none][..], 3),
        (&["stat", &none], 3),
        (&["get", "b3:00"], 2),
        (&["get", &object.addr, "--range", "5-4"], 2),
        (&["put", "/nonexistent/file"], 1),
        (&["put", "/tmp"], 1),
        (&["get", &object.addr, "-o", "/nonexistent/file"], 1),
        (&["frobnicate"], 2),
        (&[], 2),
        (&["get", &object.addr, "--range", "100-"], 6),
    ] {
        let output = with(&node, args);
        expect(&output, code);
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let said = with(&node, &["stat", &none]).stderr;
    assert_eq!(String::from_utf8_lossy(&said), format!("ronctl: {none}: not found\n"));
    let large = crate::common::curl::file(&[7; 1025]);
    expect(&with(&node, &["put", large.path().to_str().expect("UTF-8")]), 4);
    node.terminate();
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let at = format!("http://{closed}");
    expect(&run(&mut ronctl(&["--node", &at, "get", &object.addr]), b""), 2);
    for flag in ["--help", "--version"] {
        expect(&run(&mut ronctl(&[flag]), b""), 0);
    }
}

/// A server that gives one answer, whatever it is asked.
fn liar(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // The client may leave at any time.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    url
}

#[test]
fn the_node_is_not_trusted() {
    let data = Data::new();
    let wanted = named(b"hello".to_vec());
    let answer = |len: usize, body: &str| {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
        format!("{head}Content-Length: {len}\r\n\r\n{body}").into_bytes()
    };
    let copy = data.path().join("copy");
    let path = copy.to_str().expect("UTF-8");
    let get = |url: &str| run(&mut ronctl(&["--node", url, "get", &wanted.addr, "-o", path]), b"");
    let good = get(&liar(answer(5, "hello")));
    expect(&good, 0);
    fs::remove_file(&copy).expect("it is there");
    expect(&get(&liar(answer(5, "hellO"))), 5);
    assert!(!copy.exists(), "bytes that are wrong get no name");
    expect(&get(&liar(answer(4, "hell"))), 5);
    assert!(!copy.exists());
    let cut = get(&liar(answer(50, "hello")));
    assert!(matches!(cut.code, 2 | 5), "{}", cut.code);
    assert!(!copy.exists());
    let garbage = get(&liar(b"SSH-2.0-x\r\n".to_vec()));
    assert!(matches!(garbage.code, 2 | 6), "{}", garbage.code);
}

#[test]
fn nothing_on_a_pipe_but_what_was_asked_for() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 10 * MIB);
    let file = crate::common::curl::file(&object.bytes);
    // Not a terminal: no progress bar.
    let put = with(&node, &["put", file.path().to_str().expect("UTF-8")]);
    assert!(put.stderr.is_empty(), "{}", String::from_utf8_lossy(&put.stderr));
    let get = with(&node, &["get", "-q", &object.addr]);
    assert!(get.stderr.is_empty() && get.stdout == object.bytes);
    node.terminate();
}

#[test]
fn an_upload_that_is_refused_says_why() {
    let data = Data::new();
    let object = object(1, 24 * MIB);
    let file = crate::common::curl::file(&object.bytes);
    let path = file.path().to_str().expect("UTF-8");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for (args, code) in [
        (&["--storage-reserve", "1000TiB"][..], "storage_full"),
        (&["--object-len-max", "2MiB"], "too_large"),
    ] {
        let node = data.setup().args(args).start();
        let put = with(&node, &["put", path]);
        expect(&put, 4);
        assert!(said(&put).contains(code), "{}", said(&put));
        // By its length, so that the client does not send it at all.
        let answer = Curl::http(&node).put_sized(&object.bytes, &["-H", "Expect: 100-continue"]);
        assert!([413, 507].contains(&answer.status));
        assert!(!answer.heads.contains("100 Continue"), "{}", answer.heads);
        node.terminate();
    }
}

#[test]
fn files_of_the_system_are_stored_as_they_read() {
    let data = Data::new();
    let node = data.start(1);
    let text = fs::read("/proc/version").expect("/proc is mounted");
    let put = with(&node, &["put", "/proc/version"]);
    expect(&put, 0);
    assert_eq!(String::from_utf8_lossy(&put.stdout).trim(), addr_of(&text));
    node.terminate();
}

/// A server that begins to answer a GET and never ends, and its address.
fn endless() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("it has one");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe first bytes";
            stream.write_all(head.as_bytes()).expect("ronctl reads");
            // Until the peer is gone.
            let _ = stream.read(&mut [0; 1]);
        }
    });
    format!("http://{at}")
}

#[test]
fn a_download_that_is_interrupted_leaves_nothing() {
    let url = endless();
    let data = Data::new();
    let names = || -> Vec<String> {
        let entries = fs::read_dir(data.path()).expect("it is there");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(|entry| name(entry.expect("an entry"))).collect()
    };
    let path = data.path().join("out");
    fs::write(&path, b"old").expect("it can be written");
    let output = path.to_str().expect("UTF-8");
    let addr = addr_of(b"whatever");
    let get = ["get", &addr, "-o", output, "--node", &url];
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        // Where the tests run in the background, signals may be ignored.
        let mut command = Command::new("env");
        clean_environment(&mut command);
        command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_ronctl")]);
        let mut child = command.args(get).spawn().expect("it can be started");
        wait("a partial file", || names().len() == 2);
        crate::common::signal(child.id(), name);
        let status = child.wait().expect("it is our child");
        assert_eq!(status.signal(), Some(number), "it ends by SIG{name}: {status}");
        assert_eq!(names(), ["out"]);
        assert_eq!(fs::read(&path).expect("it is there"), b"old");
    }
    // As `nohup` starts it: the signal is ignored.
    let mut command = Command::new("sh");
    clean_environment(&mut command);
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ronctl")]);
    let mut child = command.args(get).spawn().expect("it can be started");
    wait("a partial file", || names().len() == 2);
    crate::common::signal(child.id(), "HUP");
    crate::common::signal(child.id(), "TERM");
    let status = child.wait().expect("it is our child");
    assert_eq!(status.signal(), Some(15), "{status}");
    assert_eq!(names(), ["out"]);
}

/// Waits until something is so.
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + crate::common::DEADLINE;
    while !is_so() {
        assert!(Instant::now() < until, "not so in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
