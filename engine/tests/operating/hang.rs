//! A shard whose event loop does not go on: it is seen, said, and ended.
//!
//! The hang is made from outside: a library loaded before the C library holds one of its calls,
//! by which shards send over TLS, for as long as a file is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    DEADLINE, Data, Node,
    curl::Curl,
    flood::Target,
    object,
    rude::{Door, Rude, get},
};

const HOLD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
    ssize_t (*next)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
    const char *path = getenv("TEST_HOLD");
    while (path && access(path, F_OK) == 0) usleep(10000);
    return next(socket, message, flags);
}
"#;

/// A node with one shard whose event loop can be held.
struct Holdable {
    data: Data,
    node: Node,
    file: PathBuf,
    addr: String,
}

/// `None` where no C compiler is installed.
fn holdable(args: &[&str]) -> Option<Holdable> {
    let data = Data::new();
    let (source, library) = (data.path().join("hold.c"), data.path().join("hold.so"));
    fs::write(&source, HOLD).expect("the directory can be written");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    match cc.status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => {
            crate::common::skipped(&format!("no C compiler: {error}"));
            return None;
        }
    }
    let file = data.path().join("hold");
    let (library, path) = (library.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    let setup = Target::setup(&data, 1, args).env("LD_PRELOAD", library).env("TEST_HOLD", path);
    let node = setup.start();
    let object = object(1, 100);
    Curl::http(&node).store(&object);
    Some(Holdable { data, node, file, addr: object.addr })
}

/// Holds the event loop, and waits until that is seen. Returns whom it owes an answer.
fn hold(node: &Node, file: &Path, addr: &str) -> Rude {
    let mut peer = Rude::connect(node, Door::Https, None);
    fs::write(file, "").expect("the directory can be written");
    peer.send(&get(addr)).expect("the kernel takes it");
    let ready = wait_ready(node, 503);
    assert_eq!(ready["event_loop_stall"], serde_json::json!([0]), "{ready}");
    assert_eq!(ready["retry_after"], 1, "{ready}");
    node.wait_stderr("event loop stall");
    peer
}

fn wait_ready(node: &Node, status: u16) -> serde_json::Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let ready = node.admin("/readyz");
        if ready.status == status {
            return ready.json();
        }
        assert!(Instant::now() < until, "{}", ready.json());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_stall_makes_the_node_unready_while_it_lasts() {
    let Some(holdable) = holdable(&[]) else { return };
    let Holdable { data, node, file, addr } = holdable;
    let target = Target::on(data, node).warmed(24);
    let (during, (mut peer, ready)) = target.measure_while("during", || {
        let peer = hold(&target.node, &file, &addr);
        fs::remove_file(&file).expect("it is there");
        (peer, wait_ready(&target.node, 200))
    });
    // Clients of the shard waited as long as it was held, and no longer.
    during.expect_served();
    assert!(ready["event_loop_stall"].is_null(), "{ready}");
    let (answer, _) = peer.read_within(12, DEADLINE);
    assert_eq!(answer, b"HTTP/1.1 200");
    drop(peer);
    target.finish();
}

#[test]
fn a_hang_ends_the_node_with_a_code_of_its_own() {
    let Some(holdable) = holdable(&["--hang-limit", "5"]) else { return };
    let Holdable { data, node, file, addr } = holdable;
    let _peer = hold(&node, &file, &addr);
    node.wait_stderr("event loop hang");
    let (code, said) = node.exit();
    assert!(code == 70 && said.contains("event loop of shard 0 hangs"), "{code}: {said}");
    // What was stored is there after the restart.
    let node = data.start(1);
    Curl::http(&node).check(&object(1, 100));
    node.terminate();
}

#[test]
fn a_node_that_is_asked_to_end_does_so_though_a_shard_hangs() {
    let Some(holdable) = holdable(&["--hang-limit", "0", "--deadline-drain", "1"]) else { return };
    // The directory stays until the node has ended.
    let Holdable { data: _data, node, file, addr } = holdable;
    let _peer = hold(&node, &file, &addr);
    let asked = Instant::now();
    node.signal("TERM");
    let (code, said) = node.exit();
    assert_eq!(code, 70, "{said}");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}
