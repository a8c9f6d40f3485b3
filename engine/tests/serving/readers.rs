//! Readers that take the memory of blocks from others: those that take nothing and come again when
//! they are cut, and streams that live on a byte of credit now and then. Bodies that began are sent
//! to their end all the same, and requests that cannot have memory get 503 before the first byte.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::common::{
    Data, KIB, MIB, Object,
    curl::Curl,
    flood::Target,
    http::Peer,
    oap::{self, ACK_REQ, REQ},
    object,
    rude::{Door, Rude},
};
use serde_json::json;

/// Blocks of the memory of a node with one shard.
const BLOCKS: usize = 16 * MIB / (64 * KIB);

/// What one stream under flow control may be sent before its first credit.
const WINDOW: usize = 256 * KIB;

/// A node with a small cache, all of it in use, and a large object.
fn target() -> (Target, Object) {
    // Those that were cut are still counted while others come in their place.
    let many = ["--connections-max", "6000", "--connections-per-peer", "6000"];
    let target = Target::warm(1, &many);
    let large = object(5, 64 * MIB);
    target.store(&large);
    (target, large)
}

/// Threads that do something until they are dropped.
struct Threads {
    stop: Arc<AtomicBool>,
    all: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(count: usize, run: impl Fn(usize, &AtomicBool) + Clone + Send + 'static) -> Threads {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |at| {
            let (stop, run) = (Arc::clone(&stop), run.clone());
            thread::spawn(move || run(at, &stop))
        };
        Threads { all: (0..count).map(start).collect(), stop }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.all.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}

