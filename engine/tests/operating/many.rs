//! `ronctl put` of many files, `ronctl get --continue`, and JSON of every command.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::symlink,
    path::Path,
    thread,
};

use serde_json::{Value, json};

use super::bundles::{dir, puts, stderr, stdout, text, with, write};
use crate::common::{Data, MIB, Node, Output, addr_of, curl::Curl, object, run};

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("an object of JSON")).collect()
}

#[test]
fn files_below_directories_are_stored_one_by_one() {
    let (data, source) = (Data::new(), dir());
    let node = data.start(1);
    let root = text(source.path());
    for number in 0..50 {
        write(source.path(), format!("{}/{number:02}", number % 5).as_bytes(), &[number]);
    }
    let put = with(&node, &["put", "-r", root, "--jobs", "4"]);
    let said = stdout(&put);
    let mut found = 0;
    for line in said.lines() {
        let (addr, name) = line.split_once(' ').expect("an address and a name");
        assert_eq!(addr, addr_of(&fs::read(name).expect("the name is a path")));
        found += 1;
    }
    assert_eq!(found, 50);
    assert!(said.lines().map(|line| &line[68..]).is_sorted(), "in the order of the paths");
    let one = format!("{root}/0/00");
    let put = with(&node, &["put", &one, &one, "--json"]);
    let expected = json!({"addr": addr_of(&[0]), "name": one, "size": 1});
    assert_eq!((put.code, lines(&put)), (0, vec![expected; 2]));
    node.terminate();
}

#[test]
fn a_file_that_fails_does_not_keep_the_others() {
    let (data, source) = (Data::new(), dir());
    let node = data.setup().args(&["--object-len-max", "1KiB"]).start();
    let path = |name: &str| format!("{}/{name}", text(source.path()));
    write(source.path(), b"a", b"a");
    write(source.path(), b"large", &[7; 2000]);
    write(source.path(), b"z", b"z");
    symlink("a", path("link")).expect("it can be made");
    let put = with(&node, &["put", &path("a"), &path("none"), &path("large"), &path("z")]);
    let expected = format!("{} {}\n{} {}\n", addr_of(b"a"), path("a"), addr_of(b"z"), path("z"));
    assert_eq!(String::from_utf8_lossy(&put.stdout), expected);
    // The first failure decides.
    assert_eq!(put.code, 1, "{}", stderr(&put));
    for said in [&*path("none"), &format!("{}: too_large", path("large")), "2 of 4 files"] {
        assert!(stderr(&put).contains(said), "{}", stderr(&put));
    }
    let put = with(&node, &["put", &path("large"), &path("none"), "--json"]);
    assert_eq!(put.code, 4);
    assert!(lines(&put).iter().all(|line| line["error"].is_string() && line["name"].is_string()));
    let put = with(&node, &["put", "-r", text(source.path())]);
    assert_eq!(String::from_utf8_lossy(&put.stdout), expected);
    assert_eq!(put.code, 1);
    assert!(stderr(&put).contains(&format!("{}: is a symbolic link", path("link"))));
    assert!(stderr(&put).contains("2 of 4 files"), "{}", stderr(&put));
    node.terminate();
    // What keeps all of them is said once.
    let put = run(
        super::bundles::ronctl(&["put", &path("a"), &path("z"), "--jobs", "1", "-q"])
            .args(["--node", "http://127.0.0.1:1"]),
        b"",
    );
    assert_eq!((put.code, stderr(&put).lines().count()), (2, 1), "{}", stderr(&put));
}

/// A server that sends the first part of an object and closes the connection.
fn cut(bytes: Vec<u8>, at: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it has one"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes()).expect("ronctl reads");
            stream.write_all(&bytes[..at]).expect("ronctl reads");
        }
    });
    url
}

fn bytes_out(node: &Node) -> u64 {
    node.metrics().sum("ron_bytes_out_total{proto=\"http\"")
}

