//! The workload that runs in the guest: stores, replacements and deletions of every kind of
//! object, on nodes that are started, killed and ended one after the other, with the index and
//! without, until the log of the disk has enough of everything.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::Command,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::{DEADLINE, Dice, KIB, MIB, Node, clean_environment, connect, http::Peer, object},
    marks::{Mark, Marker, Name},
};

/// Sizes of what each client stores: packed into the log, or files of their own; few of the last.
/// Two objects of a byte may be the same, and then what becomes of one becomes of the other.
const CLIENTS: [(&[usize], u64); 3] = [
    (&[100, 4 * KIB, 20_000, 1000, 64 * KIB], 40),
    (&[64 * KIB + 1, 300, 8 * KIB, 200 * KIB, 9], 40),
    (&[MIB + 1, MIB, MIB + 300 * KIB + 77], 6),
];
/// Answers after which a node is ended.
const ANSWERS: u64 = 120;
const NODES_DEFAULT: u64 = 8;

/// A node on this folder, with what makes its start quick and lets it use nearly all of a small
/// disk.
pub(crate) fn node(program: &Path, data: &Path) -> Node {
    let mut command = Command::new(program);
    clean_environment(&mut command);
    command.arg("--data-dir").arg(data);
    let settings = [
        ("--http", "127.0.0.1:0"),
        ("--admin", "127.0.0.1:0"),
        ("--https", "off"),
        ("--oap", "127.0.0.1:0"),
        ("--shards", "1"),
        ("--partitions", "2"),
        ("--cache", "16MiB"),
        ("--connections-max", "64"),
        ("--connection-buffers", "4MiB"),
        ("--storage-index-memory", "32MiB"),
        ("--storage-reserve", "1MiB"),
        ("--storage-compact-below", "90"),
        ("--deadline-linger", "1"),
        ("--log-format", "json"),
    ];
    for (flag, value) in settings {
        command.args([flag, value]);
    }
    Node::start(command)
}

/// Removes the snapshots of all partitions, where there are some.
pub(crate) fn remove_index(data: &Path) {
    for partition in fs::read_dir(data).into_iter().flatten() {
        let index = partition.expect("it can be read").path().join("index");
        for file in fs::read_dir(index).into_iter().flatten() {
            fs::remove_file(file.expect("it can be read").path()).expect("it can be removed");
        }
    }
}

/// Whether a store or a deletion was answered. `None` when it was not.
fn request(peer: &mut Peer, put: bool, name: Name) -> Option<()> {
    let object = object(name.seed, name.len);
    let answer = match put {
        true => peer.try_put(&object.addr, &object.bytes)?,
        false => {
            let head = format!("DELETE /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", object.addr);
            peer.try_send(head.as_bytes()).then_some(())?;
            peer.try_response("DELETE")?
        }
    };
    let good: &[u16] = if put { &[200, 201] } else { &[204, 404] };
    // A node that is about to end says so.
    (answer.status != 503).then_some(())?;
    assert!(good.contains(&answer.status), "{put} of {name:?}: {}", answer.status);
    Some(())
}

/// One client, and the last answer about each of its objects.
struct Client {
    sizes: &'static [usize],
    count: u64,
    first_seed: u64,
    there: BTreeMap<Name, bool>,
    dice: Dice,
    marker: Marker,
}

impl Client {
    fn new(nth: usize, seed: u64, disk: &Path) -> Client {
        let (sizes, count) = CLIENTS[nth];
        let marker = Marker::new(disk, nth as u64 + 1).expect("the disk can be opened");
        let first_seed = seed * 10_000 + nth as u64 * 1000;
        let dice = Dice(first_seed);
        Client { sizes, count, first_seed, there: BTreeMap::new(), dice, marker }
    }

    /// Changes one object after the other until the node is gone.
    fn run(&mut self, mut peer: Peer, ending: &AtomicBool, answers: &Sender<()>) {
        while !ending.load(Ordering::Acquire) {
            let nth = self.dice.below(self.count);
            let len = self.sizes[(nth % self.sizes.len() as u64) as usize];
            let name = Name { seed: self.first_seed + nth, len };
            let there = self.there.get(&name).copied().unwrap_or(false);
            // Now and then what is there already is stored again, and what is not is deleted.
            let put = there == (self.dice.below(8) == 0);
            self.marker.leave(Mark::Begun { put, name });
            if request(&mut peer, put, name).is_none() {
                return;
            }
            self.marker.leave(Mark::Answered { put, name });
            self.there.insert(name, put);
            // The receiver has enough at some time, and leaves.
            let _ = answers.send(());
        }
    }
}

/// Waits until the node has given back a segment; clients go on meanwhile.
fn wait_for_compaction(node: &Node) {
    let until = Instant::now() + DEADLINE;
    while node.metrics().sum("ron_compactions_total") == 0 {
        assert!(Instant::now() < until, "nothing is compacted: {}", node.stderr());
        thread::sleep(Duration::from_millis(100));
    }
}

/// Runs all clients on a node, and ends it in the midst of what they do.
fn one_node(nth: u64, node: Node, clients: &mut [Client]) -> u64 {
    let (ending, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let at = node.at("http");
    thread::scope(|scope| {
        let (sender, answers) = channel();
        for client in clients {
            let (sender, ending) = (sender.clone(), &ending);
            scope.spawn(move || client.run(Peer::new(connect(at)), ending, &sender));
        }
        drop(sender);
        for () in answers.iter().take(ANSWERS as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if nth % 4 == 2 {
            wait_for_compaction(&node);
        }
        if nth.is_multiple_of(2) {
            node.kill();
        } else {
            node.terminate();
        }
        ending.store(true, Ordering::Release);
        count.fetch_add(answers.iter().count() as u64, Ordering::Relaxed);
    });
    count.into_inner()
}

/// Only `.ci/powercut` can run this: in a virtual machine whose disk keeps a log.
#[test]
#[ignore = "runs in the guest that .ci/powercut starts"]
fn workload() {
    let Some(disk) = env::var_os("POWERCUT_GUEST_DISK") else {
        eprintln!("SKIPPED: this is no guest of .ci/powercut");
        return;
    };
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let nodes = number("POWERCUT_NODES").unwrap_or(NODES_DEFAULT);
    let seed = number("POWERCUT_SEED").unwrap_or(1);
    let (disk, data) = (Path::new(&disk), Path::new("/data/ron"));
    let starts = Marker::new(disk, 0).expect("the disk can be opened");
    let mut clients: Vec<Client> =
        (0..CLIENTS.len()).map(|nth| Client::new(nth, seed, disk)).collect();
    for nth in 0..nodes {
        if nth % 3 == 2 {
            remove_index(data);
        }
        starts.leave(Mark::Start(nth));
        let node = node(Path::new("/bin/rond"), data);
        let answers = one_node(nth, node, &mut clients);
        println!("node {nth}: {answers} answers");
    }
}
