//! Readers that ask for hot objects and read late, while the memory those were sent from is used
//! again for others: they read what was stored.
//!
//! Bodies are sent by reference only where the kernel does not pace, so the case runs where new
//! connections have reno: here, or in a network of its own.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use crate::common::{
    Data, KIB, MIB, Node, Object, assert_same, clean_environment, http::Peer, object,
};

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Runs this very test again in a network of its own, with reno. `false` when this is that run,
/// or none is needed.
fn moved(test: &str) -> bool {
    let name = fs::read_to_string(CONGESTION).expect("every Linux has one");
    if !name.starts_with("bbr") {
        return false;
    }
    let inside = format!(
        "ip link set lo up && echo reno > {CONGESTION} && exec \"$0\" --exact {test} --nocapture"
    );
    let mut probe = Command::new("unshare");
    probe.args(["--net", "--map-root-user", "ip", "link"]);
    let may = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        crate::common::skipped("all connections have bbr, and there is no network of our own");
        return true;
    }
    let own = env::current_exe().expect("a process knows its file");
    let mut command = Command::new("unshare");
    command.args(["--net", "--map-root-user", "sh", "-c", &inside]).arg(own);
    clean_environment(&mut command);
    let status = command.status().expect("it ran just now");
    assert!(status.success(), "in a network of its own: {status}");
    true
}

fn get(peer: &mut Peer, object: &Object) {
    let head = format!("GET /o/{} HTTP/1.1\r\nHost: t\r\n\r\n", object.addr);
    peer.send(head.as_bytes());
}

/// Fetches an object and compares it.
fn fetch(peer: &mut Peer, object: &Object) {
    get(peer, object);
    let answer = peer.response("GET");
    assert_eq!(answer.status, 200);
    assert_same(&answer.body, &object.bytes, &object.addr);
}

fn store(node: &Node, objects: &[Object]) {
    let mut peer = Peer::new(node.connect());
    for object in objects {
        let answer = peer.try_put(&object.addr, &object.bytes).expect("it is answered");
        assert_eq!(answer.status, 201);
    }
}

#[test]
fn late_readers_of_hot_objects_read_what_was_stored() {
    if moved("lent::late_readers_of_hot_objects_read_what_was_stored") {
        return;
    }
    let data = Data::new();
    let node = data.setup().args(&["--cache", "16MiB"]).start();
    let hot: Vec<Object> = (0..8).map(|n| object(n, MIB)).collect();
    let small: Vec<Object> =
        (0..3000).map(|n| object(n, 1 + (n as usize * 37) % (4 * KIB))).collect();
    store(&node, &hot);
    store(&node, &small);
    let mut busy = Peer::new(node.connect());
    for round in 0..3 {
        let mut late: Vec<Peer> = Vec::new();
        for object in &hot {
            // Twice brings it in and twice makes it hot; the last one does not read yet.
            (0..4).for_each(|_| fetch(&mut busy, object));
            let mut peer = Peer::new(node.connect());
            get(&mut peer, object);
            late.push(peer);
        }
        for object in &small {
            fetch(&mut busy, object);
        }
        for (peer, object) in late.iter_mut().zip(&hot) {
            let answer = peer.response("GET");
            assert_same(&answer.body, &object.bytes, &format!("round {round}"));
        }
    }
    assert!(node.metrics().sum("ron_lent_bytes_total") > 0, "nothing was sent by reference");
    node.terminate();
}

/// With the setting each body is hashed once more when it is sent, from the disk, the cache and an
/// upload; without it none is.
#[test]
fn bodies_are_hashed_again_when_they_are_sent() {
    for (setting, least) in [("on", 20), ("off", 0)] {
        let data = Data::new();
        let node = data.setup().args(&["--debug-verify-sends", setting]).start();
        let objects = [object(1, 10), object(2, 5 * KIB), object(3, 300 * KIB), object(4, MIB)];
        store(&node, &objects);
        let mut peer = Peer::new(node.connect());
        for object in objects.iter().cycle().take(12) {
            fetch(&mut peer, object);
        }
        let metrics = node.metrics();
        let hashed = metrics.sum("ron_verify_sends_total");
        assert!(hashed >= least && (least > 0 || hashed == 0), "{setting}: {hashed}");
        assert_eq!(metrics.sum("ron_verify_send_failures_total"), 0, "{setting}");
        node.terminate();
    }
}