#[test]
fn a_download_goes_on_where_it_was() {
    let (data, out) = (Data::new(), dir());
    let node = data.start(1);
    let object = object(1, 3 * MIB + 5);
    Curl::http(&node).store(&object);
    let (file, part) = (out.path().join("file"), out.path().join("file.part"));
    let get = ["get", &object.addr, "-o", text(&file), "--continue"];
    let is = |path: &Path| fs::read(path).ok();
    // What came before the connection broke stays.
    let broken = cut(object.bytes.clone(), 2 * MIB);
    let output = run(super::bundles::ronctl(&get).args(["--node", &broken]), b"");
    assert_eq!(output.code, 2, "{}", stderr(&output));
    assert_eq!((is(&file), is(&part).map(|part| part.len())), (None, Some(2 * MIB)));
    let before = bytes_out(&node);
    stdout(&with(&node, &get));
    let came = bytes_out(&node) - before;
    assert!((MIB as u64..MIB as u64 + 100_000).contains(&came), "{came}");
    assert!(is(&file).as_deref() == Some(&object.bytes) && !part.exists());
    // All of it, nothing of it, and over OAP.
    let (oap, ca) = (node.at("oap").to_string(), node.ca().display().to_string());
    for len in [0, 1, 65_536, 2 * MIB + 1, object.bytes.len()] {
        for more in [&[][..], &["--oap", &oap, "--ca", &ca]] {
            fs::write(&part, &object.bytes[..len]).expect("it can be written");
            fs::remove_file(&file).expect("it is there");
            stdout(&with(&node, &[&get[..], more].concat()));
            assert!(is(&file).as_deref() == Some(&object.bytes), "{len} {more:?}");
            assert!(!part.exists());
        }
    }
    // Of something longer: begun anew. Of something else: found out, and begun anew next time.
    fs::write(&part, vec![9; 4 * MIB]).expect("it can be written");
    stdout(&with(&node, &get));
    fs::write(&file, b"old").expect("it can be written");
    fs::write(&part, vec![9; 2 * MIB]).expect("it can be written");
    assert_eq!(with(&node, &get).code, 5);
    assert_eq!((is(&file).as_deref(), part.exists()), (Some(&b"old"[..]), false));
    stdout(&with(&node, &get));
    assert!(is(&file).as_deref() == Some(&object.bytes));
    // Nobody writes through a link.
    symlink(&file, &part).expect("it can be made");
    assert_eq!(with(&node, &get).code, 1);
    node.terminate();
}

#[test]
fn every_result_has_a_form_in_json() {
    let (data, source, out) = (Data::new(), dir(), dir());
    let node = data.start(1);
    let (file, copy) = (source.path().join("a.txt"), out.path().join("copy"));
    fs::write(&file, b"hello").expect("it can be written");
    let (addr, none) = (addr_of(b"hello"), addr_of(b"none"));
    let (name, copy) = (text(&file), text(&copy));
    let admin = format!("http://{}", node.at("admin"));
    let json = |args: &[&str]| {
        let output = with(&node, &[args, &["--json", "--admin", &admin]].concat());
        (output.code, lines(&output))
    };
    let stored = json!({"addr": addr, "name": name, "size": 5});
    assert_eq!(json(&["put", name]), (0, vec![stored]));
    assert_eq!(json(&["stat", &addr]), (0, vec![json!({"addr": addr, "size": 5})]));
    let got = json!({"addr": addr, "name": copy, "size": 5, "verified": true});
    assert_eq!(json(&["get", &addr, "-o", copy]), (0, vec![got]));
    let part = json!({"addr": addr, "name": copy, "size": 3, "verified": false});
    assert_eq!(json(&["get", &addr, "-o", copy, "--range", "1-3"]), (0, vec![part]));
    assert_eq!(json(&["get", &addr]), (2, vec![]));
    let whole = json!({"addr": addr, "outcome": "whole", "size": 5});
    let missing = json!({"addr": none, "outcome": "missing"});
    assert_eq!(json(&["verify", &addr, &none]), (3, vec![whole, missing]));
    assert_eq!(json(&["scrub", "--now"]), (0, vec![json!({"ordered": 1})]));
    let (code, report) = json(&["storage"]);
    assert_eq!((code, report.len()), (0, 1));
    let (code, packed) = json(&["pack", name, "--tld", "site"]);
    let bundle = packed[0]["addr"].as_str().expect("text").to_owned();
    let expected = json!({
        "addr": bundle, "tld": "site", "files": 1, "bytes": 5, "copies": 0, "copy_bytes": 0,
        "sent": 1, "sent_bytes": packed[0]["sent_bytes"], "there": 1,
    });
    assert_eq!((code, &packed[..]), (0, &[expected][..]));
    let target = out.path().join("tree");
    let unpacked = json!({
        "addr": bundle, "files": 1, "bytes": 5, "fetched": 1, "fetched_bytes": 5, "kept": 0,
    });
    assert_eq!(json(&["unpack", &bundle, text(&target)]), (0, vec![unpacked]));
    let (code, removed) = json(&["rm", &addr, &none]);
    assert_eq!((code, &removed[0]), (3, &json!({"addr": addr, "deleted": true})));
    assert_eq!((&removed[1]["addr"], &removed[1]["deleted"]), (&json!(none), &json!(false)));
    assert!(puts(&node) > 0);
    node.terminate();
}
