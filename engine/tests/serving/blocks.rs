//! Peers that hold the memory of blocks: uploads that stop or trickle, readers that do not read, on
//! both protocols. During each flood another client's GET of a small object, its HEAD and its
//! 404 are served, also where they go from shard to shard, and requests that cannot have memory
//! get 503.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::common::{
    KIB, MIB, connect_from,
    flood::Target,
    http::Peer,
    oap::{self, ACK_REQ, REQ},
    object,
    rude::{self, Door, Rude, Trickle},
};
use serde_json::json;

/// Blocks of the memory of a node with one shard.
const BLOCKS: usize = 16 * MIB / (64 * KIB);

/// The head of an upload of 4 MiB: it goes into a file of its own.
const LONG_PUT: &str = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4194304\r\n\r\n";

/// Uploads that each have sent so much and stop.
fn stopped_uploads(target: &Target, count: usize, len: usize) -> Vec<Rude> {
    let mut peers = Rude::many(&target.node, Door::Http, count, None);
    for peer in &mut peers {
        peer.send(LONG_PUT.as_bytes()).expect("a head fits");
    }
    rude::flood(&mut peers, &vec![7; len], len);
    peers
}

/// The other client is served, a put of its own is answered, and all is well when the peers left.
fn check_during(target: Target, peers: Vec<Rude>) {
    let during = target.measure("during");
    during.expect_served();
    during.expect_within_bill();
    let mine = object(77, 50 * KIB);
    let answer = Peer::new(target.node.connect()).try_put(&mine.addr, &mine.bytes);
    let status = answer.expect("a put is answered").status;
    assert!(matches!(status, 200 | 201 | 503), "{status}");
    drop(peers);
    target.wait_connections(2);
    target.store(&object(78, MIB));
    // A shard looks at what others gave back when something happens to it.
    let held = || {
        Peer::new(target.node.connect()).get(&format!("/o/{}", target.small.addr));
        let metrics = target.node.metrics();
        ["uploads", "downloads", "background"]
            .map(|owner| metrics.sum(&format!("ron_memory_pages{{owner=\"{owner}\"")))
    };
    target.wait("nobody holds pages", || held() == [0; 3], || format!("{:?}", held()));
    target.finish();
}

#[test]
fn uploads_that_stop() {
    let target = Target::warm(1, &[]);
    let peers = stopped_uploads(&target, 40, 900_000);
    check_during(target, peers);
}

#[test]
fn uploads_that_trickle() {
    let target = Target::warm(2, &[]);
    let peers = stopped_uploads(&target, 40, 1_000_000);
    let trickle = Trickle::start(peers, vec![1; 64], Duration::from_millis(100));
    target.measure("trickle").expect_served();
    check_during(target, trickle.end());
}

/// More uploads than the memory has blocks, none of them longer than one: each has sent a few bytes
/// of its only group, and goes on byte by byte. Every group takes a block from its first byte on.
#[test]
fn small_uploads_that_trickle() {
    let target = Target::warm(1, &[]);
    let head = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\nxx";
    let mut peers = Rude::many(&target.node, Door::Http, BLOCKS + BLOCKS / 4, None);
    for peer in &mut peers {
        peer.send(head.as_bytes()).expect("a head fits");
    }
    let trickle = Trickle::start(peers, vec![1; 64], Duration::from_millis(100));
    target.measure("trickle").expect_served();
    check_during(target, trickle.end());
}

/// Long uploads that come just fast enough to be allowed hold all that uploads may. Short ones have
/// some of their own, and the slowest are ended for others that need a block.
#[test]
fn uploads_that_are_slow_do_not_keep_others_from_writing() {
    let target = Target::warm(1, &[]);
    let mut peers = Rude::many(&target.node, Door::Http, BLOCKS / 2, None);
    for peer in &mut peers {
        peer.send(&[LONG_PUT.as_bytes(), &[7; 3000]].concat()).expect("it fits");
    }
    let trickle = Trickle::start(peers, vec![1; 64], Duration::from_millis(100));
    let put = |len: usize| {
        let mine = object(len as u64, len);
        let answer = Peer::new(target.node.connect()).try_put(&mine.addr, &mine.bytes);
        answer.expect("a put is answered").status
    };
    for round in 0..4 {
        assert_eq!(put(10 + round), 201, "a short put");
        assert_eq!(put(10_000 + round), 201, "a short put");
        assert_eq!(put(3 * MIB + round), 201, "a long put");
    }
    let timeouts = || target.node.metrics().sum("ron_rejected_total{reason=\"timeout\"}");
    assert!(timeouts() > 0, "no slow upload was ended");
    check_during(target, trickle.end());
}

