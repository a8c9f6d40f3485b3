//! Stores, reads and deletes at once, while the node is killed or restarted every few seconds.
//!
//! Half an hour unless `RON_TORTURE_SECONDS` says otherwise. Each object has one client that
//! changes it and so knows the last answer about it; every client reads everybody's.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    Data, Dice, KIB, MIB, Node, Object, assert_same, connect,
    http::{Peer, Response},
    object,
};

const CLIENTS: u64 = 6;
const OBJECTS_EACH: u64 = 150;
const SECONDS_DEFAULT: u64 = 30 * 60;

/// Every kind of store: packed, many groups, around every border, and in a file of its own.
const SIZES: [usize; 12] = [
    100,
    4096,
    64 * KIB,
    64 * KIB + 1,
    0,
    300 * KIB,
    MIB,
    MIB + 1,
    2 * MIB + 77,
    1000,
    130 * KIB,
    20_000,
];

/// What the last answer to the client of an object said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastAnswer {
    There,
    Gone,
    /// Something was begun and not answered.
    Nothing,
}

/// Where the node is, once it is there.
#[derive(Default)]
struct Place {
    at: Mutex<(Option<SocketAddr>, bool)>,
    changed: Condvar,
}

impl Place {
    fn set(&self, at: Option<SocketAddr>) {
        self.at.lock().expect("nobody panics with it").0 = at;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.at.lock().expect("nobody panics with it").1 = true;
        self.changed.notify_all();
    }

    /// Waits for a node that can be connected to; `None` at the end of it all.
    fn connect(&self) -> Option<Peer> {
        let mut at = self.at.lock().expect("nobody panics with it");
        loop {
            match *at {
                (_, true) => return None,
                (Some(address), false) => match TcpStream::connect(address) {
                    Ok(_) => return Some(Peer::new(connect(address))),
                    // It was killed a moment ago, and its place is about to change.
                    Err(_) => at.0 = None,
                },
                (None, false) => at = self.changed.wait(at).expect("nobody panics with it"),
            }
        }
    }
}

