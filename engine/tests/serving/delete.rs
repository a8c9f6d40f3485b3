//! DELETE through the real node: what is gone stays gone, whatever ends the process, and can be
//! stored again.

use std::{net::SocketAddr, process::Command};

use crate::common::{
    Data, KIB, MIB, Node, Object, Output, addr_of, assert_same, clean_environment, connect,
    curl::Curl, http::Peer, object, one_and_two_cores, outer_address, run,
};

/// Packed, of many groups, at the border, in a file of its own, and nothing at all.
const SIZES: [usize; 7] = [0, 1, 5000, 64 * KIB + 1, MIB, MIB + 1, 5 * MIB + 77];

fn objects() -> Vec<Object> {
    (1..).zip(SIZES).map(|(seed, len)| object(seed, len)).collect()
}

/// One request without a body.
fn ask(peer: &mut Peer, method: &str, addr: &str) -> u16 {
    peer.send(format!("{method} /o/{addr} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    peer.response(method).status
}

/// Deletes an object and expects that it was there.
fn delete(peer: &mut Peer, object: &Object) {
    assert_eq!(ask(peer, "DELETE", &object.addr), 204, "{} bytes", object.bytes.len());
}

/// Checks that these are served and those are not.
fn check(node: &Node, there: &[Object], gone: &[Object]) {
    let mut peer = Peer::new(node.connect());
    for object in there {
        let answer = peer.get(&format!("/o/{}", object.addr));
        assert_eq!(answer.status, 200, "{} bytes", object.bytes.len());
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
    for object in gone {
        assert_eq!(ask(&mut peer, "GET", &object.addr), 404, "{} bytes", object.bytes.len());
        assert_eq!(ask(&mut peer, "HEAD", &object.addr), 404);
        assert_eq!(ask(&mut peer, "DELETE", &object.addr), 404);
    }
    let metrics = node.metrics();
    let bytes: usize = there.iter().map(|object| object.bytes.len()).sum();
    assert_eq!(metrics.sum("ron_objects"), there.len() as u64);
    assert_eq!(metrics.sum("ron_object_bytes"), bytes as u64);
}

/// Files under `objects/` of all partitions.
fn object_files(data: &Data) -> usize {
    let mut folders = vec![data.path().join("data")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the directory can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "obj") {
                count += 1;
            }
        }
    }
    count
}

#[test]
fn gone_and_stored_again() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let (curl, all) = (Curl::http(&node), objects());
        let mut peer = Peer::new(node.connect());
        for object in &all {
            // From memory, too, it must be gone.
            curl.store(object);
            curl.check(object);
            delete(&mut peer, object);
        }
        check(&node, &[], &all);
        assert_eq!(node.metrics().sum("ron_deletes_total"), all.len() as u64);
        let of_delete = "ron_requests_total{proto=\"http\",op=\"delete\",code=\"204\"}";
        assert_eq!(node.metrics().sum(of_delete), all.len() as u64);
        for object in &all {
            let answer = curl.put(&object.addr, &object.bytes, &[]);
            assert_eq!(answer.status, 201, "{} bytes are new again", object.bytes.len());
        }
        check(&node, &all, &[]);
        node.terminate();
    }
}

#[test]
fn a_restart_brings_nothing_back() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let all = objects();
        all.iter().for_each(|object| Curl::http(&node).store(object));
        let (gone, there) = all.split_at(all.len() / 2);
        let mut peer = Peer::new(node.connect());
        gone.iter().for_each(|object| delete(&mut peer, object));
        drop(peer);
        node.terminate();
        let node = data.start(shards);
        check(&node, there, gone);
        // What was deleted before this start can be stored, and what was stored deleted.
        gone.iter().for_each(|object| Curl::http(&node).store(object));
        let mut peer = Peer::new(node.connect());
        there.iter().for_each(|object| delete(&mut peer, object));
        drop(peer);
        node.terminate();
        let node = data.start(shards);
        check(&node, gone, there);
        node.terminate();
    }
}

#[test]
fn a_kill_right_after_the_answer_brings_nothing_back() {
    let data = Data::new();
    let all = objects();
    for object in &all {
        let node = data.start(1);
        Curl::http(&node).store(object);
        delete(&mut Peer::new(node.connect()), object);
        node.kill();
        let node = data.start(1);
        check(&node, &[], std::slice::from_ref(object));
        node.kill();
    }
    // The same once the index has been lost: the log alone says what was deleted.
    for entry in std::fs::read_dir(data.path().join("data")).expect("it is there") {
        let index = entry.expect("an entry").path().join("index");
        if index.is_dir() {
            std::fs::remove_dir_all(index).expect("it can be removed");
        }
    }
    let node = data.start(1);
    check(&node, &[], &all);
    node.terminate();
    assert_eq!(object_files(&data), 0, "files of deleted objects are gone");
}

