//! Uploads: broken off, wrong, all of the same object, and against deletions.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::common::{
    KIB, MIB, addr_of, assert_same,
    flood::Target,
    http::{Peer, put_head},
    oap::{END, Oap, request},
    object,
    rude::{Door, End, Rude, flood, get},
};

/// Files under a folder, without those of the log and the index, which come with time.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    if folder.ends_with("segments") || folder.ends_with("index") {
        return BTreeSet::new();
    }
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { [path].into() }).collect()
}

/// Waits until there are no files but these.
fn wait_files(target: &Target, before: &BTreeSet<PathBuf>) {
    let more = || -> Vec<_> { files(target.data.path()).difference(before).cloned().collect() };
    target.wait("files of uploads are gone", || more().is_empty(), || format!("{:?}", more()));
}

#[test]
fn uploads_that_are_broken_off_or_wrong_leave_nothing() {
    let target = Target::warm(1, &[]);
    let before = files(target.data.path());
    let (during, ()) = target.measure_while("during", || {
        for round in 0..120 {
            let mut peer = Rude::connect(&target.node, Door::Http, None);
            let chunked =
                "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
            let head = match round % 3 {
                0 => put_head("", 3 * MIB),
                1 => format!("{chunked}{:x}\r\n", 3 * MIB),
                // It is sent whole, and hashes to something else.
                _ => put_head(&addr_of(b"another"), 200_000),
            };
            let body = vec![round as u8; 200_000];
            peer.send(&[head.as_bytes(), &body].concat()).expect("the node takes it");
            if round % 2 == 0 {
                peer.reset();
            }
        }
    });
    during.expect_served();
    during.expect_within_bill();
    target.wait_connections(2);
    wait_files(&target, &before);
    target.finish();
}

#[test]
fn uploads_of_a_gibibyte_that_go_on() {
    let target = Target::warm(1, &[]);
    let before = files(target.data.path());
    let mut peers = Rude::many(&target.node, Door::Http, 30, None);
    for peer in &mut peers {
        peer.send(put_head("", 1024 * MIB).as_bytes()).expect("a head fits");
    }
    let (during, sent) =
        target.measure_while("during", || flood(&mut peers, &[7; 64 * KIB], 4 * MIB));
    assert!(sent > 30 * MIB, "only {sent} bytes were sent");
    assert!(files(target.data.path()).len() > before.len(), "they have files");
    during.expect_served();
    during.expect_within_bill();
    let small = object(79, 50 * KIB);
    let answer = Peer::new(target.node.connect()).try_put(&small.addr, &small.bytes);
    assert_eq!(answer.expect("a put is answered").status, 201);
    drop(peers);
    wait_files(&target, &before);
    target.finish();
}

#[test]
fn deleted_while_it_is_read() {
    let target = Target::warm(1, &[]);
    let large = object(80, 20 * MIB);
    target.store(&large);
    let mut over_http = Rude::many(&target.node, Door::Http, 10, Some(64 * KIB));
    for peer in &mut over_http {
        peer.send(&get(&large.addr)).expect("a request fits");
    }
    let mut over_oap: Vec<Oap> = (0..10).map(|_| Oap::plain(&target.node)).collect();
    for peer in &mut over_oap {
        peer.send(&request(1, &json!({"op": "get", "addr": large.addr})));
    }
    // Each has some of it when it goes.
    let starts: Vec<_> = over_oap.iter_mut().map(|peer| peer.recv().payload).collect();
    let mut peer = Peer::new(target.node.connect());
    let delete = format!("DELETE /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", large.addr);
    let (during, ()) = target.measure_while("during", || {
        peer.send(delete.as_bytes());
        assert_eq!(peer.response("DELETE").status, 204);
        for peer in &mut over_http {
            let (answer, end) = peer.read_within(32 * MIB, Duration::from_secs(60));
            assert_ne!(end, End::Open);
            let head = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("a head");
            let body = &answer[head + 4..];
            assert_same(body, &large.bytes[..body.len()], "what came of a deleted object");
        }
        for (peer, mut body) in over_oap.iter_mut().zip(starts) {
            let code = loop {
                let frame = peer.recv();
                if frame.code != 0 {
                    break frame.error().0;
                }
                body.extend(&frame.payload);
                if frame.has(END) {
                    break 0;
                }
            };
            // All of it may have been on its way.
            assert!(code == 404 || body.len() == large.bytes.len(), "{code}, {}", body.len());
            assert_same(&body, &large.bytes[..body.len()], "what came of a deleted object");
        }
    });
    during.expect_served();
    during.expect_within_bill();
    drop((peer, over_http, over_oap));
    target.finish();
}

#[test]
fn everybody_stores_the_same() {
    let target = Target::warm(1, &[]);
    for len in [3 * KIB, 3 * MIB] {
        let object = object(77, len);
        let (during, statuses) = target.measure_while("during", || {
            thread::scope(|scope| {
                let put = || {
                    let mut peer = Peer::new(target.node.connect());
                    // A refusal may come, and the connection end, before all of it is sent.
                    let answer = peer.try_put(&object.addr, &object.bytes);
                    answer.map_or(503, |answer| answer.status)
                };
                let threads: Vec<_> = (0..20).map(|_| scope.spawn(put)).collect();
                threads.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<u16>>()
            })
        });
        during.expect_answered();
        let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
        // Uploads without memory get 503; of the others one is first.
        assert_eq!(count(201), 1, "{statuses:?}");
        assert_eq!(count(200) + count(201) + count(503), 20, "{statuses:?}");
        let answer = Peer::new(target.node.connect()).get(&format!("/o/{}", object.addr));
        assert_same(&answer.body, &object.bytes, "what all of them stored");
    }
    target.finish();
}

#[test]
fn stored_deleted_and_read_at_once() {
    let target = Target::warm(1, &[]);
    let object = object(78, 300 * KIB);
    let path = format!("/o/{}", object.addr);
    let (during, ()) = target.measure_while("during", || {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        let mut peer = Peer::new(target.node.connect());
                        let answer = peer.try_put(&object.addr, &object.bytes);
                        let status = answer.expect("a put is answered").status;
                        assert!(matches!(status, 200 | 201 | 503), "{status}");
                    }
                });
                scope.spawn(|| {
                    for _ in 0..80 {
                        let mut peer = Peer::new(target.node.connect());
                        peer.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
                        // A body that is deleted while it is read is cut.
                        let Some(answer) = peer.try_response("GET") else { continue };
                        assert!(matches!(answer.status, 200 | 404 | 503), "{}", answer.status);
                        if answer.status == 200 {
                            assert_same(&answer.body, &object.bytes, "a whole answer");
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..40 {
                    let mut peer = Peer::new(target.node.connect());
                    peer.send(
                        format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
                    );
                    let status = peer.response("DELETE").status;
                    assert!(matches!(status, 204 | 404 | 503), "{status}");
                }
            });
        });
    });
    during.expect_answered();
    during.expect_within_bill();
    // A client that stores and deletes the same again and again is a nuisance, and no load.
    assert_eq!(target.node.admin("/readyz").status, 200);
    target.finish();
}
