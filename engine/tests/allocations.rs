//! Answering a GET from the cache allocates nothing. The node runs inside this process, so that its
//! allocator can be counted; the client allocates nothing while it counts.

mod common;

use std::{
    alloc::System,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::mpsc,
    thread,
};

use common::{Data, curl::Curl, object};
use ron_engine::{config::Config, machine::Machine, node};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Requests that are counted, of each kind.
const REQUESTS: usize = 5_000;

/// Allocations of all threads that may fall into that time: the control plane has work of its own
/// now and then.
const ALLOCATIONS_MAX: usize = REQUESTS / 100;

/// A client that asks for the same thing again and again.
struct Asking {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Asking {
    /// Asks once: the answer must begin with `status` and end with `body`. Every later one will be
    /// as long.
    fn new(http: &str, head: &str, status: &str, body: &[u8]) -> Asking {
        let mut stream = TcpStream::connect(http).expect("the node listens");
        let request = format!("GET {head}\r\nHost: {http}\r\n\r\n").into_bytes();
        stream.write_all(&request).expect("the node reads");
        let (mut answer, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        while !answer.ends_with(body) {
            let len = stream.read(&mut piece).expect("the node answers");
            assert!(len > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..len]);
        }
        assert!(answer.starts_with(format!("HTTP/1.1 {status}").as_bytes()));
        Asking { stream, request, answer }
    }

    fn ask(&mut self) {
        self.stream.write_all(&self.request).expect("the node reads");
        self.stream.read_exact(&mut self.answer).expect("the node answers");
    }
}

#[test]
fn a_get_from_the_cache_allocates_nothing() {
    // The objects are there before, and their checkpoint is: it would be work of its own.
    let data = Data::new();
    let objects = [4096, 64 * 1024, 1024 * 1024].map(|len| object(1, len));
    let node = data.start(1);
    objects.iter().for_each(|object| Curl::http(&node).store(object));
    node.terminate();
    let dir = data.path().join("data");
    let dir = dir.to_str().unwrap();
    let core = common::cores()[0].to_string();
    let args = ["rond", "--data-dir", dir, "--cores", &core, "--cache", "64MiB"];
    let ports = ["--http", "127.0.0.1:0", "--https", "off", "--oap", "off"];
    let admin = ["--admin", "127.0.0.1:0"];
    let args = args.into_iter().chain(ports).chain(admin).map(Into::into);
    let machine = Machine::probe().unwrap();
    let config = Config::load(args, &|_| None, &machine).unwrap();
    let same = config.clone();
    let (send, started) = mpsc::channel();
    let node = thread::spawn(move || {
        let ready = |line: &serde_json::Value| {
            send.send(line["http"].as_str().unwrap().to_owned()).unwrap();
        };
        let settings = Box::new(move || Ok(same.clone()));
        node::run(&config, &machine, settings, ready).map_err(|error| error.to_string())
    });
    let http = started.recv().expect("the node starts");
    let mut askings = Vec::new();
    for object in &objects {
        let (path, body) = (format!("/o/{} HTTP/1.1", object.addr), &object.bytes);
        askings.push((body.len(), Asking::new(&http, &path, "200", body)));
        let part = format!("{path}\r\nRange: bytes=100-3099");
        askings.push((3000, Asking::new(&http, &part, "206", &body[100..3100])));
    }
    for (len, asking) in &mut askings {
        // The object becomes hot, and the buffers that are kept are made.
        (0..100).for_each(|_| asking.ask());
        let region = Region::new(ALLOCATOR);
        (0..REQUESTS).for_each(|_| asking.ask());
        let change = region.change();
        let count = change.allocations + change.reallocations;
        assert!(count <= ALLOCATIONS_MAX, "{count} allocations, {len} bytes: {change:?}");
    }
    drop(askings);
    let pid = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    node.join().unwrap().unwrap();
}
