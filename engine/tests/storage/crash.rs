//! `kill -9` in the middle of stores: what was acknowledged is there, what was not is whole or
//! absent.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::mpsc::{Sender, channel},
    thread,
};

use crate::common::{
    DEADLINE, Data, KIB, MIB, Node, addr_of, assert_same, connect, cores, curl::Curl, http::Peer,
    oap::Oap, object,
};

const WRITERS: u64 = 4;
/// Acknowledged objects after which the node is killed, one round after the other.
const ROUNDS: [usize; 5] = [3, 40, 90, 25, 60];

/// Every kind of store: packed, many groups, exactly at the border, and in a file of its own.
const SIZES: [usize; 10] =
    [100, 5000, 0, 64 * KIB + 1, 1, 300 * KIB, MIB, MIB + 1, 2 * MIB + 77, 4096];

/// What became of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Begun,
    Acknowledged,
}

struct Note {
    addr: String,
    seed: u64,
    len: usize,
    fate: Fate,
}

/// Stores one object after the other until the node is gone, telling before and after each.
fn write(at: SocketAddr, first_seed: u64, notes: &Sender<Note>) {
    let mut peer = Peer::new(connect(at));
    for seed in first_seed.. {
        let len = SIZES[(seed % SIZES.len() as u64) as usize];
        let object = object(seed, len);
        let note = |fate| Note { addr: object.addr.clone(), seed, len, fate };
        if notes.send(note(Fate::Begun)).is_err() {
            return;
        }
        let Some(answer) = peer.try_put(&object.addr, &object.bytes) else { return };
        assert!(matches!(answer.status, 200 | 201), "{len} bytes: {}", answer.status);
        if notes.send(note(Fate::Acknowledged)).is_err() {
            return;
        }
    }
}

/// Lets writers at the node and kills it after so many acknowledgements. Returns all that was
/// begun.
fn write_and_kill(node: Node, round: u64, acknowledged_max: usize) -> Vec<Note> {
    let (sender, receiver) = channel();
    let at = node.at("http");
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let sender = sender.clone();
            let first_seed = round * 1_000_000 + writer * 10_000 + 1;
            scope.spawn(move || write(at, first_seed, &sender));
        }
        drop(sender);
        let mut notes = Vec::new();
        let mut acknowledged = 0;
        while acknowledged < acknowledged_max {
            let note = receiver.recv_timeout(DEADLINE).expect("the writers go on");
            acknowledged += usize::from(note.fate == Fate::Acknowledged);
            notes.push(note);
        }
        node.kill();
        // Acknowledgements that were on their way count like the others.
        notes.extend(receiver);
        notes
    })
}

/// Checks every object of every round against the answer its writer got. Returns how many of those
/// that were only begun are there.
fn check(node: &Node, fates: &BTreeMap<String, Note>) -> usize {
    let mut peer = Peer::new(node.connect());
    let mut whole = 0;
    for (addr, note) in fates {
        let answer = peer.get(&format!("/o/{addr}"));
        let wanted = object(note.seed, note.len);
        match (note.fate, answer.status) {
            (_, 200) => assert_same(&answer.body, &wanted.bytes, addr),
            (Fate::Begun, 404) => continue,
            (fate, status) => panic!("{} bytes, {fate:?}: {status}", note.len),
        }
        whole += usize::from(note.fate == Fate::Begun);
    }
    whole
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let data = Data::new();
    let mut fates: BTreeMap<String, Note> = BTreeMap::new();
    let shards_max = cores().len().min(2);
    for (round, acknowledged) in (0..).zip(ROUNDS) {
        // The next node may have another number of shards than the one that was killed.
        let shards = 1 + round as usize % shards_max;
        let node = data.start(shards);
        check(&node, &fates);
        for note in write_and_kill(node, round, acknowledged) {
            let known = fates.get(&note.addr).is_some_and(|known| known.fate != Fate::Begun);
            if !known {
                fates.insert(note.addr.clone(), note);
            }
        }
    }
    let node = data.start(shards_max);
    let whole = check(&node, &fates);
    let acknowledged = fates.values().filter(|note| note.fate == Fate::Acknowledged).count();
    // The empty object and those of one byte were acknowledged many times and count once.
    assert!(acknowledged >= ROUNDS.iter().sum::<usize>() / 2, "{acknowledged} acknowledged");
    let stored = node.metrics().sum("ron_objects") as usize;
    assert_eq!(stored, acknowledged + whole, "nothing else is there");
    // Over the other protocol too, and nothing is left of the uploads that were cut.
    let mut oap = Oap::plain(&node);
    let some = fates.values().filter(|note| note.fate == Fate::Acknowledged).step_by(7);
    some.for_each(|note| oap.check(&object(note.seed, note.len)));
    node.terminate();
    assert_eq!(leftovers(&data), Vec::<String>::new());
}

/// Files of uploads that nobody will finish.
fn leftovers(data: &Data) -> Vec<String> {
    let partitions = std::fs::read_dir(data.path().join("data")).expect("there is a directory");
    let temporary = partitions.map(|entry| entry.expect("an entry").path().join("tmp"));
    let entries = temporary.filter(|path| path.is_dir()).flat_map(|path| {
        std::fs::read_dir(path).expect("there is a directory").map(|entry| entry.expect("an entry"))
    });
    entries.map(|entry| entry.path().display().to_string()).collect()
}

#[test]
fn an_upload_that_was_cut_by_a_kill_is_not_there() {
    let data = Data::new();
    let node = data.start(1);
    let large = object(1, 8 * MIB);
    let mut peer = Peer::new(node.connect());
    peer.send(crate::common::http::put_head(&large.addr, large.bytes.len()).as_bytes());
    peer.send(&large.bytes[..7 * MIB]);
    // Its bytes have reached the disk when there is a file.
    let until = std::time::Instant::now() + DEADLINE;
    while leftovers(&data).is_empty() {
        assert!(std::time::Instant::now() < until, "the upload reaches no file");
        node.admin("/healthz");
    }
    node.kill();
    let node = data.start(1);
    let curl = Curl::http(&node);
    assert_eq!(curl.get(&large.addr, &[]).status, 404);
    assert_eq!(leftovers(&data), Vec::<String>::new());
    curl.store(&large);
    curl.check(&large);
    assert_eq!(curl.get(&addr_of(&large.bytes[..7 * MIB]), &[]).status, 404);
    node.kill();
    // Acknowledged by a node that never ended in good order.
    let node = data.start(1);
    Curl::http(&node).check(&large);
    node.terminate();
}

/// What the kernel still has of a killed node's sockets is waited for.
#[test]
fn a_killed_node_is_started_again_at_once_on_its_addresses() {
    let data = Data::new();
    let mut node = data.setup().start();
    for round in 0..6 {
        Curl::http(&node).store(&object(round, 1000));
        let [http, https, oap, admin] =
            ["http", "https", "oap", "admin"].map(|key| node.at(key).to_string());
        let args = ["--http", &http, "--https", &https, "--oap", &oap, "--admin", &admin];
        node.kill();
        node = data.setup().args(&args).start();
    }
    node.terminate();
}