/// What was done, over all clients.
#[derive(Default)]
struct Counts {
    puts: AtomicU64,
    deletes: AtomicU64,
    reads: AtomicU64,
    whole: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The `nth` object of a client. All are different, also those of no bytes: those are left out.
fn nth_object(client: u64, nth: u64) -> Object {
    let len = SIZES[((nth + client) % SIZES.len() as u64) as usize].max(8);
    object(client * 1_000_000 + nth, len)
}

fn request(peer: &mut Peer, method: &str, addr: &str) -> Option<Response> {
    let head = format!("{method} /o/{addr} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    peer.try_send(head.as_bytes()).then_some(())?;
    peer.try_response(method)
}

/// One change of an object. `None` when the connection broke.
fn change(
    peer: &mut Peer,
    object: &Object,
    last: &mut LastAnswer,
    put: bool,
    counts: &Counts,
) -> Option<()> {
    let before = std::mem::replace(last, LastAnswer::Nothing);
    let answer = match put {
        true => peer.try_put(&object.addr, &object.bytes),
        false => request(peer, "DELETE", &object.addr),
    };
    let Some(answer) = answer else {
        count(&counts.unanswered);
        return None;
    };
    let wrong = || panic!("{before:?}, then {put}: {} for {}", answer.status, object.addr);
    *last = match (put, answer.status) {
        (true, 201) if before != LastAnswer::There => LastAnswer::There,
        (true, 200) if before != LastAnswer::Gone => LastAnswer::There,
        (false, 204) if before != LastAnswer::Gone => LastAnswer::Gone,
        (false, 404) if before != LastAnswer::There => LastAnswer::Gone,
        // Nothing was changed, or nobody knows.
        (_, 503) => {
            count(&counts.refused);
            if before == LastAnswer::There && put { LastAnswer::There } else { LastAnswer::Nothing }
        }
        _ => wrong(),
    };
    count(if put { &counts.puts } else { &counts.deletes });
    Some(())
}

/// One read. What comes must be the object, and must come or not as its client was answered.
fn read(peer: &mut Peer, object: &Object, last: LastAnswer, counts: &Counts) -> Option<()> {
    let answer = request(peer, "GET", &object.addr)?;
    count(&counts.reads);
    match answer.status {
        200 => {
            assert_same(&answer.body, &object.bytes, &object.addr);
            assert_ne!(last, LastAnswer::Gone, "{} was deleted", object.addr);
            count(&counts.whole);
        }
        404 => {
            assert_ne!(last, LastAnswer::There, "{} of {} bytes", object.addr, object.bytes.len());
        }
        503 => count(&counts.refused),
        status => panic!("{status} for {}", object.addr),
    }
    Some(())
}

/// Works until the end. Returns what the client knows of its objects.
fn work(client: u64, place: &Place, counts: &Counts) -> Vec<LastAnswer> {
    let mut dice = Dice(client);
    let mut last = vec![LastAnswer::Gone; OBJECTS_EACH as usize];
    while let Some(mut peer) = place.connect() {
        loop {
            let nth = dice.below(OBJECTS_EACH);
            let own = nth_object(client, nth);
            let known = &mut last[nth as usize];
            let done = match dice.below(10) {
                0..=3 => change(&mut peer, &own, known, true, counts),
                4 | 5 => change(&mut peer, &own, known, false, counts),
                6..=8 => read(&mut peer, &own, *known, counts),
                _ => {
                    let other = dice.below(CLIENTS);
                    let theirs = nth_object(other, dice.below(OBJECTS_EACH));
                    // What its client was answered is not known here.
                    read(&mut peer, &theirs, LastAnswer::Nothing, counts)
                }
            };
            if done.is_none() {
                break;
            }
        }
    }
    last
}

fn start(data: &Data, dice: &mut Dice) -> Node {
    let shards = 1 + dice.below(crate::common::cores().len().min(2) as u64) as usize;
    let cache = ["16MiB", "64MiB", "256MiB"][dice.below(3) as usize];
    let partitions = ["--partitions", "2", "--storage-scrub-every", "5"];
    data.setup().shards(shards).args(&["--cache", cache]).args(&partitions).start()
}

/// Starts and ends nodes until the time has passed. Returns how often each was done.
fn harass(data: &Data, place: &Place, until: Instant) -> (u64, u64) {
    let mut dice = Dice(99);
    let (mut kills, mut stops) = (0, 0);
    while Instant::now() < until {
        let node = start(data, &mut dice);
        place.set(Some(node.at("http")));
        // How long a node lives is what is being tried, not something that is waited for.
        thread::sleep(Duration::from_millis(500 + dice.below(5000)));
        place.set(None);
        if dice.below(5) == 0 {
            stops += 1;
            node.terminate();
        } else {
            kills += 1;
            node.kill();
        }
    }
    place.end();
    (kills, stops)
}

#[test]
#[ignore = "takes half an hour"]
fn nothing_acknowledged_is_lost_however_often_the_node_is_killed() {
    let seconds = std::env::var("RON_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT));
    let (data, place, counts) = (Data::new(), Place::default(), Counts::default());
    let (last, (kills, stops)) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (place, counts) = (&place, &counts);
                scope.spawn(move || work(client, place, counts))
            })
            .collect();
        let ends = harass(&data, &place, until);
        let last: Vec<Vec<LastAnswer>> =
            clients.into_iter().map(|client| client.join().expect("a client saw wrong")).collect();
        (last, ends)
    });
    let node = data.start(1);
    let mut peer = Peer::new(node.connect());
    let mut known = [0; 3];
    for (client, last) in (0..).zip(&last) {
        for (nth, last) in (0..).zip(last) {
            let read = read(&mut peer, &nth_object(client, nth), *last, &counts);
            read.expect("nobody kills this node");
            known[*last as usize] += 1;
        }
    }
    assert_eq!(node.metrics().sum("ron_integrity_fail_total"), 0);
    node.terminate();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let [there, gone, unknown] = known;
    eprintln!(
        "{kills} kills, {stops} stops; {} puts, {} deletes, {} reads, {} of them whole, {} refused \
         and {} unanswered; at the end {there} objects there, {gone} gone, {unknown} unknown: all \
         as they were answered",
        of(&counts.puts),
        of(&counts.deletes),
        of(&counts.reads),
        of(&counts.whole),
        of(&counts.refused),
        of(&counts.unanswered),
    );
    assert!(there > 0 && gone > 0 && kills > 0);
}
