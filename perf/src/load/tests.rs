//! Whole runs against servers in this process: good, slow, odd and wrong ones.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use ron_codec::{
    address::Address,
    oap::{
        APP_STORAGE, Deframer, Flags, FrameHeader, Piece, PutAnswer, StorageRequest, append_frame,
        write_has, write_put_done,
    },
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::Value;

use super::{Options, Report, RunError, run};
use crate::respond::Responder;

fn options(node: &str, arguments: &str) -> Options {
    let mut all = format!("--node {node} {arguments}");
    for (name, value) in [("--seconds", "0.3"), ("--warmup", "0"), ("--connections", "2")] {
        if !arguments.contains(name) {
            all += &format!(" {name} {value}");
        }
    }
    super::options::tests::options(&all)
}

fn load(node: &str, arguments: &str) -> Report {
    run(&options(node, arguments)).unwrap()
}

/// Runs a load against the trivial responder, whose body has `size` bytes.
fn against_responder(size: usize, tls: bool, arguments: &str) -> Value {
    let responder = Responder::bind("127.0.0.1:0".parse().unwrap(), size, tls).unwrap();
    let scheme = if tls { "https" } else { "http" };
    let node = format!("{scheme}://{}", responder.address());
    let stopper = responder.stopper().unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(|| responder.run());
        let report = load(&node, arguments);
        stopper.wake().unwrap();
        server.join().unwrap().unwrap();
        report.json().clone()
    })
}

/// A server: what `serve` does to each connection, until the end of the test.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let thread = thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let serve = Arc::clone(&serve);
                // What goes wrong with a connection is what the test is about.
                let Ok(stream) = stream else { continue };
                threads.push(thread::spawn(move || serve(stream)));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// Gives each request of each connection the same answer, and closes then if `close`.
    fn scripted(answer: Vec<u8>, close: bool) -> Self {
        Self::start(move |mut stream| {
            while read_head(&mut stream).is_some() {
                if stream.write_all(&answer).is_err() || close {
                    return;
                }
            }
        })
    }

    fn node(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the listener; the load has closed its own connections.
        drop(TcpStream::connect(self.address));
        self.thread.take().map(thread::JoinHandle::join);
    }
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// An answer of 200 with this body.
fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn object(size: usize) -> Vec<u8> {
    let corpus = super::reply::tests::corpus(size);
    super::reply::tests::object(&corpus)
}

