//! Uploads: broken off, wrong, all of the same object, and against deletions.

use std::{fs, path::Path, thread};

use crate::common::{
    KIB, MIB, addr_of, assert_same,
    flood::Target,
    http::{Peer, put_head},
    object,
    rude::{Door, Rude},
};

/// Files under a folder.
fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let count = |path: &Path| if path.is_dir() { files(path) } else { 1 };
    entries.map(|entry| count(&entry.expect("it can be read").path())).sum()
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
    let left = || files(target.data.path());
    target.wait(
        "files of uploads are gone",
        || left() <= before,
        || format!("{} files, {before} before", left()),
    );
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
        // Who finds no memory is told; of the others one is first.
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
    // Whoever stores and deletes the same again and again is a nuisance, and no load.
    assert_eq!(target.node.admin("/readyz").status, 200);
    target.finish();
}
