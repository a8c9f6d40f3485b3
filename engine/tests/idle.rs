//! A node with nothing to do does nothing.

mod common;

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use common::{Data, Node, curl::Curl, http::Peer, oap::Oap, object, one_and_two_cores};

/// Clock ticks of CPU that each thread of a node has used so far.
fn ticks(node: &Node) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.pid())).expect("the node runs");
    tasks.map(|task| ticks_of(&task.expect("an entry").path().join("stat"))).collect()
}

/// The id and name of a thread, and its ticks.
fn ticks_of(stat: &Path) -> (String, u64) {
    let text = fs::read_to_string(stat).expect("the thread runs");
    // The name in parentheses may hold anything; utime and stime are fields 14 and 15.
    let (name, fields) = text.rsplit_once(')').expect("a stat has a name");
    let field = |at: usize| fields.split_whitespace().nth(at - 3).expect("a field");
    let ticks = [14, 15].map(|at| field(at).parse::<u64>().expect("ticks are a number"));
    (name.to_owned() + ")", ticks.iter().sum())
}

/// What the threads used since, those that used anything.
fn since(node: &Node, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let now = ticks(node).into_iter();
    let used = now.map(|(name, ticks)| {
        let used = ticks - before.get(&name).unwrap_or(&0);
        (name, used)
    });
    used.filter(|(_, ticks)| *ticks > 0).collect()
}

#[test]
fn an_idle_node_uses_no_cpu() {
    // Nodes with one and with two shards take the same ten seconds. Both were started before: the
    // first checkpoint of a new directory is work.
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
    let before: Vec<BTreeMap<String, u64>> = nodes.iter().map(ticks).collect();
    // This is the measurement itself.
    thread::sleep(Duration::from_secs(10));
    for (node, before) in nodes.iter().zip(&before) {
        let used = since(node, before);
        assert!(used.values().sum::<u64>() <= 1, "ticks used in 10 s: {used:?}");
    }
    // It was asleep, not dead.
    for (mut peer, mut tls, mut plain, _unused) in connections {
        assert_eq!(peer.get(&format!("/o/{}", object.addr)).status, 200);
        tls.hello();
        plain.hello();
    }
    nodes.into_iter().for_each(Node::terminate);
}
