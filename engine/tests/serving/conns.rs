//! What connections make the node keep: bounded by the bill whatever their peers do, shed when it
//! is too much, given back when they are gone.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    DEADLINE, Data, KIB, MIB,
    flood::Target,
    http::{Peer, put_head},
    oap,
    rude::{self, Door, End, Rude, get},
};
use serde_json::json;
use socket2::{Domain, SockRef, Socket, Type};

/// Peers that flood, and threads that do it.
const PEERS: usize = 64;
const THREADS: usize = 8;

/// What connections may buffer: far less than so many peers would make an open-handed node keep.
const BUFFERS: usize = 4 * MIB;

/// What the node may have beside that: what one step adds, buffers that are kept, TLS of each
/// peer, and what the allocator loses.
const BESIDE: usize = 8 * MIB + PEERS * 48 * KIB;

fn target() -> Target {
    Target::warm(1, &["--connection-buffers", "4MiB", "--deadline-send", "120"])
}

/// Connects peers that send the same again and again until nobody takes it, and read nothing.
fn flood(target: &Target, door: Door, again: &[u8]) -> Vec<Rude> {
    thread::scope(|scope| {
        let one = || {
            let mut peers = Rude::many(&target.node, door, PEERS / THREADS, Some(2304));
            rude::flood(&mut peers, again, 2 * MIB);
            peers
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a peer fails")).collect()
    })
}

/// Floods a door, and holds what must hold during and after.
fn expect_bounded(door: Door, again: impl Fn(&Target) -> Vec<u8>) {
    let target = target();
    let again = again(&target);
    let (during, peers) = target.measure_while("during", || flood(&target, door, &again));
    during.expect_answered();
    during.expect_within_bill();
    let most = target.resident_before() + (BUFFERS + BUFFERS / 8 + BESIDE) as u64;
    assert!(during.peak <= most, "{} bytes are more than {most}: {during}", during.peak);
    let metrics = target.node.metrics();
    let buffered = metrics.sum("ron_connection_buffer_bytes");
    assert!(buffered <= BUFFERS as u64, "{buffered} bytes are buffered");
    let shed = metrics.sum("ron_rejected_total{reason=\"memory\"}");
    eprintln!("{door:?}: {buffered} bytes buffered, {shed} connections shed");
    drop(peers);
    target.finish();
}

#[test]
fn gets_that_are_asked_for_and_not_read() {
    expect_bounded(Door::Http, |target| get(&target.small.addr).repeat(40));
}

#[test]
fn gets_over_tls_that_are_not_read() {
    expect_bounded(Door::Https, |target| get(&target.small.addr).repeat(40));
}

#[test]
fn hellos_that_are_not_read() {
    let hello = oap::Frame { app: oap::HELLO, ..oap::frame(oap::REQ, 1, b"") };
    expect_bounded(Door::OapPlain, |_| hello.encode().repeat(40));
}

#[test]
fn large_bodies_over_tls_that_are_not_read() {
    expect_bounded(Door::Https, |target| {
        let large = crate::common::object(7, 2 * MIB);
        target.store(&large);
        get(&large.addr)
    });
}

/// Records of TLS that hold one short answer each would take several times what is in them.
#[test]
fn short_answers_over_tls_take_what_is_counted_and_give_it_back() {
    let target = Target::warm(1, &["--connection-buffers", "24MiB", "--deadline-send", "120"]);
    let before = target.resident_before();
    let get = json!({"op": "get", "addr": target.small.addr, "offset": 5, "len": 1});
    let again: Vec<u8> = (1..=60).flat_map(|corr| oap::request(corr, &get).encode()).collect();
    let flooding = || flood(&target, Door::Oap, &again);
    let (during, mut peers) = target.measure_while("during", flooding);
    during.expect_answered();
    during.expect_within_bill();
    let counted = || target.node.metrics().sum("ron_connection_buffer_bytes");
    let grown = || target.resident().saturating_sub(before);
    let found = || format!("{} bytes are counted, {} more are resident", counted(), grown());
    target.wait("answers are buffered", || counted() > MIB as u64, found);
    eprintln!("{}", found());
    // The receive buffers are among what was not resident before.
    let (more, buffered) = (grown(), counted());
    let most = buffered + buffered / 4 + BESIDE as u64;
    assert!(more <= most, "{more} bytes more, {buffered} are counted: {during}");
    // Everything is read; the connections stay.
    thread::scope(|scope| {
        for peer in &mut peers {
            scope.spawn(move || read_all(peer));
        }
    });
    // What a session keeps of what it received is counted.
    let kept = || grown() <= counted() + BESIDE as u64;
    target.wait("memory is given back", kept, found);
    drop(peers);
    target.finish();
}

/// Connections of another address, each with a head that does not end.
struct Heads {
    open: Vec<TcpStream>,
    at: SocketAddr,
}

impl Heads {
    /// Opens so many, in the place of those that the node cut.
    fn open(&mut self, count: usize) {
        let is_open = |mut socket: &TcpStream| {
            let read = socket.read(&mut [0]);
            read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        };
        self.open.retain(is_open);
        let head = format!("GET /o/x HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(15_000));
        for _ in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let from: SocketAddr = ([127, 0, 0, 9], 0).into();
            socket.bind(&from.into()).expect("it is an address of this machine");
            socket.connect(&self.at.into()).expect("the node listens");
            let mut socket = TcpStream::from(socket);
            // The node may cut it at once.
            let _ = socket.write_all(head.as_bytes());
            socket.set_nonblocking(true).expect("it is a socket");
            self.open.push(socket);
        }
    }
}

#[test]
fn one_address_is_shed_and_not_those_that_keep_less_together() {
    // A node that was held up for a moment finds all at once what the writer sent meanwhile: that
    // must stay less than what the other address keeps.
    let target = Target::warm(1, &["--connection-buffers", "8MiB", "--deadline-send", "120"]);
    let large = crate::common::object(7, 24 * MIB);
    target.store(&large);
    let mut reader = Rude::connect(&target.node, Door::Https, Some(64 * KIB));
    reader.send(&get(&large.addr)).expect("the node takes a request");
    let upload = crate::common::object(8, 6 * MIB);
    let mut writer = Peer::new(target.node.connect());
    writer.send(put_head(&upload.addr, upload.bytes.len()).as_bytes());
    let mut heads = Heads { open: Vec::new(), at: target.node.at("http") };
    let mut answer = Vec::new();
    for piece in upload.bytes.chunks(64 * KIB) {
        heads.open(20);
        let (bytes, end) = reader.read_within(128 * KIB, DEADLINE);
        assert_eq!(end, End::Open, "a reader that reads was cut at {} bytes", answer.len());
        answer.extend(bytes);
        writer.send(piece);
    }
    let shed = target.node.metrics().sum("ron_rejected_total{reason=\"memory\"}");
    assert!(shed > 500, "{shed} were shed");
    assert_eq!(writer.response("PUT").status, 201);
    while answer.len() < large.bytes.len() {
        let (bytes, end) = reader.read_within(MIB, DEADLINE);
        assert!(end == End::Open && !bytes.is_empty(), "{end:?} at {}", answer.len());
        answer.extend(bytes);
    }
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let rest = large.bytes.len() + body - answer.len();
    answer.extend(reader.read_within(rest, DEADLINE).0);
    crate::common::assert_same(&answer[body..], &large.bytes, "what was read");
    drop((heads, reader, writer));
    target.node.terminate();
}

/// Reads until nothing more comes.
fn read_all(peer: &mut Rude) {
    let wide = SockRef::from(&*peer.raw()).set_recv_buffer_size(MIB);
    wide.expect("it is a socket");
    while !peer.read_within(MIB, Duration::from_millis(500)).0.is_empty() {}
}

#[test]
fn the_greedy_are_shed_and_the_modest_are_not() {
    let target = target();
    let mut modest = Peer::new(target.node.connect());
    assert_eq!(modest.get(&format!("/o/{}", target.small.addr)).status, 200);
    let flooding = || flood(&target, Door::Http, &get(&target.small.addr).repeat(40));
    let (during, peers) = target.measure_while("during", flooding);
    during.expect_answered();
    target.wait(
        "connections are shed",
        || target.node.metrics().sum("ron_rejected_total{reason=\"memory\"}") > 0,
        || "none was".to_owned(),
    );
    assert_eq!(modest.get(&format!("/o/{}", target.small.addr)).status, 200);
    drop((peers, modest));
    target.finish();
}

#[test]
fn an_upload_that_trickles_is_refused() {
    let data = Data::new();
    let args = ["--deadline-body", "1", "--deadline-body-rate", "64KiB"];
    let node = data.setup().args(&args).start();
    let mut peer = Peer::new(node.connect());
    peer.send(put_head(&crate::common::addr_of(b"never"), 100 * MIB).as_bytes());
    let began = Instant::now();
    // More often than the deadline between two arrivals, and far slower than the least rate.
    while began.elapsed() < Duration::from_millis(2500) && peer.try_send(b"x") {
        thread::sleep(Duration::from_millis(100));
    }
    let answer = peer.response("PUT");
    assert_eq!((answer.status, &*answer.envelope()), (408, "timeout"));
    node.terminate();
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let data = Data::new();
    let node = data.setup().args(&["--deadline-linger", "60"]).start();
    let mut idle: Vec<Peer> = (0..4).map(|_| Peer::new(node.connect())).collect();
    idle.iter_mut().for_each(|peer| assert_eq!(peer.get("/").status, 404));
    let began = Instant::now();
    node.terminate();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    idle.iter_mut().for_each(Peer::expect_end);
}

#[test]
fn the_metrics_say_what_may_be_used_and_what_is() {
    let target = Target::start(1, &[]);
    let metrics = target.node.metrics();
    let bill = metrics.sum("ron_memory_bill_bytes");
    // What is said is rounded to a tenth of its unit.
    assert!(bill.abs_diff(target.bill) < bill / 50, "{bill} bytes, {} were said", target.bill);
    let resident = metrics.sum("process_resident_memory_bytes");
    assert!(resident > 0 && metrics.sum("ron_resident_memory_bytes{kind=\"anonymous\"}") > 0);
    assert!(metrics.sum("ron_resident_memory_bytes") <= resident + MIB as u64);
    assert!(metrics.sum("process_open_fds") > 5 && metrics.sum("process_max_fds") > 5);
    assert!(metrics.sum("process_start_time_seconds") > 1_500_000_000);
    target.node.terminate();
}

#[test]
fn a_node_that_does_not_fit_is_refused() {
    let data = Data::new();
    let (code, said) = data.setup().args(&["--connection-buffers", "512GiB"]).refused();
    assert!(code != 0 && said.contains("connection buffers 512"), "{code}: {said}");
}
