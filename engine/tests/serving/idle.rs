//! A node with nothing to do does nothing.

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use crate::common::{Data, Node, curl::Curl, http::Peer, oap::Oap, object, one_and_two_cores};

/// The most CPU time that an idle node may use: one in so many parts of the time.
const PARTS: u32 = 1000;

/// CPU time that each thread of a node has used so far.
fn cpu_time(node: &Node) -> BTreeMap<String, Duration> {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.pid())).expect("the node runs");
    tasks.map(|task| cpu_time_of(&task.expect("an entry").path())).collect()
}

/// The name and id of a thread, and its CPU time. Clock ticks would be too coarse: on a busy
/// machine a whole one is charged to the thread that runs when it comes.
fn cpu_time_of(task: &Path) -> (String, Duration) {
    let read = |name: &str| fs::read_to_string(task.join(name)).expect("the thread runs");
    let name = format!("{} {}", read("comm").trim(), task.display());
    let ns = read("schedstat").split_whitespace().next().map(str::parse);
    (name, Duration::from_nanos(ns.expect("a field").expect("nanoseconds are a number")))
}

/// What the threads used since, those that used anything.
fn since(node: &Node, before: &BTreeMap<String, Duration>) -> BTreeMap<String, Duration> {
    let now = cpu_time(node).into_iter();
    let used = now.map(|(name, time)| {
        let used = time - before.get(&name).copied().unwrap_or_default();
        (name, used)
    });
    used.filter(|(_, used)| !used.is_zero()).collect()
}

#[test]
fn an_idle_node_uses_no_cpu() {
    watch(Duration::from_secs(4));
}

#[test]
#[ignore = "takes a minute"]
fn an_idle_node_uses_no_cpu_for_a_minute() {
    watch(Duration::from_secs(60));
}

/// Watches idle nodes for so long.
fn watch(time: Duration) {
    // Nodes with one and with two shards are watched at the same time. Both were started before:
    // the first checkpoint of a new directory is work.
    let object = object(1, 100_000);
    let data: Vec<(usize, Data)> =
        one_and_two_cores().into_iter().map(|shards| (shards, Data::new())).collect();
    for (shards, data) in &data {
        let node = data.start(*shards);
        Curl::http(&node).store(&object);
        node.terminate();
    }
    let nodes: Vec<Node> = data.iter().map(|(shards, data)| data.start(*shards)).collect();
    let mut connections = Vec::new();
    for node in &nodes {
        // Connections that were used and stay open, and some that never were.
        for _ in 0..10 {
            let mut peer = Peer::new(node.connect());
            assert_eq!(peer.get(&format!("/o/{}", object.addr)).status, 200);
            let [mut tls, mut plain] = Oap::both(node);
            tls.hello();
            plain.hello();
            connections.push((peer, tls, plain, node.connect()));
        }
        Curl::https(node).head(&object.addr);
        assert_eq!(node.admin("/readyz").status, 200);
    }
    let before: Vec<BTreeMap<String, Duration>> = nodes.iter().map(cpu_time).collect();
    // This is the measurement itself.
    thread::sleep(time);
    for (node, before) in nodes.iter().zip(&before) {
        let used = since(node, before);
        let all: Duration = used.values().sum();
        assert!(all * PARTS <= time, "CPU time in {time:?}: {used:?}");
    }
    // It was asleep, not dead.
    for (mut peer, mut tls, mut plain, _unused) in connections {
        assert_eq!(peer.get(&format!("/o/{}", object.addr)).status, 200);
        tls.hello();
        plain.hello();
    }
    nodes.into_iter().for_each(Node::terminate);
}
