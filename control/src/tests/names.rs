//! What a shard gets of a change of names, and when its client gets an answer.

use std::io::{Read, Write};

use ron_codec::address::Address;

use super::*;
use crate::NameChange;

/// Sends a PUT of a name, to be answered later.
fn put(node: &Node, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.control.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let body = format!("{{\"address\":\"{}\"}}", Address::of(path.as_bytes()));
    let head = format!(
        "PUT /names{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream
}

fn changed(stream: TcpStream) -> NameChange {
    serde_json::from_str(&answer(stream).1).unwrap()
}

/// The next order that a shard takes: which shard, and the version of its names.
fn taken(node: &Node) -> (usize, u64) {
    match node.taken.recv_timeout(SOON).unwrap() {
        (shard, Order::Names(table)) => (shard, table.version()),
        (shard, order) => panic!("{shard}: {order:?}"),
    }
}

/// A shard has the names of a version, and says so.
fn take(node: &Node, shard: usize, version: u64) {
    node.stats[shard].names_version.set(version);
    node.reports.send(Report::Names { shard: ShardId(shard as u16) }).unwrap();
}

#[test]
fn a_change_is_answered_when_every_shard_has_it() {
    let node = serving(2);
    let begun = Instant::now();
    let mut stream = put(&node, "/a");
    assert_eq!([taken(&node), taken(&node)], [(0, 1), (1, 1)]);
    take(&node, 0, 1);
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "one shard has it, the other has not");
    take(&node, 1, 1);
    stream.set_read_timeout(Some(SOON)).unwrap();
    let change = changed(stream);
    assert_eq!((change.version, change.served), (1, Some(true)));
    assert!(begun.elapsed() < limits::NAMES_ORDER_MAX, "nobody waited for the time to pass");
}

#[test]
fn a_shard_that_takes_no_orders_gets_the_newest_names_later() {
    let node = serving(2);
    node.stuck.store(1, Ordering::Relaxed);
    let stream = put(&node, "/a");
    assert_eq!(taken(&node), (0, 1));
    take(&node, 0, 1);
    let change = changed(stream);
    assert_eq!((change.version, change.served), (1, Some(false)), "it is kept all the same");
    let stream = put(&node, "/b");
    // The second change waits for its turn at no shard: both get what is newest.
    node.stuck.store(usize::MAX, Ordering::Relaxed);
    let mut newest = [1, 0];
    while newest != [2, 2] {
        let (shard, version) = taken(&node);
        assert!(version >= newest[shard], "no shard goes back");
        newest[shard] = version;
        take(&node, shard, version);
    }
    assert_eq!(changed(stream).served, Some(true));
}
