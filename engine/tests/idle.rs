//! A node with nothing to do does nothing.

mod common;

use std::{fs, thread, time::Duration};

use common::{Data, Node, curl::Curl, http::Peer, oap::Oap, object, one_and_two_cores};

/// Clock ticks of CPU that the threads of the node have used so far.
fn ticks(node: &Node) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.pid())).expect("the node runs");
    tasks.map(|task| ticks_of(&task.expect("an entry").path().join("stat"))).sum()
}

fn ticks_of(stat: &std::path::Path) -> u64 {
    let text = fs::read_to_string(stat).expect("the thread runs");
    // The name in parentheses may hold anything; utime and stime are fields 14 and 15.
    let (_, fields) = text.rsplit_once(')').expect("a stat has a name");
    let field = |at: usize| fields.split_whitespace().nth(at - 3).expect("a field");
    [14, 15].map(|at| field(at).parse::<u64>().expect("ticks are a number")).iter().sum()
}

#[test]
fn an_idle_node_uses_no_cpu() {
    let data = Data::new();
    let object = object(1, 100_000);
    let node = data.start(1);
    Curl::http(&node).store(&object);
    node.terminate();
    // Two nodes at once, with one and with two shards, take the same ten seconds.
    let second = Data::new();
    let mut nodes = vec![data.start(1)];
    nodes.extend(one_and_two_cores().contains(&2).then(|| second.start(2)));
    let mut connections = Vec::new();
    for node in &nodes {
        // Connections that were used and stay open, and some that never were.
        for _ in 0..10 {
            let mut peer = Peer::new(node.connect());
            let status = peer.get(&format!("/o/{}", object.addr)).status;
            assert!(matches!(status, 200 | 404));
            let [mut tls, mut plain] = Oap::both(node);
            tls.hello();
            plain.hello();
            connections.push((peer, tls, plain, node.connect()));
        }
        Curl::https(node).head(&object.addr);
        assert_eq!(node.admin("/readyz").status, 200);
    }
    let before: Vec<u64> = nodes.iter().map(ticks).collect();
    // This is the measurement itself.
    thread::sleep(Duration::from_secs(10));
    let used: Vec<u64> =
        nodes.iter().zip(before).map(|(node, before)| ticks(node) - before).collect();
    assert!(used.iter().all(|ticks| *ticks <= 1), "ticks used in 10 s: {used:?}");
    // It was asleep, not dead.
    for (mut peer, mut tls, mut plain, _unused) in connections {
        assert!(matches!(peer.get(&format!("/o/{}", object.addr)).status, 200 | 404));
        tls.hello();
        plain.hello();
    }
    nodes.into_iter().for_each(Node::terminate);
}