/// A peer with one upload does not pay for another that comes with hundreds, however slow it is.
#[test]
fn slow_uploads_are_ended_of_those_who_have_many() {
    let target = Target::warm(1, &[]);
    let head = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\nx";
    let newcomers = || -> Vec<Rude> {
        let mut peers = Rude::many(&target.node, Door::Http, 40, None);
        for peer in &mut peers {
            peer.send(head.as_bytes()).expect("a head fits");
        }
        peers
    };
    let mut peers: Vec<Rude> = (0..4).flat_map(|_| newcomers()).collect();
    let mine = object(5, 200_000);
    let file = target.data.path().join("mine");
    std::fs::write(&file, &mine.bytes).expect("it can be written");
    let mut honest = Command::new("curl")
        .args(["-sS", "--interface", "127.0.0.2", "--limit-rate", "60k", "-o", "/dev/null"])
        .args(["-w", "%{http_code}", "-T"])
        .arg(&file)
        .arg(format!("http://{}/o/{}", target.node.at("http"), mine.addr))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is there");
    while honest.try_wait().expect("it is a child").is_none() {
        peers.extend(newcomers());
        thread::sleep(Duration::from_millis(100));
    }
    let out = honest.wait_with_output().expect("it has ended").stdout;
    let cut = target.node.metrics().sum("ron_uploads_cut_total");
    assert!(cut > 0, "no slow upload was ended");
    assert_eq!(String::from_utf8_lossy(&out), "201");
    check_during(target, peers);
}

/// Puts of a byte each, 64 on each connection and more than the memory has blocks, again and again:
/// that one of them waits for memory is no reason to let the others keep it.
#[test]
fn puts_of_a_byte_do_not_keep_others_from_writing() {
    puts_of_a_byte(60_000);
}

/// The same, each announced as short: what short ones have of their own is no way to have all.
#[test]
fn short_puts_of_a_byte_do_not_keep_others_from_writing() {
    puts_of_a_byte(16_000);
}

fn puts_of_a_byte(announced: usize) {
    let target = Target::warm(1, &[]);
    let puts = |from: u64| -> Vec<u8> {
        let start = |corr| oap::request(corr, &json!({"op": "put", "len": announced})).encode();
        let byte = |corr| oap::frame(REQ, corr, &[9]).encode();
        (from..from + 64).flat_map(|corr| [start(corr), byte(corr)].concat()).collect()
    };
    let flood = || -> Vec<Rude> {
        let upload = |_| {
            let mut peer = Rude::connect(&target.node, Door::OapPlain, None);
            peer.send(&puts(1)).expect("they fit");
            peer
        };
        (0..2 * BLOCKS / 64).map(upload).collect()
    };
    // They come again as they are ended.
    let (over, first) = (AtomicBool::new(false), flood());
    let peers = thread::scope(|scope| {
        let come_again = scope.spawn(|| {
            let mut peers = first;
            while !over.load(Ordering::Relaxed) && peers.len() < 1500 {
                peers.extend(flood());
                thread::sleep(Duration::from_millis(50));
            }
            peers
        });
        for (round, len) in
            (0..4).flat_map(|round| [10, 10_000, 50_000, 3 * MIB].map(|len| (round, len)))
        {
            let mine = object(len as u64, len + round);
            let answer = Peer::new(connect_from([127, 0, 0, 2], target.node.at("http")))
                .try_put(&mine.addr, &mine.bytes);
            let status = answer.expect("a put is answered").status;
            assert_eq!(status, 201, "{len} bytes, round {round}");
        }
        over.store(true, Ordering::Relaxed);
        come_again.join().expect("peers come")
    });
    check_during(target, peers);
}

/// More puts than the memory has blocks, 64 on each connection: all but one of them have sent a
/// whole frame of a few bytes, and the last one stops within its frame.
#[test]
fn puts_that_stop_within_a_frame() {
    let target = Target::warm(1, &[]);
    let upload = |_| {
        let mut peer = Rude::connect(&target.node, Door::OapPlain, None);
        let start = |corr| oap::request(corr, &json!({"op": "put", "len": 1 << 22})).encode();
        let few = |corr| oap::frame(REQ, corr, &[9; 100]).encode();
        let all: Vec<u8> =
            (1..64).flat_map(|corr| [start(corr), few(corr)].concat()).chain(start(64)).collect();
        peer.send(&all).expect("they fit");
        let frame = oap::frame(REQ, 64, &vec![9; oap::MAX_FRAME - 33]).encode();
        peer.send_until_full(&frame[..frame.len() - 1], frame.len() - 1);
        peer
    };
    let peers = (0..BLOCKS / 64 + 2).map(upload).collect();
    check_during(target, peers);
}

/// Readers of another part of a large object each, who take nothing.
fn silent_readers(target: &Target, count: usize) -> Vec<Rude> {
    let large = object(5, 24 * MIB);
    target.store(&large);
    let reader = |at: usize| {
        let mut peer = Rude::connect(&target.node, Door::Http, Some(2304));
        let from = at * large.bytes.len() / count;
        let request = format!(
            "GET /o/{} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={from}-\r\n\r\n",
            large.addr
        );
        peer.send(request.as_bytes()).expect("a request fits");
        peer
    };
    (0..count).map(reader).collect()
}