/// A reader of a part of a large object that takes nothing of it.
fn silent_reader(target: &Target, addr: &str, from: usize) -> Option<TcpStream> {
    let mut peer = Rude::try_connect(&target.node, Door::Http, Some(2304)).ok()?;
    let get = format!("GET /o/{addr} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={from}-\r\n\r\n");
    peer.send(get.as_bytes()).ok()?;
    let socket = peer.raw().try_clone().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// Whether a silent reader was cut or refused.
fn has_ended(socket: &TcpStream) -> bool {
    let mut start = [0; 12];
    let refused = matches!(socket.peek(&mut start), Ok(12) if start.ends_with(b"503"));
    refused || !matches!(socket.take_error(), Ok(None))
}

#[test]
fn bodies_that_began_are_finished_while_silent_readers_keep_coming() {
    const READERS: usize = 800;
    const THREADS: usize = 4;
    const READS: usize = 8;
    let (target, large) = target();
    let target = Arc::new(target);
    let hot = object(9, MIB);
    target.store(&hot);
    let read = || {
        let mut peer = Peer::new(target.node.connect());
        let asked = peer.try_send(&crate::common::rude::get(&hot.addr));
        asked.then(|| peer.try_response("GET")).flatten()
    };
    (0..3).for_each(|_| assert!(read().is_some_and(|answer| answer.body == hot.bytes)));
    let came = Arc::new(AtomicUsize::new(0));
    let (node, count, addr) = (Arc::clone(&target), Arc::clone(&came), large.addr.clone());
    let part = large.bytes.len() - MIB;
    let silent = Threads::start(THREADS, move |at, stop| {
        let next = || {
            let from = (count.fetch_add(1, Ordering::Relaxed) * 7919 + at) * 65_537 % part;
            silent_reader(&node, &addr, from)
        };
        let mut readers: Vec<_> = (0..READERS / THREADS).map(|_| next()).collect();
        while !stop.load(Ordering::Acquire) {
            for reader in &mut readers {
                if reader.as_ref().is_none_or(has_ended) {
                    *reader = next();
                }
            }
            thread::sleep(Duration::from_millis(2));
        }
    });
    let again = || came.load(Ordering::Relaxed) > 3 * READERS / 2;
    target.wait("they come again", again, || target.node.stderr());
    let (mut whole, mut refused, mut cut) = (0, 0, 0);
    for _ in 0..READS {
        match read() {
            Some(answer) if answer.status == 200 && answer.body == hot.bytes => whole += 1,
            Some(answer) if answer.status == 503 => refused += 1,
            _ => cut += 1,
        }
    }
    let came = came.load(Ordering::Relaxed);
    eprintln!("{whole} whole, {refused} refused, {cut} cut; {came} silent readers");
    assert_eq!(cut, 0, "of {READS} bodies; {whole} whole, {refused} refused");
    target.measure("silent").expect_served();
    silent.end();
    let target = Arc::into_inner(target).expect("the threads have ended");
    target.finish();
}

/// Opens so many streams under flow control, each in the middle of another group, and reads what
/// they may be sent. From then on each is given a byte of credit four times a second.
fn starve(mut socket: TcpStream, addr: &str, streams: u64, ready: &AtomicUsize, stop: &AtomicBool) {
    let get = |corr: u64| {
        let offset = corr * 3 * 64 * KIB as u64 % (20 * MIB as u64) + 1000;
        let get = json!({"op": "get", "addr": addr, "offset": offset});
        let mut frame = oap::request(corr, &get);
        frame.flags |= ACK_REQ;
        frame.encode()
    };
    let read = |socket: &mut TcpStream, mut left: usize| {
        while left > 0 {
            let Ok(Some(frame)) = oap::read_frame(socket) else { return false };
            left = if frame.has(oap::END) { 0 } else { left - frame.payload.len().min(left) };
        }
        true
    };
    for corr in 1..=streams {
        if socket.write_all(&get(corr)).is_err() || !read(&mut socket, WINDOW) {
            return;
        }
        ready.fetch_add(1, Ordering::Release);
    }
    let grants: Vec<u8> =
        (1..=streams).flat_map(|corr| oap::frame(REQ, corr, br#"{"credit":1}"#).encode()).collect();
    while !stop.load(Ordering::Acquire) {
        if socket.write_all(&grants).is_err() || !read(&mut socket, streams as usize) {
            return;
        }
        thread::sleep(Duration::from_millis(250));
    }
}

#[test]
fn streams_that_live_on_a_byte_of_credit_hold_no_memory() {
    const CONNECTIONS: usize = 6;
    const STREAMS: u64 = 60;
    let (target, large) = target();
    let ready = Arc::new(AtomicUsize::new(0));
    let (all, addr) = (Arc::clone(&ready), large.addr.clone());
    let at = target.node.at(Door::OapPlain.key());
    let starved = Threads::start(CONNECTIONS, move |_, stop| {
        starve(crate::common::connect(at), &addr, STREAMS, &all, stop);
    });
    let opened = || ready.load(Ordering::Acquire);
    let enough = CONNECTIONS * STREAMS as usize;
    assert!(enough > BLOCKS);
    target.wait("all are open", || opened() == enough, || opened().to_string());
    let held = || target.node.metrics().sum("ron_memory_pages{owner=\"downloads\"") / 16;
    let until = Instant::now() + Duration::from_secs(3);
    let mut samples = Vec::new();
    while Instant::now() < until {
        Peer::new(target.node.connect()).get(&format!("/o/{}", target.small.addr));
        samples.push(held());
        thread::sleep(Duration::from_millis(50));
    }
    // At the moment of a grant each of its streams has a group, until the byte is sent.
    samples.sort_unstable();
    let usual = samples[samples.len() / 2];
    assert!(usual <= BLOCKS as u64 / 8, "{usual} of {BLOCKS} blocks are held");
    target.measure("starved").expect_served();
    starved.end();
    target.finish();
}

/// Reads a whole answer, and says what is wrong with it.
fn read_whole(mut socket: TcpStream, wanted: &[u8]) -> Result<(), String> {
    let failed = |at: usize, error: io::Error| format!("after {at} bytes: {error}");
    let (mut head, mut at) = (Vec::new(), 0);
    let mut part = vec![0; 256 * KIB];
    while at < wanted.len() {
        let len = socket.read(&mut part).map_err(|error| failed(at, error))?;
        let mut came = &part[..len];
        if came.is_empty() {
            return Err(format!("it ends after {at} bytes"));
        }
        if at == 0 {
            head.extend_from_slice(came);
            let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            if !head.starts_with(b"HTTP/1.1 200 ") {
                return Err(String::from_utf8_lossy(&head[..end]).into_owned());
            }
            came = &head[end + 4..];
        }
        if wanted.get(at..at + came.len()) != Some(came) {
            return Err(format!("wrong bytes behind {at}"));
        }
        at += came.len();
    }
    Ok(())
}

/// What each reads ahead is more, for all of them, than there are places to wait in.
#[test]
fn a_crowd_that_reads_one_cold_object_has_all_of_it() {
    const READERS: usize = 2000;
    ron_io::process::raise_file_limit().expect("the test may have as many files as it likes");
    for cores in crate::common::one_and_two_cores() {
        let data = Data::new();
        let many = ["--connections-max", "6000", "--connections-per-peer", "6000"];
        let node = data.setup().shards(cores).args(&many).args(&["--cache", "256MiB"]).start();
        let large = Arc::new(object(5, 4 * MIB));
        Curl::http(&node).store(&large);
        let sockets: Vec<TcpStream> = (0..READERS).map(|_| node.connect()).collect();
        for mut socket in &sockets {
            socket.write_all(&crate::common::rude::get(&large.addr)).expect("it can be sent");
        }
        let read = |socket: TcpStream| {
            let large = Arc::clone(&large);
            let thread = thread::Builder::new().stack_size(64 * KIB);
            thread.spawn(move || read_whole(socket, &large.bytes)).expect("a thread")
        };
        let threads: Vec<_> = sockets.into_iter().map(read).collect();
        let ends = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        let cut: Vec<String> = ends.filter_map(Result::err).collect();
        assert!(cut.is_empty(), "{cores}: {} of {READERS} were cut: {:?}", cut.len(), cut[0]);
        node.terminate();
    }
}