#[test]
fn a_closed_loop_counts_what_a_server_answers() {
    let document = against_responder(100_000, false, "--objects 100000 --verify 1 --threads 2");
    let requests = document["requests"].as_u64().unwrap();
    assert!(requests > 10 && document["errors_total"] == 0, "{document}");
    assert_eq!(document["bytes"], requests * 100_000);
    assert_eq!(document["verified"], requests);
    assert_eq!(document["window_seconds"], 0.3);
    let pairs = document["histogram"].as_array().unwrap().iter();
    assert_eq!(pairs.map(|pair| pair[1].as_u64().unwrap()).sum::<u64>(), requests);
    assert!(document["client_cpu_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(document["config"]["objects"][0], "100000:1:1");
}

#[test]
fn an_open_loop_asks_at_its_rate() {
    let document = against_responder(1000, false, "--objects 1000 --rate 500 --threads 2");
    assert_eq!((&document["requests"], &document["errors_total"]), (&150.into(), &0.into()));
}

#[test]
fn paths_without_objects_are_fetched() {
    let document = against_responder(1000, false, "--path /index.html");
    assert!(document["requests"].as_u64() > Some(10) && document["errors_total"] == 0);
}

#[test]
fn connections_over_tls_are_kept_or_made_anew() {
    let count = |document: &Value, name: &str| document[name].as_u64().unwrap();
    let kept = against_responder(20_000, true, "--objects 20000 --verify 1");
    assert!(count(&kept, "requests") > 2 && kept["errors_total"] == 0, "{kept}");
    assert_eq!(count(&kept, "handshakes"), 2);
    let full = against_responder(100, true, "--objects 100 --reconnect full");
    assert!(count(&full, "handshakes") > 2 && full["errors_total"] == 0, "{full}");
    assert_eq!(count(&full, "handshakes_resumed"), 0);
    let resumed = against_responder(100, true, "--objects 100 --reconnect resume");
    let fresh = count(&resumed, "handshakes") - count(&resumed, "handshakes_resumed");
    assert!(fresh <= 2 && count(&resumed, "handshakes_resumed") > 2, "{resumed}");
    let plain = against_responder(100, false, "--objects 100 --reconnect full");
    assert!(count(&plain, "connections_opened") + 2 >= count(&plain, "requests"), "{plain}");
    assert_eq!((&plain["errors_total"], &plain["handshakes"]), (&0.into(), &0.into()));
}

#[test]
fn slow_readers_are_apart() {
    let arguments = "--objects 1MiB --slow-readers 2 --slow-rate 100KiB";
    let document = against_responder(1 << 20, false, arguments);
    let slow = &document["slow_readers"];
    let bytes = slow["bytes"].as_u64().unwrap();
    // Both together: at most 200 KiB a second.
    assert!(bytes > 0 && bytes < 400 << 10, "{slow}");
    assert!(document["requests"].as_u64() > Some(2) && document["errors_total"] == 0);
}

/// Answers every request at once, but for one that it keeps waiting.
fn stalling(stall: Duration, at: u32) -> Server {
    let (asked, answer) = (AtomicU32::new(0), answer(&object(100)));
    Server::start(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        while read_head(&mut stream).is_some() {
            if asked.fetch_add(1, Ordering::Relaxed) == at {
                thread::park_timeout(stall);
            }
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_stall_is_seen_by_all_that_were_due_in_it() {
    const STALL: Duration = Duration::from_millis(100);
    let latencies = |arguments: &str| {
        let server = stalling(STALL, 300);
        let load = load(&server.node(), &format!("--objects 100 --connections 1 {arguments}"));
        assert_eq!(load.errors(), 0, "{}", load.table());
        load.json().clone()
    };
    let us = |document: &Value, name: &str| document["latency_us"][name].as_f64().unwrap();
    // A tenth of a second's arrivals were due while the one connection waited.
    let open = latencies("--seconds 1 --rate 1000");
    assert_eq!(open["requests"], 1000);
    assert!(us(&open, "max") >= 100_000.0 && us(&open, "p99") >= 85_000.0, "{open}");
    assert!(open["late"]["count"].as_u64() >= Some(80), "{open}");
    assert!(open["late"]["backlog_max"].as_u64() >= Some(80), "{open}");
    // The same stall is one latency out of many where the questions wait for the answers.
    let closed = latencies("--seconds 1");
    assert!(closed["requests"].as_u64() > Some(500), "{closed}");
    assert!(us(&closed, "max") >= 100_000.0 && us(&closed, "p99") < 50_000.0, "{closed}");
}

#[test]
fn what_is_never_answered_is_not_left_out() {
    // One request is answered, the next one hangs, the others wait for the connection.
    let server = stalling(Duration::from_secs(1), 1);
    let arguments = "--objects 100 --connections 1 --rate 100 --answer-timeout 0.2";
    let report = load(&server.node(), arguments);
    let document = report.json();
    assert!(document["errors"]["timeout"].as_u64() >= Some(1), "{}", report.table());
    assert!(report.table().contains("timeout"), "{}", report.table());
}

/// The errors of a load of one object of 100 bytes against this server.
fn errors(server: &Server, arguments: &str) -> Value {
    let report = load(&server.node(), &format!("--objects 100 {arguments}"));
    assert!(report.errors() > 0, "{}", report.table());
    assert_eq!(report.json()["requests"], 0, "{}", report.table());
    assert!(report.json()["errors"]["samples"].as_array().is_some_and(|some| !some.is_empty()));
    report.json()["errors"].clone()
}

#[test]
fn wrong_answers_are_errors_by_kind() {
    let good = object(100);
    let mut wrong = good.clone();
    wrong[99] ^= 1;
    let cases = [
        (answer(&wrong), false, "/verify"),
        (answer(&good[..99]), false, "/short"),
        (answer(&good)[..120].to_vec(), true, "/short"),
        (b"HTTP/1.1 200 OK\r\nCont".to_vec(), true, "/short"),
        (Vec::new(), true, "/read"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n".to_vec(), false, "/status/503"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 4\r\n\r\nnone".to_vec(), true, "/status/404"),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), true, "/protocol/no_length"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            true,
            "/protocol/chunked",
        ),
        (vec![b'x'; 100_000], true, "/protocol/head"),
        ([answer(&good), b"more".to_vec()].concat(), true, "/protocol/surplus"),
    ];
    for (script, close, place) in cases {
        let server = Server::scripted(script, close);
        let errors = errors(&server, "--verify 1 --seconds 0.1");
        assert!(errors.pointer(place).and_then(Value::as_u64) > Some(0), "{place}: {errors}");
    }
    // The wrong byte is not seen by who does not look.
    let server = Server::scripted(answer(&wrong), false);
    assert_eq!(load(&server.node(), "--objects 100 --verify 0").errors(), 0);
}

#[test]
fn heads_without_end_and_silence_are_errors() {
    let endless = [b"HTTP/1.1 200 OK\r\na: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let found = errors(&Server::scripted(endless, true), "");
    assert!(found["protocol"]["head_too_long"].as_u64() > Some(0), "{found}");
    let silent = Server::start(|mut stream| {
        // Until the load gives up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let found = errors(&silent, "--answer-timeout 0.1 --seconds 0.5");
    assert!(found["timeout"].as_u64() > Some(0), "{found}");
}

#[test]
fn a_peer_that_closes_between_answers_is_no_error() {
    let closing = [&b"HTTP/1.1 200 OK\r\nConnection: close\r\n"[..], &answer(&object(100))[17..]];
    let server = Server::scripted(closing.concat(), true);
    let report = load(&server.node(), "--objects 100");
    let opened = report.json()["connections_opened"].as_u64();
    assert!(report.errors() == 0 && opened > Some(2), "{}", report.table());
}

#[test]
fn runs_that_cannot_be_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let refused = run(&options(&node, "--objects 100"));
    assert!(matches!(refused, Err(RunError::Unreachable { .. })));
    let server = Server::scripted(Vec::new(), true);
    let refused = run(&options(&server.node(), "--objects 100 --server-pid 4294967295"));
    assert!(matches!(refused, Err(RunError::Cpu(_))));
    let refused = run(&options(&server.node(), "--objects 100 --range 101"));
    assert!(matches!(refused, Err(RunError::Usage(_))));
    let refused = run(&options(&server.node().replace("http", "oap"), "--path /x"));
    assert!(matches!(refused, Err(RunError::Usage(_))));
    let refused = run(&options(&server.node(), "--objects 100 --store"));
    assert!(matches!(refused, Err(RunError::Store(_))));
}

type Shelf = Arc<Mutex<HashMap<Address, Vec<u8>>>>;

/// One request to a server that keeps what it is given.
fn keep(stream: &mut TcpStream, shelf: &Shelf) -> Option<()> {
    let head = read_head(stream)?;
    let address: Address = head.split(['/', ' ']).nth(3)?.parse().ok()?;
    let field = |name: &str| head.split(name).nth(1)?.split("\r\n").next();
    let there = shelf.lock().unwrap().get(&address).cloned();
    let reply = match (head.split(' ').next()?, there) {
        ("PUT", _) => {
            let mut body = vec![0; field("Content-Length: ")?.parse().ok()?];
            stream.read_exact(&mut body).ok()?;
            assert_eq!(Address::of(&body), address);
            shelf.lock().unwrap().insert(address, body);
            b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}".to_vec()
        }
        ("HEAD", None) => b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\n".to_vec(),
        ("HEAD", Some(_)) => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec(),
        (_, Some(body)) => match field("Range: bytes=") {
            None => answer(&body),
            Some(range) => {
                let (first, last) = range.split_once('-')?;
                let range = first.parse::<usize>().ok()?..=last.parse().ok()?;
                let part = answer(&body[range]);
                [b"HTTP/1.1 206 Partial Content", &part[15..]].concat()
            }
        },
        _ => b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n".to_vec(),
    };
    stream.write_all(&reply).ok()
}

#[test]
fn objects_are_stored_before_and_within_a_run() {
    let shelf = Shelf::default();
    let kept = Arc::clone(&shelf);
    let server = Server::start(move |mut stream| while keep(&mut stream, &kept).is_some() {});
    let objects = "--objects 100:20,100000:3 --seed 9 --verify 1";
    let report = load(&server.node(), &format!("{objects} --store"));
    assert_eq!((report.errors(), &report.json()["stored"]), (0, &23.into()), "{}", report.table());
    // A second time there is nothing to store.
    let arguments = format!("{objects} --store --range 40 --range-share 0.5 --put-share 0.2");
    let report = load(&server.node(), &arguments);
    assert_eq!((report.errors(), &report.json()["stored"]), (0, &0.into()), "{}", report.table());
    let puts = report.json()["puts"].as_u64().unwrap() as usize;
    let held = shelf.lock().unwrap().len();
    // What a connection sent first, before the window, and last, which was answered behind it, is
    // stored and not counted.
    assert!(puts > 0 && held >= 23 + puts && held <= 23 + puts + 2 * 2, "{puts} {held}");
}

/// A node that speaks OAP/1 and keeps what it is given.
fn keep_oap(stream: TcpStream, config: &Arc<ServerConfig>, shelf: &Shelf) -> Option<()> {
    let session = ServerConnection::new(Arc::clone(config)).ok()?;
    let mut stream = StreamOwned::new(session, stream);
    let (mut deframer, mut buffer) = (Deframer::new(), vec![0; 1 << 16]);
    let (mut head, mut payload, mut put) = (FrameHeader::default(), Vec::new(), None);
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        let mut input = &buffer[..read];
        while let Some(piece) = deframer.next(&mut input).ok()? {
            match piece {
                Piece::Head(next) => {
                    head = next;
                    if put.is_none() {
                        payload.clear();
                    }
                }
                Piece::Payload(bytes) => payload.extend_from_slice(bytes),
                Piece::Cap(_) => return None,
                Piece::End => {
                    let mut out = Vec::new();
                    answer_oap(head, &mut payload, &mut put, shelf, &mut out)?;
                    stream.write_all(&out).ok()?;
                }
            }
        }
    }
}

fn answer_oap(
    head: FrameHeader,
    payload: &mut Vec<u8>,
    put: &mut Option<Address>,
    shelf: &Shelf,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut say = |flags: Flags, code: u16, bytes: &[u8]| {
        append_frame(&head.answer(flags, code, 0), &[], bytes, out).ok()
    };
    let (whole, mut json) = (Flags::START | Flags::END, Vec::new());
    assert_eq!(head.app_proto_id, APP_STORAGE);
    if let Some(addr) = *put {
        if head.flags.contains(Flags::END) {
            assert_eq!(Address::of(payload), addr);
            let size = payload.len() as u64;
            let new = shelf.lock().unwrap().insert(addr, payload.clone()).is_none();
            write_put_done(&mut json, &PutAnswer { addr, size, new });
            *put = None;
            return say(whole, 0, &json);
        }
        return Some(());
    }
    match StorageRequest::parse(payload).ok()? {
        StorageRequest::Put { addr, .. } => {
            *put = addr;
            payload.clear();
            Some(())
        }
        StorageRequest::Has { addr } => {
            let size = shelf.lock().unwrap().get(&addr).map(|object| object.len() as u64);
            write_has(&mut json, size);
            say(whole, 0, &json)
        }
        StorageRequest::Get(get) => {
            let ron_codec::oap::GetWhat::ByAddress(addr) = get.what else { return None };
            let object = shelf.lock().unwrap().get(&addr)?.clone();
            let window = get.window(object.len() as u64).ok()?;
            let bytes = &object[window.offset as usize..][..window.len as usize];
            let code = if get.is_range() { 206 } else { 0 };
            let (first, last) = bytes.split_at(bytes.len() / 2);
            say(Flags::START, code, first)?;
            say(Flags::END, code, last)
        }
    }
}

#[test]
fn oap_is_spoken() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"ron/1".to_vec()];
    let (config, shelf) = (Arc::new(config), Shelf::default());
    let server = Server::start(move |stream| {
        let socket = stream.try_clone().unwrap();
        let _ = keep_oap(stream, &config, &shelf);
        let _ = socket.shutdown(Shutdown::Both);
    });
    let node = server.node().replace("http", "oap");
    let objects = "--objects 100:5,200000:2 --verify 1 --store --put-share 0.1";
    let report = load(&node, &format!("{objects} --range 50 --range-share 0.5"));
    assert_eq!((report.errors(), &report.json()["stored"]), (0, &7.into()), "{}", report.table());
    assert!(report.json()["requests"].as_u64() > Some(2), "{}", report.table());
    let report = load(&node, &format!("{objects} --reconnect resume --tls-ciphers aes256"));
    assert!(report.errors() == 0, "{}", report.table());
    assert!(report.json()["handshakes_resumed"].as_u64() > Some(0), "{}", report.table());
}