#[test]
fn only_who_may_write_may_delete() {
    let Some(outer) = outer_address() else {
        crate::common::skipped("this machine has no address but loopback");
        return;
    };
    let data = Data::new();
    let listen = format!("{outer}:0");
    let node = data.setup().args(&["--http", &listen, "--write-token", "geheim"]).start();
    let object = object(1, 100);
    let curl = Curl::http(&node);
    let token = ["-H", "Authorization: Bearer geheim"];
    assert_eq!(curl.put(&object.addr, &object.bytes, &token).status, 201);
    for (args, status, code) in [
        (&["-X", "DELETE"][..], 401, "unauthorized"),
        (&["-X", "DELETE", "-H", "Authorization: Bearer other"], 401, "unauthorized"),
    ] {
        let answer = curl.get(&object.addr, args);
        assert_eq!((answer.status, &*answer.error()), (status, code));
        curl.check(&object);
    }
    let answer = curl.get(&object.addr, &[&["-X", "DELETE"], &token[..]].concat());
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(curl.get(&object.addr, &[]).status, 404);
    node.terminate();
}

#[test]
fn what_is_no_address_is_refused() {
    let data = Data::new();
    let node = data.start(1);
    let curl = Curl::https(&node);
    let answer = curl.get("b3:00", &["-X", "DELETE"]);
    assert_eq!((answer.status, &*answer.error()), (400, "bad_request"));
    let answer = curl.get(&addr_of(b"none"), &["-X", "DELETE"]);
    assert_eq!((answer.status, &*answer.error()), (404, "not_found"));
    node.terminate();
}

/// Stores and deletes the same object over and over, and expects of every answer that it is true
/// whatever happens to other objects at the same time.
fn churn(at: SocketAddr, object: &Object, rounds: usize) {
    let mut peer = Peer::new(connect(at));
    for round in 0..rounds {
        let put = peer.try_put(&object.addr, &object.bytes).expect("the connection holds");
        assert_eq!(put.status, 201, "round {round}: it was gone");
        let got = peer.get(&format!("/o/{}", object.addr));
        assert_same(&got.body, &object.bytes, "after its store");
        delete(&mut peer, object);
        assert_eq!(ask(&mut peer, "GET", &object.addr), 404, "round {round}");
    }
}

#[test]
fn many_come_and_go_at_once() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let kept = object(99, 70_000);
        Curl::http(&node).store(&kept);
        let all = objects();
        std::thread::scope(|scope| {
            for object in &all {
                let (at, rounds) = (node.at("http"), if object.bytes.len() > MIB { 5 } else { 20 });
                scope.spawn(move || churn(at, object, rounds));
            }
        });
        check(&node, std::slice::from_ref(&kept), &all);
        node.kill();
        let node = data.start(shards);
        check(&node, std::slice::from_ref(&kept), &all);
        node.terminate();
    }
}

fn rm(node: &Node, addresses: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    run(command.args(["--node", &node.http(), "rm"]).args(addresses), b"")
}

#[test]
fn ronctl_rm() {
    let data = Data::new();
    let node = data.start(1);
    let all = objects();
    all.iter().for_each(|object| Curl::http(&node).store(object));
    let none = addr_of(b"none");
    let first = rm(&node, &[&all[0].addr]);
    assert_eq!((first.code, first.stderr.len()), (0, 0));
    assert_eq!(String::from_utf8_lossy(&first.stdout), format!("{}\n", all[0].addr));
    assert_eq!(rm(&node, &[&all[0].addr]).code, 3, "not found has a code of its own");
    let some = rm(&node, &[&all[1].addr, &none, &all[5].addr]);
    let said = String::from_utf8_lossy(&some.stderr);
    assert_eq!(some.code, 3, "{said}");
    assert!(said.contains(&none) && said.contains("1 of 3 objects"), "{said}");
    let printed = format!("{}\n{}\n", all[1].addr, all[5].addr);
    assert_eq!(String::from_utf8_lossy(&some.stdout), printed);
    assert_eq!(rm(&node, &["b3:00"]).code, 2);
    let (gone, there): (Vec<_>, Vec<_>) =
        (0..).zip(all).partition(|(at, _)| [0, 1, 5].contains(at));
    let only = |list: Vec<(usize, Object)>| -> Vec<Object> {
        list.into_iter().map(|(_, object)| object).collect()
    };
    check(&node, &only(there), &only(gone));
    node.terminate();
}