/// Connections with as many gets of a large object as may be open, who take nothing.
fn silent_gets(target: &Target, count: usize) -> Vec<Rude> {
    let large = object(6, 24 * MIB);
    target.store(&large);
    let step = large.bytes.len() / (count * 64);
    let reader = |at: usize| {
        let mut peer = Rude::connect(&target.node, Door::OapPlain, Some(2304));
        for corr in 0..64 {
            let offset = (at * 64 + corr) * step;
            let get = json!({"op": "get", "addr": large.addr, "offset": offset});
            let mut frame = oap::request(corr as u64 + 1, &get);
            // Half of them under credit that they never renew.
            frame.flags |= if corr % 2 == 0 { ACK_REQ } else { 0 };
            peer.send(&frame.encode()).expect("a request fits");
        }
        peer
    };
    (0..count).map(reader).collect()
}

/// A reader who reads gets all of a large object while others hold what they may.
fn expect_large(target: &Target) {
    let mine = object(9, 3 * MIB);
    target.store(&mine);
    let read = || {
        let mut peer = Peer::new(target.node.connect());
        let asked = peer.try_send(&crate::common::rude::get(&mine.addr));
        let answer = asked.then(|| peer.try_response("GET")).flatten();
        answer.is_some_and(|answer| answer.status == 200 && answer.body == mine.bytes)
    };
    target.wait("a large object is read", read, || target.node.stderr());
}

#[test]
fn readers_that_do_not_read() {
    let target = Target::warm(1, &[]);
    let peers = silent_readers(&target, 120);
    target.measure("silent").expect_served();
    expect_large(&target);
    check_during(target, peers);
}

#[test]
fn gets_that_are_not_read() {
    let target = Target::warm(1, &[]);
    let peers = silent_gets(&target, 30);
    target.measure("silent").expect_served();
    expect_large(&target);
    check_during(target, peers);
}

/// Connections that ask for other groups of a large object again and again, as many at once as they
/// may, and read the answers: only refusals while others hold all that reads may have.
struct Greedy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Greedy {
    fn start(target: &Target, connections: usize, addr: &str, len: usize) -> Greedy {
        let stop = Arc::new(AtomicBool::new(false));
        let ask = |at: usize| {
            let mut peer = crate::common::connect(target.node.at(Door::OapPlain.key()));
            let (stop, addr) = (Arc::clone(&stop), addr.to_owned());
            thread::spawn(move || {
                let get = |corr: u64| {
                    let group = (at as u64 * 7919 + corr * 31) % (len / (64 * KIB)) as u64;
                    let offset = group * 64 * KIB as u64;
                    let get = json!({"op": "get", "addr": addr, "offset": offset, "len": 60_000});
                    oap::request(corr, &get).encode()
                };
                let mut corr = 64;
                let first: Vec<u8> = (1..=corr).flat_map(get).collect();
                let mut sent = peer.write_all(&first);
                while sent.is_ok() && !stop.load(Ordering::Acquire) {
                    // Whatever it is, its end frees a place for the next.
                    let Ok(Some(frame)) = oap::read_frame(&mut peer) else { return };
                    if frame.has(oap::END) {
                        corr += 1;
                        sent = peer.write_all(&get(corr));
                    }
                }
            })
        };
        let threads = (0..connections).map(ask).collect();
        Greedy { stop, threads }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}

#[test]
fn questions_between_shards_do_not_wait_for_those_that_need_memory() {
    let target = Target::warm(2, &[]);
    let peers = silent_gets(&target, 40);
    // What the silent hold is of the same shard. Those of the other shard ask for more than may be
    // open between two.
    let large = object(6, 24 * MIB);
    let greedy = Greedy::start(&target, 40, &large.addr, large.bytes.len());
    let found: Vec<_> = (0..24).map(|seed| object(1_000_000 + seed, MIB).addr).collect();
    let missing: Vec<_> =
        (0..24).map(|n| crate::common::addr_of(format!("not {n}").as_bytes())).collect();
    let mut times = Vec::new();
    for _ in 0..8 {
        let mut peer = Peer::new(target.node.connect());
        for (method, addr, status) in found
            .iter()
            .map(|addr| ("HEAD", addr, 200))
            .chain(missing.iter().map(|addr| ("GET", addr, 404)))
        {
            let began = Instant::now();
            let head = format!("{method} /o/{addr} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            peer.send(head.as_bytes());
            assert_eq!(peer.response(method).status, status, "{method}");
            times.push(began.elapsed());
        }
    }
    times.sort();
    let (median, nine_tenths) = (times[times.len() / 2], times[times.len() * 9 / 10]);
    eprintln!("questions that need no memory: median {median:?}, nine tenths {nine_tenths:?}");
    // A read waits seconds for memory before it is refused; behind reads it would be seconds.
    assert!(nine_tenths < Duration::from_secs(1), "{nine_tenths:?}: they wait with the reads");
    greedy.end();
    expect_large(&target);
    check_during(target, peers);
}
